//! Writing archives. Names too long or not ASCII, large numbers, fine times and extended attributes go into a PAX
//! header before the member, sorted by key; all else stays plain ustar.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use tar::{EntryType, Header};

use super::{BLOCK, XATTR, XATTR_ENCODED};
use crate::layer::{Entry, WHITEOUT_OPAQUE, WHITEOUT_PREFIX};
use crate::sys::{Kind, Meta, Mtime};

const BUFFER: usize = 128 * 1024;

/// Writes an archive. Times are written as they are given; who wants them cut or clamped does so before.
pub struct TarWriter<W: Write> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> TarWriter<W> {
    pub fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// What was written to so far.
    pub fn get_mut(&mut self) -> &mut W {
        &mut self.out
    }

    /// Adds a member; for a file, `data` must yield exactly as many bytes as its kind says. Sockets, which tar has no
    /// type for, are left out, as Docker does.
    pub fn append(&mut self, entry: &Entry, data: &mut dyn Read) -> io::Result<()> {
        if entry.kind == Kind::Socket {
            return Ok(());
        }
        self.header(entry)?;
        let Kind::File { size } = entry.kind else { return Ok(()) };
        self.content(data, size)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", entry.path.display())))?;
        self.out.write_all(&[0; BLOCK][..padding(size)])
    }

    /// Adds `.wh.NAME`.
    pub fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let name =
            path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "whiteout of the root"))?;
        self.mark(path.with_file_name([OsStr::new(WHITEOUT_PREFIX), name].join(OsStr::new("")).as_os_str()))
    }

    /// Adds `DIR/.wh..wh..opq`.
    pub fn opaque(&mut self, dir: &Path) -> io::Result<()> {
        self.mark(dir.join(WHITEOUT_OPAQUE))
    }

    fn mark(&mut self, path: std::path::PathBuf) -> io::Result<()> {
        // As containerd makes them: an empty file of mode 0.
        self.header(&Entry { path, kind: Kind::File { size: 0 }, meta: Meta::default() })
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }

    fn content(&mut self, data: &mut dyn Read, size: u64) -> io::Result<()> {
        if self.buffer.is_empty() {
            self.buffer.resize(BUFFER, 0);
        }
        let mut left = size;
        while left > 0 {
            let limit = self.buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match data.read(&mut self.buffer[..limit]) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "file shrank while it was read")),
                Ok(count) => {
                    self.out.write_all(&self.buffer[..count])?;
                    left -= count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut name = entry.path.as_os_str().as_bytes().to_vec();
        if entry.kind == Kind::Directory {
            name.extend_from_slice(if name.is_empty() { b"./" } else { b"/" });
        }
        let (kind, link, size, device) = match &entry.kind {
            Kind::File { size } => (EntryType::Regular, None, *size, (0, 0)),
            Kind::Directory => (EntryType::Directory, None, 0, (0, 0)),
            Kind::Symlink { target } => (EntryType::Symlink, Some(target), 0, (0, 0)),
            Kind::Hardlink { target } => (EntryType::Link, Some(target), 0, (0, 0)),
            Kind::CharDevice { major, minor } => (EntryType::Char, None, 0, (*major, *minor)),
            Kind::BlockDevice { major, minor } => (EntryType::Block, None, 0, (*major, *minor)),
            Kind::Fifo => (EntryType::Fifo, None, 0, (0, 0)),
            Kind::Socket => unreachable!("sockets are left out"),
        };
        let link = link.map_or(&b""[..], |target| target.as_os_str().as_bytes());
        let meta = &entry.meta;

        let mut header = Header::new_ustar();
        let mut records = BTreeMap::new();
        header.set_entry_type(kind);
        let fields = header.as_ustar_mut().ok_or_else(|| io::Error::other("header is not ustar"))?;
        text(&mut fields.name, &name, "path", &mut records);
        text(&mut fields.linkname, link, "linkpath", &mut records);
        octal(&mut fields.mode, u64::from(meta.mode & 0o7777));
        number(&mut fields.uid, u64::from(meta.uid), "uid", &mut records);
        number(&mut fields.gid, u64::from(meta.gid), "gid", &mut records);
        number(&mut fields.size, size, "size", &mut records);
        octal(&mut fields.dev_major, u64::from(device.0));
        octal(&mut fields.dev_minor, u64::from(device.1));
        let whole = u64::try_from(meta.mtime.seconds).ok().filter(|seconds| octal(&mut fields.mtime, *seconds));
        if whole.is_none() {
            octal(&mut fields.mtime, 0);
        }
        if whole.is_none() || meta.mtime.nanos != 0 {
            records.insert(b"mtime".to_vec(), time(meta.mtime).into_bytes());
        }
        for (name, value) in &meta.xattrs {
            let (key, value) = xattr(name.as_bytes(), value);
            records.insert(key, value);
        }
        if !records.is_empty() {
            self.extended(&name, &records)?;
        }
        checksum(&mut header);
        self.out.write_all(header.as_bytes())
    }

    fn extended(&mut self, name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<()> {
        let mut body = Vec::new();
        for (key, value) in records {
            record(&mut body, key, value);
        }
        // Go puts the header's own name beside the member, in a folder that exists in no file system.
        let split = name.iter().rposition(|b| *b == b'/').map_or(0, |slash| slash + 1);
        let (dir, file) = (ascii(&name[..split]), ascii(&name[split..]));
        let dir = Path::new(OsStr::from_bytes(&dir)).components().as_path().as_os_str().as_bytes();
        let parts = [dir, b"PaxHeaders.0", &file];
        let joined =
            parts.iter().filter(|part| !part.is_empty() && *part != b".").copied().collect::<Vec<_>>().join(&b'/');
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        let fields = header.as_ustar_mut().ok_or_else(|| io::Error::other("header is not ustar"))?;
        let shown = &joined[..joined.len().min(fields.name.len())];
        let shown = &shown[..shown.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1)];
        fields.name[..shown.len()].copy_from_slice(shown);
        for field in [&mut fields.mode, &mut fields.uid, &mut fields.gid, &mut fields.dev_major, &mut fields.dev_minor]
        {
            octal(field, 0);
        }
        // Go leaves these two of an extended header empty.
        fields.dev_major.fill(0);
        fields.dev_minor.fill(0);
        octal(&mut fields.size, body.len() as u64);
        octal(&mut fields.mtime, 0);
        checksum(&mut header);
        self.out.write_all(header.as_bytes())?;
        body.resize(body.len() + padding(body.len() as u64), 0);
        self.out.write_all(&body)
    }
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

