//! Snapshots in the making, and looks at finished ones.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::delta::Upper;
use super::disk::DiskDelta;
use super::error::{At, Error, Result};
use super::native;
use super::stack::{DeltaId, Snapshot, StackDelta};
use super::stamps::Stamps;
use super::store::{Driver, Snapshots};
use super::tree::Tree;
use super::unpack;
use super::waiting;
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::owner::Ownership;
use crate::sys::{Kind, Mtime, Root, RootFs};

/// A folder of work in progress. It is locked as long as its process lives; dropping it removes it.
pub(super) struct Workplace {
    path: PathBuf,
    _lock: File,
    keep: bool,
}

impl Workplace {
    pub fn new(active: &Path) -> Result<Self> {
        // Until the folder is locked, a sweep would take it for a dead one's: sweeps look while they hold this.
        let gate = File::open(active).at(active)?;
        gate.lock_shared().at(active)?;
        let dir = tempfile::Builder::new().prefix("").rand_bytes(20).tempdir_in(active).at(active)?;
        let lock = File::open(dir.path()).at(dir.path())?;
        lock.lock().at(dir.path())?;
        Ok(Self { path: dir.keep(), _lock: lock, keep: false })
    }

    /// Folders whose processes are gone, locked by us now.
    pub fn find_dead(active: &Path) -> Result<Vec<Self>> {
        let gate = File::open(active).at(active)?;
        match gate.try_lock() {
            Ok(()) => {}
            // Somebody starts work this very moment; the next sweep will do.
            Err(TryLockError::WouldBlock) => return Ok(Vec::new()),
            Err(TryLockError::Error(error)) => return Err(error).at(active),
        }
        let mut dead = Vec::new();
        for name in super::store::list(active)? {
            let path = active.join(name);
            let Ok(lock) = File::open(&path) else { continue };
            if lock.try_lock().is_ok() {
                dead.push(Self { path, _lock: lock, keep: false });
            }
        }
        Ok(dead)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder now, and says when that fails.
    pub fn discard(mut self) -> Result<()> {
        self.keep = true;
        self.remove()
    }

    /// Makes the folder a finished thing: whole, in one step. False when somebody else was first.
    pub fn publish(mut self, to: &Path) -> Result<bool> {
        match fs::rename(&self.path, to) {
            Ok(()) => {
                self.keep = true;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {
                Ok(false)
            }
            Err(error) => Err(error).at(to),
        }
    }

    fn remove(&self) -> Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else { return Ok(()) };
        Root::open(parent).and_then(|root| root.remove(Path::new(name))).at(&self.path)
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = self.remove()
        {
            // Unlocked from now on, so the next sweep tries again.
            tracing::warn!(path = %self.path.display(), %error, "work in progress could not be removed");
        }
    }
}

/// A snapshot that is being made on top of another. Dropping it discards it.
pub struct Active {
    snapshots: Snapshots,
    base: Snapshot,
    writing: Option<Writing>,
    native: Option<native::Work>,
    /// How the step left its directory, with the native driver.
    left: Option<Stamps>,
    // Last, so that the writer's threads are gone before the folder is.
    place: Workplace,
}

struct Writing {
    writer: DeltaWriter,
    upper: Arc<DiskDelta>,
}

impl Active {
    pub(super) fn new(snapshots: Snapshots, base: Snapshot) -> Result<Self> {
        let place = snapshots.0.workplace()?;
        let fs = place.path().join("fs");
        make_root(&fs)?;
        Ok(Self { snapshots, base, writing: None, native: None, left: None, place })
    }

    /// When this was started, by the file system's clock: the time of what is made in it.
    pub fn started(&self) -> Result<Mtime> {
        let path = self.place.path();
        let meta = fs::symlink_metadata(path).at(path)?;
        Ok(Mtime { seconds: meta.mtime(), nanos: u32::try_from(meta.mtime_nsec()).unwrap_or(0) })
    }

    /// Where a process may run: everything below is unpacked first. One `Active` takes either a process or a writer.
    pub fn rootfs(&mut self, cancel: &Cancel) -> Result<RootFs> {
        unpack::ensure(&self.snapshots, &self.base, cancel)?;
        match self.snapshots.0.driver() {
            Driver::Overlay => overlay(&self.snapshots, &self.base, self.place.path()),
            Driver::Native => {
                let work = match self.native.take() {
                    Some(work) => work,
                    None => native::materialise(&self.snapshots, &self.base, self.place.path(), cancel)?,
                };
                Ok(RootFs::Directory(self.native.insert(work).root().to_owned()))
            }
        }
    }

    /// What runs in the root file system may do more there than files of its own: mount, say, or open files by handles.
    pub fn unconfined(&mut self) {
        if let Some(work) = &mut self.native {
            work.unwatch();
        }
    }

    /// For file operations: needs no mount and unpacks nothing.
    pub fn writer(&mut self) -> Result<&mut DeltaWriter> {
        let below = self.snapshots.tree(&self.base);
        self.writer_over(below)
    }

