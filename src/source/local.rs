//! A build context on this machine, read in place.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::base::{Cancel, Digest};
use crate::snapshot::{FileData, Node, Tree};

/// Which part of a directory is the context, as LLB's local source has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalOptions {
    /// Patterns of what is in it; empty for everything.
    pub include: Vec<String>,
    /// Patterns of what is not (`.dockerignore`).
    pub exclude: Vec<String>,
    /// Paths that are in it with what their symlinks lead to; empty for everything.
    pub follow: Vec<String>,
    /// Where digests of files are remembered between runs; none to remember nothing.
    pub cache: Option<PathBuf>,
}

/// A directory of the host as a tree: nothing is copied.
pub struct LocalContext {}

impl LocalContext {
    pub fn open(_dir: &Path, _options: LocalOptions) -> io::Result<Self> {
        todo!()
    }

    /// Changes whenever a file of the context changes, by one walk that reads no file: names, types, modes, sizes,
    /// times and inodes.
    pub fn identity(&self, _cancel: &Cancel) -> io::Result<Digest> {
        todo!()
    }

    /// The digest of a regular file's bytes, remembered for as long as its stat stays the same.
    pub fn file_digest(&self, _path: &Path) -> io::Result<Digest> {
        todo!()
    }

    /// For a path that is not in the tree: the exclude pattern that hides it, if one does and the host has it.
    pub fn hidden_by(&self, _path: &Path) -> Option<String> {
        todo!()
    }
}

impl Tree for LocalContext {
    fn lookup(&self, _path: &Path) -> io::Result<Option<Node>> {
        todo!()
    }

    fn read_dir(&self, _path: &Path) -> io::Result<Vec<OsString>> {
        todo!()
    }

    fn open(&self, _path: &Path) -> io::Result<FileData> {
        todo!()
    }
}
