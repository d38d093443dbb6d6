//! The folder of deltas: what is in it, who uses it, what may go.
//!
//! ```text
//! deltas/ID/fs/       a delta in overlayfs's format; ID is random, or the chain ID of an image's layer
//! deltas/ID/base      the record of the snapshot that it was made on
//! deltas/ID/stored    there when ownership is in the owner store
//! deltas/ID/blob-*    layer blobs that were made of it
//! chains/CHAIN        names the delta that is what this chain ID unpacks to
//! squashed/IDENTITY   names the delta that is all of a snapshot above its base
//! indexes/CHAIN       what a layer holds that was read through and not unpacked
//! roots/IDENTITY/     native driver: a whole root file system that waits for a next step, and what it is
//! active/RANDOM/      work in progress, locked by its process
//! locks/              held while a layer is unpacked
//! meaning             what owners and modes of the files in here mean
//! ```
//!
//! To a process for which they would mean something else (in another user namespace, or with owners kept elsewhere)
//! the folder is as good as empty: it has one of its own beside, whose name ends with its meaning.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::SystemTime;

use super::active::{Active, View, Workplace};
use super::delta::{Delta, Stack};
use super::disk::DiskDelta;
use super::error::{At, Error, Result};
use super::folder::Folder;
use super::host::Host;
use super::plan::Plan;
use super::stack::{DeltaId, Snapshot, StackDelta};
use super::stamps::Stamps;
use super::tree::Tree;
use super::unpack::LazyLayer;
use super::writer::DeltaWriter;
use super::{blob, diff, host};
use crate::base::{Cancel, Digest};
use crate::image::LayerBlob;
use crate::layer::Compression;
use crate::store::{BlobStore, lock::FileLock};
use crate::sys::{owner::Ownership, process, quiet};

/// How a snapshot becomes a root file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Driver {
    /// Overlay mounts, made by the executor.
    Overlay,
    /// A directory of its own, cloned or copied: for where overlay cannot be mounted.
    Native,
}

/// What a layer blob is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerSpec {
    pub compression: Compression,
    pub level: Option<i32>,
    /// Recompress an image's layer even though it exists as it came.
    pub force: bool,
    /// Seconds since 1970 that no mtime in a new layer may pass (`rewrite-timestamp`).
    pub clamp_mtime: Option<i64>,
}

/// All snapshots of one state folder. Cloning shares it; several processes may have it open.
#[derive(Clone)]
pub struct Snapshots(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub dir: PathBuf,
    pub blobs: Arc<dyn BlobStore>,
    driver: OnceLock<Driver>,
    pub ownership: Ownership,
    /// What files that are made here become; none as long as none was made.
    host: OnceLock<Host>,
    swept: Once,
    /// Held as long as this value lives: a prune in another process must not take what is used here.
    in_use: Mutex<Option<FileLock>>,
    /// What root directories looked like that this process has left, by what they are.
    left: Mutex<HashMap<Digest, Stamps>>,
    /// Deltas that this process has found: as long as it uses the folder, nobody takes them away.
    found: Mutex<HashMap<DeltaId, Arc<Folder>>>,
    /// How many layers this process has read through, and unpacked.
    pub indexed: AtomicUsize,
    pub unpacked: AtomicUsize,
}

impl Snapshots {
    /// Opens or makes the folder.
    pub fn open(dir: &Path, blobs: Arc<dyn BlobStore>, driver: Driver) -> Result<Self> {
        let this = Self::open_undecided(dir, blobs, None)?;
        this.decide(driver);
        Ok(this)
    }

