//! Image layers, looked into as late and as little as possible: unpacked for a mount, read through for a look,
//! untouched otherwise.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};

use super::delta::{Answer, Delta, Name, Stack};
use super::disk::DiskDelta;
use super::error::{At, Error, Result};
use super::folder::{Folder, Top};
use super::index;
use super::memory::{Keep, MemoryDelta};
use super::stack::{DeltaId, ImageLayer, Snapshot, StackDelta};
use super::store::Snapshots;
use super::tree::FileData;
use super::writer::DeltaWriter;
use crate::base::{Cancel, ChainId};
use crate::layer::{self, Target};
use crate::store::lock::FileLock;

/// The folder of a delta. Layers must be unpacked.
pub(super) fn folder(snapshots: &Snapshots, delta: &StackDelta) -> Result<Arc<Folder>> {
    snapshots.0.folder(delta)?.ok_or_else(|| Error::MissingDelta { id: delta.id() })
}

/// Unpacks every layer of a snapshot that is not, several at a time.
pub(super) fn ensure(snapshots: &Snapshots, snapshot: &Snapshot, cancel: &Cancel) -> Result<()> {
    let mut missing: Vec<Arc<ImageLayer>> = Vec::new();
    for delta in snapshot.deltas.iter() {
        match delta {
            _ if snapshots.0.folder(delta)?.is_some() => {}
            StackDelta::Made(id) => return Err(Error::MissingDelta { id: id.clone() }),
            StackDelta::Layer(layer) if missing.iter().all(|l| l.chain != layer.chain) => {
                missing.push(Arc::clone(layer));
            }
            StackDelta::Layer(_) => {}
        }
    }
    match &*missing {
        [] => Ok(()),
        [one] => unpack(snapshots, one, None, cancel),
        _ => together(snapshots, &missing, cancel),
    }
}

/// Unpacks layers side by side. One that must know what is below waits until that is unpacked; most never ask, since
/// builders write the folders of a file into its layer.
fn together(snapshots: &Snapshots, missing: &[Arc<ImageLayer>], cancel: &Cancel) -> Result<()> {
    let gates: Gates = Arc::new(missing.iter().map(|layer| (layer.chain, Gate::default())).collect());
    let next = Mutex::new(missing.iter());
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    // Lowest first: whoever waits, waits for one that is at work or done.
                    loop {
                        let taken = next.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some(layer) = taken else { return Ok(()) };
                        let done = unpack(snapshots, layer, Some(&gates), cancel);
                        gates[&layer.chain].open(done.is_ok());
                        done?;
                    }
                })
            })
            .collect();
        let failed: Vec<Error> =
            workers.into_iter().filter_map(|worker| worker.join().unwrap_or_else(|_| Err(panicked())).err()).collect();
        // A worker that waited in vain only says so; the one it waited for knows why.
        let (in_vain, why): (Vec<_>, Vec<_>) = failed.into_iter().partition(waited_in_vain);
        why.into_iter().chain(in_vain).next().map_or(Ok(()), Err)
    })
}

fn panicked() -> Error {
    Error::Io { path: PathBuf::from("unpacking"), source: io::Error::other("a thread panicked") }
}

const IN_VAIN: &str = "a layer below could not be unpacked";

fn waited_in_vain(error: &Error) -> bool {
    matches!(error, Error::Layer { cause, .. } if cause.chain().any(|cause| cause.to_string() == IN_VAIN))
}

type Gates = Arc<HashMap<ChainId, Gate>>;

/// Opens when a layer is unpacked, or never will be.
#[derive(Default)]
struct Gate {
    done: Mutex<Option<bool>>,
    changed: Condvar,
}

impl Gate {
    fn open(&self, ok: bool) {
        *self.done.lock().unwrap_or_else(PoisonError::into_inner) = Some(ok);
        self.changed.notify_all();
    }

