//! A layer's table of contents on disk, so that a layer which nobody mounts is read through once and never unpacked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::memory::{Entry, Keep, Line, MemoryDelta, Slot};
use crate::base::Digest;
use crate::sys::{Kind, Meta, Mtime};

/// Changing the format changes this, and old files count as absent.
const MAGIC: &[u8] = b"dockless layer index 1\n";

/// Writes the table down; a digest at the end tells a file that a power cut emptied from a whole one.
pub(super) fn encode(delta: &MemoryDelta) -> Vec<u8> {
    let (entries, lines) = delta.lines();
    let mut out = Out(MAGIC.to_vec());
    out.number(entries.len() as u64);
    for entry in &entries {
        out.entry(entry);
    }
    out.number(lines.len() as u64);
    for line in &lines {
        out.bytes(line.path.as_os_str().as_bytes());
        out.number(line.entry as u64);
        out.number(line.opaque.into());
    }
    let digest = Digest::of(&out.0);
    out.0.extend_from_slice(digest.as_bytes());
    out.0
}

/// Reads a table; none when it is not whole.
pub(super) fn decode(bytes: &[u8], device: u64) -> Option<MemoryDelta> {
    let (table, digest) = bytes.split_last_chunk::<32>()?;
    if Digest::of(table).as_bytes() != digest {
        return None;
    }
    let mut input = In(table.strip_prefix(MAGIC)?);
    let entries = (0..input.number()?).map(|_| input.entry()).collect::<Option<Vec<_>>>()?;
    let lines = (0..input.number()?)
        .map(|_| {
            Some(Line {
                path: PathBuf::from(OsStr::from_bytes(input.bytes()?)),
                entry: usize::try_from(input.number()?).ok()?,
                opaque: input.number()? != 0,
            })
        })
        .collect::<Option<Vec<_>>>()?;
    MemoryDelta::from_lines(device, Keep::Users, entries, lines)
}

