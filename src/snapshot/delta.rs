//! One delta, looked at and written, whatever it is made of; and deltas on top of each other as one tree.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::tree::{FileData, Node, Tree};
use crate::sys::{Kind, Meta, Mtime};

/// What one delta says about a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Answer {
    /// The entry, where the delta has one.
    pub node: Option<Node>,
    /// Nothing below counts: a whiteout, an opaque directory or something that is no directory is in the way.
    pub alone: bool,
}

/// A name in a delta's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Entry(OsString),
    Whiteout(OsString),
}

/// A delta to look at.
pub(super) trait Delta: Send + Sync {
    fn find(&self, path: &Path) -> io::Result<Answer>;

    /// What the delta has in a directory of its own, in any order.
    fn names(&self, dir: &Path) -> io::Result<Vec<Name>>;

    fn open(&self, path: &Path) -> io::Result<FileData>;
}

/// Content on its way into a delta.
pub(super) enum Data<'a> {
    File(&'a std::fs::File),
    Read(&'a mut dyn Read),
}

/// A delta to write. It does what it is told in its own folder; what that means over lower layers is
/// [`super::DeltaWriter`]'s to know. Parents exist when these are called. A file, a special file and a link take the place of
/// whatever the delta has there, a whiteout too; nearly always that is nothing, and nobody looks first.
pub(super) trait Upper: Delta {
    /// A directory; its metadata comes with [`Upper::set_meta`] when nothing more is made in it. Fails with `AlreadyExists`
    /// where anything is in its place.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// A regular file of `size` bytes.
    fn make_file(&self, path: &Path, meta: &Meta, size: u64, data: Data<'_>) -> io::Result<()>;

    /// A symlink, device, fifo or socket.
    fn make_special(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()>;

    fn link(&self, existing: &Path, new: &Path) -> io::Result<()>;

    fn set_meta(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()>;

    fn set_opaque(&self, dir: &Path) -> io::Result<()>;

    fn whiteout(&self, path: &Path) -> io::Result<()>;

    /// Removes an entry or whiteout of this delta with all below it. Ok when nothing was there.
    fn remove(&self, path: &Path) -> io::Result<()>;
}

/// Deltas on top of each other, or on top of a tree.
pub(super) struct Stack {
    /// Topmost first.
    deltas: Vec<Arc<dyn Delta>>,
    below: Option<Arc<dyn Tree>>,
}

/// What `/` is where no layer says so.
pub(super) fn default_root() -> Node {
    let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: Mtime::default(), xattrs: BTreeMap::new() };
    Node { kind: Kind::Directory, meta, inode: None }
}

impl Stack {
    pub fn new(deltas: Vec<Arc<dyn Delta>>) -> Self {
        Self { deltas, below: None }
    }

    pub fn over(top: Arc<dyn Delta>, below: Arc<dyn Tree>) -> Self {
        Self { deltas: vec![top], below: Some(below) }
    }
}

impl Tree for Stack {
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>> {
        for delta in &self.deltas {
            let answer = delta.find(path)?;
            if answer.node.is_some() {
                return Ok(answer.node);
            }
            if answer.alone {
                return Ok(None);
            }
        }
        match &self.below {
            Some(tree) => tree.lookup(path),
            None if path.as_os_str().is_empty() => Ok(Some(default_root())),
            None => Ok(None),
        }
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        // The root of a stack is always there.
        let mut found = path.as_os_str().is_empty();
        let mut alone = false;
        for delta in &self.deltas {
            let answer = delta.find(path)?;
            let has_names = match answer.node {
                Some(node) if node.is_dir() => true,
                Some(_) if !found => return Err(io::ErrorKind::NotADirectory.into()),
                Some(_) => false,
                // A root whose metadata is another layer's has names all the same.
                None => path.as_os_str().is_empty(),
            };
            if has_names {
                found = true;
                for name in delta.names(path)? {
                    match name {
                        Name::Entry(name) => names.entry(name).or_insert(true),
                        Name::Whiteout(name) => names.entry(name).or_insert(false),
                    };
                }
            }
            if answer.alone {
                alone = true;
                break;
            }
        }
        if let (Some(below), false) = (&self.below, alone) {
            match below.lookup(path)? {
                Some(node) if node.is_dir() => {
                    found = true;
                    for name in below.read_dir(path)? {
                        names.entry(name).or_insert(true);
                    }
                }
                Some(_) if !found => return Err(io::ErrorKind::NotADirectory.into()),
                Some(_) | None => {}
            }
        }
        if !found {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(names.into_iter().filter_map(|(name, present)| present.then_some(name)).collect())
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        for delta in &self.deltas {
            let answer = delta.find(path)?;
            if answer.node.is_some() {
                return delta.open(path);
            }
            if answer.alone {
                return Err(io::ErrorKind::NotFound.into());
            }
        }
        match &self.below {
            Some(tree) => tree.open(path),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}
