//! Decompression by content: what a blob's media type claims does not matter.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use super::ahead::Ahead;

/// Compressed bytes read at a time.
const INPUT: usize = 128 * 1024;

/// What one xz stream may make us hold, in KiB: its largest preset asks for 64 MiB.
const XZ_MEMORY: u32 = 96 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Plain,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

impl Format {
    fn of(magic: &[u8]) -> Self {
        match magic {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame, or one of the frames that decoders pass over.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31 | 0x17, ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Plain,
        }
    }
}

/// Plain bytes of a plain, gzip or zstd stream, recognised by its first bytes.
pub fn decompress<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    open(input, |format| matches!(format, Format::Gzip | Format::Zstd))
}

/// As [`decompress`], bzip2 and xz too: what ADD unpacks.
pub fn decompress_any<'a>(input: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    open(input, |_| true)
}

/// As [`decompress_any`], with the work done ahead of the reader on a thread of its own.
pub fn decompress_ahead(input: impl Read + Send + 'static) -> io::Result<impl BufRead + Send> {
    let (mut reader, producer) = Ahead::new();
    let thread = std::thread::Builder::new().name("decompress".to_owned()).spawn(move || {
        producer.run(|| decompress_any(input), |_| {});
    })?;
    reader.join_on_drop(thread);
    Ok(reader)
}

fn open<'a>(mut input: impl Read + Send + 'a, known: impl Fn(Format) -> bool) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut magic = [0; 6];
    let mut length = 0;
    while length < magic.len() {
        match input.read(&mut magic[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let format = Format::of(&magic[..length]);
    let input = Cursor::new(magic).take(length as u64).chain(input);
    if !known(format) {
        return Ok(Box::new(input));
    }
    let input = BufReader::with_capacity(INPUT, input);
    Ok(match format {
        Format::Plain => Box::new(input),
        // Members may follow each other (pigz -i, bgzf, estargz).
        Format::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        // The library's own limit on windows (128 MiB) stays in force.
        Format::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(input)?),
        Format::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(input)),
        Format::Xz => Box::new(lzma_rust2::XzReader::new_mem_limit(input, true, XZ_MEMORY)),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use proptest::prelude::*;

    use super::*;
    use crate::layer::{Compression, Encoder};

    fn read(input: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        decompress_any(input)?.read_to_end(&mut out)?;
        Ok(out)
    }

    fn encode(data: &[u8], compression: Compression) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::new(), compression, None).unwrap();
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_tool_s_output_is_recognised_and_members_may_follow_each_other() {
        let data = b"some text, some more text, ".repeat(10_000);
        for tool in ["cat", "gzip", "zstd", "bzip2", "xz"] {
            let run = |data: &[u8]| {
                let mut child = Command::new(tool)
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .spawn()
                    .ok()?;
                let (mut stdin, data) = (child.stdin.take()?, data.to_vec());
                let feed = std::thread::spawn(move || stdin.write_all(&data));
                let out = child.wait_with_output().ok()?.stdout;
                feed.join().ok()?.ok()?;
                Some(out)
            };
            let Some(packed) = run(&data) else {
                eprintln!("skip: needs {tool}");
                continue;
            };
            assert!(read(&packed).unwrap() == data, "{tool}");
            assert!(read(&[&packed[..], &packed[..]].concat()).unwrap() == data.repeat(2), "{tool} twice");
            let mut ahead = Vec::new();
            decompress_ahead(Cursor::new(packed.clone())).unwrap().read_to_end(&mut ahead).unwrap();
            assert!(ahead == data, "{tool} ahead");
            if tool != "cat" {
                assert!(read(&packed[..packed.len() - 5]).is_err(), "{tool} truncated");
                assert!(read(&packed[..packed.len() / 2]).is_err(), "{tool} truncated in the middle");
                let mut broken = packed.clone();
                let at = broken.len() - 6;
                broken[at] ^= 0xff;
                assert!(read(&broken).is_err(), "{tool} with a wrong checksum");
            }
        }
    }

    #[test]
    fn a_layer_is_never_taken_for_what_layers_are_not() {
        let mut out = Vec::new();
        decompress(&b"BZh91AY&SY"[..]).unwrap().read_to_end(&mut out).unwrap();
        assert_eq!(out, b"BZh91AY&SY");
        assert_eq!(read(b"").unwrap(), b"");
        assert_eq!(read(b"\x1f").unwrap(), b"\x1f");
    }

    #[test]
    fn a_reader_may_leave_early() {
        let packed = encode(&vec![7; 20 << 20], Compression::Gzip);
        let mut reader = decompress_ahead(Cursor::new(packed)).unwrap();
        let mut some = [0; 10];
        reader.read_exact(&mut some).unwrap();
        drop(reader);
        assert_eq!(some, [7; 10]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damaged_streams_end(
            gzip in any::<bool>(),
            hits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let compression = if gzip { Compression::Gzip } else { Compression::Zstd };
            let mut packed = encode(&b"abcdefgh".repeat(2000), compression);
            for (at, value) in hits {
                let at = at.index(packed.len());
                packed[at] = value;
            }
            let mut out = Vec::new();
            if let Ok(reader) = decompress(&packed[..]) {
                let _ = reader.take(1 << 26).read_to_end(&mut out);
            }
        }
    }
}
