//! What this host does with the metadata of files, where the rest of it is kept, and whether a folder's files mean the
//! same to this process as to the one that made them.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::tree::Node;
use crate::base::Digest;
use crate::sys::owner::{self, Device, Owner, Ownership};
use crate::sys::{Kind, Meta, meta};

/// What this host does with files that are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Host {
    pub ownership: Ownership,
    /// Permission bits bind this process: what it could not open again gets wider ones on disk.
    pub bound: bool,
    /// Whose a new file is.
    pub uid: u32,
    pub gid: u32,
    /// Permissions that a new file does not get.
    pub umask: u32,
}

/// A file that leaves no trace in its folder, not even in the folder's date, where the file system knows such files.
fn nameless(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(dir, flags, Mode::from_raw_mode(0o777)) {
        return Ok(file);
    }
    let mut options = tempfile::Builder::new();
    options.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    Ok(options.tempfile_in(dir)?.into_file().into())
}

/// The word for owners that are what they say, in this user namespace.
pub(super) fn real() -> io::Result<String> {
    let mut maps = std::fs::read_to_string("/proc/self/uid_map")?;
    maps.push_str(&std::fs::read_to_string("/proc/self/gid_map")?);
    let maps: Vec<&str> = maps.split_whitespace().collect();
    Ok(format!("ids-{}", &Digest::of(maps.join(" ")).hex()[..16]))
}

impl Host {
    /// For looking at files only.
    pub fn reading(ownership: Ownership) -> Self {
        Self { ownership, bound: false, uid: u32::MAX, gid: u32::MAX, umask: 0o7777 }
    }

