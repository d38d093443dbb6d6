//! Calls that name files, for steps without mounts: left to the kernel where the name means to it what it means to the
//! step, carried out here where it does not, or where its caller is not who the kernel thinks.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, Statx};

use super::acting::Acting;
use super::call::{Call, Where};
use super::credentials::Credentials;
use super::files::{Place, link_to};
use super::names::{Directory, Followed, HANDLE, How, Names, descriptor, host_path, text};
use super::permission::{Guarded, WRITE};
use super::{CONTINUE, DONE, Reply, Supervisor, errno, memory, stat, value};
use crate::sys::notify::Notification;

/// A file by its name in a directory, and what the disk says of it.
pub(super) struct NearFile {
    pub directory: Arc<Directory>,
    pub name: OsString,
    pub stat: Statx,
}

/// One call, whose it is, and what its names mean.
pub(super) struct Named<'a> {
    pub supervisor: &'a Supervisor,
    pub names: &'a Names,
    pub notification: &'a Notification,
    pub who: Credentials,
}

impl<'a> Named<'a> {
    pub fn of(supervisor: &'a Supervisor, names: &'a Names, notification: &'a Notification) -> io::Result<Self> {
        Ok(Self { supervisor, names, notification, who: supervisor.credentials(notification.thread)? })
    }

    pub fn carry_out(
        supervisor: &'a Supervisor,
        names: &'a Names,
        notification: &'a Notification,
        call: Call,
    ) -> io::Result<Reply> {
        let named = Self::of(supervisor, names, notification)?;
        match call {
            Call::Create { place, flags, mode } => named.open(&place, flags, mode),
            Call::CreateHow { place, how } => named.open_how(&place, how),
            Call::Stat { file, buffer, extended } => named.stat(&file, buffer, extended),
            Call::StatFileSystem { file, buffer } => named.stat_file_system(&file, buffer),
            Call::Access { file, mode, effective } => named.access(&file, mode, effective),
            Call::ReadLink { file, buffer, size } => named.read_link(&file, buffer, size),
            Call::Chown { file, uid, gid } => named.chown(&file, uid, gid),
            Call::ChangeMode { file, mode } => named.change_mode(&file, mode),
            Call::Truncate { file, length } => named.truncate(&file, length),
            Call::SetTimes { file, times, format } => named.set_times(&file, times, format),
            Call::MakeNode { place, mode, device } => named.make_node(&place, mode, device),
            Call::MakeDirectory { place, mode } => named.make_directory(&place, mode),
            Call::MakeSymlink { to, place } => named.make_symlink(to, &place),
            Call::Remove { place, directory } => named.remove(&place, directory),
            Call::Rename { from, to, flags } => named.rename(&from, &to, flags),
            Call::Link { from, to } => named.link(&from, &to),
            Call::GetAttribute { file, name, value, size } => named.get_attribute(&file, name, value, size),
            Call::SetAttribute { file, name, value, size, flags } => {
                named.set_attribute(&file, name, (value, size), flags)
            }
            Call::RemoveAttribute { file, name } => named.remove_attribute(&file, name),
            Call::ListAttributes { file, list, size } => named.list_attributes(&file, list, size),
            Call::ChangeDirectory { file } => named.change_directory(&file),
            Call::WorkingDirectory { buffer, size } => named.working_directory(buffer, size),
            Call::NameMachine { buffer } => named.name_machine(buffer),
            Call::Execute { file } => named.execute(&file),
            Call::ChangeRoot => Err(errno(libc::EPERM)),
            Call::Mount => named.mount(),
            Call::Kill { process, signal } => named.kill(process, signal),
            Call::Touch { process } => named.touch(process),
            Call::Trace { .. } | Call::BeTraced => named.trace(call),
            Call::GetShared { .. } | Call::UseShared { .. } | Call::ControlShared { .. } => named.share(call),
            other => supervisor.identity(notification, other),
        }
    }

