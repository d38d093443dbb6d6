//! Writes one layer: tar, hashed, compressed.

use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Compression, Encoder, Entry, TarWriter, WHITEOUT_PREFIX};
use crate::base::{DiffId, Hasher};

/// Headers are small: they are gathered, so that hashing and compression see large pieces.
const BUFFER: usize = 256 * 1024;

/// A layer on its way to a blob.
pub struct LayerWriter<W: Write> {
    tar: TarWriter<BufWriter<Hashed<W>>>,
}

/// A layer that was written.
#[derive(Debug)]
pub struct Written<W> {
    pub out: W,
    /// None for a plain layer: the digest of its bytes, which whoever stores them computes, is its diff ID.
    pub diff_id: Option<DiffId>,
    /// Bytes of the plain tar.
    pub size: u64,
}

impl<W: Write> LayerWriter<W> {
    pub fn new(out: W, compression: Compression, level: Option<i32>) -> io::Result<Self> {
        let hasher = (compression != Compression::Uncompressed).then(Hasher::new);
        let hashed = Hashed { encoder: Encoder::new(out, compression, level)?, hasher, size: 0 };
        Ok(Self { tar: TarWriter::new(BufWriter::with_capacity(BUFFER, hashed)) })
    }

    /// Adds a member. A name that readers would take for a whiteout is refused.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        if entry.path.file_name().is_some_and(|name| name.as_bytes().starts_with(WHITEOUT_PREFIX.as_bytes())) {
            let message = format!(
                "{}: a layer cannot hold a file whose name starts with {WHITEOUT_PREFIX}: it would delete another",
                entry.path.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        self.tar.append(entry, data)
    }

    pub fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        self.tar.whiteout(path)
    }

    pub fn opaque(&mut self, dir: &Path) -> io::Result<()> {
        self.tar.opaque(dir)
    }

    pub fn finish(self) -> io::Result<Written<W>> {
        let Hashed { encoder, hasher, size } = self.tar.finish()?.into_inner().map_err(|error| error.into_error())?;
        Ok(Written { out: encoder.finish()?, diff_id: hasher.map(|hasher| DiffId(hasher.finish())), size })
    }
}

struct Hashed<W: Write> {
    encoder: Encoder<W>,
    /// Of the plain tar, where that is not what is written.
    hasher: Option<Hasher>,
    size: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.encoder.write(bytes)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&bytes[..count]);
        }
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use crate::layer::tar::tests::{file, pack};

    #[test]
    fn the_diff_id_is_that_of_the_plain_tar() {
        let member = file("f", b"content");
        let plain = pack(std::slice::from_ref(&member));
        for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            let mut layer = LayerWriter::new(Vec::new(), compression, None).unwrap();
            layer.append(&member.0, &mut &member.1[..]).unwrap();
            let written = layer.finish().unwrap();
            let diff_id = written.diff_id.unwrap_or(DiffId(Digest::of(&written.out)));
            assert_eq!((diff_id.0, written.size), (Digest::of(&plain), plain.len() as u64));
            let mut read = Vec::new();
            crate::layer::decompress(&written.out[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read == plain, "{compression:?}");
        }
    }

    #[test]
    fn a_file_that_would_delete_another_is_refused() {
        let mut layer = LayerWriter::new(Vec::new(), Compression::Uncompressed, None).unwrap();
        let (entry, content) = file("a/.wh.passwd", b"");
        let error = layer.append(&entry, &mut &content[..]).unwrap_err();
        assert!(error.to_string().starts_with("a/.wh.passwd: a layer cannot hold"), "{error}");
        assert!(layer.append(&file("f", b"abc").0, &mut &b"ab"[..]).is_err(), "a file that shrank");
    }
}
