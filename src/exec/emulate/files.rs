//! The files of a step, as its supervisor reaches them, and who owns them.
//!
//! A supervisor's thread lives in the step's mount namespace, with the step's root and its own /proc as working
//! directory. So the kernel resolves a path for it as it would for the step, with one difference: links of /proc are
//! not followed, since what they lead to depends on who asks, and may lie outside.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxFlags};

use super::call::Where;
use super::memory;
use super::names::HANDLE;
use crate::sys::owner::XATTR;
use crate::sys::{Owner, SideTable};

/// The files of one step.
#[derive(Default)]
pub struct Files {
    /// Owners of what cannot carry an attribute, with a descriptor that keeps the inode's number from being given to
    /// another file, and knows its path in the end.
    side: Mutex<HashMap<Inode, (Owner, OwnedFd)>>,
    /// What the store says of files and directories in the root, as long as they have not changed since.
    seen: Mutex<HashMap<Inode, Seen>>,
    /// Held by whoever takes a name away.
    changing: Mutex<()>,
    /// Held by whoever makes a file that is not root's, until it is recorded whose it is; by others while they ask.
    making: RwLock<()>,
    /// Some process has changed its root: paths mean different things to different processes.
    roots_differ: AtomicBool,
}

type Inode = (u32, u32, u64);

/// When a file was last changed, and what the store says of it.
type Seen = ((i64, u32), Option<Owner>);

/// Files that are remembered: more are in few images, and those are looked at again.
const MOST_SEEN: usize = 1 << 17;

/// An open file, what the disk says of it, and what the store does.
pub struct Known {
    pub file: OwnedFd,
    pub stat: Statx,
    pub owner: Option<Owner>,
}

/// A place for a new name.
pub struct Place {
    pub directory: OwnedFd,
    pub name: Vec<u8>,
}

impl Files {
    pub fn roots_differ(&self) {
        self.roots_differ.store(true, Ordering::Relaxed);
    }

    /// Opens what a call names, for nothing but looking at it.
    pub fn open(&self, thread: i32, file: &Where) -> io::Result<OwnedFd> {
        let flags = if file.follow { HANDLE } else { HANDLE | OFlags::NOFOLLOW };
        match self.path(thread, file)? {
            Some(path) => self.open_path(thread, file.directory, &path, flags),
            None => directory(thread, file.directory),
        }
    }

    /// Whether the store has nothing on what a call names, or on nothing that is there: told by one look, for most files.
    /// Those that it has something on, and those that are not reached so, take more.
    pub fn says_nothing_of(&self, thread: i32, file: &Where) -> io::Result<bool> {
        if !self.side().is_empty() {
            return Ok(false);
        }
        let path = match self.path(thread, file)? {
            None => directory_path(thread, file.directory).into_bytes(),
            Some(path) => match self.seen_from_here(thread, file.directory, path) {
                Some(path) => path,
                None => return Ok(false),
            },
        };
        let path = OsStr::from_bytes(&path);
        let nothing: &mut [u8] = &mut [];
        let _settled = self.settled();
        let length = if file.follow || file.path.is_none() {
            rustix::fs::getxattr(path, XATTR, nothing)
        } else {
            rustix::fs::lgetxattr(path, XATTR, nothing)
        };
        Ok(length.is_err())
    }

    /// Whether a new file is its maker's alone, told by one look at the directory that it will be in. False also for a
    /// directory that is not reached so, and for one that is not there.
    pub fn gives_no_group(&self, thread: i32, place: &Where) -> io::Result<bool> {
        let Some(mut path) = self.path(thread, place)? else { return Ok(false) };
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        match path[..end].iter().rposition(|byte| *byte == b'/') {
            Some(slash) => path.truncate(slash + 1),
            None => path = b".".to_vec(),
        }
        let Some(path) = self.seen_from_here(thread, place.directory, path) else { return Ok(false) };
        let stat = rustix::fs::stat(OsStr::from_bytes(&path));
        Ok(stat.is_ok_and(|stat| stat.st_mode & libc::S_ISGID == 0))
    }

    /// A path by which the kernel finds for us what it finds for a thread; none where links of /proc may play a part.
    fn seen_from_here(&self, thread: i32, at: i32, path: Vec<u8>) -> Option<Vec<u8>> {
        let depends_on_who_asks = path.split(|byte| *byte == b'/').any(|name| matches!(name, b"proc" | b"dev"));
        match path.first() {
            _ if self.roots_differ.load(Ordering::Relaxed) || depends_on_who_asks => None,
            Some(b'/') => Some(path),
            _ => Some([directory_path(thread, at).as_bytes(), b"/", &path[..]].concat()),
        }
    }