    /// The writer; `below` counts for the first call.
    pub(super) fn writer_over(&mut self, below: Arc<dyn Tree>) -> Result<&mut DeltaWriter> {
        let writing = match self.writing.take() {
            Some(writing) => writing,
            None => {
                let path = self.place.path().join("fs");
                let upper = Arc::new(DiskDelta::open(&path, self.snapshots.0.host()?).at(&path)?);
                upper.imply_root().at(&path)?;
                let writer = DeltaWriter::new(Arc::clone(&upper) as Arc<_>, below);
                Writing { writer, upper }
            }
        };
        Ok(&mut self.writing.insert(writing).writer)
    }

    /// Makes it a snapshot: its base with one more delta.
    pub fn commit(self, cancel: &Cancel) -> Result<Snapshot> {
        let base = self.base.clone();
        let id = self.finish(cancel)?;
        Ok(Snapshot::merge([&base, &Snapshot { deltas: [StackDelta::Made(id)].into() }]))
    }

    /// Makes it a delta under a name that was agreed before: a layer's chain ID.
    pub(super) fn commit_as(mut self, id: &DeltaId, cancel: &Cancel) -> Result<()> {
        self.settle(cancel)?;
        let to = self.snapshots.0.delta_dir(id);
        let Self { place, .. } = self;
        place.publish(&to).map(drop)
    }

    fn finish(mut self, cancel: &Cancel) -> Result<DeltaId> {
        self.settle(cancel)?;
        let path = self.place.path().join("base");
        fs::write(&path, self.base.record()).at(&path)?;
        let id = DeltaId(self.place.path().file_name().unwrap_or_default().to_string_lossy().into_owned());
        let to = self.snapshots.0.delta_dir(&id);
        if let Some(looks) = self.left.take() {
            let made = Snapshot { deltas: [StackDelta::Made(id.clone())].into() };
            waiting::leave(&self.snapshots, &Snapshot::merge([&self.base, &made]), self.place.path(), looks)?;
        }
        let Self { place, .. } = self;
        if !place.publish(&to)? {
            return Err(Error::Io { path: to, source: io::ErrorKind::AlreadyExists.into() });
        }
        Ok(id)
    }

    fn settle(&mut self, cancel: &Cancel) -> Result<()> {
        let place = self.place.path().to_owned();
        if let Some(mut writing) = self.writing.take() {
            writing.writer.finish().at(&place)?;
            writing.upper.save_owners(&place.join("fs")).at(&place)?;
        }
        if let Some(work) = self.native.take() {
            self.left = work.commit(cancel)?;
        }
        let root = Root::open(&place).at(&place)?;
        root.remove(Path::new("work")).at(&place)?;
        if self.snapshots.0.ownership == Ownership::Stored {
            let path = place.join("stored");
            fs::write(&path, "").at(&path)?;
        }
        Ok(())
    }
}

/// A finished snapshot, ready to be mounted; what is written there is thrown away with this value.
pub struct View {
    rootfs: RootFs,
    // The folder lives as long as the view.
    active: Active,
}

impl View {
    pub(super) fn new(snapshots: &Snapshots, snapshot: &Snapshot, cancel: &Cancel) -> Result<Self> {
        let mut active = snapshots.prepare(snapshot)?;
        Ok(Self { rootfs: active.rootfs(cancel)?, active })
    }

    pub fn rootfs(&self) -> &RootFs {
        &self.rootfs
    }

    /// As [`Active::unconfined`].
    pub fn unconfined(&mut self) {
        self.active.unconfined();
    }
}

/// An empty root directory. Whatever the umask, it is what `/` is where nobody says otherwise.
pub(super) fn make_root(path: &Path) -> Result<()> {
    fs::create_dir(path).at(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).at(path)
}

/// Makes a step's root directory what the tree below says, but one that every user may enter: archives of a temporary
/// folder say 0700, and no builder lets that keep `USER app` from its own programs.
pub(super) fn open_to_all(delta: &DiskDelta, below: &dyn Tree) -> io::Result<()> {
    let Some(mut root) = below.lookup(Path::new(""))? else { return Ok(()) };
    root.meta.mode |= 0o755;
    delta.set_meta(Path::new(""), &Kind::Directory, &root.meta)
}

fn overlay(snapshots: &Snapshots, base: &Snapshot, place: &Path) -> Result<RootFs> {
    let (upper, work) = (place.join("fs"), place.join("work"));
    if let Err(error) = fs::create_dir(&work)
        && error.kind() != io::ErrorKind::AlreadyExists
    {
        return Err(error).at(&work);
    }
    // The merged root directory is the upper one: it must look as the layers below have it.
    let delta = DiskDelta::open(&upper, snapshots.0.host()?).at(&upper)?;
    open_to_all(&delta, &*snapshots.tree(base)).at(&upper)?;
    let mut lower = base
        .deltas
        .iter()
        .rev()
        .map(|delta| Ok(unpack::folder(snapshots, delta)?.path.join("fs")))
        .collect::<Result<Vec<_>>>()?;
    if lower.is_empty() {
        // Overlay wants at least one.
        lower.push(snapshots.0.dir.join("empty"));
    }
    // The same delta twice in one stack (a merge of overlapping parts) would be refused by the kernel.
    let mut seen = std::collections::HashSet::new();
    lower.retain(|path| seen.insert(path.clone()));
    Ok(RootFs::Overlay { lower, upper, work })
}