    fn wait(&self) -> io::Result<()> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let done = self.changed.wait_while(done, |done| done.is_none()).unwrap_or_else(PoisonError::into_inner);
        match *done {
            Some(true) => Ok(()),
            _ => Err(io::Error::other(IN_VAIN)),
        }
    }
}

/// Unpacks one layer, or waits for the process that does.
fn unpack(snapshots: &Snapshots, layer: &Arc<ImageLayer>, gates: Option<&Gates>, cancel: &Cancel) -> Result<()> {
    let inner = &snapshots.0;
    let hex = layer.chain.0.hex();
    let lock = FileLock::exclusive(&inner.dir.join("locks").join(&hex), cancel)?;
    if inner.unpacked_dir(layer)?.is_none() {
        let mut active = snapshots.prepare(&Snapshot::scratch())?;
        apply(snapshots, layer, active.writer_over(Arc::new(below(snapshots, layer, gates)))?, cancel)?;
        active.commit_as(&DeltaId(hex), cancel)?;
        inner.unpacked.fetch_add(1, Ordering::Relaxed);
    }
    Ok(lock.remove()?)
}

/// What is below a layer in its image.
fn below(snapshots: &Snapshots, layer: &ImageLayer, gates: Option<&Gates>) -> Stack {
    let mut deltas: Vec<Arc<dyn Delta>> = Vec::new();
    let mut next = &layer.below;
    while let Some(layer) = next {
        let mut lazy = LazyLayer::of_image(snapshots.clone(), Arc::clone(layer));
        lazy.gates = gates.filter(|gates| gates.contains_key(&layer.chain)).cloned();
        deltas.push(Arc::new(lazy));
        next = &layer.below;
    }
    Stack::new(deltas)
}

fn apply(snapshots: &Snapshots, layer: &ImageLayer, target: &mut dyn Target, cancel: &Cancel) -> Result<()> {
    let digest = layer.blob.descriptor.digest;
    let mut stored = snapshots.0.blobs.open(&digest)?;
    let input: &mut (dyn Read + Send) = &mut *stored;
    let applied = match layer.blob.is_plain() {
        true => layer::apply_plain(input, target, cancel),
        false => layer::apply(input, Some(&layer.blob.diff_id), target, cancel).map(drop),
    };
    match applied {
        Ok(()) => Ok(stored.finish()?),
        Err(error) => {
            cancel.check()?;
            Err(Error::Layer { digest, cause: error.into() })
        }
    }
}

/// A delta that is opened when somebody asks: a folder where it is unpacked, else the layer's table of contents.
pub(super) struct LazyLayer {
    snapshots: Snapshots,
    what: StackDelta,
    /// The layers that are being unpacked now: wait for them, rather than read them twice.
    gates: Option<Gates>,
    folder: OnceLock<Arc<Folder>>,
    opened: OnceLock<Opened>,
    unpacked: OnceLock<DiskDelta>,
}

enum Opened {
    Folder(DiskDelta),
    Table(MemoryDelta),
}

impl LazyLayer {
    pub fn of_image(snapshots: Snapshots, layer: Arc<ImageLayer>) -> Self {
        Self::new(snapshots, StackDelta::Layer(layer))
    }

    pub fn of_delta(snapshots: Snapshots, id: DeltaId) -> Self {
        Self::new(snapshots, StackDelta::Made(id))
    }

    fn new(snapshots: Snapshots, what: StackDelta) -> Self {
        Self {
            snapshots,
            what,
            gates: None,
            folder: OnceLock::new(),
            opened: OnceLock::new(),
            unpacked: OnceLock::new(),
        }
    }

    /// The delta's folder; none for a layer that is not unpacked.
    fn folder(&self) -> Result<Option<&Arc<Folder>>> {
        if let Some(folder) = self.folder.get() {
            return Ok(Some(folder));
        }
        let inner = &self.snapshots.0;
        if let (StackDelta::Layer(layer), Some(gates)) = (&self.what, &self.gates) {
            gates[&layer.chain].wait().at(&inner.dir)?;
        }
        match (inner.folder(&self.what)?, &self.what) {
            (None, StackDelta::Made(id)) => Err(Error::MissingDelta { id: id.clone() }),
            (folder, _) => Ok(folder.map(|folder| self.folder.get_or_init(|| folder))),
        }
    }

