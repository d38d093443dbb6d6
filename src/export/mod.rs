//! What becomes of a result: an image in the store, an archive, a flat tar, a directory. Files are written beside
//! their destination and renamed into place when complete.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::{Cancel, Epoch, Reference};
use crate::image::{Image, ImageConfig, ImageStore, LayerBlob};
use crate::layer::Compression;
use crate::snapshot::Tree;
use crate::store::BlobStore;

/// How layers and manifest are to be written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerOptions {
    /// None: the exporter's own default.
    pub compression: Option<Compression>,
    pub level: Option<i32>,
    /// Recompress inherited layers too.
    pub force: bool,
    /// `oci-mediatypes`; none: the exporter's default.
    pub oci_media_types: Option<bool>,
    /// `rewrite-timestamp`: clamp mtimes in new layers to the epoch.
    pub rewrite_timestamp: bool,
    pub annotations: BTreeMap<String, String>,
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// Written beside itself and renamed into place when complete.
    File(PathBuf),
    Stdout,
}

/// Makes an image of layers that are in `blobs` and a config from the frontend: diff IDs, history and times are
/// reconciled the way BuildKit's exporter does it. `base` is the config of the image that the result was built on: its
/// history keeps its times where an epoch is pinned.
pub fn image(
    layers: Vec<LayerBlob>,
    config: &ImageConfig,
    base: Option<&ImageConfig>,
    options: &LayerOptions,
    epoch: &Epoch,
    blobs: &dyn BlobStore,
) -> anyhow::Result<Image> {
    let _ = (layers, config, base, options, epoch, blobs);
    todo!()
}

/// Names an image whose blobs are in the store's; without a name it is known by its id.
pub fn to_store(store: &ImageStore, image: &Image, names: &[Reference]) -> anyhow::Result<()> {
    let _ = (store, image, names);
    todo!()
}

/// Writes a docker-save archive of images, their layers made uniform first.
pub fn docker(
    images: &[(&Image, &[Reference])],
    blobs: &dyn BlobStore,
    dest: &Dest,
    options: &LayerOptions,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let _ = (images, blobs, dest, options, cancel);
    todo!()
}

/// Writes an OCI archive.
pub fn oci(
    images: &[(&Image, &[Reference])],
    blobs: &dyn BlobStore,
    dest: &Dest,
    options: &LayerOptions,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let _ = (images, blobs, dest, options, cancel);
    todo!()
}

/// Writes an OCI layout directory.
pub fn oci_dir(
    images: &[(&Image, &[Reference])],
    blobs: &dyn BlobStore,
    dest: &Path,
    options: &LayerOptions,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let _ = (images, blobs, dest, options, cancel);
    todo!()
}

/// Writes a result's files as one flat tar.
pub fn tar(tree: &dyn Tree, dest: &Dest, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<()> {
    let _ = (tree, dest, epoch, cancel);
    todo!()
}

/// Writes a result's files into a directory, over what is there. Says what the host refused, for a warning.
pub fn local(tree: &dyn Tree, dest: &Path, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<Vec<String>> {
    let _ = (tree, dest, epoch, cancel);
    todo!()
}
