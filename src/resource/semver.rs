//! Tags that are versions, as registry-image reads them: `1.2.3`, `v1.2`, `1-alpine` with `variant: alpine`.

use std::cmp::Ordering;

/// A tag's version. Missing numbers count as zero: a floating `1.2` stands for its newest patch level, and comes
/// before `1.2.1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagVersion {
    numbers: [u64; 3],
    /// `rc.1`, `beta`; none for a release.
    pre_release: Option<String>,
}

impl TagVersion {
    /// None for a tag that is no version, or of another variant.
    pub fn parse(tag: &str, variant: Option<&str>, pre_releases: bool) -> Option<Self> {
        let text = match variant {
            Some(variant) if !variant.is_empty() => tag.strip_suffix(variant)?.strip_suffix('-')?,
            _ => tag,
        };
        let text = text.strip_prefix('v').unwrap_or(text);
        let (numbers, pre_release) = match text.split_once('-') {
            Some((numbers, rest)) => (numbers, Some(rest)),
            None => (text, None),
        };
        // What follows a dash is mostly the variant of somebody else's image.
        let known = |pre: &str| ["alpha", "beta", "rc"].iter().any(|word| pre.starts_with(word));
        if let Some(pre) = pre_release
            && !(pre_releases && known(pre))
        {
            return None;
        }
        let mut parsed = [0; 3];
        for (count, part) in numbers.split('.').enumerate() {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            *parsed.get_mut(count)? = part.parse().ok()?;
        }
        Some(Self { numbers: parsed, pre_release: pre_release.map(str::to_owned) })
    }
}

impl TagVersion {
    pub fn numbers(&self) -> [u64; 3] {
        self.numbers
    }

    pub fn is_pre_release(&self) -> bool {
        self.pre_release.is_some()
    }
}

impl Ord for TagVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| match (&self.pre_release, &other.pre_release) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(a), Some(b)) => pieces(a).cmp(&pieces(b)),
        })
    }
}

impl PartialOrd for TagVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Numbers compare as numbers and come before words (semver 2.0, 11.4).
fn pieces(text: &str) -> Vec<(bool, u64, &str)> {
    text.split('.').map(|piece| piece.parse().map_or((true, 0, piece), |number| (false, number, ""))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_sort_as_versions() {
        let mut tags =
            ["1.10.0", "1.9", "latest", "v2.0.0-rc.2", "2", "v2.0.0-rc.10", "1.9.1", "3.1-alpine", "1.2.3.4", "4.x"];
        tags.sort_by_key(|tag| TagVersion::parse(tag, None, true));
        assert_eq!(
            tags,
            ["latest", "3.1-alpine", "1.2.3.4", "4.x", "1.9", "1.9.1", "1.10.0", "v2.0.0-rc.2", "v2.0.0-rc.10", "2"]
        );
    }

    #[test]
    fn a_variant_is_at_the_end() {
        assert!(TagVersion::parse("3.1-alpine", Some("alpine"), false).is_some());
        assert!(TagVersion::parse("3.1", Some("alpine"), false).is_none());
        assert!(TagVersion::parse("3.1-rc.1-alpine", Some("alpine"), false).is_none());
        assert!(TagVersion::parse("3.1-rc.1-alpine", Some("alpine"), true).is_some());
    }
}
