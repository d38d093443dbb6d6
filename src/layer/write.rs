//! Writes one layer: tar, hashed, compressed.

use std::io::{self, Read, Write};
use std::path::Path;

use super::{Compression, Encoder, Entry, TarWriter};
use crate::base::DiffId;

/// A layer on its way to a blob.
pub struct LayerWriter<W: Write> {
    tar: TarWriter<Encoder<W>>,
}

/// A layer that was written.
pub struct Written<W> {
    pub out: W,
    pub diff_id: DiffId,
    /// Bytes of the plain tar.
    pub size: u64,
}

impl<W: Write> LayerWriter<W> {
    pub fn new(out: W, compression: Compression, level: Option<i32>) -> io::Result<Self> {
        Ok(Self { tar: TarWriter::new(Encoder::new(out, compression, level)?) })
    }

    /// Adds a member. A name that readers would take for a whiteout is refused.
    pub fn append(&mut self, _entry: &Entry, _data: &mut dyn Read) -> io::Result<()> {
        todo!()
    }

    pub fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        self.tar.whiteout(path)
    }

    pub fn opaque(&mut self, dir: &Path) -> io::Result<()> {
        self.tar.opaque(dir)
    }

    pub fn finish(self) -> io::Result<Written<W>> {
        todo!()
    }
}