    /// As [`Snapshots::open`], for when nobody has had to ask the machine yet what it can mount. Until
    /// [`Snapshots::decide`] says otherwise it is overlay, which only a process in a snapshot would notice. Owners are
    /// kept where `ownership` says, or on disk if that takes them.
    pub fn open_undecided(dir: &Path, blobs: Arc<dyn BlobStore>, ownership: Option<Ownership>) -> Result<Self> {
        fs::create_dir_all(dir).at(dir)?;
        let host = OnceLock::new();
        let real = host::real().at(dir)?;
        let is_real = match ownership {
            Some(ownership) => ownership == Ownership::Real,
            // As whoever made the folder found out, and noted.
            None => process::may_chown() && noted(dir)?.as_ref() == Some(&real),
        };
        let (ownership, meaning) = if is_real {
            (Ownership::Real, real)
        } else {
            let probed = Host::probe(dir, ownership).at(dir)?;
            (probed.ownership, host.get_or_init(|| probed).meaning().at(dir)?)
        };
        let dir = home(dir, &meaning)?;
        let inner = Inner {
            dir: dir.clone(),
            blobs,
            driver: OnceLock::new(),
            ownership,
            host,
            swept: Once::new(),
            in_use: Mutex::default(),
            left: Mutex::default(),
            found: Mutex::default(),
            indexed: AtomicUsize::new(0),
            unpacked: AtomicUsize::new(0),
        };
        for name in ["deltas", "active", "empty"] {
            let path = dir.join(name);
            fs::create_dir_all(&path).at(&path)?;
        }
        let this = Self(Arc::new(inner));
        *this.0.hold() = Some(FileLock::shared(&dir.join("lock"), &Cancel::new())?);
        Ok(this)
    }

    /// Where owners are kept.
    pub fn ownership(&self) -> Ownership {
        self.0.ownership
    }

    /// The folder that all this is in: the one that was asked for, or one beside it.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// How roots of processes are made from now on; the first word counts.
    pub fn decide(&self, driver: Driver) {
        self.0.driver.get_or_init(|| driver);
    }

    /// The record that [`Snapshots::load`] understands in any later process.
    pub fn save(&self, snapshot: &Snapshot) -> String {
        snapshot.record()
    }

    /// None when a delta or a blob of it was pruned since.
    pub fn load(&self, text: &str) -> Result<Option<Snapshot>> {
        let snapshot = Snapshot::from_record(text)?;
        for delta in snapshot.deltas.iter() {
            let here = self.0.folder(delta)?.is_some()
                || match delta {
                    StackDelta::Made(_) => false,
                    StackDelta::Layer(layer) => self.0.blobs.size(&layer.blob.descriptor.digest)?.is_some(),
                };
            if !here {
                return Ok(None);
            }
        }
        Ok(Some(snapshot))
    }

    /// A look at a snapshot; nothing is read before it is asked for.
    pub fn tree(&self, snapshot: &Snapshot) -> Arc<dyn Tree> {
        Arc::new(Stack::new(snapshot.deltas.iter().rev().map(|delta| self.delta(delta)).collect()))
    }

    /// Starts a snapshot on top of another.
    pub fn prepare(&self, base: &Snapshot) -> Result<Active> {
        Active::new(self.clone(), base.clone())
    }

    /// For read-only mounts of a snapshot into a step. Unpacks what is not.
    pub fn view(&self, snapshot: &Snapshot, cancel: &Cancel) -> Result<View> {
        View::new(self, snapshot, cancel)
    }

    /// Writes files into an empty directory that is no snapshot's, with owners kept as in a delta. There is no table
    /// beside it: what cannot carry an entry is root's.
    pub fn write_plain(
        &self,
        dir: &Path,
        write: impl FnOnce(&mut DeltaWriter) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let plain = Arc::new(DiskDelta::open(dir, self.0.host()?)?);
        let mut writer = DeltaWriter::new(plain, Arc::new(Stack::new(Vec::new())));
        write(&mut writer)?;
        Ok(writer.finish()?)
    }

    /// What `upper` has over `lower` (the diff op). Nothing is read where one is the start of the other.
    pub fn diff(&self, lower: &Snapshot, upper: &Snapshot, cancel: &Cancel) -> Result<Snapshot> {
        if let Some(rest) = upper.deltas.strip_prefix(&*lower.deltas) {
            return Ok(Snapshot { deltas: rest.into() });
        }
        diff::diff(self, lower, upper, cancel)
    }

