//! Compression of layers: the same bytes for the same input, however many threads work on it.

use std::io::{self, Write};

/// How a layer's tar is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    #[default]
    Uncompressed,
    Gzip,
    Zstd,
}

/// Compresses what is written to it into another writer.
pub struct Encoder<W: Write> {
    out: W,
}

impl<W: Write> Encoder<W> {
    /// With a level of the algorithm's own scale; none for the default.
    pub fn new(out: W, _compression: Compression, _level: Option<i32>) -> io::Result<Self> {
        Ok(Self { out })
    }

    /// Ends the stream. An encoder that is dropped leaves a truncated one.
    pub fn finish(self) -> io::Result<W> {
        Ok(self.out)
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
        todo!()
    }

    fn flush(&mut self) -> io::Result<()> {
        todo!()
    }
}
