use std::io::{self, Read, Write};
use std::path::Path;

use crate::layer::Entry;

/// Writes an archive.
pub struct TarWriter<W: Write> {
    out: W,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out }
    }

    /// Adds a member; for a file, `data` must yield exactly as many bytes as its kind says.
    pub fn append(&mut self, _entry: &Entry, _data: &mut dyn Read) -> io::Result<()> {
        todo!()
    }

    /// Adds `.wh.NAME`.
    pub fn whiteout(&mut self, _path: &Path) -> io::Result<()> {
        todo!()
    }

    /// Adds `DIR/.wh..wh..opq`.
    pub fn opaque(&mut self, _dir: &Path) -> io::Result<()> {
        todo!()
    }

    /// Ends the archive.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.out)
    }
}