/// Reads the file; none where there is none, or none that is whole.
pub(super) fn read(path: &Path, device: u64) -> io::Result<Option<MemoryDelta>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(decode(&bytes, device)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

struct Out(Vec<u8>);

impl Out {
    fn number(&mut self, mut number: u64) {
        // LEB128: most numbers here are small.
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn pair(&mut self, tag: u64, major: u32, minor: u32) {
        self.number(tag);
        self.number(major.into());
        self.number(minor.into());
    }

    fn entry(&mut self, entry: &Entry) {
        match &entry.kind {
            Slot::Implied => self.number(0),
            Slot::Whiteout => self.number(1),
            Slot::Node(Kind::Directory) => self.number(2),
            Slot::Node(Kind::File { size }) => {
                self.number(3);
                self.number(*size);
            }
            Slot::Node(Kind::Symlink { target }) => {
                self.number(4);
                self.bytes(target.as_os_str().as_bytes());
            }
            Slot::Node(Kind::CharDevice { major, minor }) => self.pair(5, *major, *minor),
            Slot::Node(Kind::BlockDevice { major, minor }) => self.pair(6, *major, *minor),
            Slot::Node(Kind::Fifo) => self.number(7),
            Slot::Node(Kind::Socket) => self.number(8),
            Slot::Node(Kind::Hardlink { target }) => {
                self.number(9);
                self.bytes(target.as_os_str().as_bytes());
            }
        }
        let Meta { mode, uid, gid, mtime, xattrs } = &entry.meta;
        self.number((*mode).into());
        self.number((*uid).into());
        self.number((*gid).into());
        self.number(mtime.seconds.cast_unsigned());
        self.number(mtime.nanos.into());
        self.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            self.bytes(name.as_bytes());
            self.bytes(value);
        }
        match &entry.content {
            None => self.number(0),
            Some(content) => {
                self.number(1);
                self.bytes(content);
            }
        }
    }
}

struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(bytes)
    }

    fn path(&mut self) -> Option<PathBuf> {
        Some(PathBuf::from(std::ffi::OsString::from_vec(self.bytes()?.to_vec())))
    }

    fn entry(&mut self) -> Option<Entry> {
        let kind = match self.number()? {
            0 => Slot::Implied,
            1 => Slot::Whiteout,
            2 => Slot::Node(Kind::Directory),
            3 => Slot::Node(Kind::File { size: self.number()? }),
            4 => Slot::Node(Kind::Symlink { target: self.path()? }),
            5 => Slot::Node(Kind::CharDevice { major: self.small()?, minor: self.small()? }),
            6 => Slot::Node(Kind::BlockDevice { major: self.small()?, minor: self.small()? }),
            7 => Slot::Node(Kind::Fifo),
            8 => Slot::Node(Kind::Socket),
            9 => Slot::Node(Kind::Hardlink { target: self.path()? }),
            _ => return None,
        };
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let mtime = Mtime { seconds: self.number()?.cast_signed(), nanos: self.small()? };
        let mut xattrs = BTreeMap::new();
        for _ in 0..self.number()? {
            xattrs.insert(OsStr::from_bytes(self.bytes()?).to_owned(), self.bytes()?.to_vec());
        }
        let content = match self.number()? {
            0 => None,
            _ => Some(self.bytes()?.to_vec()),
        };
        Some(Entry { kind, meta: Meta { mode, uid, gid, mtime, xattrs }, content })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::snapshot::delta::{Data, Delta, Upper};

    fn sample() -> MemoryDelta {
        let delta = MemoryDelta::new(7, Keep::Users);
        let meta = Meta {
            mode: 0o4755,
            uid: 1,
            gid: 70_000,
            mtime: Mtime { seconds: -5, nanos: 999_999_999 },
            xattrs: BTreeMap::from([("security.capability".into(), vec![1, 0, 255])]),
        };
        delta.make_dir(Path::new("etc")).unwrap();
        delta.set_meta(Path::new("etc"), &Kind::Directory, &meta).unwrap();
        delta.make_file(Path::new("etc/passwd"), &meta, 4, Data::Read(&mut &b"root"[..])).unwrap();
        delta.make_file(Path::new("etc/x"), &meta, 4, Data::Read(&mut &b"data"[..])).unwrap();
        delta.link(Path::new("etc/x"), Path::new("y")).unwrap();
        let odd = PathBuf::from(OsStr::from_bytes(b"odd\xff"));
        delta.make_special(&odd, &Kind::Symlink { target: "/t".into() }, &meta).unwrap();
        delta.make_special(Path::new("dev"), &Kind::BlockDevice { major: 8, minor: 1 }, &meta).unwrap();
        delta.whiteout(Path::new("gone")).unwrap();
        delta.set_opaque(Path::new("etc")).unwrap();
        delta
    }

    #[test]
    fn what_is_written_is_read_back() {
        let delta = sample();
        let again = decode(&encode(&delta), 7).unwrap();
        assert_eq!(again.lines(), delta.lines());
        assert_eq!(again.find(Path::new("etc/x")).unwrap(), delta.find(Path::new("etc/x")).unwrap());
    }

    proptest! {
        #[test]
        fn damage_reads_as_absence(position in 0usize..400, byte: u8, cut in 0usize..400) {
            let whole = encode(&sample());
            let mut damaged = whole.clone();
            let position = position % damaged.len();
            damaged[position] = byte;
            prop_assert!(byte == whole[position] || decode(&damaged, 0).is_none());
            prop_assert!(decode(&whole[..cut.min(whole.len() - 1)], 0).is_none());
        }

        #[test]
        fn no_table_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut table = MAGIC.to_vec();
            table.extend(bytes);
            let digest = Digest::of(&table);
            table.extend_from_slice(digest.as_bytes());
            let _ = decode(&table, 0);
        }
    }
}
