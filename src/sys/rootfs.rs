//! How a step's root file system comes to be, as data: made by `snapshot`, carried out by `exec`.

use std::path::PathBuf;

/// A writable root file system that is not mounted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootFs {
    /// Overlay with `userxattr`; `lower` is ordered as overlayfs wants it, topmost first.
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf },
    /// A plain directory that already holds everything.
    Directory(PathBuf),
}
