//! Opening what lies beneath a directory, as if that were `/`.

use std::ffi::OsStr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{HANDLE, How};
use crate::exec::emulate::acting::Acting;
use crate::exec::emulate::turn;

/// The kernel gives up a walk inside a root that races with a rename anywhere; one that loses this often is attacked.
const RACES: usize = 128;

/// The flags that a handle may have.
const OF_HANDLES: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// The flags that there are.
const KNOWN: OFlags = OFlags::ACCMODE
    .union(OFlags::CREATE)
    .union(OFlags::EXCL)
    .union(OFlags::NOCTTY)
    .union(OFlags::TRUNC)
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::SYNC)
    .union(OFlags::DSYNC)
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::NOATIME)
    .union(OFlags::CLOEXEC)
    .union(OFlags::TMPFILE);

fn kind_of(file: &OwnedFd) -> Result<FileType, Errno> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

fn opens_a_driver(kind: FileType) -> bool {
    matches!(kind, FileType::BlockDevice | FileType::CharacterDevice)
}

/// Whether an open file is a device.
pub fn is_device(file: &OwnedFd) -> Result<bool, Errno> {
    kind_of(file).map(opens_a_driver)
}

/// Opens what is the step's own, which no device is: it may have made one of a disk of the host's.
pub(super) fn own(
    directory: BorrowedFd<'_>,
    path: &[u8],
    how: How<'_>,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    if how.flags.contains(OFlags::PATH) {
        return inside(directory, path, how, resolve);
    }
    // Looked at first: what is no file may do something when it is opened, or have to wait.
    let flags = HANDLE | how.flags & (OFlags::NOFOLLOW | OFlags::DIRECTORY);
    match kind_of(&inside(directory, path, How { flags, mode: Mode::empty(), ..how }, resolve)?)? {
        FileType::RegularFile | FileType::Directory => {}
        kind if opens_a_driver(kind) => return Err(Errno::ACCESS),
        _ => turn::give_way(),
    }
    let file = inside(directory, path, how, resolve)?;
    // Somebody may have put another file there meanwhile.
    if is_device(&file)? { Err(Errno::ACCESS) } else { Ok(file) }
}

/// Opens a path as if a directory were `/`.
pub(super) fn inside(
    directory: BorrowedFd<'_>,
    path: &[u8],
    how: How<'_>,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let flags = how.flags | OFlags::CLOEXEC | OFlags::NOCTTY;
    // openat2 refuses what open ignores.
    let known = if flags.contains(OFlags::PATH) { OF_HANDLES } else { KNOWN };
    let flags = flags & known;
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let _acting = Acting::for_files(how.who).map_err(|_| Errno::PERM)?;
    for _ in 0..RACES {
        match rustix::fs::openat2(directory, OsStr::from_bytes(path), flags, how.mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}
