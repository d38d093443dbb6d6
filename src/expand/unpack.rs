//! All layers of an image into a directory, into a ledger, or both in one pass.

use std::collections::BTreeSet;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::AtFlags;

use super::ledger::Ledger;
use crate::base::Cancel;
use crate::image::Image;
use crate::layer::{self, DirOptions, DirTarget, Entry, Lost, Target};
use crate::store::BlobStore;
use crate::sys::{Kind, Meta, Root};

/// What comes of unpacking.
pub struct Unpacked {
    pub ledger: Ledger,
    pub lost: Lost,
}

/// Changes an entry's metadata on its way to the disk, or keeps the entry from there. Of a hard link it sees the kind of
/// what is linked.
pub type Filter<'a> = &'a dyn Fn(&Path, &Kind, &Meta) -> Option<Meta>;

/// Applies all layers to the directory that is at `root`. The ledger has everything; the disk what the filter lets
/// through.
pub fn to_directory(
    image: &Image,
    blobs: &dyn BlobStore,
    root: &Path,
    options: DirOptions,
    filter: Filter<'_>,
    cancel: &Cancel,
) -> anyhow::Result<Unpacked> {
    let root = Root::open(root).with_context(|| format!("open {}", root.display()))?;
    let mut tee = Tee { ledger: Ledger::default(), disk: DirTarget::new(root, options), filter };
    apply_all(image, blobs, &mut tee, cancel)?;
    let Tee { ledger, disk, .. } = tee;
    Ok(Unpacked { ledger, lost: disk.finish()? })
}

/// A [`Filter`] that lets an ordinary user read again what was unpacked; [`restore_modes`] is its other half.
pub fn readable(_: &Path, kind: &Kind, meta: &Meta) -> Option<Meta> {
    Some(Meta { mode: meta.mode | needed_mode(kind), ..meta.clone() })
}

fn needed_mode(kind: &Kind) -> u32 {
    match kind {
        Kind::Directory => 0o500,
        Kind::File { .. } => 0o400,
        _ => 0,
    }
}

/// Gives what [`readable`] changed the modes of the image.
pub fn restore_modes(ledger: &Ledger, root: &Path) -> anyhow::Result<()> {
    let root = Root::open(root).with_context(|| format!("open {}", root.display()))?;
    let changed: Vec<_> = ledger
        .entries()
        .filter(|(path, node)| !path.as_os_str().is_empty() && needed_mode(&node.kind) & !node.meta.mode != 0)
        .collect();
    // What is inside a directory before the directory, which may be shut afterwards.
    for (path, node) in changed.into_iter().rev() {
        let restore = || {
            let (parent, name) = root.parent(path)?;
            io::Result::Ok(rustix::fs::chmodat(&parent, &name, node.meta.mode.into(), AtFlags::empty())?)
        };
        restore().with_context(|| format!("set the mode of {path:?}"))?;
    }
    Ok(())
}

/// Applies all layers to the directory that is at `root`, as they are.
pub fn plainly(image: &Image, blobs: &dyn BlobStore, root: &Path, cancel: &Cancel) -> anyhow::Result<Lost> {
    let root = Root::open(root).with_context(|| format!("open {}", root.display()))?;
    let mut disk = DirTarget::new(root, DirOptions::default());
    apply_all(image, blobs, &mut disk, cancel)?;
    disk.finish()
}

/// Reads all layers for what they say alone.
pub fn to_ledger(image: &Image, blobs: &dyn BlobStore, cancel: &Cancel) -> anyhow::Result<Survey> {
    let mut survey = Survey::default();
    apply_all(image, blobs, &mut survey, cancel)?;
    Ok(survey)
}

fn apply_all(image: &Image, blobs: &dyn BlobStore, target: &mut dyn Target, cancel: &Cancel) -> anyhow::Result<()> {
    for (index, layer) in image.layers.iter().enumerate() {
        let mut apply = || {
            let mut blob = blobs.open(&layer.descriptor.digest)?;
            match layer.is_plain() {
                true => layer::apply_plain(&mut blob, target, cancel)?,
                false => drop(layer::apply(&mut blob, Some(&layer.diff_id), target, cancel)?),
            }
            anyhow::Ok(blob.finish()?)
        };
        apply().with_context(|| {
            format!("unpack layer {} of {} ({})", index + 1, image.layers.len(), layer.descriptor.digest)
        })?;
    }
    Ok(())
}

struct Tee<'a> {
    ledger: Ledger,
    disk: DirTarget,
    filter: Filter<'a>,
}

impl Target for Tee<'_> {
    fn start(&mut self) -> anyhow::Result<()> {
        self.disk.start()?;
        self.ledger.start()
    }

    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        // Places, not names: a symlink on the way may be one that the filter kept from the disk.
        let path = self.ledger.place(&entry.path)?;
        let kind = match &entry.kind {
            Kind::Hardlink { target } => Kind::Hardlink { target: self.ledger.place(target)? },
            kind => kind.clone(),
        };
        let linked = match &kind {
            Kind::Hardlink { target } => self.ledger.get(target).map(|node| &node.kind),
            _ => None,
        };
        if let Some(meta) = (self.filter)(&path, linked.unwrap_or(&kind), &entry.meta) {
            self.disk.entry(&Entry { path, kind, meta }, data)?;
        }
        self.ledger.entry(entry, &mut io::empty())
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = self.ledger.place(path)?;
        self.disk.whiteout(&path)?;
        self.ledger.whiteout(&path)
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        let dir = self.ledger.resolve(dir, true)?;
        self.disk.opaque(&dir)?;
        self.ledger.opaque(&dir)
    }
}

/// A ledger that remembers which names ever were the source of a hard link: who wants the link alone needs them.
#[derive(Default)]
pub struct Survey {
    pub ledger: Ledger,
    sources: Vec<(PathBuf, u64)>,
}

impl Survey {
    /// The names that must be unpacked for these paths to be complete.
    pub fn with_sources(&self, wanted: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let files: BTreeSet<u64> =
            wanted.iter().filter_map(|path| self.ledger.get(path)).map(|node| node.file).collect();
        let sources = self.sources.iter().filter(|(_, file)| files.contains(file)).map(|(path, _)| path.clone());
        wanted.iter().cloned().chain(sources).collect()
    }
}

impl Target for Survey {
    fn start(&mut self) -> anyhow::Result<()> {
        self.ledger.start()
    }

    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        if let Kind::Hardlink { target } = &entry.kind {
            let source = self.ledger.place(target)?;
            if let Some(node) = self.ledger.get(&source) {
                self.sources.push((source, node.file));
            }
        }
        self.ledger.entry(entry, data)
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        self.ledger.whiteout(path)
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        self.ledger.opaque(dir)
    }
}
