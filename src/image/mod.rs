//! Images as the OCI image-spec and Docker have them: config, manifest, index; the local image store (a standard
//! OCI layout); docker-archive and OCI-layout readers and writers.

pub mod config;

use crate::base::{DiffId, Digest};

/// The address of a blob (image-spec, descriptor.md).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType")]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<crate::base::Platform>,
    /// What other tools wrote and we do not know, kept as it was.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}

/// A layer that exists as a blob: stored bytes and plain bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    pub descriptor: Descriptor,
    pub diff_id: DiffId,
}
