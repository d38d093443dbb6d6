//! Flattens layers into a plain directory.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::{Entry, Target};
use crate::sys::Root;

/// What to attempt.
#[derive(Debug, Clone)]
pub struct DirOptions {
    /// Give files to the owners that the image names; otherwise all stay the caller's.
    pub owners: bool,
    pub devices: bool,
    pub xattrs: bool,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self { owners: true, devices: true, xattrs: true }
    }
}

/// What the host would not take, by class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    pub owners: Loss,
    pub devices: Loss,
    pub xattrs: Loss,
}

/// How often something was lost, and where first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    pub count: u64,
    pub example: Option<PathBuf>,
}

/// A directory that layers are applied to, one over the other.
pub struct DirTarget {
    root: Root,
    options: DirOptions,
}

impl DirTarget {
    pub fn new(root: Root, options: DirOptions) -> Self {
        Self { root, options }
    }

    /// Sets the times of directories, which everything made in them had changed, and says what could not be kept.
    pub fn finish(self) -> anyhow::Result<Lost> {
        let _ = (&self.root, &self.options);
        todo!()
    }
}

impl Target for DirTarget {
    fn start(&mut self) -> anyhow::Result<()> {
        todo!()
    }

    fn entry(&mut self, _entry: &Entry, _data: &mut dyn BufRead) -> anyhow::Result<()> {
        todo!()
    }

    fn whiteout(&mut self, _path: &Path) -> anyhow::Result<()> {
        todo!()
    }

    fn opaque(&mut self, _dir: &Path) -> anyhow::Result<()> {
        todo!()
    }
}