/// A name or link field, in the extended header too when the field cannot hold it.
fn text(field: &mut [u8; 100], value: &[u8], key: &str, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if value.len() > field.len() || !value.is_ascii() {
        records.insert(key.as_bytes().to_vec(), value.to_vec());
    }
    let plain = ascii(value);
    let kept = plain.len().min(field.len());
    field[..kept].copy_from_slice(&plain[..kept]);
    // Readers without PAX take a file whose cut name ends in a slash for a directory.
    if plain.len() > field.len() && field[field.len() - 1] == b'/' {
        let end = field.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
        field[end] = 0;
    }
}

fn ascii(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(u8::is_ascii).collect()
}

fn number(field: &mut [u8], value: u64, key: &str, records: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    if !octal(field, value) {
        octal(field, 0);
        records.insert(key.as_bytes().to_vec(), value.to_string().into_bytes());
    }
}

/// Digits padded with zeros, and a NUL; false, with nothing written, when there are too many.
fn octal(field: &mut [u8], value: u64) -> bool {
    let digits = format!("{value:o}");
    let Some(pad) = (field.len() - 1).checked_sub(digits.len()) else { return false };
    field[..pad].fill(b'0');
    field[pad..pad + digits.len()].copy_from_slice(digits.as_bytes());
    field[pad + digits.len()] = 0;
    true
}

/// Six digits, NUL, space: the oldest form, which every reader and writer shares.
fn checksum(header: &mut Header) {
    header.as_old_mut().cksum.fill(b' ');
    let sum: u64 = header.as_bytes().iter().map(|b| u64::from(*b)).sum();
    octal(&mut header.as_old_mut().cksum[..7], sum);
}

fn time(mtime: Mtime) -> String {
    let Mtime { seconds, nanos } = mtime;
    if nanos == 0 {
        return seconds.to_string();
    }
    let text = match seconds < 0 {
        true => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        false => format!("{seconds}.{nanos:09}"),
    };
    text.trim_end_matches('0').to_owned()
}

/// A key holds no `=` and is read as UTF-8: other names go the encoded way.
fn xattr(name: &[u8], value: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if std::str::from_utf8(name).is_ok() && !name.contains(&b'=') {
        return ([XATTR.as_bytes(), name].concat(), value.to_vec());
    }
    let mut key = XATTR_ENCODED.as_bytes().to_vec();
    for byte in name {
        match byte {
            b'=' | b'%' | 0..=32 | 127..=255 => key.extend_from_slice(format!("%{byte:02X}").as_bytes()),
            plain => key.push(*plain),
        }
    }
    (key, STANDARD_NO_PAD.encode(value).into_bytes())
}

fn record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = 3 + key.len() + value.len();
    // The length counts its own digits, which may make it one digit longer.
    let mut length = rest + rest.to_string().len();
    if length.to_string().len() + rest != length {
        length += 1;
    }
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}