    /// Tries what the host allows, on a file without a name. `ownership` says where owners are kept where that is
    /// known; else the disk keeps them if it takes them.
    pub fn probe(dir: &Path, ownership: Option<Ownership>) -> io::Result<Self> {
        let file = nameless(dir)?;
        let stat = rustix::fs::fstat(&file)?;
        let ownership = ownership.unwrap_or_else(|| {
            let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid ^ 1), rustix::fs::Gid::from_raw(stat.st_gid ^ 1));
            // Any ids but our own: with one id only, or without the privilege, this fails.
            match rustix::fs::fchown(&file, Some(uid), Some(gid)) {
                Ok(()) => Ownership::Real,
                Err(_) => Ownership::Stored,
            }
        });
        let bound = ownership == Ownership::Stored && {
            rustix::fs::fchmod(&file, Mode::empty())?;
            let again = format!("/proc/self/fd/{}", file.as_raw_fd());
            matches!(rustix::fs::open(again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()), Err(Errno::ACCESS))
        };
        Ok(Self { ownership, bound, uid: stat.st_uid, gid: stat.st_gid, umask: 0o777 & !stat.st_mode })
    }

    /// A word for what the owners and modes on disk mean. Processes that agree on it can share files; to others the
    /// same bytes say something else: root's files of one user namespace are a stranger's in the next.
    pub fn meaning(self) -> io::Result<String> {
        Ok(match (self.ownership, self.bound) {
            (Ownership::Stored, false) => "stored".to_owned(),
            (Ownership::Stored, true) => "stored-with-modes".to_owned(),
            (Ownership::Real, _) => real()?,
        })
    }

    /// What a file on disk is in the image. `entry` reads the owner store.
    pub fn node(self, found: meta::Found, entry: impl FnOnce() -> io::Result<Option<Owner>>) -> io::Result<Node> {
        let inode = (found.links > 1 && found.kind != Kind::Directory).then_some(found.inode);
        let mut node = Node { kind: found.kind, meta: found.meta, inode };
        let stored = self.ownership == Ownership::Stored;
        // Where owners are real, an entry is about a device that the host refused: an empty file stands for it.
        if is_whiteout(&node.kind, &node.meta) || !stored && node.kind != (Kind::File { size: 0 }) {
            return Ok(node);
        }
        let entry = entry()?;
        if stored {
            let Owner { uid, gid, .. } = entry.unwrap_or_default();
            (node.meta.uid, node.meta.gid) = (uid, gid);
        }
        if let Some(entry) = entry {
            node.meta.mode = entry.mode.unwrap_or(node.meta.mode);
            node.kind = match entry.device {
                Some(Device { block: true, major, minor }) => Kind::BlockDevice { major, minor },
                Some(Device { block: false, major, minor }) => Kind::CharDevice { major, minor },
                None => node.kind,
            };
        }
        Ok(node)
    }

    /// What a file or directory's entry must say; none where the disk says it all.
    fn entry(self, meta: &Meta, directory: bool, device: Option<Device>) -> Option<Owner> {
        let stored = self.ownership == Ownership::Stored;
        let mode = (self.mode(meta.mode, directory) != meta.mode).then_some(meta.mode);
        let (uid, gid) = if stored || device.is_some() { (meta.uid, meta.gid) } else { (0, 0) };
        let entry = Owner { uid, gid, device, mode };
        (entry != Owner::default()).then_some(entry)
    }

    /// The mode that a file or directory gets on disk.
    pub fn mode(self, mode: u32, directory: bool) -> u32 {
        match (self.bound, directory) {
            (false, _) => mode,
            (true, true) => mode | 0o700,
            (true, false) => mode | 0o600,
        }
    }

    /// Gives a file that was just made, with this mode, its metadata: each thing that is right already need not be set.
    pub fn write_new(self, file: impl AsFd, meta: &Meta) -> io::Result<()> {
        if let Some(entry) = self.entry(meta, false, None) {
            entry.set(&file)?;
        }
        let owner = self.ownership == Ownership::Stored || (meta.uid, meta.gid) == (self.uid, self.gid);
        let on_disk = self.on_disk(meta, false);
        let mode = on_disk.mode & (self.umask | !0o777) == 0;
        let refused = meta::write_fd(&file, &on_disk, meta::Known { owner, mode })?;
        keep_refused(&file, meta, &refused);
        check(refused, meta)
    }

    /// Gives an open file or directory its metadata, the owner where this host keeps owners.
    pub fn write(self, file: impl AsFd, meta: &Meta, directory: bool, device: Option<Device>) -> io::Result<()> {
        match self.entry(meta, directory, device) {
            Some(entry) => entry.set(&file)?,
            // Where owners are real, only a device has one, and it stays one.
            None if self.ownership == Ownership::Real => {}
            None => match rustix::fs::fremovexattr(&file, owner::XATTR) {
                Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error.into()),
            },
        }
        let owner = self.ownership == Ownership::Stored;
        let refused = meta::write_fd(&file, &self.on_disk(meta, directory), meta::Known { owner, mode: false })?;
        keep_refused(&file, meta, &refused);
        check(refused, meta)
    }

    fn on_disk(self, meta: &Meta, directory: bool) -> Cow<'_, Meta> {
        match self.mode(meta.mode, directory) {
            mode if mode == meta.mode => Cow::Borrowed(meta),
            mode => Cow::Owned(Meta { mode, ..meta.clone() }),
        }
    }
}

/// Whether this says that a name is gone: in overlayfs's way, or, where the host refuses that, as a socket without any
/// permission, which no layer can hold.
pub(super) fn is_whiteout(kind: &Kind, meta: &Meta) -> bool {
    match kind {
        Kind::CharDevice { major: 0, minor: 0 } => true,
        Kind::Socket => meta.mode & 0o777 == 0,
        _ => false,
    }
}

