//! `check`: which versions there are.

use anyhow::{Context, anyhow};
use regex::Regex;

use super::git::Repository;
use super::semver::TagVersion;
use super::source::{Source, Tracking};
use super::{Version, World};
use crate::base::{Digest, Reference};
use crate::registry::Registry;

/// First parents that are looked at for a tag, when the head's own image is not there yet.
const ANCESTORS: usize = 50;
/// Digits of a commit that people make tags of.
const SHORT: std::ops::RangeInclusive<usize> = 7..=12;

pub fn check(source: &Source, cursor: Option<&Version>, world: &World<'_>) -> anyhow::Result<Vec<Version>> {
    let name = source.name()?;
    let mut settings = source.registry(false)?;
    settings.patience = world.settings.registry.patience;
    let checker = Checker { source, name, registry: Registry::new(world.env, settings)?, world };
    match source.tracking() {
        Tracking::Tag(tag) => checker.tag(&tag, cursor),
        Tracking::Git => checker.git(cursor),
        Tracking::Semver => checker.semver(cursor),
        Tracking::Pattern(pattern) => checker.pattern(&pattern, cursor),
    }
}

struct Checker<'a> {
    source: &'a Source,
    name: Reference,
    registry: Registry,
    world: &'a World<'a>,
}

impl Checker<'_> {
    fn tag(&self, tag: &str, cursor: Option<&Version>) -> anyhow::Result<Vec<Version>> {
        let latest = self.digest(&self.name.with_tag(tag)?)?;
        self.after_cursor(cursor, latest)
    }

    /// The cursor, while it exists and is another, then the latest.
    fn after_cursor(&self, cursor: Option<&Version>, latest: Option<Digest>) -> anyhow::Result<Vec<Version>> {
        let mut versions = Vec::new();
        if let Some(cursor) = cursor {
            let digest: Digest = cursor.digest.parse().context("version")?;
            if Some(digest) != latest && self.digest(&self.name.with_digest(digest))?.is_some() {
                versions.push(cursor.clone());
            }
        }
        versions.extend(latest.map(|digest| Version { tag: None, digest: digest.to_string() }));
        Ok(versions)
    }

    fn digest(&self, reference: &Reference) -> anyhow::Result<Option<Digest>> {
        let found = self.registry.head(reference, self.world.cancel);
        let shown = match reference.digest() {
            Some(digest) => format!("{}@{digest}", self.source.repository),
            None => format!("{}:{}", self.source.repository, reference.tag().unwrap_or_default()),
        };
        let found = found.map_err(|error| {
            // These words are the original's; what to do about it follows them.
            let hint = error.hint().map_or_else(String::new, |hint| format!("\n{hint}"));
            anyhow!("failed to fetch digest for image '{shown}': {error}\ndoes the image exist?{hint}")
        })?;
        Ok(found.map(|descriptor| descriptor.digest))
    }

    /// The image of the head of a branch, tagged with its commit.
    fn git(&self, cursor: Option<&Version>) -> anyhow::Result<Vec<Version>> {
        let address = self.source.git_repo.as_deref().unwrap_or_default();
        let key = self.source.git_private_key.as_ref();
        let repository = Repository::open(address, key, self.world)?;
        let head = repository.head(self.source.git_branch.as_deref())?;
        let tags = self.tags()?;
        if let Some(tag) = tag_of(&tags, &head.commit) {
            return self.tag(&tag, cursor);
        }
        if self.source.fail_when_missing {
            anyhow::bail!("no image tagged {} in {} yet", head.commit, self.source.repository);
        }
        for commit in repository.first_parents(&head, ANCESTORS)? {
            if let Some(tag) = tag_of(&tags, &commit) {
                return self.tag(&tag, cursor);
            }
        }
        // Nothing new, and nothing old either: what Concourse has stays what it is.
        Ok(cursor.cloned().into_iter().collect())
    }

    /// A repository that does not exist yet has no tags.
    fn tags(&self) -> anyhow::Result<Vec<String>> {
        match self.registry.tags(&self.name, self.world.cancel) {
            Ok(tags) => Ok(tags),
            Err(error) if error.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error).with_context(|| format!("failed to list the tags of {}", self.source.repository)),
        }
    }

    fn semver(&self, cursor: Option<&Version>) -> anyhow::Result<Vec<Version>> {
        let parse = |tag: &str| TagVersion::parse(tag, self.source.variant.as_deref(), self.source.pre_releases);
        let mut tags: Vec<(TagVersion, String)> =
            self.tags()?.into_iter().filter_map(|tag| Some((parse(&tag)?, tag))).collect();
        tags.sort();
        let since = cursor.and_then(|cursor| parse(cursor.tag.as_deref()?));
        let wanted = tags.into_iter().filter(|(version, _)| since.as_ref().is_none_or(|since| version >= since));
        self.tagged(wanted.map(|(_, tag)| tag))
    }

    fn pattern(&self, pattern: &str, cursor: Option<&Version>) -> anyhow::Result<Vec<Version>> {
        let pattern = Regex::new(pattern).context("source: tag_regex")?;
        let tags: Vec<String> = self.tags()?.into_iter().filter(|tag| pattern.is_match(tag)).collect();
        let since = cursor.and_then(|cursor| tags.iter().position(|tag| Some(tag) == cursor.tag.as_ref()));
        self.tagged(tags.into_iter().skip(since.unwrap_or(0)))
    }

    /// Versions of tags; one that vanished between the list and the look is left out.
    fn tagged(&self, tags: impl Iterator<Item = String>) -> anyhow::Result<Vec<Version>> {
        let mut versions = Vec::new();
        for tag in tags {
            // A registry may hold tags that no reference can name.
            let Ok(reference) = self.name.with_tag(&tag) else { continue };
            if let Some(digest) = self.digest(&reference)? {
                versions.push(Version { tag: Some(tag), digest: digest.to_string() });
            }
        }
        Ok(versions)
    }
}

/// The tag that a commit's image has: the whole id, or its first digits.
fn tag_of(tags: &[String], commit: &str) -> Option<String> {
    let mut names = vec![commit];
    names.extend(SHORT.filter_map(|digits| commit.get(..digits)));
    names.into_iter().find_map(|name| tags.iter().find(|tag| *tag == name)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_known_by_all_or_some_of_its_digits() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let cases: [(&[&str], Option<&str>); 5] = [
            (&["latest", commit, "0123456"], Some(commit)),
            (&["0123456", "latest"], Some("0123456")),
            (&["0123456789ab"], Some("0123456789ab")),
            (&["012345", "0123456789abc"], None),
            (&[], None),
        ];
        for (tags, expected) in cases {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            assert_eq!(tag_of(&tags, commit).as_deref(), expected, "{tags:?}");
        }
    }
}
