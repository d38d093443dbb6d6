//! The distribution-spec client: resolves, pulls and pushes images, logs in and out. One `Registry` serves a whole
//! process; it starts nothing (no runtime, no connection, no certificate is read) before the first request.

use std::collections::BTreeMap;

use crate::base::progress::Step;
use crate::base::{Cancel, Env, Platform, Reference, Secret};
use crate::image::Descriptor;
use crate::store::BlobStore;

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

/// An image as a registry answered for it: nothing below the config was fetched.
#[derive(Debug, Clone)]
pub struct Resolved {
    /// What was asked for, with the digest of `root`: the same bytes for ever.
    pub reference: Reference,
    /// What the reference names: the index where there is one, else the manifest. A resource's version.
    pub root: Descriptor,
    /// The chosen platform's manifest.
    pub manifest: Descriptor,
    pub manifest_bytes: Vec<u8>,
    pub config_bytes: Vec<u8>,
}

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Registry {}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Registry {
    /// Reads the configuration (`registries:` of dockless's file, `REGISTRY_MIRRORS`, `LOCAL_CA_CERTIFICATE`, …);
    /// `settings` come before all of it.
    pub fn new(_env: &Env, _settings: Settings) -> Result<Self> {
        todo!()
    }

    /// What a tag names now, by HEAD; none when the registry says 404.
    pub fn head(&self, _reference: &Reference, _cancel: &Cancel) -> Result<Option<Descriptor>> {
        todo!()
    }

    /// All tags of a repository, in the registry's order.
    pub fn tags(&self, _reference: &Reference, _cancel: &Cancel) -> Result<Vec<String>> {
        todo!()
    }

    /// Manifest and config, the platform chosen where the reference names an index.
    pub fn resolve(&self, _reference: &Reference, _platform: &Platform, _cancel: &Cancel) -> Result<Resolved> {
        todo!()
    }

    /// Ok means that manifest, config and all layers are in `blobs`, verified; what was there is not fetched again.
    pub fn pull(
        &self,
        _reference: &Reference,
        _platform: &Platform,
        _blobs: &dyn BlobStore,
        _step: &Step,
        _cancel: &Cancel,
    ) -> Result<Resolved> {
        todo!()
    }

    /// Pushes a manifest or an index with all that it names, then the name itself. Blobs that the registry has in
    /// one of the `mount` repositories are mounted from there instead of sent.
    pub fn push(
        &self,
        _root: &Descriptor,
        _blobs: &dyn BlobStore,
        _to: &Reference,
        _mount: &[Reference],
        _step: &Step,
        _cancel: &Cancel,
    ) -> Result<Descriptor> {
        todo!()
    }

    /// Tries the password at the registry, then keeps it where Docker's config file says. What is returned is
    /// where it went.
    pub fn login(&self, _registry: &str, _user: &str, _password: &Secret, _cancel: &Cancel) -> Result<String> {
        todo!()
    }

    /// False when there was nothing to forget.
    pub fn logout(&self, _registry: &str) -> Result<bool> {
        todo!()
    }
}
