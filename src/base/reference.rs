//! Image references with Docker's normalisation: `x` is `docker.io/library/x:latest`, shown again as `x:latest`.
//!
//! Grammar: distribution's reference format (`[host[:port]/]path[:tag][@digest]`). Never `localhost/`, never a prompt.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Digest;

pub const DOCKER_HUB: &str = "docker.io";

/// A fully named image: registry, repository, and a tag, a digest, both, or (as typed) neither.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseReferenceError {
    #[error("image reference is empty")]
    Empty,
    #[error("image reference {0:?}: repository name must be lower case")]
    UpperCase(String),
    #[error(
        "image reference {0:?}: {1:?} is not a valid repository path (lower-case letters, digits, and single . _ __ - between them)"
    )]
    Path(String, String),
    #[error(
        "image reference {0:?}: {1:?} is not a valid tag (1 to 128 of A-Z a-z 0-9 _ . -, not starting with . or -)"
    )]
    Tag(String, String),
    #[error("image reference {0:?}: {1}")]
    Digest(String, super::digest::ParseDigestError),
    #[error("image reference {0:?}: {1:?} is not a valid registry host")]
    Host(String, String),
}

impl Reference {
    /// The registry's host, with port if given: `docker.io` for Docker Hub whatever alias was typed.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path on that registry, `library/` included.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// With `latest` where neither tag nor digest was typed.
    pub fn or_latest(mut self) -> Self {
        if self.tag.is_none() && self.digest.is_none() {
            self.tag = Some("latest".to_owned());
        }
        self
    }

    pub fn with_tag(&self, tag: &str) -> Result<Self, ParseReferenceError> {
        if !is_tag(tag) {
            return Err(ParseReferenceError::Tag(self.to_string(), tag.to_owned()));
        }
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// `registry/repository` without tag or digest.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The name as people write it: without `docker.io/` and `library/`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DOCKER_HUB {
            return self.name();
        }
        match self.repository.strip_prefix("library/") {
            Some(path) if !path.contains('/') => path.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The whole reference as people write it: what goes into `RepoTags`.
    pub fn familiar(&self) -> String {
        self.suffixed(self.familiar_name())
    }

    fn suffixed(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.suffixed(self.name()))
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = ParseReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(ParseReferenceError::Empty);
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|e| ParseReferenceError::Digest(text.to_owned(), e))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        // A colon after the last slash starts a tag; one before it belongs to the host's port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag
            && !is_tag(tag)
        {
            return Err(ParseReferenceError::Tag(text.to_owned(), tag.to_owned()));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if looks_like_host(host) => (host, path),
            _ => (DOCKER_HUB, name),
        };
        if !is_host(registry) {
            return Err(ParseReferenceError::Host(text.to_owned(), registry.to_owned()));
        }
        let registry = match registry {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(ParseReferenceError::UpperCase(text.to_owned()));
        }
        if !path.split('/').all(is_path_component) {
            return Err(ParseReferenceError::Path(text.to_owned(), path.to_owned()));
        }
        let repository =
            if registry == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Docker's rule for telling a host from the first part of a path.
fn looks_like_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((v6, rest)) => {
            if v6.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match rest.strip_prefix(':') {
                Some(port) => ("v6", Some(port)),
                None if rest.is_empty() => ("v6", None),
                None => return false,
            }
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let label = |l: &str| {
        !l.is_empty()
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label) && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

fn is_path_component(part: &str) -> bool {
    // Separators: one dot, one or two underscores, any number of dashes; only between letters or digits.
    let mut rest = part;
    loop {
        let word = rest.bytes().take_while(|b| b.is_ascii_lowercase() || b.is_ascii_digit()).count();
        if word == 0 {
            return false;
        }
        rest = &rest[word..];
        if rest.is_empty() {
            return true;
        }
        let separator = rest.bytes().take_while(|b| b"._-".contains(b)).count();
        match &rest[..separator] {
            "." | "_" | "__" => {}
            dashes if !dashes.is_empty() && dashes.bytes().all(|b| b == b'-') => {}
            _ => return false,
        }
        rest = &rest[separator..];
    }
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len())
        && !tag.starts_with(['.', '-'])
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_docker_does() {
        let cases = [
            ("alpine", "docker.io/library/alpine", "alpine"),
            ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
            ("acct/x:t", "docker.io/acct/x:t", "acct/x:t"),
            ("index.docker.io/library/x", "docker.io/library/x", "x"),
            ("localhost/x", "localhost/x", "localhost/x"),
            ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
            ("ghcr.io/a/b__c/d-e.f", "ghcr.io/a/b__c/d-e.f", "ghcr.io/a/b__c/d-e.f"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
        ];
        for (text, full, familiar) in cases {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), full, "{text}");
            assert_eq!(reference.familiar(), familiar, "{text}");
        }
    }

    #[test]
    fn a_tag_and_a_digest_may_stand_together() {
        let digest = Digest::of("");
        let reference: Reference = format!("a.b/c:t@{digest}").parse().unwrap();
        assert_eq!(reference.tag(), Some("t"));
        assert_eq!(reference.digest(), Some(&digest));
        assert_eq!("x".parse::<Reference>().unwrap().or_latest().tag(), Some("latest"));
    }

    #[test]
    fn refuses_with_the_reason() {
        for text in [
            "",
            "X",
            "a/B:c",
            "a:b c",
            "a//b",
            "a/-b",
            "a..b",
            "-t",
            "a:",
            "a@sha256:12",
            "acct/repo:",
            "/:",
            "a b/c",
            "foo:bad/tag:x",
            "a.b:99999/c",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert_eq!(
            "acct/repo:feature/x".parse::<Reference>().unwrap_err().to_string(),
            "image reference \"acct/repo:feature/x\": \"acct/repo:feature/x\" is not a valid repository path (lower-case letters, digits, and single . _ __ - between them)"
        );
    }
}
