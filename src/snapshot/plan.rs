//! What makes a root directory that holds one snapshot another's: which paths are removed, which are copied, and which
//! directories get other metadata. Nothing is looked at but what deltas name, or a step changed.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::Copier;
use super::delta::{Delta, Name, Stack};
use super::diff::is_same_file;
use super::disk::DiskDelta;
use super::native;
use super::stack::{Snapshot, StackDelta};
use super::stamps::Change;
use super::store::Snapshots;
use super::tree::{Node, Tree};
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::{Root, meta};

/// What makes one snapshot's directory another's.
pub(super) struct Plan {
    tree: Arc<dyn Tree>,
    /// Removed, with all below.
    gone: Vec<PathBuf>,
    /// Copied, with all below.
    made: Vec<(PathBuf, Node)>,
    /// Directories of both, and whether theirs has attributes that ours has not.
    kept: BTreeMap<PathBuf, (Node, bool)>,
}

impl Plan {
    /// `common`: so many deltas are the same in both, from the bottom. None where it cannot be told, name by name.
    pub fn new(snapshots: &Snapshots, from: &Snapshot, to: &Snapshot, common: usize) -> io::Result<Option<Self>> {
        let own = Stack::new(deltas(snapshots, &to.deltas[common..]));
        let plan = Self::between(snapshots, from, to, common)?;
        Ok(plan.can_be_made(&own)?.then_some(plan))
    }

    /// The same for a delta of its own on top of `from`, where every file is written anew.
    pub fn between(snapshots: &Snapshots, from: &Snapshot, to: &Snapshot, common: usize) -> io::Result<Self> {
        let (theirs, ours) = (&from.deltas[common..], &to.deltas[common..]);
        let (old, tree) = (snapshots.tree(from), snapshots.tree(to));
        let all = [theirs, ours].into_iter().flat_map(|own| deltas(snapshots, own)).collect();
        let mut search = Search { all, old, new: Arc::clone(&tree), plan: Self::nothing(tree) };
        search.dirs()?;
        Ok(search.plan)
    }

    /// Makes a directory, which holds `now`, what it was before this happened to it. None where that cannot be told.
    pub fn to_undo(changes: &[Change], now: &dyn Tree, tree: Arc<dyn Tree>) -> io::Result<Option<Self>> {
        let mut plan = Self::nothing(tree);
        let mut new = HashSet::new();
        for change in changes {
            let (Change::Dir(path) | Change::Leaf(path) | Change::Perhaps(path) | Change::Gone(path)) = change;
            let is_dir = matches!(change, Change::Dir(_));
            if path.parent().is_some_and(|dir| new.contains(dir)) {
                // It goes with the directory that it is in.
                new.extend(is_dir.then(|| path.clone()));
                continue;
            }
            let before = plan.tree.lookup(path)?;
            match (change, before) {
                (Change::Dir(_), Some(before)) if before.is_dir() => {
                    plan.kept.insert(path.clone(), (before, true));
                    continue;
                }
                // What is there instead, if anything is, is told next.
                (Change::Gone(_), before) => plan.made.extend(before.map(|node| (path.clone(), node))),
                (Change::Perhaps(_), Some(before))
                    if let Some(there) = now.lookup(path)?
                        && is_same_file(&before, &there, || plan.tree.open(path), || now.open(path))? =>
                {
                    continue;
                }
                (_, before) => {
                    new.extend(is_dir.then(|| path.clone()));
                    plan.gone.push(path.clone());
                    if plan.made.last().is_none_or(|(made, _)| made != path) {
                        plan.made.extend(before.map(|node| (path.clone(), node)));
                    }
                }
            }
            // Whose own stamp may be as it was, but not once something in it was made anew.
            if let Some(dir) = path.parent()
                && !plan.kept.contains_key(dir)
                && let Some(node) = plan.tree.lookup(dir)?
            {
                plan.kept.insert(dir.to_owned(), (node, false));
            }
        }
        Ok(plan.can_be_made(&Stack::new(Vec::new()))?.then_some(plan))
    }

