//! The owner store: who owns a file, and which device it stands for, where the host refuses chown and mknod.
//!
//! Regular files and directories carry their entry as an extended attribute, so it survives rename, hard links and
//! overlay copy-up. What cannot carry one (symlinks, fifos, sockets) has a line in a table beside the delta
//! directory. Permission bits are the disk's, setuid included, but for those that would lock dockless itself out where
//! it has no privilege over them: there the disk has wider ones, and the entry the true ones.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// The attribute's name. Never shown to a step, never written to a layer.
pub const XATTR: &str = "user.dockless.stat";

/// Before the name of an attribute that the host refuses: `security.capability` is kept as this and that.
pub const REFUSED_XATTR: &str = "user.dockless.x.";

/// No entry is longer than this: two ids, a letter, two numbers, a mode.
const MAX_ENTRY: usize = 80;

/// Where ownership is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ownership {
    /// chown and mknod work: the disk tells the truth.
    #[default]
    Real,
    /// One id only: everything on disk is ours, the truth lies in the store. A file without an entry is 0:0.
    Stored,
}

/// What the store says of one file, as text `uid:gid`, for a device `uid:gid:c:major:minor` (or `b`), with `:m:mode`
/// at the end where the disk has another mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
    /// The device node that an empty regular file stands for.
    pub device: Option<Device>,
    /// Permission bits, setuid, setgid and sticky, where the disk's are wider.
    pub mode: Option<u32>,
}

/// A device node that could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// A block device; else a character device.
    pub block: bool,
    pub major: u32,
    pub minor: u32,
}

impl Owner {
    pub fn encode(&self) -> String {
        let mut text = format!("{}:{}", self.uid, self.gid);
        if let Some(device) = self.device {
            let letter = if device.block { 'b' } else { 'c' };
            // Writing to a String cannot fail.
            let _ = write!(text, ":{letter}:{}:{}", device.major, device.minor);
        }
        if let Some(mode) = self.mode {
            let _ = write!(text, ":m:{mode:o}");
        }
        text
    }

