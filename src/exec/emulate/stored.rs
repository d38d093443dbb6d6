//! Ownership, modes and permissions of files whose names are looked at: as the kernel has them where owners are real,
//! else as the owner store does, by the rules that the kernel would keep.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::call::Where;
use super::credentials::{Credentials, UNCHANGED};
use super::files::{Known, Place, kind, link_to};
use super::names::{HANDLE, How, descriptor, host_path};
use super::paths::Named;
use super::permission::{EXECUTE, Guarded, READ, WRITE};
use super::{DONE, Reply, errno, ownership};
use crate::sys::Owner;
use crate::sys::owner::Device;

/// What a step may ask about a file.
pub(super) const STATUS: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::BTIME);

impl Named<'_> {
    pub(super) fn may_add_to(&self, place: &Place) -> io::Result<()> {
        if !self.names.own_root && self.who.user.files != 0 {
            let name = OsStr::from_bytes(&place.name);
            if rustix::fs::statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
                return Err(errno(libc::EEXIST));
            }
            self.guarded(&place.directory)?.permits(&self.who, WRITE | EXECUTE)?;
        }
        Ok(())
    }

    /// A name that goes away.
    pub(super) fn may_take_from(&self, place: &Place) -> io::Result<()> {
        if !self.names.own_root && self.who.user.files != 0 {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, Mode::empty())?;
            self.guarded(&place.directory)?.lets_go(&self.who, self.guarded(&file)?)?;
        }
        Ok(())
    }

    /// Every directory on the way must be one that the caller may look into.
    pub(super) fn may_reach(&self, file: &OwnedFd, who: &Credentials) -> io::Result<()> {
        if self.names.own_root || who.user.files == 0 {
            return Ok(());
        }
        let host = host_path(file)?;
        if !self.names.is_in_root(&host) {
            return Ok(());
        }
        let mut end = host.len();
        while let Some(slash) = host[..end].iter().rposition(|byte| *byte == b'/') {
            if !self.names.is_in_root(&host[..slash]) {
                break;
            }
            let directory = rustix::fs::open(OsStr::from_bytes(&host[..slash]), HANDLE, Mode::empty())?;
            self.guarded(&directory)?.permits(who, EXECUTE)?;
            end = slash;
        }
        Ok(())
    }

    /// What a file is to the step.
    pub(super) fn status(&self, file: &OwnedFd) -> io::Result<Statx> {
        let stat = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, STATUS)?;
        self.status_of(&link_to(file), stat)
    }

    /// The same of one of the caller's descriptors.
    pub(super) fn status_of_descriptor(&self, number: i32) -> io::Result<Statx> {
        let link = descriptor(self.thread(), number);
        match rustix::fs::statx(CWD, &link, AtFlags::empty(), STATUS) {
            Err(Errno::NOENT) => Err(errno(libc::EBADF)),
            stat => self.status_of(Path::new(&link), stat?),
        }
    }

    /// The same of what a link of /proc leads to, of which the disk says this.
    fn status_of(&self, link: &Path, stat: Statx) -> io::Result<Statx> {
        if self.names.own_root {
            return Ok(stat);
        }
        let owner = match self.names.owner_in_memory(link, stat.stx_ino) {
            None => self.supervisor.files.seen_owner(|| link.to_owned(), &stat)?,
            known => known,
        };
        Ok(self.shown(owner, stat))
    }

    /// The same of a file in a directory of the root, of which the disk says this.
    pub(super) fn shown_in(&self, directory: &OwnedFd, name: &OsStr, stat: Statx) -> io::Result<Statx> {
        if self.names.own_root {
            return Ok(stat);
        }
        let owner = self.supervisor.files.seen_owner(|| link_to(directory).join(name), &stat)?;
        Ok(self.shown(owner, stat))
    }

    fn shown(&self, owner: Option<Owner>, mut stat: Statx) -> Statx {
        // What is ours on disk is root's, unless the store says otherwise.
        let (our_user, our_group) = self.names.on_disk;
        let or_root = |id: u32, ours: u32| if id == ours { 0 } else { id };
        let on_disk = (or_root(stat.stx_uid, our_user), or_root(stat.stx_gid, our_group));
        (stat.stx_uid, stat.stx_gid) = owner.map_or(on_disk, |owner| (owner.uid, owner.gid));
        if let Some(owner) = owner {
            ownership::show(owner, &mut stat);
        }
        stat
    }

    pub(super) fn guarded(&self, file: &OwnedFd) -> io::Result<Guarded> {
        Ok(Guarded::by(&self.status(file)?))
    }

    /// A file that is to be changed: what the store says of it, and what it is to the step.
    fn know(&self, file: OwnedFd) -> io::Result<(Known, Statx)> {
        let known = self.supervisor.files.know(file)?;
        let owner = self.names.owner_in_memory(&link_to(&known.file), known.stat.stx_ino).or(known.owner);
        let shown = self.shown(owner, known.stat);
        Ok((known, shown))
    }

    /// Has the store say whose a file is.
    fn record(&self, known: Known, owner: Owner) -> io::Result<()> {
        if owner == Owner::default() {
            return if known.owner.is_some() { self.supervisor.files.forget(&known) } else { Ok(()) };
        }
        self.supervisor.files.record(known, owner)
    }

    /// Makes a file by `make`, and records whose it is, and its mode where the disk has a wider one.
    pub(super) fn make_owned<T>(
        &self,
        place: &Place,
        mode: Option<Mode>,
        device: Option<Device>,
        make: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        if self.names.own_root {
            let _acting = self.acting().map_err(|_| Errno::PERM)?;
            return make();
        }
        let parent = self.status(&place.directory).map_err(number)?;
        let inherits = u32::from(parent.stx_mode) & libc::S_ISGID != 0;
        let gid = if inherits { parent.stx_gid } else { self.who.group.files };
        // Root's own need no record.
        let is_recorded = !self.who.is_root_for_files() || device.is_some();
        let _making = is_recorded.then(|| self.supervisor.files.making());
        let made = make()?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, Mode::empty())?;
        let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let on_disk = u32::from(stat.stx_mode) & 0o7777;
        let directory = kind(&stat) == FileType::Directory;
        let mode = mode.map(|mode| if inherits && directory { mode | Mode::SGID } else { mode });
        if inherits && directory {
            rustix::fs::chmod(link_to(&file), Mode::from_raw_mode(on_disk) | Mode::SGID)?;
        }
        let mode = mode.map(Mode::as_raw_mode).filter(|mode| mode | self.wide(directory) != *mode);
        let owner = Owner { uid: self.who.user.files, gid, device, mode };
        // Of a new file the store says nothing.
        if owner != Owner::default() {
            self.supervisor.files.record_new(file, owner).map_err(number)?;
        }
        Ok(made)
    }

    /// The bits that a file needs on disk so that this process can open it again.
    pub(super) fn wide(&self, directory: bool) -> u32 {
        match directory {
            _ if self.names.own_root => 0,
            true => 0o700,
            false => 0o600,
        }
    }

    pub(super) fn widened(&self, mode: Mode, directory: bool) -> Mode {
        mode | Mode::from_raw_mode(self.wide(directory))
    }

    pub(super) fn chown_stored(&self, file: OwnedFd, uid: u32, gid: u32) -> io::Result<Reply> {
        let (known, shown) = self.know(file)?;
        let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
        let before = Owner { uid: shown.stx_uid, gid: shown.stx_gid, ..known.owner.unwrap_or_default() };
        let after = Owner { uid: or(uid, before.uid), gid: or(gid, before.gid), ..before };
        if !ownership::may_chown(&self.who, before, after) {
            return Err(errno(libc::EPERM));
        }
        if !self.is_waiting() {
            return DONE;
        }
        ownership::lose_privileges(&known)?;
        let mode = after.mode.map(ownership::without_privileges);
        self.record(known, Owner { mode, ..after })?;
        DONE
    }

    pub(super) fn change_mode_stored(&self, file: OwnedFd, mode: Mode) -> io::Result<Reply> {
        let (known, shown) = self.know(file)?;
        Guarded::by(&shown).is_of(&self.who)?;
        let on_disk = self.widened(mode, kind(&shown) == FileType::Directory);
        rustix::fs::chmod(link_to(&known.file), on_disk)?;
        let kept = (on_disk != mode).then_some(mode.as_raw_mode());
        let owner = Owner { mode: kept, ..known.owner.unwrap_or_default() };
        self.record(known, owner)?;
        DONE
    }

    /// Whether the caller may open what is there.
    pub(super) fn may_open(&self, path: &[u8], wanted: OFlags) -> io::Result<()> {
        if self.who.user.files == 0 || wanted.contains(OFlags::PATH) {
            return Ok(());
        }
        let look = How::look(!wanted.contains(OFlags::NOFOLLOW), None);
        let file = self.names.open_path(self.thread(), path, look)?;
        self.may_reach(&file, &self.who)?;
        let mut needed = match wanted & OFlags::ACCMODE {
            OFlags::WRONLY => WRITE,
            OFlags::RDWR => READ | WRITE,
            _ => READ,
        };
        if wanted.contains(OFlags::TRUNC) {
            needed |= WRITE;
        }
        let host = host_path(&file)?;
        let is_secret = self.names.owner_in_memory(&link_to(&file), rustix::fs::fstat(&file)?.st_ino).is_some();
        if !is_secret && self.names.shown(&host).is_none_or(|shown| shown.starts_with(b"/proc")) {
            return Ok(());
        }
        self.guarded(&file)?.permits(&self.who, needed)
    }

    pub(super) fn may_link(&self, file: &Where) -> io::Result<()> {
        self.guarded(&self.look(file)?)?.may_be_linked(&self.who)
    }
}

/// What the caller is told of a fault.
fn number(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}
