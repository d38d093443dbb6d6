//! The one way from a path in an image or a context to a file: by descriptor, never leaving the root.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A directory that paths are resolved in, as if it were `/`: `..` stops at it, absolute symlinks start at it.
pub struct Root {
    fd: OwnedFd,
}

impl Root {
    /// Opens a directory of the host by a path that dockless itself chose.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { fd: file.into() })
    }

    /// The directory itself.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// A directory that is open already.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// An `O_PATH` descriptor of what is at a path. Symlinks on the way are followed inside the root; the last name
    /// only when `follow`.
    pub fn locate(&self, _path: &Path, _follow: bool) -> io::Result<OwnedFd> {
        todo!()
    }

    /// The directory (`O_PATH`) that holds the last name of a path, and that name. The root itself has none.
    pub fn parent(&self, _path: &Path) -> io::Result<(OwnedFd, OsString)> {
        todo!()
    }

    /// A directory, symlinks followed, that can be read and be a [`Root`] of its own.
    pub fn open_dir(&self, _path: &Path) -> io::Result<OwnedFd> {
        todo!()
    }

    /// A regular file for reading, symlinks followed. Never waits on a fifo.
    pub fn open_file(&self, _path: &Path) -> io::Result<File> {
        todo!()
    }

    /// A new regular file; an error where anything is in its place.
    pub fn create_file(&self, _path: &Path, _mode: u32) -> io::Result<File> {
        todo!()
    }

    /// Makes a directory and those above it, mode 0755, where they are missing.
    pub fn make_dirs(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }

    /// Removes what is at a path with all below it; a symlink itself, never what it names. Ok when nothing is there.
    pub fn remove(&self, _path: &Path) -> io::Result<()> {
        todo!()
    }

    /// The names in a directory, sorted bytewise.
    pub fn read_dir(&self, _path: &Path) -> io::Result<Vec<OsString>> {
        todo!()
    }
}