    /// None when the text is not ours.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut words = std::str::from_utf8(text).ok()?.split(':');
        let uid = words.next()?.parse().ok()?;
        let gid = words.next()?.parse().ok()?;
        let mut letter = words.next();
        let device = match letter {
            Some(kind @ ("b" | "c")) => {
                let device = Device {
                    block: kind == "b",
                    major: words.next()?.parse().ok()?,
                    minor: words.next()?.parse().ok()?,
                };
                letter = words.next();
                Some(device)
            }
            _ => None,
        };
        let mode = match letter {
            None => None,
            Some("m") => Some(u32::from_str_radix(words.next()?, 8).ok().filter(|mode| *mode <= 0o7777)?),
            Some(_) => return None,
        };
        words.next().is_none().then_some(Self { uid, gid, device, mode })
    }

    /// Reads the entry of a file or directory by any descriptor, `O_PATH` included; none when it has none or cannot
    /// have one.
    pub fn get(file: impl AsFd) -> io::Result<Option<Self>> {
        Self::get_at(&by_descriptor(&file))
    }

    /// The same by a path, whose last link is followed.
    pub fn get_at(path: &Path) -> io::Result<Option<Self>> {
        let mut buffer = [0; MAX_ENTRY];
        match rustix::fs::getxattr(path, XATTR, &mut buffer[..]) {
            Ok(length) => Ok(Self::parse(&buffer[..length])),
            // What may not be read is the host's own, in its /proc and /sys.
            Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::RANGE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes the entry of a file or directory. Other types refuse with EPERM: they belong in a [`SideTable`].
    pub fn set(&self, file: impl AsFd) -> io::Result<()> {
        self.set_at(&by_descriptor(&file))
    }

    /// The same by a path, whose last link is followed.
    pub fn set_at(&self, path: &Path) -> io::Result<()> {
        rustix::fs::setxattr(path, XATTR, self.encode().as_bytes(), XattrFlags::empty())?;
        Ok(())
    }

    /// Removes an entry, if there is one: the file is root's again.
    pub fn forget_at(path: &Path) -> io::Result<()> {
        match rustix::fs::removexattr(path, XATTR) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// fgetxattr refuses `O_PATH` descriptors; the path of the descriptor does not.
fn by_descriptor(file: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// Owners of what cannot carry an attribute, by path relative to a delta directory. A path with the wrong type, or
/// none, at it is a left-over and means nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SideTable(pub BTreeMap<PathBuf, Owner>);

impl SideTable {
    /// Where a delta directory's table is: beside it, `NAME.owners`.
    pub fn path(delta: &Path) -> PathBuf {
        let mut path = delta.as_os_str().to_owned();
        path.push(".owners");
        path.into()
    }

    /// The table of a delta directory; empty when there is none.
    pub fn load(delta: &Path) -> io::Result<Self> {
        match std::fs::read(Self::path(delta)) {
            Ok(bytes) => Self::parse(&bytes).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: not an owner table", delta.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes the table of a delta directory, whole or not at all; an empty one is no file.
    pub fn store(&self, delta: &Path) -> io::Result<()> {
        let path = Self::path(delta);
        if self.0.is_empty() {
            return match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let mut beside = path.clone().into_os_string();
        beside.push(".new");
        std::fs::write(&beside, self.encode())?;
        std::fs::rename(&beside, &path)
    }

    /// `owner path NUL`, again and again: a path may hold anything but NUL.
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (path, owner) in &self.0 {
            bytes.extend_from_slice(owner.encode().as_bytes());
            bytes.push(b' ');
            bytes.extend_from_slice(path.as_os_str().as_bytes());
            bytes.push(0);
        }
        bytes
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut table = BTreeMap::new();
        for line in bytes.strip_suffix(b"\0").unwrap_or(bytes).split(|byte| *byte == 0).filter(|line| !line.is_empty())
        {
            let space = line.iter().position(|byte| *byte == b' ')?;
            let path = std::ffi::OsString::from_vec(line[space + 1..].to_vec());
            table.insert(path.into(), Owner::parse(&line[..space])?);
        }
        Some(Self(table))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_forms() {
        let device = |block, major, minor| Some(Device { block, major, minor });
        for (text, owner, why) in [
            ("0:0", Some(Owner::default()), "root's"),
            ("33:4294967295", Some(Owner { uid: 33, gid: u32::MAX, ..Owner::default() }), "ids are 32 bits wide"),
            ("0:6:b:259:3", Some(Owner { gid: 6, device: device(true, 259, 3), ..Owner::default() }), "a disk"),
            ("0:0:c:1:3", Some(Owner { device: device(false, 1, 3), ..Owner::default() }), "a null device"),
            ("1:2:m:4111", Some(Owner { uid: 1, gid: 2, device: None, mode: Some(0o4111) }), "nobody may read it"),
            ("0:6:b:8:0:m:0", Some(Owner { uid: 0, gid: 6, device: device(true, 8, 0), mode: Some(0) }), "both"),
            ("0:0:m:8", None, "modes are octal"),
            ("0:0:m:10000", None, "a mode has no type"),
            ("0:0:m:1:c:1:3", None, "the device comes first"),
            ("0", None, "no group"),
            ("0:0:x:1:3", None, "no such type"),
            ("0:0:c:1", None, "no minor number"),
            ("0:0:c:1:3:", None, "a tail"),
            ("-1:0", None, "ids have no sign"),
        ] {
            assert_eq!(Owner::parse(text.as_bytes()), owner, "{why}");
            if let Some(owner) = owner {
                assert_eq!(owner.encode(), text, "{why}");
            }
        }
    }

    #[test]
    fn an_entry_is_read_back_by_any_descriptor() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner { uid: 33, gid: 34, ..Owner::default() };
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        assert_eq!(Owner::get(&file).unwrap(), None);
        if owner.set(&file).is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)) {
            eprintln!("skip: needs user.* attributes in {}", dir.path().display());
            return;
        }
        let by_path =
            rustix::fs::open(dir.path().join("f"), rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        assert_eq!(Owner::get(&by_path).unwrap(), Some(owner));
        let directory = std::fs::File::open(dir.path()).unwrap();
        owner.set(&directory).unwrap();
        assert_eq!(Owner::get(&directory).unwrap(), Some(owner));
    }

    #[test]
    fn a_table_is_stored_beside_the_delta_and_an_empty_one_is_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let delta = dir.path().join("fs");
        assert_eq!(SideTable::load(&delta).unwrap(), SideTable::default());
        let table = SideTable([("a b\nc".into(), Owner { uid: 1, gid: 2, ..Owner::default() })].into());
        table.store(&delta).unwrap();
        assert_eq!(SideTable::load(&delta).unwrap(), table);
        SideTable::default().store(&delta).unwrap();
        assert!(!SideTable::path(&delta).exists());
    }

    proptest! {
        #[test]
        fn whatever_is_stored_parses_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(owner) = Owner::parse(&bytes) {
                prop_assert_eq!(Owner::parse(owner.encode().as_bytes()), Some(owner));
            }
            if let Some(table) = SideTable::parse(&bytes) {
                prop_assert_eq!(SideTable::parse(&table.encode()), Some(table));
            }
        }
    }
}
