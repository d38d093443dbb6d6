//! `source`: which repository, and how its registry is spoken to.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::{Deserialize, Deserializer};

use crate::base::{Platform, Reference, Secret, reference::DOCKER_HUB};
use crate::registry::{AwsKeys, ClientCertificate, Credential, Settings};

/// The union of docker-image-resource, its fork, and what is here of registry-image.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    #[serde(default)]
    pub repository: String,
    #[serde(default, deserialize_with = "text")]
    pub tag: Option<String>,
    #[serde(default, deserialize_with = "text")]
    username: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    password: Option<Secret>,
    #[serde(default)]
    additional_private_registries: Vec<PrivateRegistry>,
    aws_access_key_id: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    aws_secret_access_key: Option<Secret>,
    #[serde(default, deserialize_with = "secret")]
    aws_session_token: Option<Secret>,
    #[serde(default)]
    insecure_registries: Vec<String>,
    #[serde(default)]
    insecure: bool,
    registry_mirror: Option<Mirror>,
    #[serde(default)]
    ca_certs: Vec<Authority>,
    #[serde(default)]
    client_certs: Vec<ClientCert>,
    #[serde(default, deserialize_with = "text")]
    max_concurrent_downloads: Option<String>,
    #[serde(default, deserialize_with = "text")]
    max_concurrent_uploads: Option<String>,
    /// There is no daemon that could take its time; accepted, so that a pipeline need not change.
    #[serde(default, deserialize_with = "text", rename = "startup_timeout")]
    _startup_timeout: Option<String>,
    pub git_repo: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    pub git_private_key: Option<Secret>,
    pub git_branch: Option<String>,
    #[serde(default)]
    pub fail_when_missing: bool,
    platform: Option<PlatformSource>,
    pub variant: Option<String>,
    #[serde(default)]
    pub pre_releases: bool,
    pub tag_regex: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivateRegistry {
    registry: String,
    username: String,
    #[serde(deserialize_with = "required_secret")]
    password: Secret,
}

/// docker-image gives an address, registry-image a host with its own account.
#[derive(Deserialize)]
#[serde(untagged)]
enum Mirror {
    Address(String),
    Host {
        host: String,
        username: Option<String>,
        #[serde(default, deserialize_with = "secret")]
        password: Option<Secret>,
    },
}