    fn nothing(tree: Arc<dyn Tree>) -> Self {
        Self { tree, gone: Vec::new(), made: Vec::new(), kept: BTreeMap::new() }
    }

    /// Further names of a file are in its own delta. Where that is none of `own`, which only what is asked for has, they
    /// may be in the directory, untouched, and nobody could link to them without looking at everything.
    fn can_be_made(&self, own: &Stack) -> io::Result<bool> {
        let mut todo: Vec<(PathBuf, Node)> = self.made.clone();
        while let Some((path, node)) = todo.pop() {
            if node.inode.is_some() && own.lookup(&path)?.is_none() {
                return Ok(false);
            }
            if node.is_dir() {
                for name in self.tree.read_dir(&path)? {
                    let path = path.join(name);
                    todo.extend(self.tree.lookup(&path)?.map(|node| (path, node)));
                }
            }
        }
        Ok(true)
    }

    /// Writes it down, in a root directory or as a delta.
    pub fn write(&self, writer: &mut DeltaWriter, cancel: &Cancel) -> io::Result<()> {
        let check = || cancel.check().map_err(io::Error::other);
        for path in &self.gone {
            check()?;
            writer.remove(path)?;
        }
        let mut copier = Copier::new(Arc::clone(&self.tree));
        for (path, node) in &self.made {
            check()?;
            copier.entry(writer, path, path, node.clone())?;
        }
        self.kept.iter().try_for_each(|(path, (node, _))| writer.set_meta(path, &node.meta))
    }

    pub fn carry_out(self, snapshots: &Snapshots, path: &Path, cancel: &Cancel) -> io::Result<()> {
        let upper = Arc::new(DiskDelta::open(path, snapshots.0.host().map_err(io::Error::other)?)?);
        let mut writer = DeltaWriter::new(Arc::clone(&upper) as Arc<_>, Arc::new(Stack::new(Vec::new())));
        let root = Root::open(path)?;
        for (path, _) in self.kept.iter().filter(|(_, (_, has_more))| *has_more) {
            meta::clear_xattrs(root.open_dir(path)?)?;
        }
        self.write(&mut writer, cancel)?;
        writer.finish()?;
        native::settle(&*self.tree, &upper, path)
    }
}

/// The highest first.
fn deltas(snapshots: &Snapshots, all: &[StackDelta]) -> Vec<Arc<dyn Delta>> {
    all.iter().rev().map(|delta| snapshots.delta(delta)).collect()
}

/// Looks at all that is named by deltas that only one of the two has.
struct Search {
    all: Vec<Arc<dyn Delta>>,
    old: Arc<dyn Tree>,
    new: Arc<dyn Tree>,
    plan: Plan,
}

impl Search {
    fn dirs(&mut self) -> io::Result<()> {
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let (old, new) = (self.old.lookup(&dir)?, self.new.lookup(&dir)?);
            match (old, new) {
                (Some(old), Some(new)) if old.is_dir() && new.is_dir() && self.is_merged(&dir)? => {
                    let has_more = old.meta.xattrs.keys().any(|key| !new.meta.xattrs.contains_key(key));
                    self.plan.kept.insert(dir.clone(), (new, has_more));
                    todo.extend(self.names(&dir)?.into_iter().map(|name| dir.join(name)));
                }
                (old, new) => {
                    if old.is_some() {
                        self.plan.gone.push(dir.clone());
                    }
                    self.plan.made.extend(new.map(|new| (dir, new)));
                }
            }
        }
        Ok(())
    }

    /// Whether each delta that has anything there has a directory that shows what is below it.
    fn is_merged(&self, dir: &Path) -> io::Result<bool> {
        for delta in &self.all {
            if delta.find(dir)?.alone {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn names(&self, dir: &Path) -> io::Result<BTreeSet<OsString>> {
        let mut names = BTreeSet::new();
        for delta in &self.all {
            if dir.as_os_str().is_empty() || delta.find(dir)?.node.is_some() {
                names.extend(delta.names(dir)?.into_iter().map(|name| match name {
                    Name::Entry(name) | Name::Whiteout(name) => name,
                }));
            }
        }
        Ok(names)
    }
}
