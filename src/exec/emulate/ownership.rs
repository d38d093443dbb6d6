//! Calls about whose a file is: those that ask, those that say, and those that make new ones.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Statx};
use rustix::io::Errno;

use super::call::Where;
use super::credentials::{CAP_CHOWN, CAP_MKNOD, Credentials, UNCHANGED};
use super::files::{Known, Place, kind, link_to};
use super::{CONTINUE, DONE, Reply, Supervisor, errno, memory, stat, value};
use crate::sys::Owner;
use crate::sys::meta::CAPABILITY;
use crate::sys::notify::Notification;
use crate::sys::owner::{Device, REFUSED_XATTR, XATTR};

/// No list of attribute names is longer.
const MAX_LIST: usize = 65536;

impl Supervisor {
    pub(super) fn chown(&self, notification: &Notification, file: &Where, uid: u32, gid: u32) -> io::Result<Reply> {
        let thread = notification.thread;
        // Root's to root, which most are: the kernel can do that, and knows what else belongs to it.
        let to_root = |id| matches!(id, 0 | UNCHANGED);
        if to_root(uid)
            && to_root(gid)
            && self.credentials(thread)?.can(CAP_CHOWN)
            && self.files.says_nothing_of(thread, file)?
        {
            return CONTINUE;
        }
        let known = self.files.know(self.files.open(thread, file)?)?;
        let before = known.owner.unwrap_or_default();
        let or = |new: u32, old: u32| if new == UNCHANGED { old } else { new };
        let after = Owner { uid: or(uid, before.uid), gid: or(gid, before.gid), ..before };
        if !may_chown(&self.credentials(thread)?, before, after) {
            return Err(errno(libc::EPERM));
        }
        if !self.listener.is_waiting(notification) {
            return DONE;
        }
        if after == Owner::default() {
            if known.owner.is_some() {
                self.files.forget(&known)?;
            }
            let unchanged = uid == UNCHANGED && gid == UNCHANGED;
            if known.owner.is_none() || unchanged {
                return CONTINUE;
            }
        }
        lose_privileges(&known)?;
        if after != Owner::default() {
            self.files.record(known, after)?;
        }
        DONE
    }

    pub(super) fn stat(
        &self,
        notification: &Notification,
        file: &Where,
        buffer: u64,
        extended: bool,
    ) -> io::Result<Reply> {
        let thread = notification.thread;
        // Whatever is wrong with the path, the kernel says it better.
        if self.files.says_nothing_of(thread, file)? {
            return CONTINUE;
        }
        let Ok(known) = self.files.open(thread, file).and_then(|file| self.files.know(file)) else {
            return CONTINUE;
        };
        let (Some(owner), mut shown) = (known.owner, known.stat) else {
            return CONTINUE;
        };
        (shown.stx_uid, shown.stx_gid) = (owner.uid, owner.gid);
        show(owner, &mut shown);
        let bytes = if extended { stat::statx_bytes(&shown) } else { stat::stat_bytes(&shown) };
        memory::write(thread, buffer, &bytes)?;
        DONE
    }

