//! Looking at a file system state without mounting it.

use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

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

impl Read for FileData {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }
}

/// Resolves the symlinks in a path, as a process with this tree for its root would: `..` stops at the root,
/// absolute targets start there. The last name is followed only when asked. Names that do not exist stay as they
/// are, so the answer may name nothing.
pub fn resolve(_tree: &dyn Tree, _path: &Path, _follow_last: bool) -> io::Result<PathBuf> {
    todo!()
}

/// The content of a small file (`/etc/passwd`), symlinks followed; none where no regular file is, an error when it
/// is longer than the limit.
pub fn read_small(_tree: &dyn Tree, _path: &Path, _limit: u64) -> io::Result<Option<Vec<u8>>> {
    todo!()
}