    /// Whether the kernel would do the same: names that lead into the root and nowhere else, for root.
    pub(super) fn is_native(&self, files: &[&Where]) -> io::Result<bool> {
        if !self.may_be_native() {
            return Ok(false);
        }
        for file in files {
            if !self.is_native_by(file, self.text(file)?.as_deref())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The same of a file whose path has been read.
    pub(super) fn is_native_by(&self, file: &Where, text: Option<&[u8]>) -> io::Result<bool> {
        Ok(self.may_be_native() && self.names.is_native(self.thread(), file, text)?)
    }

    fn may_be_native(&self) -> bool {
        self.names.own_root && self.who.is_root_for_files()
    }

    /// The directory and the last name of what a call names, if root is who wants it and no further name plays a part.
    pub(super) fn near<'b>(
        &self,
        file: &Where,
        text: Option<&'b [u8]>,
    ) -> io::Result<Option<(Arc<Directory>, &'b OsStr)>> {
        match text.filter(|_| self.is_root_for_names()) {
            Some(text) => self.names.near(self.thread(), file.directory, text),
            None => Ok(None),
        }
    }

    /// The same where links lead in the end, and what the disk says of it.
    pub(super) fn near_file(&self, file: &Where, text: Option<&[u8]>) -> io::Result<Option<NearFile>> {
        let Some(text) = text.filter(|_| self.is_root_for_names()) else { return Ok(None) };
        match self.names.follow(self.thread(), file, text)? {
            Some(Followed { directory, name, stat }) => {
                let stat = stat.ok_or_else(|| errno(libc::ENOENT))?;
                Ok(Some(NearFile { directory, name, stat }))
            }
            None => Ok(None),
        }
    }

    fn is_root_for_names(&self) -> bool {
        if self.names.own_root { self.who.is_root_for_files() } else { self.who.user.files == 0 }
    }

    pub(super) fn thread(&self) -> i32 {
        self.notification.thread
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.supervisor.listener.is_waiting(self.notification)
    }

    /// Whom the kernel shall take this thread for; none where it cannot tell users apart.
    pub(super) fn actor<'b>(&self, who: &'b Credentials) -> Option<&'b Credentials> {
        (self.names.own_root).then_some(who)
    }

    pub(super) fn look(&self, file: &Where) -> io::Result<OwnedFd> {
        self.look_as(file, &self.who)
    }

    /// The same for changing it.
    pub(super) fn look_to_change(&self, file: &Where) -> io::Result<OwnedFd> {
        let text = self.text(file)?;
        let found = match self.near_file(file, text.as_deref())? {
            Some(NearFile { directory, name, .. }) => {
                rustix::fs::openat(&directory.file, name, HANDLE | OFlags::NOFOLLOW, Mode::empty())?
            }
            None => self.look_by(file, text, &self.who)?,
        };
        let read_only = self.names.has_read_only && self.names.is_read_only(&host_path(&found)?);
        if read_only { Err(errno(libc::EROFS)) } else { Ok(found) }
    }

    fn look_as(&self, file: &Where, who: &Credentials) -> io::Result<OwnedFd> {
        self.look_by(file, self.text(file)?, who)
    }

    pub(super) fn look_by(&self, file: &Where, text: Option<Vec<u8>>, who: &Credentials) -> io::Result<OwnedFd> {
        let found = self.names.look(self.thread(), file, text, self.actor(who))?;
        if file.path.is_some() {
            self.may_reach(&found, who)?;
        }
        Ok(found)
    }

    /// The same by a path that is absolute.
    pub(super) fn look_at(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let found = self.names.open_path(self.thread(), path, How::look(true, self.actor(&self.who)))?;
        self.may_reach(&found, &self.who)?;
        Ok(found)
    }

    /// The path in a call, as its caller wrote it.
    pub(super) fn text(&self, file: &Where) -> io::Result<Option<Vec<u8>>> {
        text(self.thread(), file)
    }

    /// A path that may be relative to the caller's working directory.
    pub(super) fn absolute(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        self.names.absolute(self.thread(), libc::AT_FDCWD, path.to_vec())
    }

    /// The place for a new name, by a path that is absolute.
    pub(super) fn new_place_at(&self, path: &[u8]) -> io::Result<Place> {
        let place = self.names.place_at(self.thread(), path, self.actor(&self.who)).map_err(exists_if_busy)?;
        self.may_reach(&place.directory, &self.who)?;
        self.may_add_to(&place)?;
        Ok(place)
    }

    pub(super) fn place(&self, place: &Where) -> io::Result<Place> {
        let place = self.names.place(self.thread(), place, self.actor(&self.who))?;
        self.may_reach(&place.directory, &self.who)?;
        Ok(place)
    }

    /// The place for a new name.
    pub(super) fn new_place(&self, place: &Where) -> io::Result<Place> {
        let place = self.place(place).map_err(exists_if_busy)?;
        self.may_add_to(&place)?;
        Ok(place)
    }

    pub(super) fn acting(&self) -> io::Result<Acting> {
        Acting::for_files(self.actor(&self.who))
    }

    fn stat(&self, file: &Where, buffer: u64, extended: bool) -> io::Result<Reply> {
        let text = self.text(file)?;
        if self.is_native_by(file, text.as_deref())? {
            return CONTINUE;
        }
        let shown = match self.near_file(file, text.as_deref())? {
            Some(NearFile { directory, name, stat }) => self.shown_in(&directory.file, &name, stat)?,
            None if text.is_none() => {
                let shown = self.status_of_descriptor(file.directory)?;
                self.names.set_apart(Path::new(&descriptor(self.thread(), file.directory)), shown)
            }
            None => {
                let found = self.look_by(file, text, &self.who)?;
                self.names.set_apart(&link_to(&found), self.status(&found)?)
            }
        };
        let bytes = if extended { stat::statx_bytes(&shown) } else { stat::stat_bytes(&shown) };
        memory::write(self.thread(), buffer, &bytes)?;
        DONE
    }

    fn stat_file_system(&self, file: &Where, buffer: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let (status, id) = (rustix::fs::fstatfs(&file)?, rustix::fs::fstatvfs(&file)?.f_fsid);
        memory::write(self.thread(), buffer, &stat::statfs_bytes(&status, id))?;
        DONE
    }

    fn access(&self, file: &Where, mode: u32, effective: bool) -> io::Result<Reply> {
        let who = if effective { self.who.clone() } else { self.who.really() };
        let text = self.text(file)?;
        if who == self.who {
            if self.is_native_by(file, text.as_deref())? {
                return CONTINUE;
            }
            if let Some(NearFile { directory, name, stat }) = self.near_file(file, text.as_deref())? {
                if self.names.own_root {
                    let wanted = Access::from_bits_retain(mode);
                    rustix::fs::accessat(&directory.file, &name, wanted, AtFlags::SYMLINK_NOFOLLOW)?;
                } else {
                    Guarded::by(&self.shown_in(&directory.file, &name, stat)?).permits(&who, mode)?;
                }
                return DONE;
            }
        }
        let file = self.look_by(file, text, &who)?;
        self.may(&file, &who, mode)?;
        DONE
    }

    fn read_link(&self, file: &Where, buffer: u64, size: u64) -> io::Result<Reply> {
        let text = self.text(file)?;
        if self.is_native_by(file, text.as_deref())? {
            return CONTINUE;
        }
        let target = if let Some((directory, name)) = self.near(file, text.as_deref())? {
            rustix::fs::readlinkat(&directory.file, name, Vec::new())?.into_bytes()
        } else if let Some(text) = text {
            let path = self.names.absolute(self.thread(), file.directory, text)?;
            self.names.read_link(self.thread(), &path, self.actor(&self.who))?
        } else {
            rustix::fs::readlinkat(self.look(file)?, "", Vec::new())?.into_bytes()
        };
        let length = target.len().min(usize::try_from(size).unwrap_or(usize::MAX));
        if length == 0 {
            return Err(errno(libc::EINVAL));
        }
        memory::write(self.thread(), buffer, &target[..length])?;
        value(i64::try_from(length).unwrap_or(i64::MAX))
    }

    fn chown(&self, file: &Where, uid: u32, gid: u32) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look_to_change(file)?;
        if !self.names.own_root {
            return self.chown_stored(file, uid, gid);
        }
        let id = |id: u32| (id != u32::MAX).then_some(id);
        let (uid, gid) = (id(uid).map(rustix::fs::Uid::from_raw), id(gid).map(rustix::fs::Gid::from_raw));
        if !self.is_waiting() {
            return DONE;
        }
        let _acting = self.acting()?;
        rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?;
        DONE
    }

    fn change_mode(&self, file: &Where, mode: u32) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look_to_change(file)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Symlink {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let mode = Mode::from_raw_mode(mode & 0o7777);
        if !self.names.own_root {
            return self.change_mode_stored(file, mode);
        }
        let _acting = self.acting()?;
        rustix::fs::chmod(link_to(&file), mode)?;
        DONE
    }

    fn truncate(&self, file: &Where, length: i64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let path = self.names.path(self.thread(), file)?.ok_or_else(|| errno(libc::ENOENT))?;
        if !self.names.own_root {
            self.may_open(&path, OFlags::WRONLY)?;
        }
        let how = How { flags: OFlags::WRONLY | OFlags::NONBLOCK, mode: Mode::empty(), who: self.actor(&self.who) };
        let file = self.names.open_path(self.thread(), &path, how)?;
        rustix::fs::ftruncate(file, u64::try_from(length).map_err(|_| errno(libc::EINVAL))?)?;
        DONE
    }

    fn set_times(&self, file: &Where, times: u64, format: super::call::TimeFormat) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look_to_change(file)?;
        let now = times == 0;
        let times = super::times::read(self.thread(), times, format)?;
        if !self.names.own_root && self.who.user.files != 0 {
            let guarded = self.guarded(&file)?;
            // Who may write may say that it was just now.
            guarded.is_of(&self.who).or_else(|error| match now {
                true => guarded.permits(&self.who, WRITE),
                false => Err(error),
            })?;
        }
        let _acting = self.acting()?;
        // The link in /proc leads to the file itself, even when that is a symlink.
        rustix::fs::utimensat(CWD, link_to(&file), &times, AtFlags::empty())?;
        DONE
    }

    /// Whether somebody may do this to a file.
    pub(super) fn may(&self, file: &OwnedFd, who: &Credentials, mode: u32) -> io::Result<()> {
        if !self.names.own_root {
            return self.guarded(file)?.permits(who, mode);
        }
        let _acting = Acting::for_files(Some(who))?;
        // As who this thread acts, not as who it is.
        Ok(rustix::fs::accessat(CWD, link_to(file), Access::from_bits_retain(mode), AtFlags::EACCESS)?)
    }
}

/// What is there already, and cannot be made: a name of the view's own.
pub(super) fn exists_if_busy(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EBUSY) { errno(libc::EEXIST) } else { error }
}