/// docker-image says for which host, registry-image means all.
#[derive(Deserialize)]
#[serde(untagged)]
enum Authority {
    Domain { domain: String, cert: String },
    All(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientCert {
    domain: String,
    cert: String,
    #[serde(deserialize_with = "required_secret")]
    key: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlatformSource {
    architecture: Option<String>,
    os: Option<String>,
    variant: Option<String>,
}

/// What check looks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Tracking {
    /// One tag.
    Tag(String),
    /// The head of a git branch.
    Git,
    /// Tags that are versions.
    Semver,
    /// Tags of a pattern, in the registry's order.
    Pattern(String),
}

impl Source {
    /// What no single field can say.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.git_repo.is_none()
            && (self.git_private_key.is_some() || self.git_branch.is_some() || self.fail_when_missing)
        {
            bail!("source: git_private_key, git_branch and fail_when_missing need git_repo");
        }
        let trackers = [self.git_repo.is_some(), self.tag_regex.is_some(), self.pre_releases || self.variant.is_some()];
        if trackers.iter().filter(|on| **on).count() > 1 {
            bail!("source: git_repo, tag_regex, and variant or pre_releases exclude each other");
        }
        Ok(())
    }

    pub fn tracking(&self) -> Tracking {
        match (&self.git_repo, &self.tag_regex, &self.tag) {
            (Some(_), _, _) => Tracking::Git,
            (_, Some(pattern), _) => Tracking::Pattern(pattern.clone()),
            (_, _, None) if self.variant.is_some() || self.pre_releases => Tracking::Semver,
            (_, _, tag) => Tracking::Tag(tag.clone().unwrap_or_else(|| LATEST.to_owned())),
        }
    }

    /// The tag that `in` writes down and `out` falls back to.
    pub fn tag(&self) -> &str {
        self.tag.as_deref().unwrap_or(LATEST)
    }

    /// The repository alone.
    pub fn name(&self) -> anyhow::Result<Reference> {
        if self.repository.is_empty() {
            bail!("must specify repository");
        }
        let reference: Reference = self.repository.parse().context("malformed repository url")?;
        if reference.tag().is_some() || reference.digest().is_some() {
            bail!("malformed repository url: {:?} names a tag or a digest; use source.tag", self.repository);
        }
        Ok(reference)
    }

    pub fn tagged(&self, tag: &str) -> anyhow::Result<Reference> {
        Ok(self.name()?.with_tag(tag)?)
    }

    pub fn platform(&self) -> Platform {
        let host = Platform::host();
        match &self.platform {
            None => host,
            Some(given) => Platform::new(
                given.os.as_deref().unwrap_or(&host.os),
                given.architecture.as_deref().unwrap_or(&host.arch),
                given.variant.as_deref().unwrap_or(""),
            ),
        }
    }

    /// `others`: with the accounts of other registries, which only `out` uses.
    pub fn registry(&self, others: bool) -> anyhow::Result<Settings> {
        let registry = self.name()?.registry().to_owned();
        let mut settings = Settings {
            insecure: self.insecure_registries.clone(),
            downloads: Some(number("max_concurrent_downloads", self.max_concurrent_downloads.as_deref())?),
            uploads: Some(number("max_concurrent_uploads", self.max_concurrent_uploads.as_deref())?),
            ..Settings::default()
        };
        if self.insecure {
            settings.insecure.push(registry.clone());
        }
        if others {
            for other in &self.additional_private_registries {
                settings.credentials.insert(other.registry.clone(), password(&other.username, &other.password));
            }
        }
        if let (Some(user), Some(secret)) = (filled(self.username.as_ref()), &self.password)
            && !secret.is_empty()
        {
            settings.credentials.insert(registry, password(user, secret));
        }
        match &self.registry_mirror {
            Some(Mirror::Address(address)) if !address.is_empty() => {
                settings.mirrors = BTreeMap::from([(DOCKER_HUB.to_owned(), vec![address.clone()])]);
            }
            Some(Mirror::Host { host, username, password: secret }) if !host.is_empty() => {
                settings.mirrors = BTreeMap::from([(DOCKER_HUB.to_owned(), vec![host.clone()])]);
                if let (Some(user), Some(secret)) = (filled(username.as_ref()), secret) {
                    settings.credentials.insert(host.clone(), password(user, secret));
                }
            }
            _ => {}
        }
        settings.authorities = self
            .ca_certs
            .iter()
            .map(|authority| match authority {
                Authority::Domain { domain, cert } => (Some(domain.clone()), cert.clone()),
                Authority::All(cert) => (None, cert.clone()),
            })
            .collect();
        settings.client_certificates = self
            .client_certs
            .iter()
            .map(|own| (own.domain.clone(), ClientCertificate { certificate: own.cert.clone(), key: own.key.clone() }))
            .collect();
        if let (Some(id), Some(secret)) = (filled(self.aws_access_key_id.as_ref()), &self.aws_secret_access_key) {
            settings.aws = Some(AwsKeys {
                access_key_id: id.to_owned(),
                secret_access_key: secret.clone(),
                session_token: self.aws_session_token.clone().filter(|token| !token.is_empty()),
            });
        }
        Ok(settings)
    }
}

const LATEST: &str = "latest";

/// What dockerd has, and the original's default.
const AT_ONCE: usize = 3;

fn filled(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}

fn password(user: &str, secret: &Secret) -> Credential {
    Credential::Password { user: user.to_owned(), password: secret.clone() }
}

fn number(name: &str, text: Option<&str>) -> anyhow::Result<usize> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(AT_ONCE),
        Some(text) => match text.parse() {
            Ok(count) if count > 0 => Ok(count),
            _ => bail!("source: {name}: {text:?} is not a number of layers"),
        },
    }
}