    pub(super) fn make_node(
        &self,
        notification: &Notification,
        place: &Where,
        mode: u32,
        device: u64,
    ) -> io::Result<Reply> {
        let thread = notification.thread;
        let who = self.credentials(thread)?;
        let kind = FileType::from_raw_mode(mode);
        let device = match kind {
            FileType::CharacterDevice | FileType::BlockDevice => Some(Device {
                block: kind == FileType::BlockDevice,
                major: rustix::fs::major(device),
                minor: rustix::fs::minor(device),
            }),
            _ => None,
        };
        if device.is_some() && !who.can(CAP_MKNOD) {
            return Err(errno(libc::EPERM));
        }
        let place = self.files.place(thread, place)?;
        let owner = Owner { device, ..self.new_owner(&who, &place)? };
        if owner == Owner::default() {
            return CONTINUE;
        }
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask(thread)?);
        if !self.listener.is_waiting(notification) {
            return DONE;
        }
        let name = OsStr::from_bytes(&place.name);
        let _making = self.files.making();
        match kind {
            FileType::Fifo | FileType::Socket => rustix::fs::mknodat(&place.directory, name, kind, mode, 0)?,
            _ => drop(rustix::fs::openat(&place.directory, name, NEW_FILE, mode)?),
        }
        self.own(&place, owner)
    }

    pub(super) fn make_directory(&self, notification: &Notification, place: &Where, mode: u32) -> io::Result<Reply> {
        let thread = notification.thread;
        let who = self.credentials(thread)?;
        if self.makes_roots(&who, thread, place)? {
            return CONTINUE;
        }
        let place = self.files.place(thread, place)?;
        let owner = self.new_owner(&who, &place)?;
        if owner == Owner::default() {
            return CONTINUE;
        }
        let mode = Mode::from_raw_mode(mode & 0o1777 & !umask(thread)?);
        if !self.listener.is_waiting(notification) {
            return DONE;
        }
        let _making = self.files.making();
        rustix::fs::mkdirat(&place.directory, OsStr::from_bytes(&place.name), mode)?;
        self.own(&place, owner)
    }

    pub(super) fn make_symlink(&self, notification: &Notification, to: u64, place: &Where) -> io::Result<Reply> {
        let thread = notification.thread;
        let who = self.credentials(thread)?;
        if self.makes_roots(&who, thread, place)? {
            return CONTINUE;
        }
        let place = self.files.place(thread, place)?;
        let owner = self.new_owner(&who, &place)?;
        if owner == Owner::default() {
            return CONTINUE;
        }
        let to = memory::read_string(thread, to)?;
        if !self.listener.is_waiting(notification) {
            return DONE;
        }
        let _making = self.files.making();
        rustix::fs::symlinkat(OsStr::from_bytes(&to), &place.directory, OsStr::from_bytes(&place.name))?;
        self.own(&place, owner)
    }

    /// A file is opened that may not be there yet. If it is, or will be root's, the kernel does it all.
    pub(super) fn create(
        &self,
        notification: &Notification,
        place: &Where,
        flags: i32,
        mode: u32,
    ) -> io::Result<Reply> {
        if flags & libc::O_CREAT == 0 {
            return CONTINUE;
        }
        let thread = notification.thread;
        let who = self.credentials(thread)?;
        if self.makes_roots(&who, thread, place)? {
            return CONTINUE;
        }
        let Ok(place) = self.files.place(thread, place) else { return CONTINUE };
        let owner = self.new_owner(&who, &place)?;
        let name = OsStr::from_bytes(&place.name);
        if owner == Owner::default() || rustix::fs::statat(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return CONTINUE;
        }
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask(thread)?);
        if !self.listener.is_waiting(notification) {
            return DONE;
        }
        let wanted = OFlags::from_bits_retain(flags.unsigned_abs());
        let flags = wanted | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let _making = self.files.making();
        match rustix::fs::openat(&place.directory, name, flags, mode) {
            Ok(file) => {
                owner.set_at(&link_to(&file))?;
                Ok(Reply::Descriptor(file, wanted))
            }
            // Somebody was faster: then it is an existing file.
            Err(Errno::EXIST) => CONTINUE,
            Err(error) => Err(error.into()),
        }
    }

    /// `struct open_how`: flags, mode, and how to resolve.
    pub(super) fn create_how(&self, notification: &Notification, place: &Where, how: u64) -> io::Result<Reply> {
        let mut words = [0; 24];
        memory::read(notification.thread, how, &mut words)?;
        let word = |at: usize| u64::from_ne_bytes(words[at..at + 8].try_into().unwrap_or_default());
        let (Ok(flags), Ok(mode)) = (i32::try_from(word(0)), u32::try_from(word(8))) else {
            return CONTINUE;
        };
        // Rules about the way there are the kernel's to keep; such a file is root's.
        if word(16) != 0 {
            return CONTINUE;
        }
        self.create(notification, place, flags, mode)
    }

    /// The names of a file's attributes, without our own.
    pub(super) fn list_attributes(
        &self,
        notification: &Notification,
        file: &Where,
        list: u64,
        size: u64,
    ) -> io::Result<Reply> {
        let thread = notification.thread;
        let Ok(known) = self.files.open(thread, file).and_then(|file| self.files.know(file)) else {
            return CONTINUE;
        };
        if known.owner.is_none() || matches!(kind(&known.stat), FileType::Symlink) {
            return CONTINUE;
        }
        let mut names = vec![0; MAX_LIST];
        let length = rustix::fs::listxattr(link_to(&known.file), &mut names[..])?;
        let shown: Vec<u8> = names[..length]
            .split_inclusive(|byte| *byte == 0)
            .filter(|name| name.strip_suffix(b"\0") != Some(XATTR.as_bytes()))
            .flatten()
            .copied()
            .collect();
        if size != 0 {
            if (shown.len() as u64) > size {
                return Err(errno(libc::ERANGE));
            }
            memory::write(thread, list, &shown)?;
        }
        value(i64::try_from(shown.len()).unwrap_or(i64::MAX))
    }

    /// Whether what is made here is root's, as the disk will say.
    fn makes_roots(&self, who: &Credentials, thread: i32, place: &Where) -> io::Result<bool> {
        Ok(who.is_root_for_files() && self.files.gives_no_group(thread, place)?)
    }

    /// Whose a new file will be: its maker's, but in a setgid directory the directory's group's.
    fn new_owner(&self, who: &Credentials, place: &Place) -> io::Result<Owner> {
        let parent = self.files.know(place.directory.try_clone()?)?;
        let inherits = u32::from(parent.stat.stx_mode) & libc::S_ISGID != 0;
        let gid = if inherits { parent.owner.unwrap_or_default().gid } else { who.group.files };
        Ok(Owner { uid: who.user.files, gid, ..Owner::default() })
    }

    /// Records the owner of what was just made.
    fn own(&self, place: &Place, owner: Owner) -> io::Result<Reply> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file: OwnedFd =
            rustix::fs::openat(place.directory.as_fd(), OsStr::from_bytes(&place.name), flags, Mode::empty())?;
        self.files.record_new(file, owner)?;
        DONE
    }
}

