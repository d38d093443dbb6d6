//! What one file system state has over another, found by looking at both.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::copy::Copier;
use super::error::{At, Result};
use super::stack::Snapshot;
use super::store::Snapshots;
use super::tree::{FileData, Node, Tree};
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::Kind;

/// The difference as one delta, which stands for itself: the layers below it are not in the result.
pub(super) fn diff(snapshots: &Snapshots, lower: &Snapshot, upper: &Snapshot, cancel: &Cancel) -> Result<Snapshot> {
    let (old, new) = (snapshots.tree(lower), snapshots.tree(upper));
    let mut active = snapshots.prepare(lower)?;
    let writer = active.writer()?;
    let mut walk = Walk { copier: Copier::new(Arc::clone(&new)), old: &*old, new: &*new, writer, cancel };
    walk.dir(Path::new("")).at(Path::new("/"))?;
    let whole = active.commit(cancel)?;
    Ok(Snapshot { deltas: whole.deltas[lower.len()..].into() })
}

struct Walk<'a> {
    copier: Copier,
    old: &'a dyn Tree,
    new: &'a dyn Tree,
    writer: &'a mut DeltaWriter,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    fn dir(&mut self, path: &Path) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let (old, new) = (self.old.read_dir(path)?, self.new.read_dir(path)?);
        let names: BTreeSet<OsString> = old.into_iter().chain(new).collect();
        for name in names {
            let path = path.join(name);
            let (old, new) = (self.old.lookup(&path)?, self.new.lookup(&path)?);
            match (old, new) {
                (_, None) => self.writer.remove(&path)?,
                (Some(old), Some(new)) if old.is_dir() && new.is_dir() => {
                    if !same_meta(&old, &new) {
                        self.writer.make(&path, &Kind::Directory, &new.meta)?;
                    }
                    self.dir(&path)?;
                }
                (Some(old), Some(new)) if same(&old, &new, || self.old.open(&path), || self.new.open(&path))? => {}
                (old, Some(new)) => {
                    if old.is_some_and(|old| old.is_dir() != new.is_dir()) {
                        self.writer.remove(&path)?;
                    }
                    self.copier.entry(self.writer, &path, &path, new)?;
                }
            }
        }
        Ok(())
    }
}

fn same_meta(a: &Node, b: &Node) -> bool {
    (a.meta.mode, a.meta.uid, a.meta.gid, &a.meta.xattrs) == (b.meta.mode, b.meta.uid, b.meta.gid, &b.meta.xattrs)
}

/// Whether two entries would make the same layer. Contents are read only where the times may have been cut to whole
/// seconds by an archive, and so prove nothing.
pub(super) fn same(
    a: &Node,
    b: &Node,
    open_a: impl FnOnce() -> io::Result<FileData>,
    open_b: impl FnOnce() -> io::Result<FileData>,
) -> io::Result<bool> {
    if a.kind != b.kind || !same_meta(a, b) {
        return Ok(false);
    }
    match a.kind {
        // A directory's time says that something was made or removed in it, which is told by that.
        Kind::Directory => Ok(true),
        // A fifo's says that something went through it.
        Kind::Fifo => Ok(true),
        _ if a.meta.mtime != b.meta.mtime => Ok(false),
        Kind::File { size } if size > 0 && a.meta.mtime.nanos == 0 => same_bytes(open_a()?, open_b()?),
        _ => Ok(true),
    }
}

/// Whether two entries that are no directories are equal in all that a layer holds; contents are read.
pub(super) fn is_same_file(
    a: &Node,
    b: &Node,
    open_a: impl FnOnce() -> io::Result<FileData>,
    open_b: impl FnOnce() -> io::Result<FileData>,
) -> io::Result<bool> {
    if (&a.kind, &a.meta) != (&b.kind, &b.meta) {
        return Ok(false);
    }
    match a.kind {
        Kind::File { size } if size > 0 => same_bytes(open_a()?, open_b()?),
        _ => Ok(true),
    }
}

fn same_bytes(mut a: impl Read, mut b: impl Read) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let (m, n) = (fill(&mut a, &mut left)?, fill(&mut b, &mut right)?);
        if left[..m] != right[..n] {
            return Ok(false);
        }
        if m == 0 {
            return Ok(true);
        }
    }
}

fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(n) => len += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}
