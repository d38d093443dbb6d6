//! What a file is and who owns it, as layers record it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::xattr;

/// The attribute that holds a file's capabilities.
pub const CAPABILITY: &str = "security.capability";

/// Seconds and nanoseconds since 1970; seconds may be negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Mtime {
    pub seconds: i64,
    pub nanos: u32,
}

/// The type of a directory entry, with what only that type has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File {
        size: u64,
    },
    Symlink {
        target: PathBuf,
    },
    /// A further name of a file; `target` is a path in the same tree. Only tar entries are this; a tree has files.
    Hardlink {
        target: PathBuf,
    },
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    Socket,
}

/// Mode, owner, time and extended attributes as an image means them, which is not always what the disk says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// Permission bits, setuid, setgid and sticky: `0o7777` at most.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Mtime,
    /// Full names (`security.capability`), without those that the snapshot format uses for itself.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
}

/// A file as the disk has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub kind: Kind,
    pub meta: Meta,
    /// Device and inode.
    pub inode: (u64, u64),
    pub links: u64,
}

/// What the host would not take of a [`Meta`]; everything else was set.
#[derive(Debug, Default)]
pub struct Refused {
    pub owner: Option<io::Error>,
    pub xattrs: Vec<(OsString, io::Error)>,
}

/// What a file that was just made has right already, so that nobody needs to set it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    pub owner: bool,
    pub mode: bool,
}

/// Reads what a name in a directory is; none where nothing is. A symlink is not followed.
pub fn read(dir: impl AsFd, name: &OsStr) -> io::Result<Option<Found>> {
    let dir = dir.as_fd();
    let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let kind = kind_of(&stat, || rustix::fs::readlinkat(dir, name, Vec::new()))?;
    let xattrs = read_xattrs(dir, name, &kind)?;
    Ok(Some(found(kind, &stat, xattrs)))
}

/// The extended attributes of a name in a directory, for who has its stat.
pub fn read_xattrs(dir: impl AsFd, name: &OsStr, kind: &Kind) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let dir = dir.as_fd();
    if xattr::has_none(dir, name) {
        return Ok(BTreeMap::new());
    }
    Xattrs::at(dir, name).read(|| open_for_xattrs(dir, name, kind))
}

/// Reads what an open file is. Descriptors opened with `O_PATH` will do.
pub fn read_fd(fd: impl AsFd) -> io::Result<Found> {
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd)?;
    let kind = kind_of(&stat, || rustix::fs::readlinkat(fd, "", Vec::new()))?;
    let xattrs = Xattrs::of(fd).read(|| rustix::io::dup(fd).ok())?;
    Ok(found(kind, &stat, xattrs))
}

/// As [`read_fd`], of what is open for reading: its attributes need no way through /proc.
pub fn read_open(fd: impl AsFd) -> io::Result<Found> {
    let fd = fd.as_fd();
    let stat = rustix::fs::fstat(fd)?;
    let kind = kind_of(&stat, || rustix::fs::readlinkat(fd, "", Vec::new()))?;
    let names = list(|buffer| rustix::fs::flistxattr(fd, buffer))?;
    let xattrs = values(names, |name, buffer| rustix::fs::fgetxattr(fd, name, buffer))?;
    Ok(found(kind, &stat, xattrs))
}

/// Gives a name in a directory its metadata. A symlink is not followed; it has no mode.
pub fn write(dir: impl AsFd, name: &OsStr, kind: &Kind, meta: &Meta) -> io::Result<Refused> {
    write_new(dir, name, kind, meta, Known::default())
}

/// As [`write`], for what was just made and has some of it already.
pub fn write_new(dir: impl AsFd, name: &OsStr, kind: &Kind, meta: &Meta, known: Known) -> io::Result<Refused> {
    let dir = dir.as_fd();
    let mut refused = Refused::default();
    // Owner before xattrs and mode: chown clears file capabilities and setuid.
    if !known.owner {
        let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
        let owner = rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW);
        refused.owner = refusal(owner)?;
    }
    write_xattrs(&meta.xattrs, &mut refused, |key, value| {
        rustix::fs::lsetxattr(Xattrs::at(dir, name).path(), key, value, XattrFlags::empty())
    })?;
    // xattrs before mode: an access ACL brings permission bits of its own.
    let mode_known = known.mode && meta.xattrs.is_empty();
    if !mode_known && !matches!(kind, Kind::Symlink { .. }) {
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode & 0o7777), AtFlags::empty())?;
    }
    // Times last: everything above counts as a change.
    set_mtime(dir, name, meta.mtime)?;
    Ok(refused)
}

/// Gives an open regular file or directory (not `O_PATH`) its metadata.
pub fn write_fd(fd: impl AsFd, meta: &Meta, known: Known) -> io::Result<Refused> {
    let fd = fd.as_fd();
    let mut refused = Refused::default();
    if !known.owner {
        let owner = rustix::fs::fchown(fd, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        refused.owner = refusal(owner)?;
    }
    write_xattrs(&meta.xattrs, &mut refused, |key, value| rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()))?;
    if !known.mode || !meta.xattrs.is_empty() {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode & 0o7777))?;
    }
    rustix::fs::futimens(fd, &times(meta.mtime))?;
    Ok(refused)
}

