//! A delta on disk: a directory as overlayfs writes its upper one, mounted with `userxattr`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;

use super::delta::{Answer, Data, Delta, Name, Upper};
use super::host::{Host, check, is_whiteout, open_for_meta};
use super::tree::{FileData, Node};
use crate::sys::owner::{Device, Owner, Ownership, SideTable};
use crate::sys::{Kind, LastDirs, Meta, meta, quiet};

/// Overlayfs's mark (`userxattr`) on a directory that hides all below it.
const OPAQUE: &str = "user.overlay.opaque";

/// Ours, on a delta's root directory that is there only to hold things: its metadata means nothing.
const IMPLIED: &str = "user.dockless.implied";

/// How many directories' states are remembered before all are forgotten.
const MAX_REMEMBERED: usize = 1 << 16;

/// What a directory of the delta is, as far as its names must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Absent,
    /// A whiteout or something that is no directory is in the way.
    Blocked,
    Dir {
        /// Opaque, or below an opaque one.
        alone: bool,
    },
}

/// A delta that is a directory.
pub(super) struct DiskDelta {
    root: OwnedFd,
    host: Host,
    /// Owners of what cannot carry them.
    owners: Mutex<SideTable>,
    states: Mutex<HashMap<PathBuf, State>>,
    last: LastDirs,
    root_implied: AtomicBool,
}

impl DiskDelta {
    pub fn open(dir: &Path, host: Host) -> io::Result<Self> {
        let root = File::open(dir)?.into();
        let implied = has_mark(&root, IMPLIED)?;
        let owners = match host.ownership {
            Ownership::Real => SideTable::default(),
            Ownership::Stored => SideTable::load(dir)?,
        };
        Ok(Self {
            root,
            host,
            owners: Mutex::new(owners),
            states: Mutex::default(),
            last: LastDirs::default(),
            root_implied: AtomicBool::new(implied),
        })
    }

    /// Writes down what was learnt about owners since the delta was opened at `dir`.
    pub fn save_owners(&self, dir: &Path) -> io::Result<()> {
        match self.host.ownership {
            Ownership::Real => Ok(()),
            Ownership::Stored => lock(&self.owners).store(dir),
        }
    }

