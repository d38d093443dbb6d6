//! What becomes of a result: an image in the store, an archive, a flat tar, a directory. Files are written beside
//! their destination and renamed into place when complete.

mod archive;
mod files;
mod image;
mod out;
mod push;

use std::collections::BTreeMap;
use std::path::PathBuf;

pub use archive::{docker, multi, oci, oci_dir};
pub use files::{local, tar};
pub use image::{Layer, default_config, image, layers, to_store};
pub use push::push;

use crate::layer::Compression;

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
    /// All that the base image does not have goes into one layer.
    pub squash: bool,
    pub annotations: BTreeMap<String, String>,
}

/// Where an archive goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dest {
    /// Written beside itself and renamed into place when complete.
    File(PathBuf),
    Stdout,
}
