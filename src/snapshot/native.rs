//! Root file systems without overlay: the whole tree in a directory of its own. A step's changes are found by
//! comparing inode numbers and change times before and after, and a directory is handed on to the next step, so
//! that a row of steps copies the tree once.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::Copier;
use super::delta::Stack;
use super::disk::DiskDelta;
use super::error::{At, Result};
use super::stack::Snapshot;
use super::store::Snapshots;
use super::tree::{Node, Tree};
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::Kind;

/// A root file system that a step works in, and how it was before.
pub(super) struct Work {
    root: PathBuf,
    before: Stamps,
}

/// Every path's inode number and change time: whatever is done to a file, by a name of its own or another, changes one.
type Stamps = HashMap<PathBuf, Stamp>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    changed: (i64, i64),
    is_dir: bool,
}

/// Lays the snapshot out in `place/root`: takes the directory that its last step left, or copies.
pub(super) fn materialise(snapshots: &Snapshots, base: &Snapshot, place: &Path, cancel: &Cancel) -> Result<Work> {
    let root = place.join("root");
    let left = snapshots.0.dir.join("roots").join(base.identity().hex());
    match fs::rename(&left, place.join("left")) {
        Ok(()) => {
            // The directory and its owner table travel together.
            for name in ["root", "root.owners"] {
                match fs::rename(place.join("left").join(name), place.join(name)) {
                    Err(error) if name == "root" || error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).at(&left);
                    }
                    _ => {}
                }
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            super::active::make_root(&root)?;
            let upper = Arc::new(DiskDelta::open(&root, snapshots.0.host).at(&root)?);
            let mut writer = DeltaWriter::new(Arc::clone(&upper) as Arc<_>, Arc::new(Stack::new(Vec::new())));
            let copied = Copier::new(snapshots.tree(base)).everything(&mut writer, cancel);
            cancel.check()?;
            copied
                .and_then(|()| writer.finish())
                .and_then(|()| super::active::open_to_all(&upper, &*snapshots.tree(base)))
                .and_then(|()| upper.save_owners(&root))
                .at(&root)?;
        }
        Err(error) => return Err(error).at(&left),
    }
    let before = stamps(&root).at(&root)?;
    Ok(Work { root, before })
}

/// Keeps the directory for a step on top of this snapshot.
pub(super) fn leave_root(snapshots: &Snapshots, made: &Snapshot, place: &Path) -> Result<()> {
    let from = place.join("root");
    if !from.exists() {
        return Ok(());
    }
    let left = place.join("left");
    fs::create_dir_all(&left).at(&left)?;
    for name in ["root", "root.owners"] {
        match fs::rename(place.join(name), left.join(name)) {
            Err(error) if name == "root" || error.kind() != io::ErrorKind::NotFound => return Err(error).at(&left),
            _ => {}
        }
    }
    let roots = snapshots.0.dir.join("roots");
    fs::create_dir_all(&roots).at(&roots)?;
    let to = roots.join(made.identity().hex());
    fs::rename(&left, &to).at(&to)
}

impl Work {
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Writes what changed into `place/fs`.
    pub fn commit(self, snapshots: &Snapshots, base: &Snapshot, place: &Path, cancel: &Cancel) -> Result<()> {
        let after = stamps(&self.root).at(&self.root)?;
        let host = snapshots.0.host;
        let root = DiskDelta::open(&self.root, host).at(&self.root)?;
        let new: Arc<dyn Tree> = Arc::new(Stack::new(vec![Arc::new(root)]));
        let upper = place.join("fs");
        let delta = Arc::new(DiskDelta::open(&upper, host).at(&upper)?);
        delta.imply_root().at(&upper)?;
        let below = snapshots.tree(base);
        let mut writer = DeltaWriter::new(Arc::clone(&delta) as Arc<_>, Arc::clone(&below));
        let mut copier = Copier::new(new);
        let mut walk =
            Walk { work: &self, base: below.as_ref(), after: &after, copier: &mut copier, writer: &mut writer, cancel };
        let walked = walk.dir(Path::new("")).and_then(|()| writer.finish()).and_then(|()| delta.save_owners(&upper));
        cancel.check()?;
        walked.at(&self.root)
    }
}

struct Walk<'a> {
    work: &'a Work,
    base: &'a dyn Tree,
    after: &'a Stamps,
    copier: &'a mut Copier,
    writer: &'a mut DeltaWriter,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    /// Goes through a directory that is there now.
    fn dir(&mut self, dir: &Path) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let tree = Arc::clone(self.copier.tree());
        if self.work.before.get(dir) != self.after.get(dir)
            && let Some(node) = tree.lookup(dir)?
        {
            // What was mounted in a directory, and taken away again, has changed nothing but its change time.
            if !self.looks_the_same(dir, &node)? {
                self.writer.make(dir, &node.kind, &node.meta)?;
            }
            for name in self.gone(dir) {
                self.writer.remove(&dir.join(name))?;
            }
        }
        for name in tree.read_dir(dir)? {
            let path = dir.join(name);
            let (before, after) = (self.work.before.get(&path), self.after.get(&path));
            let Some(after) = after else { continue };
            if after.is_dir {
                if before.is_some_and(|before| !before.is_dir) {
                    self.writer.remove(&path)?;
                }
                self.dir(&path)?;
            } else if before != Some(after)
                && let Some(node) = tree.lookup(&path)?
            {
                debug_assert!(node.kind != Kind::Directory);
                self.copier.leaf(self.writer, &path, &path, node)?;
            }
        }
        Ok(())
    }

    /// Whether a directory is as the snapshot below has it, whatever happened to it meanwhile.
    fn looks_the_same(&self, dir: &Path, now: &Node) -> io::Result<bool> {
        let below = self.base.lookup(dir)?;
        Ok(below.is_some_and(|before| (&before.kind, &before.meta) == (&now.kind, &now.meta)))
    }

    /// Names that were in a directory and are not. Asked only of directories that changed, and a base has few of those.
    fn gone(&self, dir: &Path) -> Vec<OsString> {
        let mut gone: Vec<OsString> = self
            .work
            .before
            .keys()
            .filter(|path| path.parent() == Some(dir) && !self.after.contains_key(*path))
            .filter_map(|path| path.file_name().map(OsString::from))
            .collect();
        gone.sort();
        gone
    }
}

/// Walks a directory of ours; symlinks are not followed.
fn stamps(root: &Path) -> io::Result<Stamps> {
    fn walk(dir: &Path, path: &Path, stamps: &mut Stamps) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            let path = path.join(entry.file_name());
            stamps.insert(path.clone(), stamp(&meta));
            if meta.is_dir() {
                walk(&entry.path(), &path, stamps)?;
            }
        }
        Ok(())
    }
    let mut stamps = HashMap::from([(PathBuf::new(), stamp(&fs::symlink_metadata(root)?))]);
    walk(root, Path::new(""), &mut stamps)?;
    Ok(stamps)
}

fn stamp(meta: &fs::Metadata) -> Stamp {
    Stamp { inode: meta.ino(), changed: (meta.ctime(), meta.ctime_nsec()), is_dir: meta.is_dir() }
}
