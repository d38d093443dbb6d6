//! The owner store: who owns a file and what it is, where the host refuses chown and mknod. It is an extended
//! attribute of the file, so it survives rename, hard links and overlay copy-up.

use std::io;
use std::os::fd::AsFd;

/// The attribute's name. Never shown to a step, never written to a layer.
pub const XATTR: &str = "user.dockless.stat";

/// Where ownership is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// chown and mknod work: the disk tells the truth.
    #[default]
    Real,
    /// One id only: everything on disk is ours, the truth lies in the store. A file without an entry is 0:0.
    Stored,
}

/// What the store says of one file. The text form is `uid:gid:mode:rdev`, mode in octal with the type bits, rdev as
/// `major.minor` in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// Type and permission bits as stat(2) would give them. The permission bits on disk may be wider, so that
    /// the one user we are can work on the file.
    pub mode: u32,
    /// Major and minor number of a device node, which on disk is an empty regular file.
    pub rdev: (u32, u32),
}

impl Owner {
    pub fn encode(&self) -> String {
        todo!()
    }

    /// None when the text is not ours.
    pub fn parse(_text: &[u8]) -> Option<Self> {
        todo!()
    }

    /// Reads the entry of an open file (not `O_PATH`); none when there is none.
    pub fn get(_file: impl AsFd) -> io::Result<Option<Self>> {
        todo!()
    }

    pub fn set(&self, _file: impl AsFd) -> io::Result<()> {
        todo!()
    }
}