    /// A snapshot with all deltas but the first `kept` in one: what came and went again between them is in none.
    pub fn squash(&self, snapshot: &Snapshot, kept: usize, cancel: &Cancel) -> Result<Snapshot> {
        if snapshot.len() <= kept + 1 {
            return Ok(snapshot.clone());
        }
        let lower = Snapshot { deltas: snapshot.deltas[..kept].into() };
        let name = Digest::of(format!("{} {kept}", snapshot.identity())).hex();
        let note = self.0.dir.join("squashed").join(name);
        if let Some(id) = self.0.noted(&note)? {
            return Ok(Snapshot::merge([&lower, &Snapshot { deltas: [StackDelta::Made(id)].into() }]));
        }
        let plan = Plan::between(self, &lower, snapshot, kept).at(&self.0.dir)?;
        let mut active = self.prepare(&lower)?;
        plan.write(active.writer()?, cancel).at(&self.0.dir)?;
        let squashed = active.commit(cancel)?;
        if let Some(id) = squashed.deltas().last() {
            self.0.write_file(&note, id.0.as_bytes())?;
        }
        Ok(squashed)
    }

    /// The delta at an index as a layer in the blob store. An image's layer comes back as it came unless forced;
    /// what was made once is remembered beside the delta.
    pub fn layer_blob(
        &self,
        snapshot: &Snapshot,
        index: usize,
        spec: &LayerSpec,
        cancel: &Cancel,
    ) -> Result<LayerBlob> {
        let len = snapshot.len();
        match snapshot.deltas.get(index).ok_or(Error::NoSuchLayer { index, len })? {
            StackDelta::Layer(layer) if !spec.force => Ok(layer.blob.clone()),
            StackDelta::Layer(layer) => blob::recompress(&*self.0.blobs, &layer.blob, spec, cancel),
            StackDelta::Made(id) => blob::of_delta(self, id, spec, cancel),
        }
    }

    /// A layer that was made elsewhere, as [`LayerSpec::clamp_mtime`] has those that are made here.
    pub fn redated(&self, layer: &LayerBlob, spec: &LayerSpec, cancel: &Cancel) -> Result<LayerBlob> {
        match spec.clamp_mtime {
            Some(limit) => blob::redate(&*self.0.blobs, layer, limit, spec, cancel),
            None => Ok(layer.clone()),
        }
    }

    /// Remembers that these layers, made of this snapshot with its own times, unpack to it: a later `FROM` of the image
    /// finds them unpacked.
    pub fn adopt(&self, snapshot: &Snapshot, layers: &[LayerBlob]) -> Result<()> {
        for (delta, layer) in snapshot.deltas.iter().zip(Snapshot::image(layers).deltas.iter()) {
            let (StackDelta::Made(id), StackDelta::Layer(layer)) = (delta, layer) else { continue };
            let path = self.0.dir.join("chains").join(layer.chain.0.hex());
            if !path.exists() {
                self.0.write_file(&path, id.0.as_bytes())?;
            }
        }
        Ok(())
    }

    /// When the delta at an index was made; none for an image's layer, whose image knows, and for what is gone.
    pub fn created(&self, snapshot: &Snapshot, index: usize) -> Option<SystemTime> {
        let StackDelta::Made(id) = snapshot.deltas.get(index)? else { return None };
        // Written when the delta was finished, and never touched again.
        fs::metadata(self.0.delta_dir(id).join("base")).and_then(|meta| meta.modified()).ok()
    }

    /// The deltas that a snapshot's files lie in on this disk: what a prune must keep for it to stay unpacked. Layers
    /// that were never unpacked have none.
    pub fn unpacked(&self, snapshot: &Snapshot) -> Result<Vec<DeltaId>> {
        let mut ids = Vec::new();
        for delta in snapshot.deltas.iter() {
            match delta {
                StackDelta::Made(id) => ids.push(id.clone()),
                StackDelta::Layer(layer) => {
                    let name = self.0.unpacked_dir(layer)?.and_then(|dir| Some(dir.file_name()?.to_str()?.to_owned()));
                    ids.extend(name.map(DeltaId));
                }
            }
        }
        Ok(ids)
    }