const NEW_FILE: OFlags =
    OFlags::CREATE.union(OFlags::EXCL).union(OFlags::WRONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Root may; an owner may give a file to one of their own groups.
pub(super) fn may_chown(who: &Credentials, before: Owner, after: Owner) -> bool {
    who.can(CAP_CHOWN)
        || (before.uid == who.user.files
            && after.uid == before.uid
            && (after.gid == before.gid || who.in_group(after.gid)))
}

/// A program that gets a new owner must not go on running as its owner, or with rights that the old one gave it.
pub(super) fn lose_privileges(known: &Known) -> io::Result<()> {
    if kind(&known.stat) != FileType::RegularFile {
        return Ok(());
    }
    let path = link_to(&known.file);
    let mode = u32::from(known.stat.stx_mode) & 0o7777;
    let kept = without_privileges(mode);
    if kept != mode {
        rustix::fs::chmod(&path, Mode::from_raw_mode(kept))?;
    }
    // Whoever has any has no room for them here.
    if rustix::fs::listxattr(&path, &mut [0_u8; 1]).is_ok_and(|length| length == 0) {
        return Ok(());
    }
    for name in [CAPABILITY.to_owned(), format!("{REFUSED_XATTR}{CAPABILITY}")] {
        match rustix::fs::removexattr(&path, name) {
            Ok(()) | Err(Errno::NODATA | Errno::NOTSUP | Errno::PERM) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

pub(super) fn without_privileges(mode: u32) -> u32 {
    let mode = mode & !libc::S_ISUID;
    if mode & libc::S_IXGRP != 0 { mode & !libc::S_ISGID } else { mode }
}

/// Shows what the store says beyond the owner.
pub(super) fn show(owner: Owner, shown: &mut Statx) {
    let mut mode = u32::from(shown.stx_mode);
    if let Some(bits) = owner.mode {
        mode = mode & !0o7777 | bits;
    }
    if let Some(device) = owner.device {
        let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
        mode = mode & 0o7777 | kind.as_raw_mode();
        (shown.stx_rdev_major, shown.stx_rdev_minor) = (device.major, device.minor);
    }
    shown.stx_mode = u16::try_from(mode).unwrap_or(shown.stx_mode);
}

/// What the caller's umask takes away.
pub(super) fn umask(thread: i32) -> io::Result<u32> {
    let status = std::fs::read_to_string(format!("{thread}/status"))?;
    Ok(parse_umask(&status).unwrap_or(0o022))
}

fn parse_umask(status: &str) -> Option<u32> {
    let digits = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(digits.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_umask_is_read_from_the_status() {
        assert_eq!(parse_umask("Name:\tsh\nUmask:\t0027\nState:\tS\n"), Some(0o027));
        assert_eq!(parse_umask("Name:\tsh\n"), None);
    }

    #[test]
    fn only_root_gives_files_away() {
        let user = Credentials::new(1000, 1000, vec![27]);
        let own = |uid, gid| Owner { uid, gid, ..Owner::default() };
        for (who, before, after, expected, why) in [
            (&user, own(1000, 1000), own(1000, 27), true, "to a group of one's own"),
            (&user, own(1000, 1000), own(1000, 28), false, "to a foreign group"),
            (&user, own(1000, 1000), own(0, 1000), false, "to another user"),
            (&user, own(0, 0), own(0, 27), false, "a foreign file"),
            (&Credentials::new(0, 0, vec![]), own(5, 5), own(6, 7), true, "root may"),
        ] {
            assert_eq!(may_chown(who, before, after), expected, "{why}");
        }
    }
}
