//! What a file is and who owns it, as layers record it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

/// Seconds and nanoseconds since 1970; seconds may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    pub seconds: i64,
    pub nanos: u32,
}

/// The type of a directory entry, with what only that type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: PathBuf,
    },
    /// A further name of a file; `target` is a path in the same tree. Only tar entries are this; a tree has files.
    Hardlink {
        target: PathBuf,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// Mode, owner, time and extended attributes as an image means them, which is not always what the disk says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Full names (`security.capability`), without those that the snapshot format uses for itself.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A file as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub meta: Meta,
    /// Device and inode.
    pub inode: (u64, u64),
    pub links: u64,
}

/// What the host would not take of a [`Meta`]; everything else was set.
#[derive(Debug, Default)]
pub struct Refused {
    pub owner: Option<io::Error>,
    pub xattrs: Vec<(OsString, io::Error)>,
}

/// Reads what a name in a directory is; none where nothing is. A symlink is not followed.
pub fn read(_dir: impl AsFd, _name: &OsStr) -> io::Result<Option<Found>> {
    todo!()
}

/// Reads what an open file is. Descriptors opened with `O_PATH` will do.
pub fn read_fd(_fd: impl AsFd) -> io::Result<Found> {
    todo!()
}

/// Gives a name in a directory its metadata. A symlink is not followed; it has no mode.
pub fn write(_dir: impl AsFd, _name: &OsStr, _kind: &Kind, _meta: &Meta) -> io::Result<Refused> {
    todo!()
}

/// Gives an open regular file or directory its metadata.
pub fn write_fd(_fd: impl AsFd, _meta: &Meta) -> io::Result<Refused> {
    todo!()
}

/// Attributes that snapshots keep for themselves and no image ever sees.
pub fn is_private_xattr(_name: &OsStr) -> bool {
    todo!()
}
