//! Images from files of any kind, recognised by content.

use std::path::Path;
use std::sync::Arc;

use super::{Image, Result};
use crate::base::Reference;
use crate::store::BlobStore;

/// What a file or folder holds.
pub struct Opened {
    pub images: Vec<(Image, Vec<Reference>)>,
    /// Where the blobs of all of them are read from.
    pub blobs: Arc<dyn BlobStore>,
}

/// Opens a docker-archive (today's or an older form), an OCI archive, either wrapped in gzip or zstd, or an OCI layout
/// folder. `tmp` is a directory for what must be unwrapped first; nothing stays there once the result is dropped.
pub fn open(path: &Path, tmp: &Path) -> Result<Opened> {
    let _ = (path, tmp);
    todo!()
}
