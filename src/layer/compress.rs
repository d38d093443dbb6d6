//! Compression of layers: the same bytes for the same input, however many threads work on it.
//!
//! The bytes are part of an image's identity: the level, the block size and the versions of zlib-rs and zstd decide
//! them, and a test pins them.

use std::io::{self, Write};

use super::gzip::Gzip;

/// How a layer's tar is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Compression {
    #[default]
    Uncompressed,
    Gzip,
    Zstd,
}

const ZSTD_LEVEL: i32 = 3;

/// Each worker of zstd holds some 16 MiB; more than this many hardly help a disk.
const ZSTD_WORKERS: usize = 4;

/// Compresses what is written to it into another writer. Writes should be large: each goes on as it comes.
pub struct Encoder<W: Write>(Kind<W>);

enum Kind<W: Write> {
    Uncompressed(W),
    Gzip(Box<Gzip<W>>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    /// With a level of the algorithm's own scale (gzip 0 to 9, zstd 1 to 22); none for the default.
    pub fn new(out: W, compression: Compression, level: Option<i32>) -> io::Result<Self> {
        Self::with_threads(out, compression, level, threads())
    }

    fn with_threads(out: W, compression: Compression, level: Option<i32>, threads: usize) -> io::Result<Self> {
        let refused = |level: i32, range: &str| {
            let message = format!("compression level {level} is not possible, expected {range}");
            io::Error::new(io::ErrorKind::InvalidInput, message)
        };
        Ok(Self(match compression {
            Compression::Uncompressed => Kind::Uncompressed(out),
            Compression::Gzip => {
                let level = match level {
                    None => None,
                    Some(level) => {
                        Some(u32::try_from(level).ok().filter(|l| *l <= 9).ok_or_else(|| refused(level, "0 to 9"))?)
                    }
                };
                Kind::Gzip(Box::new(Gzip::new(out, level, threads)))
            }
            Compression::Zstd => {
                let level = level.unwrap_or(ZSTD_LEVEL);
                if !(1..=22).contains(&level) {
                    return Err(refused(level, "1 to 22"));
                }
                let mut encoder = zstd::stream::write::Encoder::new(out, level)?;
                // Never 0, which would give other bytes than all other numbers do.
                encoder.multithread(threads.clamp(1, ZSTD_WORKERS) as u32)?;
                encoder.include_checksum(true)?;
                Kind::Zstd(encoder)
            }
        }))
    }

    /// Ends the stream. An encoder that is dropped leaves a truncated one.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Uncompressed(out) => Ok(out),
            Kind::Gzip(gzip) => gzip.finish(),
            Kind::Zstd(zstd) => zstd.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Uncompressed(out) => out.write(bytes),
            Kind::Gzip(gzip) => gzip.write(bytes),
            Kind::Zstd(zstd) => zstd.write(bytes),
        }
    }

    /// Passes on what is compressed so far. The compressor keeps what it still works on, because a flush in the
    /// middle would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Uncompressed(out) => out.flush(),
            Kind::Gzip(gzip) => gzip.flush(),
            Kind::Zstd(zstd) => zstd.get_mut().flush(),
        }
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::base::Digest;
    use crate::layer::decompress;

    /// Text and noise, always the same.
    fn sample(size: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as u8
        };
        let mut out = Vec::with_capacity(size + 64);
        while out.len() < size {
            let word = noise();
            out.extend_from_slice(format!("line {} of {word}\n", out.len() / 100).as_bytes());
            out.push(noise());
        }
        out.truncate(size);
        out
    }

    /// Text with stretches of what cannot be compressed, as packages and pictures are.
    fn mixed(size: usize) -> Vec<u8> {
        let noise = crate::layer::dense::noise(7, size);
        let mut out = sample(size);
        for (number, (text, noise)) in out.chunks_mut(40_000).zip(noise.chunks(40_000)).enumerate() {
            if number % 3 > 0 {
                text.copy_from_slice(noise);
            }
        }
        out
    }

    fn encode(data: &[u8], compression: Compression, level: Option<i32>, threads: usize, step: usize) -> Vec<u8> {
        let mut encoder = Encoder::with_threads(Vec::new(), compression, level, threads).unwrap();
        for piece in data.chunks(step) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decode(data: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        decompress(data).unwrap().read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn bytes_do_not_depend_on_threads_or_on_how_they_came() {
        let block = super::super::gzip::BLOCK;
        for size in [0, 1, 511, block - 1, block, block + 1, 3 * block, 3 * block + 77, 20 * block + 5] {
            for (compression, data) in [
                (Compression::Uncompressed, sample(size)),
                (Compression::Gzip, sample(size)),
                (Compression::Gzip, mixed(size)),
                (Compression::Zstd, sample(size)),
            ] {
                let reference = encode(&data, compression, None, 1, 1 << 20);
                assert!(decode(&reference) == data, "{compression:?} {size}");
                for (threads, step) in [(1, 1000), (2, 1 << 20), (3, 65_537), (16, 300_000)] {
                    let same = encode(&data, compression, None, threads, step) == reference;
                    assert!(same, "{compression:?} {size}: {threads} threads, {step} a time");
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_compressed_costs_no_more_room_than_deflate_would_give_it() {
        let data = mixed(1_000_000);
        let mut plain = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        plain.write_all(&data).unwrap();
        let (ours, plain) = (encode(&data, Compression::Gzip, None, 2, 1 << 20).len(), plain.finish().unwrap().len());
        assert!(ours < plain + plain / 200, "{ours} and {plain}");
    }

    #[test]
    fn bytes_are_what_they_were_in_the_last_release() {
        // A change here changes the digests of all images built from now on: say so in CHANGELOG.md.
        let data = sample(1_000_000);
        let digest = |compression| Digest::of(encode(&data, compression, None, 2, 1 << 20)).short();
        assert_eq!(digest(Compression::Gzip), "b9d3239849d4");
        assert_eq!(digest(Compression::Zstd), "7db08b9f38d4");
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for (compression, level) in
            [(Compression::Gzip, 10), (Compression::Gzip, -1), (Compression::Zstd, 23), (Compression::Zstd, 0)]
        {
            assert!(Encoder::new(Vec::new(), compression, Some(level)).is_err(), "{compression:?} {level}");
        }
        for level in 0..=9 {
            assert!(decode(&encode(&sample(300_000), Compression::Gzip, Some(level), 2, 1 << 20)) == sample(300_000));
        }
    }

    #[test]
    fn other_tools_read_it() {
        let data = mixed(700_000);
        for (compression, tool) in [(Compression::Gzip, "gzip"), (Compression::Zstd, "zstd")] {
            let tmp = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(tmp.path(), encode(&data, compression, None, 2, 1 << 20)).unwrap();
            let stdin = std::fs::File::open(tmp.path()).unwrap();
            match std::process::Command::new(tool).arg("-dc").stdin(stdin).output() {
                Ok(out) => assert!(out.status.success() && out.stdout == data, "{tool}"),
                Err(_) => eprintln!("skip: needs {tool}"),
            }
        }
    }

    #[test]
    fn a_full_disk_is_an_error() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut encoder = Encoder::with_threads(Full(1000), compression, None, 3).unwrap();
            let result = encoder.write_all(&sample(5_000_000)).and_then(|()| encoder.finish());
            assert_eq!(result.map(|_| ()).unwrap_err().kind(), io::ErrorKind::StorageFull, "{compression:?}");
        }
    }
}
