//! A directory of a tree as a tree of its own.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::tree::{FileData, Node, Tree};

/// What is below a directory. Symlinks that lead out of it stay what they are: text.
pub struct Subtree<'a> {
    pub tree: &'a dyn Tree,
    /// Normalised, and no symlink in it: [`super::resolve`] it first.
    pub dir: PathBuf,
}

impl Tree for Subtree<'_> {
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>> {
        self.tree.lookup(&self.below(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        self.tree.read_dir(&self.below(path))
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.tree.open(&self.below(path))
    }
}

impl Subtree<'_> {
    fn below(&self, path: &Path) -> PathBuf {
        // Joining the empty path would leave a slash at the end.
        if path.as_os_str().is_empty() { self.dir.clone() } else { self.dir.join(path) }
    }
}
