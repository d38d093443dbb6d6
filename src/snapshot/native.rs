//! Root file systems without overlay: the whole tree in a directory of its own. A step's changes are found by two looks
//! at all that stat says, and a directory is handed on to the next step: a row of steps copies the tree once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::copy::Copier;
use super::delta::Stack;
use super::diff::is_same_file;
use super::disk::DiskDelta;
use super::error::{At, Result};
use super::flat;
use super::plan::Plan;
use super::stack::{Snapshot, StackDelta};
use super::stamps::{Change, Stamps};
use super::store::Snapshots;
use super::tree::{Node, Tree};
use super::unpack;
use super::waiting;
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::Limit;

/// A root file system that a step works in. What is not kept of it is undone, and it waits for another step.
pub(super) struct Work {
    snapshots: Snapshots,
    base: Snapshot,
    place: PathBuf,
    root: PathBuf,
    /// How it was before; none once it is kept.
    before: Option<Stamps>,
    limit: Option<Limit>,
    cancel: Cancel,
}

/// Makes the snapshot a root directory, `place/root`: one that a step left, or a fresh one.
pub(super) fn materialise(snapshots: &Snapshots, base: &Snapshot, place: &Path, cancel: &Cancel) -> Result<Work> {
    let root = place.join("root");
    let before = match waiting::take(snapshots, base, place, cancel)? {
        Some(known) => known,
        None => {
            if !unpack_layers(snapshots, base, place, cancel)? {
                copy(snapshots, base, &root, cancel)?;
            }
            None
        }
    };
    let before = match before {
        Some(before) => before,
        None => Stamps::of(&root, cancel).at(&root)?,
    };
    let (snapshots, base, place) = (snapshots.clone(), base.clone(), place.to_owned());
    let limit = before.limit();
    Ok(Work { snapshots, base, place, root, before: Some(before), limit, cancel: cancel.clone() })
}

/// Unpacks an image's layers into the root itself, and brings that to what stands on them. False, with nothing there,
/// where that cannot be done, or is done already: what is unpacked need only be copied.
fn unpack_layers(snapshots: &Snapshots, base: &Snapshot, place: &Path, cancel: &Cancel) -> Result<bool> {
    let mut layers = Vec::new();
    for delta in base.deltas.iter() {
        let StackDelta::Layer(layer) = delta else { break };
        if snapshots.0.folder(delta)?.is_some() {
            return Ok(false);
        }
        layers.push(Arc::clone(layer));
    }
    if layers.is_empty() {
        return Ok(false);
    }
    let image = Snapshot { deltas: base.deltas[..layers.len()].into() };
    let root = &place.join("root");
    let upper = fresh(snapshots, root)?;
    flat::lay_out(snapshots, &layers, writer(&upper), cancel)?;
    settle(&*snapshots.tree(&image), &upper, root).at(root)?;
    if image.len() < base.len() {
        // Now that the layers have been read, it is known what is in them.
        let Some(plan) = Plan::new(snapshots, &image, base, image.len()).at(root)? else {
            waiting::clear(place)?;
            return Ok(false);
        };
        plan.carry_out(snapshots, root, cancel).at(root)?;
    }
    // Whatever could be suspected of a change in the same moment would have to be compared with layers, which nobody
    // unpacks for as little.
    std::thread::sleep(Stamps::TICK);
    Ok(true)
}

fn copy(snapshots: &Snapshots, base: &Snapshot, root: &Path, cancel: &Cancel) -> Result<()> {
    unpack::ensure(snapshots, base, cancel)?;
    let upper = fresh(snapshots, root)?;
    let mut writer = writer(&upper);
    let copied = Copier::new(snapshots.tree(base)).everything(&mut writer, cancel);
    cancel.check()?;
    copied.and_then(|()| writer.finish()).and_then(|()| settle(&*snapshots.tree(base), &upper, root)).at(root)
}

/// An empty root directory.
fn fresh(snapshots: &Snapshots, root: &Path) -> Result<Arc<DiskDelta>> {
    super::active::make_root(root)?;
    Ok(Arc::new(DiskDelta::open(root, snapshots.0.host()?).at(root)?))
}