    /// Marks a new delta's root as one that only holds things, until its metadata is set.
    pub fn imply_root(&self) -> io::Result<()> {
        match rustix::fs::fsetxattr(&self.root, IMPLIED, b"y", XattrFlags::empty()) {
            Ok(()) => self.root_implied.store(true, Ordering::Relaxed),
            // Then it counts as 0755 root:root, which it is made as.
            Err(Errno::NOTSUP) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn state(&self, path: &Path) -> io::Result<State> {
        if let Some(state) = lock(&self.states).get(path) {
            return Ok(*state);
        }
        let above = match path.parent() {
            None => State::Dir { alone: false },
            Some(parent) => self.state(parent)?,
        };
        let state = match above {
            State::Dir { alone } => match open_beneath(&self.root, path, OFlags::DIRECTORY) {
                Ok(dir) => State::Dir { alone: alone || has_mark(&dir, OPAQUE)? },
                Err(Errno::NOENT) if alone => State::Blocked,
                Err(Errno::NOENT) => State::Absent,
                Err(Errno::NOTDIR | Errno::LOOP) => State::Blocked,
                // Readable or not, it is there: look at its mark by name.
                Err(Errno::ACCESS) => State::Dir { alone },
                Err(error) => return Err(error.into()),
            },
            other => other,
        };
        let mut states = lock(&self.states);
        if states.len() >= MAX_REMEMBERED {
            states.clear();
        }
        states.insert(path.to_owned(), state);
        Ok(state)
    }

    /// A directory of this delta. Only for paths whose parts are known to be directories; symlinks are refused all the same.
    fn dir(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        self.last.get(path, || Ok(open_beneath(&self.root, path, OFlags::DIRECTORY | OFlags::PATH)?))
    }

    fn place<'p>(&self, path: &'p Path) -> io::Result<(Arc<OwnedFd>, &'p OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.dir(path.parent().unwrap_or(Path::new("")))?, name))
    }

    /// `name` in `dir`, which is at `path` in the delta.
    fn node(&self, dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<Option<Node>> {
        let Some(found) = meta::read(dir, name)? else { return Ok(None) };
        let carries = carries_owner(&found.kind);
        let entry = || match carries {
            true => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Owner::get(rustix::fs::openat(dir, name, flags, Mode::empty())?)
            }
            false => Ok(lock(&self.owners).0.get(path).copied()),
        };
        self.host.node(found, entry).map(Some)
    }

    /// A regular file of this delta and what it is: one look at its name, where [`Delta::find`] and [`Delta::open`] take
    /// three. None where it is something else by now, or may not be opened.
    pub fn open_file(&self, path: &Path) -> io::Result<Option<(Node, File)>> {
        let (dir, name) = self.place(path)?;
        let file: File = match quiet::open_in(&*dir, name) {
            Ok(fd) => fd.into(),
            Err(Errno::ACCESS | Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let found = meta::read_open(&file)?;
        if !matches!(found.kind, Kind::File { .. }) {
            return Ok(None);
        }
        Ok(Some((self.host.node(found, || Owner::get(&file))?, file)))
    }

    /// The names in a directory, and which of them are regular files.
    pub fn listing(&self, dir: &Path) -> io::Result<Vec<(Name, bool)>> {
        let fd = open_beneath(&self.root, dir, OFlags::DIRECTORY | OFlags::RDONLY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let name = OsString::from(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name));
            let whiteout = match entry.file_type() {
                FileType::CharacterDevice | FileType::Socket | FileType::Unknown => {
                    meta::read(&fd, &name)?.is_some_and(|found| is_whiteout(&found.kind, &found.meta))
                }
                _ => false,
            };
            let name = if whiteout { Name::Whiteout(name) } else { Name::Entry(name) };
            names.push((name, entry.file_type() == FileType::RegularFile));
        }
        Ok(names)
    }

    /// Gives what cannot be opened its metadata.
    fn write_meta_at(&self, dir: &OwnedFd, name: &OsStr, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        let refused = match self.host.ownership {
            Ownership::Real => meta::write(dir, name, kind, meta)?,
            Ownership::Stored => {
                let owner = Owner { uid: meta.uid, gid: meta.gid, ..Owner::default() };
                let mut owners = lock(&self.owners);
                match owner == Owner::default() {
                    true => owners.0.remove(path),
                    false => owners.0.insert(path.to_owned(), owner),
                };
                drop(owners);
                meta::write(dir, name, kind, &Meta { uid: own_uid(), gid: own_gid(), ..meta.clone() })?
            }
        };
        check(refused, meta)
    }

    /// Makes what takes the place of whatever is at a path.
    fn instead<T>(&self, path: &Path, make: impl Fn() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
        match make() {
            Err(Errno::EXIST) => {
                // What it cannot remove, the second try tells of.
                let _ = self.remove(path);
                make()
            }
            made => made,
        }
    }

    fn forget(&self) {
        lock(&self.states).clear();
        self.last.forget();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens what is at a path below a directory, following no symlink anywhere.
fn open_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if path.as_os_str().is_empty() {
        return rustix::fs::openat(root, ".", flags, Mode::empty());
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Old kernels do not have it, some sandboxes refuse it: walk by hand.
        Err(Errno::NOSYS | Errno::PERM) => walk_beneath(root, path, flags),
        other => other,
    }
}

fn walk_beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names = path.iter().peekable();
    let mut dir: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let flags = if names.peek().is_some() { step } else { flags };
        let next = rustix::fs::openat(dir.as_ref().unwrap_or(root), name, flags, Mode::empty())?;
        dir = Some(next);
    }
    dir.ok_or(Errno::INVAL)
}

fn has_mark(dir: &OwnedFd, name: &str) -> io::Result<bool> {
    let mut value = [0u8; 1];
    match rustix::fs::fgetxattr(dir, name, &mut value) {
        Ok(len) => Ok(len == 1 && value[0] == b'y'),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether the type can have an extended attribute of the `user` kind.
fn carries_owner(kind: &Kind) -> bool {
    matches!(kind, Kind::File { .. } | Kind::Directory)
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

impl Delta for DiskDelta {
    fn find(&self, path: &Path) -> io::Result<Answer> {
        if path.as_os_str().is_empty() {
            let alone = self.state(path)? == State::Dir { alone: true };
            let node = if self.root_implied.load(Ordering::Relaxed) {
                None
            } else {
                self.node(&*self.dir(path)?, OsStr::new("."), path)?
            };
            return Ok(Answer { node, alone });
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let mut alone = match self.state(parent)? {
            State::Absent => return Ok(Answer::default()),
            State::Blocked => return Ok(Answer { node: None, alone: true }),
            State::Dir { alone } => alone,
        };
        let (dir, name) = self.place(path)?;
        let node = self.node(&dir, name, path)?;
        match &node {
            None => {}
            Some(node) if is_whiteout(&node.kind, &node.meta) => return Ok(Answer { node: None, alone: true }),
            Some(node) if node.is_dir() => alone = alone || self.state(path)? == State::Dir { alone: true },
            Some(_) => alone = true,
        }
        Ok(Answer { node, alone })
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<Name>> {
        Ok(self.listing(dir)?.into_iter().map(|(name, _)| name).collect())
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        let (dir, name) = self.place(path)?;
        Ok(FileData::File(quiet::open_in(&*dir, name)?.into()))
    }
}

impl Upper for DiskDelta {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        // Wide open to us until its own mode is set, when nothing more is made in it.
        rustix::fs::mkdirat(&*dir, name, Mode::RWXU)?;
        lock(&self.states).remove(path);
        Ok(())
    }

    fn make_file(&self, path: &Path, meta: &Meta, size: u64, data: Data<'_>) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(self.host.mode(meta.mode, false) & 0o777);
        let mut file: File = self.instead(path, || rustix::fs::openat(&*dir, name, flags, mode))?.into();
        match data {
            Data::File(from) => copy_file(from, &mut file, size)?,
            Data::Read(from) => {
                io::copy(from, &mut file)?;
            }
        }
        self.host.write_new(&file, meta)
    }

    fn make_special(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        if is_whiteout(kind, meta) {
            // Nobody could tell it from a whiteout. No layer holds a socket, so that one is not missed.
            let message = "a device 0:0 means a removed file here";
            let refused = || Err(io::Error::new(io::ErrorKind::Unsupported, message));
            return if *kind == Kind::Socket { self.remove(path) } else { refused() };
        }
        let (file_type, number, device) = match *kind {
            Kind::Symlink { ref target } => {
                self.instead(path, || rustix::fs::symlinkat(target, &*dir, name))?;
                return self.write_meta_at(&dir, name, path, kind, meta);
            }
            Kind::CharDevice { major, minor } => {
                let device = Device { block: false, major, minor };
                (FileType::CharacterDevice, rustix::fs::makedev(major, minor), Some(device))
            }
            Kind::BlockDevice { major, minor } => {
                let device = Device { block: true, major, minor };
                (FileType::BlockDevice, rustix::fs::makedev(major, minor), Some(device))
            }
            Kind::Fifo => (FileType::Fifo, 0, None),
            Kind::Socket => (FileType::Socket, 0, None),
            Kind::Directory | Kind::File { .. } | Kind::Hardlink { .. } => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        if device.is_none() || self.host.ownership == Ownership::Real {
            let mode = Mode::from_raw_mode(meta.mode & 0o7777);
            match self.instead(path, || rustix::fs::mknodat(&*dir, name, file_type, mode, number)) {
                // Root of a user namespace may give files away, but make no device.
                Err(Errno::PERM) if device.is_some() => {}
                result => {
                    result?;
                    return self.write_meta_at(&dir, name, path, kind, meta);
                }
            }
        }
        // An empty file stands for what the host would not let us make.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = self.instead(path, || rustix::fs::openat(&*dir, name, flags, Mode::RUSR | Mode::WUSR))?;
        self.host.write(&file, meta, false, device)
    }

    fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let (from, from_name) = self.place(existing)?;
        let (to, to_name) = self.place(new)?;
        self.instead(new, || rustix::fs::linkat(&*from, from_name, &*to, to_name, AtFlags::empty()))?;
        // What the table says of one name, it says of all.
        let mut owners = lock(&self.owners);
        match owners.0.get(existing).copied() {
            Some(owner) => owners.0.insert(new.to_owned(), owner),
            None => owners.0.remove(new),
        };
        Ok(())
    }

    fn set_meta(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            let root = rustix::fs::openat(
                &self.root,
                ".",
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            match rustix::fs::fremovexattr(&root, IMPLIED) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => self.root_implied.store(false, Ordering::Relaxed),
                Err(error) => return Err(error.into()),
            }
            return self.host.write(&root, meta, true, None);
        }
        let (dir, name) = self.place(path)?;
        // What stands for a device is a file.
        let device = match *kind {
            Kind::CharDevice { major, minor } => Some(Device { block: false, major, minor }),
            Kind::BlockDevice { major, minor } => Some(Device { block: true, major, minor }),
            _ => None,
        };
        let stands_in = || {
            Ok::<_, io::Error>(
                FileType::from_raw_mode(rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode).is_file(),
            )
        };
        if matches!(kind, Kind::File { .. } | Kind::Directory) || device.is_some() && stands_in()? {
            let file = open_for_meta(&dir, name)?;
            return self.host.write(&file, meta, *kind == Kind::Directory, device);
        }
        self.write_meta_at(&dir, name, path, kind, meta)
    }

    fn set_opaque(&self, dir: &Path) -> io::Result<()> {
        let fd = open_beneath(&self.root, dir, OFlags::DIRECTORY | OFlags::RDONLY)?;
        rustix::fs::fsetxattr(&fd, OPAQUE, b"y", XattrFlags::empty())?;
        self.forget();
        Ok(())
    }

    fn whiteout(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        match rustix::fs::mknodat(&*dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            // On an overlay, or to a user of an old kernel. No overlay can be mounted of it there, so only we read it.
            Err(Errno::PERM) => rustix::fs::mknodat(&*dir, name, FileType::Socket, Mode::empty(), 0)?,
            result => result?,
        }
        lock(&self.states).remove(path);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = match self.place(path) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&*dir, name, AtFlags::empty()) {
            Ok(()) => lock(&self.states).remove(path),
            Err(Errno::NOENT) => None,
            Err(Errno::ISDIR) => {
                crate::sys::Root::from_fd(dir.try_clone()?).remove(Path::new(name))?;
                self.forget();
                None
            }
            Err(error) => return Err(error.into()),
        };
        let mut owners = lock(&self.owners);
        if !owners.0.is_empty() {
            owners.0.retain(|of, _| !of.starts_with(path));
        }
        Ok(())
    }
}

/// Up to here two calls with a buffer cost less than asking the kernel for a clone or a splice.
const SMALL: u64 = 32 << 10;

/// Copies in the kernel: shares the blocks where the file system can, moves the bytes where it cannot. All of it:
/// a source that shrinks meanwhile makes a shorter file, one that grows is cut at `size`.
fn copy_file(mut from: &File, to: &mut File, size: u64) -> io::Result<()> {
    if size == 0 {
        return Ok(());
    }
    if size <= SMALL {
        // Of that size and no more: clearing a large buffer costs as much as the calls.
        let mut buffer = vec![0; size as usize];
        let mut len = 0;
        while len < buffer.len() {
            match from.read(&mut buffer[len..])? {
                0 => break,
                n => len += n,
            }
        }
        return to.write_all(&buffer[..len]);
    }
    if rustix::fs::ioctl_ficlone(&*to, from).is_ok() {
        return Ok(());
    }
    let mut left = size;
    while left > 0 {
        let step = usize::try_from(left.min(1 << 30)).unwrap_or(1 << 30);
        match rustix::fs::copy_file_range(from, None, &*to, None, step) {
            Ok(0) => return Ok(()),
            Ok(copied) => left -= copied as u64,
            // Across file systems, or where it is not implemented.
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM | Errno::IO)
                if left == size =>
            {
                io::copy(&mut from.take(size), to)?;
                return to.flush();
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn walking_by_hand_refuses_what_openat2_refuses() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(temp.path().join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", temp.path().join("link")).unwrap();
        std::fs::write(temp.path().join("file"), "").unwrap();
        let root: OwnedFd = File::open(temp.path()).unwrap().into();
        for (path, expected) in
            [("a/b", Ok(())), ("link/b", Err(true)), ("link", Err(true)), ("file/x", Err(true)), ("none/x", Err(false))]
        {
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            for result in [walk_beneath(&root, Path::new(path), flags), open_beneath(&root, Path::new(path), flags)] {
                let blocked = result.map(drop).map_err(|error| matches!(error, Errno::NOTDIR | Errno::LOOP));
                assert_eq!(blocked, expected, "{path}");
            }
        }
    }
}
