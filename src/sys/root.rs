//! The one way from a path in an image or a context to a file: by descriptor, never leaving the root.

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
}