fn writer(upper: &Arc<DiskDelta>) -> DeltaWriter {
    DeltaWriter::new(Arc::clone(upper) as Arc<_>, Arc::new(Stack::new(Vec::new())))
}

/// What a root directory needs when all is there that the tree has.
pub(super) fn settle(tree: &dyn Tree, upper: &DiskDelta, root: &Path) -> io::Result<()> {
    super::active::open_to_all(upper, tree)?;
    upper.save_owners(root)
}

impl Work {
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What works in here may change files in ways that the kernel tells nobody of.
    pub fn unwatch(&mut self) {
        if let Some(looks) = &mut self.before {
            looks.unwatch();
        }
    }

    /// Writes what changed into `place/fs`, and says how the directory is now.
    pub fn commit(mut self, cancel: &Cancel) -> Result<Option<Stamps>> {
        self.limit = None;
        let mut looks = self.before.take();
        let changes = looks.as_mut().map(|looks| looks.again(&self.root, cancel)).transpose().at(&self.root)?;
        let host = self.snapshots.0.host()?;
        let root = DiskDelta::open(&self.root, host).at(&self.root)?;
        let new: Arc<dyn Tree> = Arc::new(Stack::new(vec![Arc::new(root)]));
        let upper = self.place.join("fs");
        let delta = Arc::new(DiskDelta::open(&upper, host).at(&upper)?);
        delta.imply_root().at(&upper)?;
        let below = self.snapshots.tree(&self.base);
        let mut writer = DeltaWriter::new(Arc::clone(&delta) as Arc<_>, Arc::clone(&below));
        let mut copier = Copier::new(new);
        let written = changes
            .iter()
            .flatten()
            .try_for_each(|change| {
                cancel.check().map_err(io::Error::other)?;
                write(change, &*below, &mut copier, &mut writer)
            })
            .and_then(|()| writer.finish())
            .and_then(|()| delta.save_owners(&upper));
        cancel.check()?;
        written.at(&self.root)?;
        Ok(looks)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // Who was told to stop does not begin to tidy up: the directory goes with its place.
        self.limit = None;
        let Some(mut looks) = self.before.take().filter(|_| !self.cancel.is_cancelled()) else { return };
        let returned = looks
            .again(&self.root, &self.cancel)
            .at(&self.root)
            .and_then(|changes| waiting::give_back(&self.snapshots, &self.base, &changes, &self.place, &self.cancel));
        if let Err(error) = returned {
            tracing::debug!(%error, "a root directory is not kept for another step");
        }
    }
}

fn write(change: &Change, below: &dyn Tree, copier: &mut Copier, writer: &mut DeltaWriter) -> io::Result<()> {
    let tree = Arc::clone(copier.tree());
    match change {
        Change::Gone(path) => writer.remove(path),
        Change::Dir(path) => match tree.lookup(path)? {
            // What was mounted in a directory, and taken away again, has changed nothing but its change time.
            Some(node) if !looks_the_same(below, path, &node)? => writer.make(path, &node.kind, &node.meta),
            _ => Ok(()),
        },
        Change::Leaf(path) => match tree.lookup(path)? {
            Some(node) => copier.leaf(writer, path, path, node),
            None => Ok(()),
        },
        Change::Perhaps(path) => match (below.lookup(path)?, tree.lookup(path)?) {
            (Some(before), Some(now)) if is_same_file(&before, &now, || below.open(path), || tree.open(path))? => {
                Ok(())
            }
            (_, Some(now)) => copier.leaf(writer, path, path, now),
            (_, None) => Ok(()),
        },
    }
}

/// Whether a directory is as the snapshot below has it, whatever happened to it meanwhile.
fn looks_the_same(below: &dyn Tree, dir: &Path, now: &Node) -> io::Result<bool> {
    let before = below.lookup(dir)?;
    Ok(before.is_some_and(|before| (&before.kind, &before.meta) == (&now.kind, &now.meta)))
}