    fn opened(&self) -> io::Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = self.open_now().map_err(into_io)?;
        Ok(self.opened.get_or_init(|| opened))
    }

    fn open_now(&self) -> Result<Opened> {
        match (self.folder()?, &self.what) {
            (Some(folder), _) => Ok(Opened::Folder(self.open_folder(folder)?)),
            (None, StackDelta::Layer(layer)) => Ok(Opened::Table(table(&self.snapshots, layer)?)),
            (None, StackDelta::Made(id)) => Err(Error::MissingDelta { id: id.clone() }),
        }
    }

    fn open_folder(&self, folder: &Folder) -> Result<DiskDelta> {
        match self.snapshots.0.open_delta(&folder.path) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Err(Error::MissingDelta { id: self.what.id() })
            }
            other => other,
        }
    }

    /// Whether the delta says nothing of a path for certain, by what is remembered of its folder.
    fn is_silent(&self, path: &Path) -> io::Result<bool> {
        if path.as_os_str().is_empty() || matches!(self.opened.get(), Some(Opened::Table(_))) {
            return Ok(false);
        }
        let Some(folder) = self.folder().map_err(into_io)? else { return Ok(false) };
        if let Some(top) = folder.top.get() {
            return Ok(!top.may_have(path));
        }
        let Opened::Folder(delta) = self.opened()? else { return Ok(false) };
        let top = Top::of(delta)?;
        Ok(!folder.top.get_or_init(|| top).may_have(path))
    }

    fn delta(&self) -> io::Result<&dyn Delta> {
        Ok(match self.opened()? {
            Opened::Folder(delta) => delta,
            Opened::Table(table) => table,
        })
    }

    /// The layer as a folder, whatever that takes.
    fn unpacked(&self) -> Result<&DiskDelta> {
        if let Some(delta) = self.unpacked.get() {
            return Ok(delta);
        }
        if let StackDelta::Layer(layer) = &self.what {
            unpack(&self.snapshots, layer, None, &Cancel::new())?;
        }
        let delta = self.open_folder(&*folder(&self.snapshots, &self.what)?)?;
        Ok(self.unpacked.get_or_init(|| delta))
    }
}

fn into_io(error: Error) -> io::Error {
    match error {
        Error::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// The layer's table of contents: from its file, else by reading the layer through once.
fn table(snapshots: &Snapshots, layer: &Arc<ImageLayer>) -> Result<MemoryDelta> {
    let inner = &snapshots.0;
    let path = inner.dir.join("indexes").join(layer.chain.0.hex());
    let device = u64::from_le_bytes(*layer.chain.0.as_bytes().first_chunk().unwrap_or(&[0; 8]));
    if let Some(table) = index::read(&path, device).at(&path)? {
        return Ok(table);
    }
    let table = Arc::new(MemoryDelta::new(device, Keep::Users));
    let mut writer = DeltaWriter::new(Arc::clone(&table) as Arc<_>, Arc::new(below(snapshots, layer, None)));
    apply(snapshots, layer, &mut writer, &Cancel::new())?;
    writer.finish().at(&path)?;
    drop(writer);
    inner.write_file(&path, &index::encode(&table))?;
    inner.indexed.fetch_add(1, Ordering::Relaxed);
    Arc::try_unwrap(table).map_err(|_| panicked())
}

impl Delta for LazyLayer {
    fn find(&self, path: &Path) -> io::Result<Answer> {
        if self.is_silent(path)? {
            return Ok(Answer::default());
        }
        self.delta()?.find(path)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<Name>> {
        self.delta()?.names(dir)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        match self.delta()?.open(path) {
            // A table knows only names: content is wanted, so the layer is unpacked after all.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => self.unpacked().map_err(into_io)?.open(path),
            other => other,
        }
    }
}
