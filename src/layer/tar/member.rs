//! One parsed header as an [`Entry`]: everything checked that a reader could be deceived with.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use tar_core::parse::ParsedEntry;
use tar_core::{EntryType, SparseEntry};

use super::path::{normalise, quote};
use super::pax::{self, Pax};
use crate::layer::{Entry, Error, Result};
use crate::sys::{Kind, Meta, Mtime};

/// No file system that a layer was made on holds larger files; a sparse one of 2^63 zeros would fill any disk.
const MAX_SIZE: u64 = 1 << 44;

/// A member and what of the stream belongs to it.
pub struct Member {
    pub entry: Entry,
    pub stored: u64,
    pub sparse: Option<Vec<SparseEntry>>,
}

impl Member {
    pub fn new(parsed: &ParsedEntry<'_>, sparse: Option<(Vec<SparseEntry>, u64)>, global: &Pax) -> Result<Self> {
        let (map, real_size) = match sparse {
            Some((map, size)) => (Some(map), Some(size)),
            None => (None, None),
        };
        let made =
            entry(parsed, real_size, global).map_err(|reason| Error::Entry { path: quote(&parsed.path), reason });
        let entry = made?;
        // Links, directories and nodes have no content, whatever size their header claims: so Go's reader, and with
        // it every registry and runtime, sees it.
        let is_file = matches!(entry.kind, Kind::File { .. });
        Ok(Self { stored: if is_file { parsed.size } else { 0 }, sparse: map.filter(|_| is_file), entry })
    }
}

fn entry(parsed: &ParsedEntry<'_>, real_size: Option<u64>, global: &Pax) -> std::result::Result<Entry, String> {
    let header = parsed.header.as_bytes();
    // tar-core drops the digits that do not fit 64 bits.
    if !fits_64_bits(&header[124..136]) || parsed.size > MAX_SIZE || real_size.is_some_and(|size| size > MAX_SIZE) {
        return Err("size is not possible".to_owned());
    }
    if !fits_64_bits(&header[136..148]) {
        return Err("mtime is not possible".to_owned());
    }
    let local = match parsed.pax {
        Some(records) => Pax::parse(records)?,
        None => Pax::default(),
    };
    let path = normalise(&parsed.path).ok_or("path leads out of the archive")?;
    let kind = kind(parsed, real_size)?;
    if path.as_os_str().is_empty() && kind != Kind::Directory {
        return Err("the root can only be a directory".to_owned());
    }
    let mut xattrs = global.xattrs.clone();
    xattrs.extend(local.xattrs);
    let owner = |what, local: Option<u32>, global: Option<u32>, header| match local.or(global) {
        Some(id) => Ok(id),
        None => pax::id(what, header),
    };
    let meta = Meta {
        mode: parsed.mode & 0o7777,
        uid: owner("uid", local.uid, global.uid, parsed.uid)?,
        gid: owner("gid", local.gid, global.gid, parsed.gid)?,
        // The header's may be negative in base-256, which tar-core returns as a two's complement.
        mtime: local.mtime.or(global.mtime).unwrap_or(Mtime { seconds: parsed.mtime as i64, nanos: 0 }),
        xattrs,
    };
    Ok(Entry { path, kind, meta })
}

fn kind(parsed: &ParsedEntry<'_>, real_size: Option<u64>) -> std::result::Result<Kind, String> {
    let device = || {
        let (major, minor) = (parsed.dev_major.unwrap_or(0), parsed.dev_minor.unwrap_or(0));
        // What fits Linux's dev_t; more would be cut to some other device.
        if major > 0xfff || minor > 0xf_ffff {
            return Err(format!("device {major}:{minor} is not possible"));
        }
        Ok((major, minor))
    };
    Ok(match parsed.entry_type {
        // In the oldest format only the slash tells a directory.
        EntryType::Regular if parsed.header.as_bytes()[156] == 0 && parsed.path.ends_with(b"/") => Kind::Directory,
        EntryType::Regular | EntryType::Continuous | EntryType::GnuSparse => {
            Kind::File { size: real_size.unwrap_or(parsed.size) }
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink { target: symlink_target(parsed)? },
        EntryType::Link => {
            let target = parsed.link_target.as_deref().ok_or("hard link has no target")?;
            let target = normalise(target).filter(|target| !target.as_os_str().is_empty());
            Kind::Hardlink { target: target.ok_or("hard link leads out of the archive")? }
        }
        EntryType::Char => device().map(|(major, minor)| Kind::CharDevice { major, minor })?,
        EntryType::Block => device().map(|(major, minor)| Kind::BlockDevice { major, minor })?,
        EntryType::Fifo => Kind::Fifo,
        other => return Err(format!("member type {:?} is not supported", char::from(other.to_byte()))),
    })
}

fn symlink_target(parsed: &ParsedEntry<'_>) -> std::result::Result<PathBuf, String> {
    let target = parsed.link_target.as_deref().ok_or("symlink has no target")?;
    if target.contains(&0) {
        return Err("symlink target holds a NUL".to_owned());
    }
    Ok(OsString::from_vec(target.to_vec()).into())
}

/// Of a number field: octal always does; base-256 when its higher bytes only repeat the sign.
fn fits_64_bits(field: &[u8]) -> bool {
    let (high, low) = field.split_at(field.len() - 8);
    match high[0] {
        0x80 => high[1..].iter().all(|b| *b == 0) && low[0] < 0x80,
        0xff => high[1..].iter().all(|b| *b == 0xff) && low[0] >= 0x80,
        first => first < 0x80,
    }
}
