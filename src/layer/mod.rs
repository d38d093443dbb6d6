//! Layers as the OCI image-spec has them (layer.md): reading and writing tar, whiteouts, compression,
//! applying a layer to a target.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use crate::sys::{Kind, Meta};

mod ahead;
pub mod apply;
pub mod compress;
pub mod decompress;
mod dense;
pub mod dir;
pub mod error;
mod gzip;
mod made;
pub mod tar;
pub mod write;

pub use apply::{Applied, Change, apply, apply_plain, read_layer};
pub use compress::{Compression, Encoder};
pub use decompress::{decompress, decompress_ahead, decompress_any};
pub use dir::{DirOptions, DirTarget, Loss, Lost};
pub use error::{Error, Result};
pub use made::Made;
pub use tar::TarWriter;
pub use write::{LayerWriter, Written};

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
    /// A new layer starts: what was made before belongs to lower layers from now on.
    fn start(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Makes the entry, replacing what is in its way; `data` yields exactly the file's bytes (holes as zeros).
    /// What is left unread is skipped.
    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()>;

    /// Hides a name of the lower layers (`.wh.NAME`), sparing what this layer made.
    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()>;

    /// Hides all that the lower layers have in a directory (`.wh..wh..opq`), sparing what this layer made.
    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()>;
}

/// Before a name: that name of the lower layers is gone.
pub const WHITEOUT_PREFIX: &str = ".wh.";
/// In a directory: everything that the lower layers have in it is gone.
pub const WHITEOUT_OPAQUE: &str = ".wh..wh..opq";