/// Text, or what YAML made of text that looks like something else: `tag: 1.10` is the number 1.1, and that is what
/// was asked for.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    use serde_json::Value;
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(value) => Ok(Some(value.to_string())),
        _ => Err(serde::de::Error::custom("expected text")),
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(text(deserializer)?.map(Secret::from))
}

fn required_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    secret(deserializer)?.ok_or_else(|| serde::de::Error::custom("expected text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> Source {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_number_is_a_tag_too() {
        for (json, expected) in [
            (r#"{"repository":"x"}"#, "latest"),
            (r#"{"repository":"x","tag":"1.0"}"#, "1.0"),
            (r#"{"repository":"x","tag":3}"#, "3"),
            (r#"{"repository":"x","tag":1.5}"#, "1.5"),
            (r#"{"repository":"x","tag":null}"#, "latest"),
        ] {
            assert_eq!(source(json).tag(), expected, "{json}");
        }
    }

    #[test]
    fn a_repository_is_required_and_must_be_one() {
        for (json, expected) in [
            ("{}", "must specify repository"),
            (r#"{"repository":"A/B"}"#, "malformed repository url"),
            (r#"{"repository":"a:b"}"#, "malformed repository url: \"a:b\" names a tag or a digest; use source.tag"),
        ] {
            assert_eq!(source(json).name().unwrap_err().to_string(), expected, "{json}");
        }
    }

    #[test]
    fn what_nobody_reads_is_refused_by_name() {
        let error = serde_json::from_str::<Source>(r#"{"repository":"x","semver_constraint":"1"}"#).err().unwrap();
        assert!(error.to_string().contains("unknown field `semver_constraint`"), "{error}");
    }

    #[test]
    fn registries_are_as_the_source_has_them() {
        let source = source(
            r#"{"repository":"r.example:5000/a","username":"u","password":12345,
                "additional_private_registries":[{"registry":"o.example","username":"x","password":"y"}],
                "insecure_registries":["10.0.0.0/8"],"registry_mirror":"https://m.example/",
                "ca_certs":[{"domain":"r.example:5000","cert":"PEM"}, "ALL"],
                "client_certs":[{"domain":"r.example:5000","cert":"C","key":"K"}],
                "aws_access_key_id":"id","aws_secret_access_key":"key","max_concurrent_downloads":"5","startup_timeout":120}"#,
        );
        let settings = source.registry(true).unwrap();
        assert_eq!(settings.credentials["r.example:5000"], password("u", &"12345".into()));
        assert_eq!(settings.credentials["o.example"], password("x", &"y".into()));
        assert_eq!(source.registry(false).unwrap().credentials.len(), 1);
        assert_eq!(settings.mirrors["docker.io"], ["https://m.example/"]);
        assert_eq!(settings.authorities[0], (Some("r.example:5000".into()), "PEM".into()));
        assert_eq!(settings.authorities[1], (None, "ALL".into()));
        assert_eq!(settings.client_certificates["r.example:5000"].certificate, "C");
        assert_eq!((settings.downloads, settings.uploads), (Some(5), Some(3)));
        assert_eq!(settings.aws.unwrap().access_key_id, "id");
    }

    #[test]
    fn an_account_needs_both_halves() {
        for json in [
            r#"{"repository":"x","username":"u"}"#,
            r#"{"repository":"x","username":"u","password":""}"#,
            r#"{"repository":"x","password":"p"}"#,
        ] {
            assert!(source(json).registry(true).unwrap().credentials.is_empty(), "{json}");
        }
    }

    #[test]
    fn trackers_exclude_each_other() {
        assert_eq!(source(r#"{"repository":"x"}"#).tracking(), Tracking::Tag("latest".into()));
        assert_eq!(source(r#"{"repository":"x","variant":"alpine"}"#).tracking(), Tracking::Semver);
        assert_eq!(source(r#"{"repository":"x","tag":"1","git_repo":"g"}"#).tracking(), Tracking::Git);
        assert!(source(r#"{"repository":"x","git_repo":"g","tag_regex":"."}"#).check().is_err());
        assert!(source(r#"{"repository":"x","git_branch":"main"}"#).check().is_err());
    }
}
