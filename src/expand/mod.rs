//! One image into what a pipeline wants next: `image.tar`, `digest`, `rootfs/` with `metadata.json`, artifacts.
//! Everything is laid out in a directory beside the output and renamed last.

use std::path::{Path, PathBuf};

use crate::base::{Cancel, Reference};
use crate::image::Image;
use crate::layer::Compression;
use crate::store::BlobStore;

/// What to make of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Formats {
    pub image_tar: Option<Archive>,
    /// `rootfs/` and `metadata.json`.
    pub rootfs: bool,
    /// `rootfs.tgz` with both inside, for S3 and `unpack: true`.
    pub tgz: bool,
    /// As `rootfs`, in the form that survives git: `.keep` files, and `rootfs.mtree` for what git cannot store.
    pub git: bool,
    /// `oci/`: the image as a layout folder.
    pub oci: bool,
    pub artifacts: Vec<Artifact>,
    /// All layers compressed this way; none: uniform, as the lowest layer is.
    pub compression: Option<Compression>,
}

/// The form of `image.tar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archive {
    #[default]
    Docker,
    Oci,
}

/// Files to pick out of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// A path or a glob inside the image.
    pub from: String,
    /// Where it goes, relative to the output folder; none: under its own name.
    pub to: Option<PathBuf>,
}

/// What was laid out, and what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Relative to the output folder, sorted.
    pub files: Vec<PathBuf>,
    /// One line for each class of attribute that this host could not keep.
    pub warnings: Vec<String>,
}

/// Lays an image out in `output`, which need not exist. Ok means that everything is there; after an error nothing of
/// this call is.
pub fn expand(
    image: &Image,
    references: &[Reference],
    blobs: &dyn BlobStore,
    formats: &Formats,
    output: &Path,
    cancel: &Cancel,
) -> anyhow::Result<Expanded> {
    let _ = (image, references, blobs, formats, output, cancel);
    todo!()
}

/// Gives a checked-out `rootfs/` back what git lost, from the `rootfs.mtree` beside it.
pub fn restore(dir: &Path) -> anyhow::Result<Vec<String>> {
    let _ = dir;
    todo!()
}
