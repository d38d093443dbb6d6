//! The distribution-spec client: resolves, pulls and pushes images, logs in and out; and S3 buckets, for those who have
//! no registry. One `Registry` serves a whole process; it starts nothing (no runtime, no connection, no certificate is read) before the first request.

mod answer;
mod auth;
mod bucket;
mod challenge;
pub mod client;
mod config;
mod download;
mod ecr;
mod error;
mod helper;
mod keychain;
mod manifest;
mod pull;
mod push;
mod transport;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use bucket::{Addressing, BucketSettings, Held, Object, ObjectAddress, Shelf};
pub use ecr::{AwsKeys, region as ecr_region};
pub use error::{Error, Refusal, Result, Service};
pub use watch::Patience;

use crate::base::{Cancel, Env, Reference, Secret};
use crate::image::{Descriptor, Image};
use transport::Transport;
use watch::Watch;

/// Layers at once, both ways, as docker has it.
const AT_ONCE: usize = 4;

/// What a flag, a face or a resource's source adds to what the environment and the configuration file say.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Hosts whose certificate is not checked and that may speak plain HTTP: `host`, `host:port` or a CIDR.
    pub insecure: Vec<String>,
    /// Where else a registry's images are looked for, first things first: `docker.io` to `https://mirror.example/path`.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// By registry host; before every credential of files and helpers.
    pub credentials: BTreeMap<String, Credential>,
    /// PEM text that is trusted beside the system's roots; for one host, or for all.
    pub authorities: Vec<(Option<String>, String)>,
    /// By registry host.
    pub client_certificates: BTreeMap<String, ClientCertificate>,
    /// Layers at once; none: 4.
    pub downloads: Option<usize>,
    pub uploads: Option<usize>,
    /// Send blobs in chunks of this many bytes; none: whole, and in chunks only where that is refused.
    pub upload_chunk: Option<u64>,
    /// For Amazon's registries; none: from the environment.
    pub aws: Option<AwsKeys>,
    pub patience: Option<Patience>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        user: String,
        password: Secret,
    },
    /// An OAuth2 refresh token, which `docker login` keeps as `identitytoken`.
    IdentityToken(Secret),
    /// Sent as it is.
    Bearer(Secret),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM.
    pub certificate: String,
    /// PEM.
    pub key: Secret,
}

/// An image as a registry answered for it: no layer was fetched yet.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What was asked for, with the digest of `root`: the same bytes for ever.
    pub reference: Reference,
    /// What the reference names: the index where there is one, else the manifest. A resource's version.
    pub root: Descriptor,
    /// The chosen platform's image.
    pub image: Image,
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Transport>, Limits);

#[derive(Clone, Copy)]
struct Limits {
    downloads: usize,
    uploads: usize,
    upload_chunk: Option<u64>,
}

impl Registry {
    /// Reads the configuration (`registries:` of dockless's file, `REGISTRY_MIRRORS`, `LOCAL_CA_CERTIFICATE`, …);
    /// `settings` come before all of it.
    pub fn new(env: &Env, settings: Settings) -> Result<Self> {
        let limits = Limits {
            downloads: settings.downloads.unwrap_or(AT_ONCE).max(1),
            uploads: settings.uploads.unwrap_or(AT_ONCE).max(1),
            upload_chunk: settings.upload_chunk.filter(|&chunk| chunk > 0),
        };
        Ok(Self(Arc::new(Transport::new(env, &settings)?), limits))
    }

    /// Tries the password at the registry, then keeps it where Docker's config file says. What is returned is
    /// where it went.
    pub fn login(&self, registry: &str, user: &str, password: &Secret, cancel: &Cancel) -> Result<String> {
        let credential = Credential::Password { user: user.to_owned(), password: password.clone() };
        let registry = login_host(registry);
        let kept = self.0.try_login(&config::origin(registry), &credential, Watch::new(cancel))?;
        self.0.keychain.store(registry, &kept)
    }

    /// What would be shown to a registry, for another program that pulls in our place.
    pub fn credential(&self, registry: &str, cancel: &Cancel) -> Result<Option<Credential>> {
        self.0.credential(login_host(registry), Watch::new(cancel))
    }

    /// False when there was nothing to forget.
    pub fn logout(&self, registry: &str) -> Result<bool> {
        self.0.keychain.erase(login_host(registry))
    }
}

/// What people type after `login`: a host, an address, Docker Hub's old address, or nothing.
fn login_host(text: &str) -> &str {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    match host.split('/').next().unwrap_or(host) {
        "" | "index.docker.io" | "registry-1.docker.io" => crate::base::reference::DOCKER_HUB,
        host => host,
    }
}
