//! Layers as the OCI image-spec has them (layer.md): reading and writing tar, whiteouts, compression,
//! applying a layer to a target.

use std::io::Read;
use std::path::{Path, PathBuf};

use crate::sys::{Kind, Meta};

/// One member of a layer. `path` is relative, without `.` or `..`; the root itself is the empty path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: PathBuf,
    pub kind: Kind,
    pub meta: Meta,
}

/// Where a layer is applied to: a plain directory for `expand`, a delta over lower layers for snapshots.
///
/// Calls come in the order of the archive. Paths are text; the target resolves them inside its own root.
pub trait Target {
    /// Makes the entry, replacing what is in its way; `data` yields exactly the file's bytes (holes as zeros).
    fn entry(&mut self, entry: &Entry, data: &mut dyn Read) -> anyhow::Result<()>;

    /// Hides a name of the lower layers (`.wh.NAME`).
    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()>;

    /// Hides all that the lower layers have in a directory (`.wh..wh..opq`), sparing what this layer made.
    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()>;
}

/// How a layer's tar is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    #[default]
    Uncompressed,
    Gzip,
    Zstd,
}
