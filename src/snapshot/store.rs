//! The folder of deltas: what is in it, who uses it, what may go.

use std::path::Path;
use std::sync::Arc;

use super::active::{Active, View};
use super::error::Result;
use super::stack::{DeltaId, Snapshot};
use super::tree::Tree;
use crate::base::Cancel;
use crate::image::LayerBlob;
use crate::layer::Compression;
use crate::store::BlobStore;

/// How a snapshot becomes a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// Overlay mounts, made by the executor.
    Overlay,
    /// A directory of its own, cloned or copied: for where overlay cannot be mounted.
    Native,
}

/// What a layer blob is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerSpec {
    pub compression: Compression,
    pub level: Option<i32>,
    /// Recompress an image's layer even though it exists as it came.
    pub force: bool,
    /// Seconds since 1970 that no mtime may pass (`rewrite-timestamp`). Inherited layers are rewritten only with `force`.
    pub clamp_mtime: Option<i64>,
}

/// What one delta takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub id: DeltaId,
    pub bytes: u64,
    /// Seconds since 1970.
    pub last_used: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    pub deltas: usize,
    pub bytes: u64,
}

/// All snapshots of one state folder. Cloning shares it; several processes may have it open.
#[derive(Clone)]
pub struct Snapshots {}

impl Snapshots {
    /// Opens or makes the folder. Reads nothing in it.
    pub fn open(_dir: &Path, _blobs: Arc<dyn BlobStore>, _driver: Driver) -> Result<Self> {
        todo!()
    }

    /// The record that [`Snapshots::load`] understands in any later process.
    pub fn save(&self, _snapshot: &Snapshot) -> String {
        todo!()
    }

    /// None when a delta or a blob of it was pruned since.
    pub fn load(&self, _text: &str) -> Result<Option<Snapshot>> {
        todo!()
    }

    /// A look at a snapshot; nothing is read before it is asked for.
    pub fn tree(&self, _snapshot: &Snapshot) -> Arc<dyn Tree> {
        todo!()
    }

    /// Starts a snapshot on top of another.
    pub fn prepare(&self, _base: &Snapshot) -> Result<Active> {
        todo!()
    }

    /// For read-only mounts of a snapshot into a step. Unpacks what is not.
    pub fn view(&self, _snapshot: &Snapshot, _cancel: &Cancel) -> Result<View> {
        todo!()
    }

    /// What `upper` has over `lower` (the diff op). Nothing is read where one is the start of the other.
    pub fn diff(&self, _lower: &Snapshot, _upper: &Snapshot, _cancel: &Cancel) -> Result<Snapshot> {
        todo!()
    }

    /// The delta at an index as a layer in the blob store. An image's layer comes back as it came unless forced;
    /// what was made once is remembered beside the delta.
    pub fn layer_blob(
        &self,
        _snapshot: &Snapshot,
        _index: usize,
        _spec: &LayerSpec,
        _cancel: &Cancel,
    ) -> Result<LayerBlob> {
        todo!()
    }

    /// Remembers that these layers, made of this snapshot with unclamped times, unpack to it: a later `FROM` of the image finds
    /// them unpacked.
    pub fn adopt(&self, _snapshot: &Snapshot, _layers: &[LayerBlob]) -> Result<()> {
        todo!()
    }

    pub fn usage(&self) -> Result<Vec<Usage>> {
        todo!()
    }

    /// Removes deltas that nothing keeps. Fails with `Busy` while another process works in the folder.
    pub fn prune(&self, _keep: &dyn Fn(&DeltaId) -> bool) -> Result<Pruned> {
        todo!()
    }
}
