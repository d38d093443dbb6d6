//! File system states as stacks of deltas. A delta is a directory in overlayfs's own format (whiteout = character
//! device 0:0, opaque = `user.overlay.opaque`), or a layer blob that nobody had to look into yet.
//!
//! Everything that looks at a file's owner, mode or type asks here, because on a host that refuses chown or mknod
//! the truth lives in the owner store beside the file.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;

use crate::sys::{Kind, Meta};

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub meta: Meta,
    /// Equal for two names of one file in one tree; none where the tree cannot say.
    pub inode: Option<(u64, u64)>,
}

/// A read-only look at a file system state, mounted or not: a stack of deltas, a layer's index, a build context.
///
/// Paths are relative and normalised, and name the entry itself: no symlink in them is followed. What follows
/// symlinks does so by asking again, so that every tree gives the same answer.
pub trait Tree: Send + Sync {
    /// The entry at a path; the empty path is the root directory. None where nothing is.
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>>;

    /// Names in a directory, sorted bytewise.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// The bytes of a regular file.
    fn open(&self, path: &Path) -> io::Result<FileData>;
}

/// A file's content: a descriptor where there is one (so that it can be cloned or copied in the kernel), else a stream.
pub enum FileData {
    File(std::fs::File),
    Stream(Box<dyn Read + Send>),
}
