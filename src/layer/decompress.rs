//! Decompression by content: what a blob's media type claims does not matter.

use std::io::{self, Read};

/// Plain bytes of a plain, gzip or zstd stream, recognised by its first bytes.
pub fn decompress<'a>(_input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    todo!()
}

/// As [`decompress`], with the work done ahead of the reader on a thread of its own.
pub fn decompress_ahead(_input: impl Read + Send + 'static) -> io::Result<Box<dyn Read + Send>> {
    todo!()
}

/// As [`decompress`], bzip2 and xz too: what ADD unpacks.
pub fn decompress_any<'a>(_input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    todo!()
}
