//! Images as the OCI image-spec and Docker have them: config, manifest, index; the local image store (a standard
//! OCI layout); docker-archive and OCI-layout readers and writers.

mod archive;
pub mod config;
mod convert;
mod import;
pub mod inspect;
mod layout;
mod loaded;
mod local;
mod manifest;
pub mod media_type;
mod multi;
mod read;
mod write;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

pub use config::ImageConfig;
pub use convert::{Uniform, uniform};
pub use import::{import, of_layer};
pub use layout::{layout_name, name_in_layout, read_index as read_layout};
pub use loaded::Image;
pub use local::{Collected, ImageStore, Pin, StoredImage};
pub use manifest::{Index, Manifest};
pub use media_type::Dialect;
pub use multi::MultiImage;
pub use read::{Opened, open};
pub use write::{Named, docker_archive, multi_archive, multi_layout, oci_archive, oci_layout};

use crate::base::{DiffId, Digest, Platform, digest::ParseDigestError, reference::ParseReferenceError};
use crate::store;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Blob(#[from] store::Error),
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    /// A manifest, index or config that is not what its spec says.
    #[error("{what}: {source}")]
    Json { what: String, source: serde_json::Error },
    #[error("{0} is neither a docker-archive nor an OCI image layout")]
    NotAnImage(String),
    #[error("{name}: {problem}")]
    Malformed { name: String, problem: String },
    #[error("{digest} is of type {media_type:?}, which is neither an image manifest nor an index")]
    MediaType { digest: Digest, media_type: String },
    #[error("layer {digest} is of type {media_type:?}, which is no layer that can be unpacked")]
    LayerType { digest: Digest, media_type: String },
    #[error("image {manifest} has {layers} layers and {diff_ids} diff IDs")]
    LayerCount { manifest: Digest, layers: usize, diff_ids: usize },
    #[error("index {digest} has no image for {platform}, only for {}", list(.available))]
    Platform { digest: Digest, platform: Box<Platform>, available: Vec<Platform> },
    #[error("layer {digest}: {source:#}")]
    Layer { digest: Digest, source: anyhow::Error },
    #[error("{prefix:?} is the beginning of {} image ids: {}", .ids.len(), list(.ids))]
    Ambiguous { prefix: String, ids: Vec<Digest> },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an error of the system with the path that it is about.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        |source| Self::Io { path, source }
    }

    fn malformed(name: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Malformed { name: name.into(), problem: problem.into() }
    }
}

fn list<T: std::fmt::Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "none".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The address of a blob (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// What other tools wrote and we do not know, kept as it was.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

impl Descriptor {
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest,
            size,
            annotations: BTreeMap::new(),
            platform: None,
            extra: serde_json::Map::new(),
        }
    }
}

/// A layer that exists as a blob: stored bytes and plain bytes.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LayerBlob {
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
}
