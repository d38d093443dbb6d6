//! What a file is and who owns it, as layers record it.

use std::collections::BTreeMap;
use std::ffi::OsString;
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