/// Keeps attributes that need a privilege under a name that needs none.
fn keep_refused(file: impl AsFd, meta: &Meta, refused: &meta::Refused) {
    for (name, _) in &refused.xattrs {
        let Some(value) = meta.xattrs.get(name).filter(|_| name == meta::CAPABILITY) else { continue };
        let hidden = format!("{}{}", owner::REFUSED_XATTR, meta::CAPABILITY);
        if let Err(error) = rustix::fs::fsetxattr(&file, hidden, value, XattrFlags::empty()) {
            tracing::debug!(%error, "a file capability is not kept");
        }
    }
}

/// What the host would not take. An owner is never given up silently: another image would be built. An extended
/// attribute that this file system or user cannot have is, as in BuildKit.
pub(super) fn check(refused: meta::Refused, meta: &Meta) -> io::Result<()> {
    if let Some((name, error)) = refused.xattrs.first() {
        tracing::debug!(name = %name.display(), %error, "extended attribute not kept");
    }
    match refused.owner {
        Some(error) => Err(io::Error::new(error.kind(), format!("owner {}:{}: {error}", meta.uid, meta.gid))),
        None => Ok(()),
    }
}

/// Opens a file or directory of a delta to set its metadata.
pub(super) fn open_for_meta(dir: &OwnedFd, name: &std::ffi::OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: Kind, mode: u32) -> meta::Found {
        let meta = Meta { mode, uid: 7, gid: 8, ..Meta::default() };
        meta::Found { kind, meta, inode: (1, 1), links: 1 }
    }

    #[test]
    fn the_owner_store_speaks_for_the_file() {
        let device = Some(Device { block: false, major: 5, minor: 1 });
        let entry = Owner { uid: 1, gid: 2, device, mode: Some(0o111) };
        let empty = || found(Kind::File { size: 0 }, 0o666);
        let console = Kind::CharDevice { major: 5, minor: 1 };
        let node = |ownership, found, entry| Host::reading(ownership).node(found, || Ok(entry)).unwrap();
        for (ownership, found, entry, expected, why) in [
            (Ownership::Stored, empty(), Some(entry), (console.clone(), 1, 2, 0o111), "all of it"),
            (Ownership::Stored, empty(), None, (Kind::File { size: 0 }, 0, 0, 0o666), "no entry is root's"),
            (
                Ownership::Real,
                empty(),
                Some(Owner { mode: None, ..entry }),
                (console, 7, 8, 0o666),
                "the owner is real",
            ),
            (Ownership::Real, empty(), None, (Kind::File { size: 0 }, 7, 8, 0o666), "a file like any other"),
            (
                Ownership::Real,
                found(Kind::File { size: 1 }, 0o600),
                Some(entry),
                (Kind::File { size: 1 }, 7, 8, 0o600),
                "only an empty file stands for a device",
            ),
        ] {
            let node = node(ownership, found, entry);
            assert_eq!((node.kind, node.meta.uid, node.meta.gid, node.meta.mode), expected, "{why}");
        }
    }

    #[test]
    fn whom_modes_bind_keeps_the_narrow_ones_in_the_store() {
        let host = Host { bound: true, ..Host::reading(Ownership::Stored) };
        let entry = |mode, directory| host.entry(&Meta { mode, ..Meta::default() }, directory, None);
        assert_eq!(host.mode(0o4111, false), 0o4711);
        assert_eq!(entry(0o4111, false).and_then(|entry| entry.mode), Some(0o4111));
        assert_eq!(host.mode(0o000, true), 0o700);
        assert_eq!(entry(0o644, false), None);
        assert_eq!(entry(0o500, true).and_then(|entry| entry.mode), Some(0o500));
        let free = Host::reading(Ownership::Stored);
        assert_eq!(free.entry(&Meta { mode: 0, ..Meta::default() }, true, None), None);
    }

    #[test]
    fn ids_mean_the_same_to_processes_of_one_namespace() {
        let real = Host::reading(Ownership::Real);
        assert_eq!(real.meaning().unwrap(), real.meaning().unwrap());
        assert_ne!(real.meaning().unwrap(), Host::reading(Ownership::Stored).meaning().unwrap());
    }
}
