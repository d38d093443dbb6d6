//! Floating tags of a version (registry-image's `bump_aliases`): `1.2`, `1` and `latest`, each while the version is the
//! newest that it could stand for.

use anyhow::Context;

use super::semver::TagVersion;

/// The tag of a version, of the source's variant.
pub fn tag(version: &str, variant: Option<&str>) -> String {
    match variant.filter(|variant| !variant.is_empty()) {
        Some(variant) => format!("{version}-{variant}"),
        None => version.to_owned(),
    }
}

/// The floating tags that a version may have; none for a pre-release. `existing` is what the repository has.
pub fn aliases(version: &str, variant: Option<&str>, existing: &[String]) -> anyhow::Result<Vec<String>> {
    let own = TagVersion::parse(version, None, true).with_context(|| format!("version {version:?} is no semver"))?;
    if own.is_pre_release() {
        return Ok(Vec::new());
    }
    let others: Vec<TagVersion> = existing.iter().filter_map(|tag| TagVersion::parse(tag, variant, false)).collect();
    let [major, minor, _] = own.numbers();
    // Of those that share so many numbers with it, none is newer.
    let newest = |shared: usize| {
        let same = |other: &&TagVersion| other.numbers()[..shared] == own.numbers()[..shared];
        others.iter().filter(same).all(|other| *other <= own)
    };
    let latest = variant.filter(|variant| !variant.is_empty()).unwrap_or("latest").to_owned();
    let all = [(2, tag(&format!("{major}.{minor}"), variant)), (1, tag(&major.to_string(), variant)), (0, latest)];
    let itself = tag(version, variant);
    Ok(all.into_iter().filter(|(shared, alias)| newest(*shared) && *alias != itself).map(|(_, alias)| alias).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_stands_for_what_it_is_the_newest_of() {
        type Case = (&'static str, Option<&'static str>, &'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            ("1.2.3", None, &[], &["1.2", "1", "latest"]),
            ("1.2.3", None, &["1.2.2", "1.2", "latest", "0.9.0"], &["1.2", "1", "latest"]),
            ("1.2.3", None, &["1.2.4"], &[]),
            ("1.2.3", None, &["1.3.0"], &["1.2"]),
            ("1.2.3", None, &["2.0.0"], &["1.2", "1"]),
            ("1.2.3", None, &["2.0.0-rc.1", "3.0.0-slim"], &["1.2", "1", "latest"]),
            ("1.2.3", Some("slim"), &["3.0.0", "1.2.2-slim"], &["1.2-slim", "1-slim", "slim"]),
            ("1.2.3-rc.1", None, &[], &[]),
            ("1.2", None, &[], &["1", "latest"]),
        ];
        for (version, variant, existing, expected) in cases {
            let existing: Vec<String> = existing.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(aliases(version, *variant, &existing).unwrap(), *expected, "{version} {variant:?} {existing:?}");
        }
        let error = aliases("main", None, &[]).unwrap_err();
        assert_eq!(error.to_string(), "version \"main\" is no semver");
    }
}
