//! Images into archives and layout folders. The same images and names give the same bytes.

use std::io::Write;
use std::path::Path;

use super::{Image, Result};
use crate::base::{Cancel, Reference};
use crate::store::BlobStore;

/// Writes what `docker save` writes today: an OCI layout with a `manifest.json` beside, so that both kinds of reader
/// are served.
pub fn docker_archive(
    images: &[(&Image, &[Reference])],
    blobs: &dyn BlobStore,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<()> {
    let _ = (images, blobs, out, cancel);
    todo!()
}

/// Writes an OCI layout as tar.
pub fn oci_archive(
    images: &[(&Image, &[Reference])],
    blobs: &dyn BlobStore,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<()> {
    let _ = (images, blobs, out, cancel);
    todo!()
}

/// Writes an OCI layout into a directory; into one that is a layout already, the images are added.
pub fn oci_layout(images: &[(&Image, &[Reference])], blobs: &dyn BlobStore, dir: &Path, cancel: &Cancel) -> Result<()> {
    let _ = (images, blobs, dir, cancel);
    todo!()
}
