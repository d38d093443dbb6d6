//! Calls that name files, for steps without mounts: left to the kernel where the name means to it what it means to the
//! step, carried out here where it does not, or where its caller is not who the kernel thinks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Statx, StatxFlags};

use super::acting::Acting;
use super::call::{Call, Where};
use super::credentials::{CAP_MKNOD, Credentials};
use super::files::{Place, kind, link_to};
use super::names::{self, Directory, How, Names, host_path, is_device, text};
use super::ownership::umask;
use super::permission::{EXECUTE, Guarded, WRITE};
use super::stored::STATUS;
use super::{CONTINUE, DONE, Reply, Supervisor, errno, memory, stat, value};
use crate::sys::Owner;
use crate::sys::notify::Notification;
use crate::sys::owner::Device;

/// A file by its name in a directory, and what the disk says of it.
pub(super) struct NearFile<'a> {
    pub directory: Arc<Directory>,
    pub name: &'a OsStr,
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
    fn near<'b>(&self, file: &Where, text: Option<&'b [u8]>) -> io::Result<Option<(Arc<Directory>, &'b OsStr)>> {
        let is_root = if self.names.own_root { self.who.is_root_for_files() } else { self.who.user.files == 0 };
        match text.filter(|_| is_root) {
            Some(text) => self.names.near(self.thread(), file.directory, text),
            None => Ok(None),
        }
    }

    /// The same, and what the disk says of it, unless it is a link that is to be followed.
    pub(super) fn near_file<'b>(&self, file: &Where, text: Option<&'b [u8]>) -> io::Result<Option<NearFile<'b>>> {
        let Some((directory, name)) = self.near(file, text)? else { return Ok(None) };
        let stat = rustix::fs::statx(&directory.file, name, AtFlags::SYMLINK_NOFOLLOW, STATUS)?;
        let leads_on = file.follow && kind(&stat) == FileType::Symlink;
        Ok((!leads_on).then_some(NearFile { directory, name, stat }))
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
        let found = self.look(file)?;
        let read_only = self.names.has_read_only && self.names.is_read_only(&host_path(&found)?);
        if read_only { Err(errno(libc::EROFS)) } else { Ok(found) }
    }

    fn look_as(&self, file: &Where, who: &Credentials) -> io::Result<OwnedFd> {
        self.look_by(file, self.text(file)?, who)
    }

    fn look_by(&self, file: &Where, text: Option<Vec<u8>>, who: &Credentials) -> io::Result<OwnedFd> {
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

    fn place(&self, place: &Where) -> io::Result<Place> {
        let place = self.names.place(self.thread(), place, self.actor(&self.who))?;
        self.may_reach(&place.directory, &self.who)?;
        Ok(place)
    }

    /// The place for a new name.
    fn new_place(&self, place: &Where) -> io::Result<Place> {
        let place = self.place(place).map_err(exists_if_busy)?;
        self.may_add_to(&place)?;
        Ok(place)
    }

    pub(super) fn acting(&self) -> io::Result<Acting> {
        Acting::for_files(self.actor(&self.who))
    }

    /// The bits that the caller's umask leaves of a mode.
    fn masked(&self, mode: u32) -> io::Result<Mode> {
        Ok(Mode::from_raw_mode(mode & 0o7777 & !umask(self.thread())?))
    }

    fn open(&self, place: &Where, flags: i32, mode: u32) -> io::Result<Reply> {
        let wanted = OFlags::from_bits_retain(flags.unsigned_abs());
        let text = text(self.thread(), place)?.ok_or_else(|| errno(libc::ENOENT))?;
        let native = self.is_native_by(place, Some(&text))?;
        let creates = wanted.contains(OFlags::CREATE);
        let nameless = wanted.contains(OFlags::TMPFILE);
        if native && (nameless || wanted.contains(OFlags::CREATE | OFlags::EXCL)) {
            return CONTINUE;
        }
        if !wanted.contains(OFlags::PATH) && !nameless {
            match self.open_near(place, &text, wanted) {
                Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                    if native {
                        return CONTINUE;
                    }
                    if let Some(reply) = self.create_near(place, &text, wanted, mode)? {
                        return Ok(reply);
                    }
                }
                Ok(None) => {}
                result => return result.transpose().unwrap_or(DONE),
            }
        }
        let path = self.names.absolute(self.thread(), place.directory, text)?;
        if creates && wanted.contains(OFlags::EXCL) {
            return self.create(&path, wanted, mode);
        }
        if (wanted & OFlags::ACCMODE) == OFlags::RDONLY
            && let Some(file) = self.told(&path)?
        {
            return Ok(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC)));
        }
        if !self.names.own_root
            && let Err(error) = self.may_open(&path, wanted)
            && !(creates && error.kind() == io::ErrorKind::NotFound)
        {
            return Err(error);
        }
        let how = How {
            flags: wanted - OFlags::CREATE,
            mode: if nameless { self.widened(self.masked(mode)?, false) } else { Mode::empty() },
            who: self.actor(&self.who),
        };
        match self.names.open_path(self.thread(), &path, how) {
            Ok(file) => Ok(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC))),
            Err(error) if creates && error.kind() == io::ErrorKind::NotFound => {
                if native {
                    CONTINUE
                } else {
                    self.create(&path, wanted, mode)
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file or a directory of the root's, if that takes no more than its name.
    fn open_near(&self, place: &Where, text: &[u8], wanted: OFlags) -> io::Result<Option<Reply>> {
        let creates = wanted.contains(OFlags::CREATE);
        let exclusive = creates && wanted.contains(OFlags::EXCL);
        let file = Where { follow: !exclusive && !wanted.contains(OFlags::NOFOLLOW), ..*place };
        let Some(NearFile { directory, name, stat }) = self.near_file(&file, Some(text))? else { return Ok(None) };
        match kind(&stat) {
            _ if exclusive => return Err(errno(libc::EEXIST)),
            FileType::Directory if creates => return Err(errno(libc::EISDIR)),
            FileType::RegularFile | FileType::Directory => {}
            // It may do something when it is opened, or have to wait.
            _ => return Ok(None),
        }
        let flags = (wanted - OFlags::CREATE) | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = rustix::fs::openat(&directory.file, name, flags, Mode::empty())?;
        // Somebody may have put a device there meanwhile. Where owners are not real, there is none.
        if self.names.own_root && is_device(&file)? {
            return Err(errno(libc::EACCES));
        }
        Ok(Some(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC))))
    }

    /// Makes a file where there was none a moment ago; none if somebody was faster.
    fn create_near(&self, place: &Where, text: &[u8], wanted: OFlags, mode: u32) -> io::Result<Option<Reply>> {
        let Some((directory, name)) = self.near(place, Some(text))? else { return Ok(None) };
        self.make(&directory.at(name)?, wanted, mode)
    }

    /// Makes a file where there is none.
    fn create(&self, path: &[u8], wanted: OFlags, mode: u32) -> io::Result<Reply> {
        if path.ends_with(b"/") {
            return Err(errno(libc::EISDIR));
        }
        let actor = self.actor(&self.who);
        let real = self.names.real(self.thread(), path, !wanted.contains(OFlags::EXCL), actor)?;
        let place = self.names.place_at(self.thread(), &real, actor).map_err(exists_if_busy)?;
        self.may_reach(&place.directory, &self.who)?;
        if let Some(reply) = self.make(&place, wanted, mode)? {
            return Ok(reply);
        }
        let how = How { flags: wanted - OFlags::CREATE, mode: Mode::empty(), who: actor };
        let file = self.names.open_path(self.thread(), &real, how)?;
        Ok(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC)))
    }

    /// Makes a file at a place; none if there is one, and that is fine.
    fn make(&self, place: &Place, wanted: OFlags, mode: u32) -> io::Result<Option<Reply>> {
        let exclusive = wanted.contains(OFlags::EXCL);
        match self.may_add_to(place) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !exclusive => return Ok(None),
            result => result?,
        }
        let mode = self.masked(mode)?;
        if !self.is_waiting() {
            return DONE.map(Some);
        }
        // Nothing that is there already: to open it might take long.
        let flags = wanted | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let on_disk = self.widened(mode, false);
        let made = {
            let _acting = self.acting()?;
            rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, on_disk)
        };
        let file = match made {
            Err(rustix::io::Errno::EXIST) if !exclusive => return Ok(None),
            result => result?,
        };
        self.made(place, Some(mode), None)?;
        Ok(Some(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC))))
    }

    /// `struct open_how`: flags, mode, and how to resolve.
    fn open_how(&self, place: &Where, how: u64) -> io::Result<Reply> {
        let mut words = [0; 24];
        memory::read(self.thread(), how, &mut words)?;
        let word = |at: usize| u64::from_ne_bytes(words[at..at + 8].try_into().unwrap_or_default());
        let (Ok(flags), Ok(mode)) = (i32::try_from(word(0)), u32::try_from(word(8))) else {
            return Err(errno(libc::EINVAL));
        };
        // Rules about the way there are the kernel's to keep, which does not see the whole of it; programs do without, as
        // they do on older kernels.
        match word(16) {
            0 => self.open(place, flags, mode),
            _ => Err(errno(libc::ENOSYS)),
        }
    }

    fn stat(&self, file: &Where, buffer: u64, extended: bool) -> io::Result<Reply> {
        let text = self.text(file)?;
        if self.is_native_by(file, text.as_deref())? {
            return CONTINUE;
        }
        let shown = match self.near_file(file, text.as_deref())? {
            Some(NearFile { directory, name, stat }) => self.shown_in(&directory.file, name, stat)?,
            None if text.is_none() => self.status_of_descriptor(file.directory)?,
            None => self.status(&self.look_by(file, text, &self.who)?)?,
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
                    rustix::fs::accessat(&directory.file, name, wanted, AtFlags::SYMLINK_NOFOLLOW)?;
                } else {
                    Guarded::by(&self.shown_in(&directory.file, name, stat)?).permits(&who, mode)?;
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
            let shown = self.guarded(&file)?;
            shown.is_of(&self.who)?;
            let directory = shown.mode & libc::S_IFMT == libc::S_IFDIR;
            let on_disk = self.widened(mode, directory);
            rustix::fs::chmod(link_to(&file), on_disk)?;
            let kept = (on_disk != mode).then_some(mode.as_raw_mode());
            let owner = Owner { mode: kept, ..self.entry(&file)? };
            self.record(file, owner)?;
            return DONE;
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
        if !self.names.own_root {
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

    fn make_node(&self, place: &Where, mode: u32, device: u64) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let kind = if mode & libc::S_IFMT == 0 { FileType::RegularFile } else { FileType::from_raw_mode(mode) };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && !self.who.can(CAP_MKNOD) {
            return Err(errno(libc::EPERM));
        }
        let place = self.new_place(place)?;
        let mode = self.masked(mode)?;
        if !self.is_waiting() {
            return DONE;
        }
        let stands_in = !self.names.own_root && is_device;
        let (on_disk, number) = if stands_in { (FileType::RegularFile, 0) } else { (kind, device) };
        {
            let _acting = self.acting()?;
            let name = OsStr::from_bytes(&place.name);
            rustix::fs::mknodat(&place.directory, name, on_disk, self.widened(mode, false), number)?;
        }
        let device = stands_in.then(|| Device {
            block: kind == FileType::BlockDevice,
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
        });
        self.made(&place, Some(mode), device)?;
        DONE
    }

    fn make_directory(&self, place: &Where, mode: u32) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let place = self.new_place(place)?;
        let mode = self.masked(mode)? - Mode::SUID - Mode::SGID;
        if !self.is_waiting() {
            return DONE;
        }
        {
            let _acting = self.acting()?;
            let name = OsStr::from_bytes(&place.name);
            rustix::fs::mkdirat(&place.directory, name, self.widened(mode, true))?;
        }
        self.made(&place, Some(mode), None)?;
        DONE
    }

    fn make_symlink(&self, to: u64, place: &Where) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let to = memory::read_string(self.thread(), to)?;
        let place = self.new_place(place)?;
        if !self.is_waiting() {
            return DONE;
        }
        {
            let _acting = self.acting()?;
            rustix::fs::symlinkat(OsStr::from_bytes(&to), &place.directory, OsStr::from_bytes(&place.name))?;
        }
        self.made(&place, None, None)?;
        DONE
    }

    /// Not left to the kernel, since this may change where names lead.
    fn remove(&self, place: &Where, directory: bool) -> io::Result<Reply> {
        let text = self.text(place)?.ok_or_else(|| errno(libc::ENOENT))?;
        if let Some(refused) = names::irremovable(&text, directory) {
            return Err(errno(refused));
        }
        let place = self.place(place)?;
        self.may_take_from(&place)?;
        let _changing = self.supervisor.files.changing();
        if !self.is_waiting() {
            return DONE;
        }
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let gone = self.at(&place);
        {
            let _acting = self.acting()?;
            rustix::fs::unlinkat(&place.directory, OsStr::from_bytes(&place.name), flags)?;
        }
        self.has_moved(gone);
        DONE
    }

    /// What is at a place, on disk.
    fn at(&self, place: &Place) -> Option<Statx> {
        let name = OsStr::from_bytes(&place.name);
        rustix::fs::statx(&place.directory, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).ok()
    }

    /// A file has another name now, or none.
    fn has_moved(&self, file: Option<Statx>) {
        // What was not there a moment ago may be anything.
        if file.is_none_or(|stat| matches!(kind(&stat), FileType::Directory | FileType::Symlink)) {
            self.names.have_moved();
        }
        if let Some(stat) = file {
            self.supervisor.files.may_be_gone(&stat);
        }
    }

    /// Not left to the kernel, since this may change where names lead.
    fn rename(&self, from: &Where, to: &Where, flags: u32) -> io::Result<Reply> {
        let (from, to) = (self.place(from)?, self.place(to)?);
        self.may_take_from(&from)?;
        match self.may_take_from(&to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.guarded(&to.directory)?.permits(&self.who, WRITE | EXECUTE)?;
            }
            result => result?,
        }
        let _changing = self.supervisor.files.changing();
        if !self.is_waiting() {
            return DONE;
        }
        let (moved, replaced) = (self.at(&from), self.at(&to));
        {
            let _acting = self.acting()?;
            rustix::fs::renameat_with(
                &from.directory,
                OsStr::from_bytes(&from.name),
                &to.directory,
                OsStr::from_bytes(&to.name),
                RenameFlags::from_bits_retain(flags),
            )?;
        }
        self.has_moved(moved);
        if replaced.is_some() {
            self.has_moved(replaced);
        }
        DONE
    }

    fn link(&self, from: &Where, to: &Where) -> io::Result<Reply> {
        if self.is_native(&[from, to])? {
            return CONTINUE;
        }
        if !self.names.own_root {
            self.may_link(from)?;
        }
        let to = self.new_place(to)?;
        let name = OsStr::from_bytes(&to.name);
        self.may_leave(from)?;
        // By its own name where it has one: not even root may link a deleted file by its descriptor.
        let source = if from.follow || from.path.is_none() { None } else { self.place(from).ok() };
        match source {
            Some(source) => {
                if !self.is_waiting() {
                    return DONE;
                }
                let _acting = self.acting()?;
                let old = OsStr::from_bytes(&source.name);
                rustix::fs::linkat(&source.directory, old, &to.directory, name, AtFlags::empty())?;
            }
            None => {
                let file = self.look(from)?;
                if !self.is_waiting() {
                    return DONE;
                }
                let _acting = self.acting()?;
                rustix::fs::linkat(CWD, link_to(&file), &to.directory, name, AtFlags::SYMLINK_FOLLOW)?;
            }
        }
        DONE
    }

    /// A name elsewhere for what is to be looked at only would be one to change it by.
    fn may_leave(&self, file: &Where) -> io::Result<()> {
        if !self.names.has_read_only {
            return Ok(());
        }
        match self.look_to_change(file) {
            Err(error) if error.raw_os_error() == Some(libc::EROFS) => Err(errno(libc::EXDEV)),
            // The kernel says better what is wrong with a link that leads nowhere.
            _ => Ok(()),
        }
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

/// A file without following it or waking its device.
pub(super) const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// What is there already, and cannot be made: a name of the view's own.
fn exists_if_busy(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EBUSY) { errno(libc::EEXIST) } else { error }
}
