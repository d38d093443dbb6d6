//! The blob stores that an engine may ask for in a session, by their ids, and what it may do in each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use tonic::Status;
use tonic::metadata::MetadataMap;

use crate::base::Digest;
use crate::store::{BlobStore, DiskBlobs};

/// The header that says which store a call is for.
const ID: &str = "buildkit-attachable-store-id";

#[derive(Default)]
pub struct Stores(pub BTreeMap<String, Store>);

/// Blobs that a session serves.
pub struct Store {
    pub blobs: Arc<dyn BlobStore>,
    /// None for all that it has.
    pub only: Option<BTreeSet<Digest>>,
    /// The engine may leave blobs here.
    pub writable: bool,
}

/// The id of a layout that goes by a name (`oci.store` of an `oci-layout://` source).
pub fn layout(name: &str) -> String {
    format!("oci:{name}")
}

/// The id of a folder that a cache of `type=local` is read from or written to.
pub fn cache(dir: &str) -> String {
    format!("local:{dir}")
}

impl Store {
    /// A layout's blobs, all of them to be read.
    pub fn of_layout(dir: &Path) -> Self {
        Self { blobs: Arc::new(DiskBlobs::open(dir)), only: None, writable: false }
    }

    pub(super) fn offered(&self, text: &str) -> Result<Digest, Status> {
        let digest: Digest = text.parse().map_err(|_| Status::invalid_argument(format!("{text:?} is no digest")))?;
        match self.only.as_ref().is_none_or(|only| only.contains(&digest)) {
            true => Ok(digest),
            false => Err(Status::not_found(format!("{digest} is not of this build"))),
        }
    }
}

impl Stores {
    pub(super) fn chosen(&self, headers: &MetadataMap) -> Result<&Store, Status> {
        let id = headers.get(ID).and_then(|id| id.to_str().ok());
        let id = id.ok_or_else(|| Status::invalid_argument(format!("the call does not say which store ({ID})")))?;
        self.0.get(id).ok_or_else(|| Status::not_found(format!("no store {id:?} is shared with this build")))
    }
}