/// Sets the times of a name in a directory; of a symlink itself.
pub fn set_mtime(dir: impl AsFd, name: &OsStr, mtime: Mtime) -> io::Result<()> {
    Ok(rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Sets the times of an open file (not `O_PATH`).
pub fn set_mtime_fd(fd: impl AsFd, mtime: Mtime) -> io::Result<()> {
    Ok(rustix::fs::futimens(fd, &times(mtime))?)
}

/// Removes the extended attributes of an open file (not `O_PATH`) that an image could have given it.
pub fn clear_xattrs(fd: impl AsFd) -> io::Result<()> {
    let fd = fd.as_fd();
    for name in list(|buffer| rustix::fs::flistxattr(fd, buffer))? {
        if !is_private_xattr(&name) {
            match rustix::fs::fremovexattr(fd, &name) {
                Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// Attributes that belong to the snapshot format or to the host's own policy: no image ever shows or sets them.
pub fn is_private_xattr(name: &OsStr) -> bool {
    const PREFIXES: [&[u8]; 4] = [b"user.dockless.", b"user.overlay.", b"trusted.overlay.", b"security."];
    let name = name.as_bytes();
    match name.strip_prefix(b"system.") {
        Some(rest) => !rest.starts_with(b"posix_acl_"),
        None => name != CAPABILITY.as_bytes() && PREFIXES.iter().any(|prefix| name.starts_with(prefix)),
    }
}

fn found(kind: Kind, stat: &Stat, xattrs: BTreeMap<OsString, Vec<u8>>) -> Found {
    Found {
        kind,
        meta: Meta {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Mtime { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
            xattrs,
        },
        inode: (stat.st_dev, stat.st_ino),
        links: stat.st_nlink,
    }
}

fn kind_of(stat: &Stat, readlink: impl FnOnce() -> Result<std::ffi::CString, Errno>) -> io::Result<Kind> {
    let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Ok(match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Kind::Directory,
        FileType::RegularFile => Kind::File { size: stat.st_size as u64 },
        FileType::Symlink => Kind::Symlink { target: OsString::from_vec(readlink()?.into_bytes()).into() },
        FileType::CharacterDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::new(io::ErrorKind::InvalidData, "file of unknown type")),
    })
}

fn times(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// EPERM without the privilege, EINVAL for an id that the user namespace does not map.
fn refusal(result: Result<(), Errno>) -> io::Result<Option<io::Error>> {
    match result {
        Ok(()) => Ok(None),
        Err(error @ (Errno::PERM | Errno::INVAL | Errno::OVERFLOW)) => Ok(Some(error.into())),
        Err(error) => Err(error.into()),
    }
}

fn write_xattrs(
    xattrs: &BTreeMap<OsString, Vec<u8>>,
    refused: &mut Refused,
    set: impl Fn(&OsStr, &[u8]) -> Result<(), Errno>,
) -> io::Result<()> {
    for (name, value) in xattrs {
        if is_private_xattr(name) {
            continue;
        }
        match set(name, value) {
            Ok(()) => {}
            // By privilege, by file system, by size (ext4 says ENOSPC to values that no inode can hold).
            Err(
                error @ (Errno::PERM
                | Errno::ACCESS
                | Errno::OPNOTSUPP
                | Errno::INVAL
                | Errno::NOSPC
                | Errno::TOOBIG
                | Errno::RANGE),
            ) => refused.xattrs.push((name.clone(), error.into())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Extended attributes by way of `/proc/self/fd`: the only road to those of a symlink, a device or an `O_PATH`
/// descriptor that kernels before 6.13 have.
struct Xattrs {
    path: PathBuf,
    follow: bool,
}

impl Xattrs {
    fn at(dir: BorrowedFd<'_>, name: &OsStr) -> Self {
        let mut path = proc_path(dir);
        path.push(name);
        Self { path, follow: false }
    }

    fn of(fd: BorrowedFd<'_>) -> Self {
        // The link in /proc is followed, and leads to the file itself even when that is a symlink.
        Self { path: proc_path(fd), follow: true }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    /// `open` serves where no /proc is mounted.
    fn read(&self, open: impl FnOnce() -> Option<std::os::fd::OwnedFd>) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
        let listed = list(|buffer| match self.follow {
            true => rustix::fs::listxattr(&self.path, buffer),
            false => rustix::fs::llistxattr(&self.path, buffer),
        });
        match listed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match open() {
                Some(fd) => values(list(|buffer| rustix::fs::flistxattr(&fd, buffer))?, |name, buffer| {
                    rustix::fs::fgetxattr(&fd, name, buffer)
                }),
                None => Ok(BTreeMap::new()),
            },
            listed => values(listed?, |name, buffer| match self.follow {
                true => rustix::fs::getxattr(&self.path, name, buffer),
                false => rustix::fs::lgetxattr(&self.path, name, buffer),
            }),
        }
    }
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

fn open_for_xattrs(dir: BorrowedFd<'_>, name: &OsStr, kind: &Kind) -> Option<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match kind {
        Kind::File { .. } | Kind::Directory => rustix::fs::openat(dir, name, flags, Mode::empty()).ok(),
        _ => None,
    }
}

fn list(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> io::Result<Vec<OsString>> {
    // Most files have none, and most that have some have few: one call on a small buffer answers.
    let mut buffer = [0; 256];
    let names = match call(&mut buffer) {
        Ok(length) => buffer[..length].to_vec(),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            // XATTR_LIST_MAX
            let mut buffer = vec![0; 65536];
            let length = call(&mut buffer)?;
            buffer.truncate(length);
            buffer
        }
        Err(error) => return Err(error.into()),
    };
    Ok(names.split(|byte| *byte == 0).filter(|n| !n.is_empty()).map(|n| OsString::from_vec(n.to_vec())).collect())
}

fn values(
    names: Vec<OsString>,
    get: impl Fn(&OsStr, &mut [u8]) -> Result<usize, Errno>,
) -> io::Result<BTreeMap<OsString, Vec<u8>>> {
    let mut xattrs = BTreeMap::new();
    for name in names {
        // What the host refused is kept under a name of ours, and shown under its own.
        let shown = name.as_bytes().strip_prefix(super::owner::REFUSED_XATTR.as_bytes()).map(OsStr::from_bytes);
        if shown.is_none() && is_private_xattr(&name) {
            continue;
        }
        // XATTR_SIZE_MAX
        let mut buffer = vec![0; 65536];
        match get(&name, &mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                buffer.shrink_to_fit();
                xattrs.insert(shown.map_or_else(|| name.clone(), OsStr::to_owned), buffer);
            }
            // Gone since it was listed, or not for us to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(xattrs)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    fn meta(mode: u32) -> Meta {
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        Meta { mode, uid: me.0, gid: me.1, mtime: Mtime { seconds: -5, nanos: 123_456_789 }, ..Meta::default() }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = File::open(tmp.path()).unwrap();
        fs::write(tmp.path().join("f"), "12345").unwrap();
        fs::create_dir(tmp.path().join("d")).unwrap();
        std::os::unix::fs::symlink("to/where", tmp.path().join("l")).unwrap();
        rustix::fs::mkfifoat(&dir, "p", Mode::RWXU).unwrap();
        let mut with_xattr = meta(0o640);
        with_xattr.xattrs.insert("user.x".into(), b"a\nb\0c".to_vec());
        let cases = [
            ("f", Kind::File { size: 5 }, with_xattr),
            ("d", Kind::Directory, meta(0o1777)),
            ("l", Kind::Symlink { target: "to/where".into() }, meta(0o777)),
            ("p", Kind::Fifo, meta(0o600)),
        ];
        for (name, kind, meta) in cases {
            let refused = write(&dir, name.as_ref(), &kind, &meta).unwrap();
            assert!(refused.owner.is_none(), "{name}: {refused:?}");
            if !refused.xattrs.is_empty() {
                eprintln!("skip: needs user xattrs on the temporary directory");
                continue;
            }
            let found = read(&dir, name.as_ref()).unwrap().unwrap();
            assert_eq!((&found.kind, &found.meta), (&kind, &meta), "{name}");
            let flags = OFlags::PATH | OFlags::NOFOLLOW;
            let path_fd = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap();
            assert_eq!(read_fd(path_fd).unwrap(), found, "{name}");
        }
        assert_eq!(read(&dir, "none".as_ref()).unwrap(), None);
    }

    #[test]
    fn what_belongs_to_snapshots_or_the_host_is_never_set_or_shown() {
        let tmp = tempfile::tempdir().unwrap();
        let file = File::create(tmp.path().join("f")).unwrap();
        let mut evil = meta(0o644);
        for name in ["user.overlay.opaque", "user.dockless.stat", "trusted.overlay.redirect"] {
            assert!(is_private_xattr(name.as_ref()), "{name}");
            evil.xattrs.insert(name.into(), b"y".to_vec());
        }
        assert!(write_fd(&file, &evil, Known::default()).unwrap().xattrs.is_empty());
        let mut buffer = [0; 4096];
        let length = rustix::fs::flistxattr(&file, &mut buffer[..]).unwrap();
        assert!(!String::from_utf8_lossy(&buffer[..length]).contains("overlay"));
        assert!(is_private_xattr("security.selinux".as_ref()));
        for shown in ["security.capability", "user.mime", "system.posix_acl_access", "trusted.x"] {
            assert!(!is_private_xattr(shown.as_ref()), "{shown}");
        }
    }

    #[test]
    fn clearing_takes_away_what_an_image_gave() {
        let tmp = tempfile::tempdir().unwrap();
        let file = File::create(tmp.path().join("f")).unwrap();
        let mut some = meta(0o644);
        some.xattrs.insert("user.x".into(), vec![1]);
        if !write_fd(&file, &some, Known::default()).unwrap().xattrs.is_empty() {
            eprintln!("skip: needs user xattrs on the temporary directory");
            return;
        }
        clear_xattrs(&file).unwrap();
        assert!(read_fd(&file).unwrap().meta.xattrs.is_empty());
    }
}