    /// How many layers this process has read through without unpacking, and how many it has unpacked.
    pub fn layers_read(&self) -> (usize, usize) {
        (self.0.indexed.load(Ordering::Relaxed), self.0.unpacked.load(Ordering::Relaxed))
    }

    pub(super) fn delta(&self, delta: &StackDelta) -> Arc<dyn Delta> {
        match delta {
            StackDelta::Layer(layer) => Arc::new(LazyLayer::of_image(self.clone(), Arc::clone(layer))),
            StackDelta::Made(id) => Arc::new(LazyLayer::of_delta(self.clone(), id.clone())),
        }
    }
}

impl Inner {
    /// Tries the host when first asked: a build that makes no file writes none for that either.
    pub fn host(&self) -> Result<Host> {
        if let Some(host) = self.host.get() {
            return Ok(*host);
        }
        let probed = Host::probe(&self.dir, Some(self.ownership)).at(&self.dir)?;
        Ok(*self.host.get_or_init(|| probed))
    }

    pub fn driver(&self) -> Driver {
        self.driver.get().copied().unwrap_or(Driver::Overlay)
    }

    /// The lock that a prune in another process waits for.
    pub fn hold(&self) -> std::sync::MutexGuard<'_, Option<FileLock>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn count_unpacked(&self) {
        self.unpacked.fetch_add(1, Ordering::Relaxed);
    }

    pub fn left(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Stamps>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn delta_dir(&self, id: &DeltaId) -> PathBuf {
        self.dir.join("deltas").join(&id.0)
    }

    /// The folder of a delta, if it is there.
    pub fn folder(&self, delta: &StackDelta) -> Result<Option<Arc<Folder>>> {
        let id = delta.id();
        if let Some(folder) = self.found().get(&id) {
            return Ok(Some(Arc::clone(folder)));
        }
        let path = match delta {
            StackDelta::Made(id) => {
                let path = self.delta_dir(id);
                is_there(&path)?.then_some(path)
            }
            StackDelta::Layer(layer) => self.unpacked_dir(layer)?,
        };
        let Some(path) = path else { return Ok(None) };
        let folder = Arc::new(Folder::new(path));
        Ok(Some(Arc::clone(self.found().entry(id).or_insert(folder))))
    }

    /// Deltas that were found, by name.
    pub fn found(&self) -> std::sync::MutexGuard<'_, HashMap<DeltaId, Arc<Folder>>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a layer is unpacked, if it is.
    pub fn unpacked_dir(&self, layer: &super::stack::ImageLayer) -> Result<Option<PathBuf>> {
        let own = self.delta_dir(&DeltaId(layer.chain.0.hex()));
        if is_there(&own)? {
            return Ok(Some(own));
        }
        let alias = self.dir.join("chains").join(layer.chain.0.hex());
        Ok(self.noted(&alias)?.map(|id| self.delta_dir(&id)))
    }

    /// The delta that a note names, where it is there.
    pub fn noted(&self, note: &Path) -> Result<Option<DeltaId>> {
        match quiet::read_to_string(note) {
            // Written whole or not at all, but a power cut may have emptied it.
            Ok(id) if !id.is_empty() && !id.contains(['/', '.', '\0']) => {
                let id = DeltaId(id);
                Ok(is_there(&self.delta_dir(&id))?.then_some(id))
            }
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at(note),
        }
    }

    /// Opens a finished delta.
    pub fn open_delta(&self, dir: &Path) -> Result<DiskDelta> {
        let fs = dir.join("fs");
        let ownership = if dir.join("stored").exists() { Ownership::Stored } else { Ownership::Real };
        DiskDelta::open(&fs, Host::reading(ownership)).at(&fs)
    }

    /// Writes a small file whole or not at all.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).at(dir)?;
        let active = self.dir.join("active");
        // As a workplace is: locked before anybody can take it for what a dead process left.
        let gate = File::open(&active).at(&active)?;
        gate.lock_shared().at(&active)?;
        let temp = tempfile::NamedTempFile::new_in(&active).at(path)?;
        temp.as_file().lock().at(path)?;
        drop(gate);
        fs::write(temp.path(), bytes).at(temp.path())?;
        temp.persist(path).map_err(|error| error.error).at(path)?;
        Ok(())
    }

    /// Starts work in progress, and once in a process's life removes what others left when they died.
    pub fn workplace(&self) -> Result<Workplace> {
        let active = self.dir.join("active");
        self.swept.call_once(|| {
            // What is not removed now is removed later: nothing here is ever taken for finished.
            if let Ok(dead) = Workplace::find_dead(&active) {
                std::thread::spawn(move || drop(dead));
            }
        });
        Workplace::new(&active)
    }
}

