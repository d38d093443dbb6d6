//! What can go wrong with a registry, each error naming the registry, what was asked and what was tried.

use std::fmt;

use crate::base::{Digest, Platform};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Refused(Box<Refusal>),
    #[error("{registry}: {what}: {cause}")]
    Unreachable { registry: String, what: String, cause: String },
    #[error("{registry}: {what}: {reason}")]
    Invalid { registry: String, what: String, reason: String },
    #[error("{registry}: {what}: content has digest {actual}, expected {expected}")]
    Mismatch { registry: String, what: String, expected: Digest, actual: Digest },
    #[error("{image} is not there for platform {wanted}, only for {available}")]
    NoPlatform { image: String, wanted: Box<Platform>, available: String },
    #[error("{place}: {reason}")]
    Config { place: String, reason: String },
    #[error("credentials of {registry}: {reason}")]
    Credential { registry: String, reason: String },
    #[error(transparent)]
    Image(Box<crate::image::Error>),
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

pub type Result<T> = std::result::Result<T, Error>;

/// Who said no: what helps differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Service {
    #[default]
    Registry,
    Bucket,
}

/// A server's own no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub service: Service,
    pub registry: String,
    /// `pull manifest a/b:1`
    pub what: String,
    pub status: u16,
    /// The registry's own words, where it had some.
    pub message: Option<String>,
    /// Where the credentials came from, or where they were looked for in vain; none where nobody asked for any.
    pub credentials: Option<String>,
    /// What a rate limiter said about itself.
    pub limit: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phrase = reqwest::StatusCode::from_u16(self.status).ok().and_then(|s| s.canonical_reason()).unwrap_or("");
        write!(f, "{}: {}: {} {phrase}", self.registry, self.what, self.status)?;
        if let Some(message) = &self.message {
            write!(f, ": {message}")?;
        }
        if let Some(limit) = &self.limit {
            write!(f, " ({limit})")?;
        }
        if let Some(credentials) = &self.credentials {
            write!(f, "; {credentials}")?;
        }
        Ok(())
    }
}

impl From<crate::image::Error> for Error {
    fn from(error: crate::image::Error) -> Self {
        Self::Image(Box::new(error))
    }
}

impl Error {
    /// The HTTP status, where the registry answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// What to do about it, as a sentence for the user; none where the error says all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) if refusal.service == Service::Bucket => match refusal.status {
                301 | 307 | 400 => Some("is the bucket in another region? say which with --region or AWS_REGION".to_owned()),
                401 | 403 => Some(
                    "check the access keys (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), the region, and what they may do in this bucket"
                        .to_owned(),
                ),
                404 => Some("is it there? check the bucket, the key and the endpoint (--endpoint, AWS_ENDPOINT_URL_S3)".to_owned()),
                _ => None,
            },
            Self::Refused(refusal) => match refusal.status {
                401 | 403 => Some(format!(
                    "log in with `dockless login {}`, or check that this account may do so on that repository",
                    refusal.registry
                )),
                404 => Some("does the image exist? check the repository's name and the tag".to_owned()),
                429 => Some(
                    "the registry limits requests: log in, wait, or set a mirror (REGISTRY_MIRRORS, or `mirrors:` in the configuration file)"
                        .to_owned(),
                ),
                500.. => Some("the registry itself has trouble; its own log says more".to_owned()),
                _ => None,
            },
            Self::Unreachable { registry, cause, .. } if cause.contains("certificate") => Some(format!(
                "put the authority's certificate into LOCAL_CA_CERTIFICATE or /etc/docker/certs.d/{registry}/ca.crt"
            )),
            Self::Unreachable { registry, cause, .. } if cause.contains("InvalidContentType") => Some(format!(
                "{registry} seems to speak plain HTTP: allow it with `insecure: true` under `registries:` in the configuration file, or INSECURE_REGISTRIES={registry}"
            )),
            Self::Unreachable { .. } => {
                Some("check the host name, the network and the proxy variables (HTTPS_PROXY, NO_PROXY)".to_owned())
            }
            Self::NoPlatform { .. } => Some("ask for one of those with --platform".to_owned()),
            _ => None,
        }
    }
}