    /// Opens the directory for a new name.
    pub fn place(&self, thread: i32, place: &Where) -> io::Result<Place> {
        let path = self.path(thread, place)?.ok_or(io::ErrorKind::NotFound)?;
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let (head, name) = match path[..end].iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..=slash], &path[slash + 1..end]),
            None => (&b"."[..], &path[..end]),
        };
        if matches!(name, b"" | b"." | b"..") {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let directory = self.open_path(thread, place.directory, head, HANDLE | OFlags::DIRECTORY)?;
        Ok(Place { directory, name: name.to_vec() })
    }

    /// The path of a call; none when the descriptor itself is meant.
    fn path(&self, thread: i32, file: &Where) -> io::Result<Option<Vec<u8>>> {
        let Some(address) = file.path else { return Ok(None) };
        // Since Linux 6.11 no path at all means the same as an empty one.
        let path = if address == 0 && file.may_be_empty { Vec::new() } else { memory::read_string(thread, address)? };
        match path.is_empty() {
            true if file.may_be_empty => Ok(None),
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(Some(path)),
        }
    }

    fn open_path(&self, thread: i32, at: i32, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        if let Some(number) = own_descriptor(path) {
            return directory(thread, number);
        }
        let path = OsStr::from_bytes(path);
        let open = |from: rustix::fd::BorrowedFd<'_>, resolve| {
            Ok(rustix::fs::openat2(from, path, flags, Mode::empty(), resolve | ResolveFlags::NO_MAGICLINKS)?)
        };
        match (Path::new(path).is_absolute(), self.roots_differ.load(Ordering::Relaxed)) {
            (true, false) => open(CWD, ResolveFlags::empty()),
            (true, true) => open(root(thread)?.as_fd(), ResolveFlags::IN_ROOT),
            (false, _) => open(directory(thread, at)?.as_fd(), ResolveFlags::empty()),
        }
    }

    /// Looks at a file.
    pub fn know(&self, file: OwnedFd) -> io::Result<Known> {
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
        let owner = self.owner(&file, &stat)?;
        Ok(Known { file, stat, owner })
    }

    /// What the store says of an open file.
    pub fn owner(&self, file: &OwnedFd, stat: &Statx) -> io::Result<Option<Owner>> {
        let _settled = self.settled();
        if carries_attributes(stat) {
            return Owner::get_at(&link_to(file));
        }
        Ok(self.owner_aside(stat))
    }

    fn owner_aside(&self, stat: &Statx) -> Option<Owner> {
        self.side().get(&inode(stat)).map(|(owner, _)| *owner)
    }

    /// What the store says of a file by this path, which is looked at only if the file has changed since. For those who
    /// hear of every name that goes away (see [`may_be_gone`](Self::may_be_gone)) and have no namespaces.
    pub fn seen_owner(&self, path: impl FnOnce() -> PathBuf, stat: &Statx) -> io::Result<Option<Owner>> {
        let _settled = self.settled();
        if !carries_attributes(stat) {
            return Ok(self.owner_aside(stat));
        }
        let changed = (stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec);
        // Held while the file is looked at: what is recorded meanwhile comes after.
        let mut seen = self.seen();
        if let Some((when, owner)) = seen.get(&inode(stat))
            && *when == changed
        {
            return Ok(*owner);
        }
        let owner = Owner::get_at(&path())?;
        // The number of one without a name may be another's before anybody hears of it.
        if stat.stx_nlink > 0 {
            if seen.len() >= MOST_SEEN {
                seen.clear();
            }
            seen.insert(inode(stat), (changed, owner));
        }
        Ok(owner)
    }

    /// A file has lost a name: its number may be given to another, within the same tick of the clock.
    pub fn may_be_gone(&self, stat: &Statx) {
        self.seen().remove(&inode(stat));
    }

    /// For as long as it takes to make a file and record whose it is: whoever asks meanwhile would hear that it is root's.
    pub fn making(&self) -> RwLockWriteGuard<'_, ()> {
        self.making.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> RwLockReadGuard<'_, ()> {
        self.making.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whoever takes a name away, or moves it, looks first at what it is: one at a time.
    pub fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the owner of a file that was just made, of which the store says nothing.
    pub fn record_new(&self, file: OwnedFd, owner: Owner) -> io::Result<()> {
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        self.record(Known { file, stat, owner: None }, owner)
    }

    /// Records an owner.
    pub fn record(&self, known: Known, owner: Owner) -> io::Result<()> {
        if carries_attributes(&known.stat) {
            let mut seen = self.seen();
            seen.remove(&inode(&known.stat));
            return owner.set_at(&link_to(&known.file));
        }
        // Brings the file into the step's own layer: a lower one is not changed by this, and not in the next image.
        rustix::fs::chownat(&known.file, "", None, None, AtFlags::EMPTY_PATH)?;
        self.side().insert(inode(&known.stat), (owner, known.file));
        Ok(())
    }

    /// Makes a file root's again, which is what the disk says.
    pub fn forget(&self, known: &Known) -> io::Result<()> {
        if carries_attributes(&known.stat) {
            let mut seen = self.seen();
            seen.remove(&inode(&known.stat));
            return Owner::forget_at(&link_to(&known.file));
        }
        self.side().remove(&inode(&known.stat));
        Ok(())
    }

    /// Takes in what the tables of the layers below say of the files in a root.
    pub fn load(&self, root: &Path, table: &SideTable) {
        for (path, owner) in &table.0 {
            let path = root.join(path);
            let resolve = ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_SYMLINKS;
            let Ok(file) = rustix::fs::openat2(CWD, &path, HANDLE | OFlags::NOFOLLOW, Mode::empty(), resolve) else {
                // Removed by a later layer.
                continue;
            };
            if let Ok(Known { file, stat, owner: None }) = self.know(file)
                && !carries_attributes(&stat)
            {
                self.side().insert(inode(&stat), (*owner, file));
            }
        }
    }

    /// What a table for the next step says: every recorded file in a root that still has a name.
    pub fn table(&self, root: &Path) -> SideTable {
        let mut table = SideTable::default();
        let mut linked = HashMap::new();
        for (inode, (owner, file)) in self.side().iter() {
            let look = |file, path: &Path, flags| rustix::fs::statx(file, path, flags, StatxFlags::BASIC_STATS).ok();
            let names = look(file.as_fd(), Path::new(""), AtFlags::EMPTY_PATH).map_or(0, |stat| stat.stx_nlink);
            if names == 0 {
                continue;
            }
            let known = fs::read_link(link_to(file)).ok().filter(|path| {
                look(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_some_and(|stat| self::inode(&stat) == *inode)
            });
            // It may be known by a name that is gone, and have another.
            if names > 1 || known.is_none() {
                linked.insert(*inode, *owner);
            }
            if let Some(path) = known.as_ref().and_then(|path| path.strip_prefix(root).ok()) {
                table.0.insert(path.to_owned(), *owner);
            }
        }
        if !linked.is_empty() {
            further_names(root, &linked, &mut table);
        }
        table
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<Inode, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn side(&self) -> MutexGuard<'_, HashMap<Inode, (Owner, OwnedFd)>> {
        self.side.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks for all names of files that have several: few builds make links of links, fifos or sockets.
fn further_names(root: &Path, linked: &HashMap<Inode, Owner>, table: &mut SideTable) {
    let look = |path: &Path| rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok();
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let Some(own) = look(root).as_ref().map(device) else { return };
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(directory) else { continue };
        for path in entries.flatten().map(|entry| entry.path()) {
            let Some(stat) = look(&path) else { continue };
            if kind(&stat) == FileType::Directory {
                // What is mounted is nobody's layer.
                if device(&stat) == own {
                    left.push(path);
                }
            } else if let (Some(owner), Ok(path)) = (linked.get(&inode(&stat)), path.strip_prefix(root)) {
                table.0.insert(path.to_owned(), *owner);
            }
        }
    }
}

/// A path to an open file, for calls that take no descriptor without rights; relative, like all paths in /proc here.
pub fn link_to(file: &impl AsFd) -> PathBuf {
    format!("self/fd/{}", file.as_fd().as_raw_fd()).into()
}

fn inode(stat: &Statx) -> Inode {
    (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

/// `user.*` attributes are for files and directories only.
fn carries_attributes(stat: &Statx) -> bool {
    matches!(kind(stat), FileType::RegularFile | FileType::Directory)
}

pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The caller's working directory, or one of its descriptors.
fn directory(thread: i32, number: i32) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(directory_path(thread, number), HANDLE, Mode::empty())?)
}

fn directory_path(thread: i32, number: i32) -> String {
    if number == libc::AT_FDCWD { format!("{thread}/cwd") } else { format!("{thread}/fd/{number}") }
}

fn root(thread: i32) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(format!("{thread}/root"), HANDLE, Mode::empty())?)
}

/// The descriptor that a path of /proc or /dev means, if it is one of the caller's own.
fn own_descriptor(path: &[u8]) -> Option<i32> {
    let path = std::str::from_utf8(path).ok()?;
    match path {
        "/dev/stdin" => return Some(0),
        "/dev/stdout" => return Some(1),
        "/dev/stderr" => return Some(2),
        _ => {}
    }
    ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix))
        .and_then(|number| number.parse().ok())
        .filter(|number| *number >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_to_own_descriptors_are_known() {
        for (path, expected) in [
            ("/proc/self/fd/7", Some(7)),
            ("/dev/fd/0", Some(0)),
            ("/dev/stderr", Some(2)),
            ("/proc/self/fd/-100", None),
            ("/proc/self/fd/7/x", None),
            ("/proc/1/fd/7", None),
            ("dev/fd/0", None),
        ] {
            assert_eq!(own_descriptor(path.as_bytes()), expected, "{path}");
        }
    }
}