/// What the files in a folder mean; none where nobody has made any.
fn noted(dir: &Path) -> Result<Option<String>> {
    let note = dir.join("meaning");
    match quiet::read_to_string(&note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.at(&note).map(Some),
    }
}

/// The folder for files with this meaning: the one that was asked for, if it has none yet or this one.
fn home(dir: &Path, meaning: &str) -> Result<PathBuf> {
    let noted = match noted(dir)? {
        Some(noted) => noted,
        None => {
            let note = dir.join("meaning");
            let new = tempfile::NamedTempFile::new_in(dir).at(dir)?;
            fs::write(new.path(), meaning).at(&note)?;
            match new.persist_noclobber(&note) {
                Ok(_) => meaning.to_owned(),
                // Another process was faster.
                Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                    fs::read_to_string(&note).at(&note)?
                }
                Err(error) => return Err(error.error).at(&note),
            }
        }
    };
    if noted == meaning {
        return Ok(dir.to_owned());
    }
    let mut beside = dir.as_os_str().to_owned();
    beside.push(format!("-{meaning}"));
    Ok(beside.into())
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().at(path)
}

/// Names in a folder of ours, sorted; none when it is not there.
pub(super) fn list(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        Err(error) => return Err(error).at(dir),
    };
    for entry in entries {
        // All names in here are ours, and plain.
        names.extend(entry.at(dir)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_would_mean_something_else_are_kept_apart() {
        let dir = tempfile::tempdir().unwrap();
        let ours = dir.path().join("snapshots");
        let open = |ownership| {
            let blobs = Arc::new(crate::store::MemoryBlobs::new());
            Snapshots::open_undecided(&ours, blobs, Some(ownership)).unwrap()
        };
        let first = open(Ownership::Stored);
        assert_eq!(first.dir(), ours, "the first to come");
        let real = open(Ownership::Real);
        assert_ne!(real.dir(), ours, "owners are another's");
        assert_eq!(open(Ownership::Stored).dir(), ours, "the same again");
        assert_eq!(open(Ownership::Real).dir(), real.dir());
        let made = first.prepare(&Snapshot::scratch()).unwrap().commit(&Cancel::new()).unwrap();
        assert!(open(Ownership::Stored).load(&first.save(&made)).unwrap().is_some());
        assert!(real.load(&first.save(&made)).unwrap().is_none(), "as good as pruned");
    }

    #[test]
    fn whose_files_are_is_tried_by_who_makes_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let blobs = Arc::new(crate::store::MemoryBlobs::new());
            Snapshots::open_undecided(dir.path(), blobs, None).unwrap()
        };
        let first = open();
        assert!(first.0.host.get().is_some(), "tried");
        let second = open();
        assert_eq!(second.ownership(), first.ownership());
        // Where owners are stored, modes bind some processes and not others: each tries.
        assert_eq!(second.0.host.get().is_none(), first.ownership() == Ownership::Real, "noted");
        assert_eq!(second.0.host().unwrap(), first.0.host().unwrap(), "tried when it is needed");
        fs::write(dir.path().join("meaning"), "ids-of-others").unwrap();
        let third = open();
        assert!(third.0.host.get().is_some(), "a note that says nothing of this process");
        assert_ne!(third.dir(), dir.path());
    }
}
