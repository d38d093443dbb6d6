//! Writing a delta: every change goes to the delta alone, on the understanding of what lies below it.

use std::io::{self, BufRead};
use std::path::{Path, PathBuf};

use super::tree::{FileData, Node};
use crate::layer::{Entry, Target};
use crate::sys::{Kind, Meta};

/// Writes one delta over the layers below it. Paths are relative, normalised, and taken as they are (a symlink in
/// their folders is followed nowhere; [`super::resolve`] them first against [`DeltaWriter::tree`]), except in the
/// [`Target`] calls, which resolve parents as an archive means them.
pub struct DeltaWriter {}

impl DeltaWriter {
    /// The state so far: what lies below with what was written.
    pub fn tree(&self) -> &dyn super::Tree {
        todo!()
    }

    pub fn lookup(&self, _path: &Path) -> io::Result<Option<Node>> {
        todo!()
    }

    pub fn resolve(&self, _path: &Path, _follow_last: bool) -> io::Result<PathBuf> {
        todo!()
    }

    /// Makes anything but a regular file; what is in its way is removed, except that a directory stays and gets the metadata.
    pub fn make(&mut self, _path: &Path, _kind: &Kind, _meta: &Meta) -> io::Result<()> {
        todo!()
    }

    /// Makes a regular file, replacing what is in its way.
    pub fn file(&mut self, _path: &Path, _meta: &Meta, _data: FileData) -> io::Result<()> {
        todo!()
    }

    /// Removes a name and all below it. Ok when nothing was there.
    pub fn remove(&mut self, _path: &Path) -> io::Result<()> {
        todo!()
    }

    pub fn set_meta(&mut self, _path: &Path, _meta: &Meta) -> io::Result<()> {
        todo!()
    }
}

impl Target for DeltaWriter {
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
