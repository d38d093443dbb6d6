//! Calls that name files, for steps without mounts: left to the kernel where the name means to it what it means to the
//! step, carried out here where it does not, or where its caller is not who the kernel thinks.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::acting::Acting;
use super::call::{Call, Where};
use super::credentials::Credentials;
use super::files::{Place, link_to};
use super::names::{How, Names, host_path, text};
use super::ownership::umask;
use super::{CONTINUE, DONE, Reply, Supervisor, errno, memory, stat, value};
use crate::sys::notify::Notification;

/// One call, whose it is, and what its names mean.
pub(super) struct Named<'a> {
    pub supervisor: &'a Supervisor,
    pub names: &'a Names,
    pub notification: &'a Notification,
    pub who: Credentials,
}

impl<'a> Named<'a> {
    pub fn carry_out(
        supervisor: &'a Supervisor,
        names: &'a Names,
        notification: &'a Notification,
        call: Call,
    ) -> io::Result<Reply> {
        let who = supervisor.credentials(notification.thread)?;
        let named = Self { supervisor, names, notification, who };
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
            Call::WorkingDirectory { .. } => CONTINUE,
            Call::Execute { file } => named.execute(&file),
            Call::ChangeRoot => Err(errno(libc::EPERM)),
            Call::Kill { process, signal } => named.kill(process, signal),
            other => supervisor.identity(notification, other),
        }
    }

    /// Whether the kernel would do the same: names that lead into the root and nowhere else, for root.
    fn is_native(&self, files: &[&Where]) -> io::Result<bool> {
        if !self.who.is_root_for_files() {
            return Ok(false);
        }
        for file in files {
            if let Some(text) = text(self.thread(), file)?
                && !self.names.is_plain(&text)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(super) fn thread(&self) -> i32 {
        self.notification.thread
    }

    fn is_waiting(&self) -> bool {
        self.supervisor.listener.is_waiting(self.notification)
    }

    pub(super) fn look(&self, file: &Where) -> io::Result<OwnedFd> {
        self.names.look(self.thread(), file, Some(&self.who))
    }

    fn place(&self, place: &Where) -> io::Result<Place> {
        self.names.place(self.thread(), place, Some(&self.who))
    }

    fn acting(&self) -> io::Result<Acting> {
        Acting::for_files(Some(&self.who))
    }

    /// The bits that the caller's umask leaves of a mode.
    fn masked(&self, mode: u32) -> io::Result<Mode> {
        Ok(Mode::from_raw_mode(mode & 0o7777 & !umask(self.thread())?))
    }

    fn open(&self, place: &Where, flags: i32, mode: u32) -> io::Result<Reply> {
        let wanted = OFlags::from_bits_retain(flags.unsigned_abs());
        let text = text(self.thread(), place)?.ok_or_else(|| errno(libc::ENOENT))?;
        let native = self.who.is_root_for_files() && self.names.is_plain(&text);
        let creates = wanted.contains(OFlags::CREATE);
        let nameless = wanted.contains(OFlags::TMPFILE);
        if native && (nameless || wanted.contains(OFlags::CREATE | OFlags::EXCL)) {
            return CONTINUE;
        }
        let path = self.names.path(self.thread(), place)?.ok_or_else(|| errno(libc::ENOENT))?;
        if creates && wanted.contains(OFlags::EXCL) {
            return self.create(&path, wanted, mode);
        }
        let how = How {
            flags: wanted - OFlags::CREATE,
            mode: if nameless { self.masked(mode)? } else { Mode::empty() },
            who: Some(&self.who),
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

    /// Makes a file where there is none.
    fn create(&self, path: &[u8], wanted: OFlags, mode: u32) -> io::Result<Reply> {
        if path.ends_with(b"/") {
            return Err(errno(libc::EISDIR));
        }
        let exclusive = wanted.contains(OFlags::EXCL);
        let real = self.names.real(self.thread(), path, !exclusive, Some(&self.who))?;
        let place = self.names.place_at(self.thread(), &real, Some(&self.who)).map_err(exists_if_busy)?;
        let mode = self.masked(mode)?;
        if !self.is_waiting() {
            return DONE;
        }
        let flags = wanted | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
        let _acting = self.acting()?;
        let file = rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, mode)?;
        Ok(Reply::Descriptor(file, wanted.contains(OFlags::CLOEXEC)))
    }

    /// `struct open_how`: flags, mode, and how to resolve.
    fn open_how(&self, place: &Where, how: u64) -> io::Result<Reply> {
        let mut words = [0; 24];
        memory::read(self.thread(), how, &mut words)?;
        let word = |at: usize| u64::from_ne_bytes(words[at..at + 8].try_into().unwrap_or_default());
        let (Ok(flags), Ok(mode)) = (i32::try_from(word(0)), u32::try_from(word(8))) else {
            return Err(errno(libc::EINVAL));
        };
        // Rules about the way there are the kernel's to keep, where it can see the way; programs that cannot have them
        // do without.
        match word(16) {
            0 => self.open(place, flags, mode),
            _ if self.is_native(&[place])? => CONTINUE,
            _ => Err(errno(libc::ENOSYS)),
        }
    }

    fn stat(&self, file: &Where, buffer: u64, extended: bool) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let shown = status(&file)?;
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
        if who.is_root_for_files() && self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.names.look(self.thread(), file, Some(&who))?;
        may(&file, &who, mode)?;
        DONE
    }

    fn read_link(&self, file: &Where, buffer: u64, size: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let target = match self.names.path(self.thread(), file)? {
            None => rustix::fs::readlinkat(self.look(file)?, "", Vec::new())?.into_bytes(),
            Some(path) => self.names.read_link(self.thread(), &path, Some(&self.who))?,
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
        let file = self.look(file)?;
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
        let file = self.look(file)?;
        if FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == FileType::Symlink {
            return Err(errno(libc::EOPNOTSUPP));
        }
        let _acting = self.acting()?;
        rustix::fs::chmod(link_to(&file), Mode::from_raw_mode(mode & 0o7777))?;
        DONE
    }

    fn truncate(&self, file: &Where, length: i64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let path = self.names.path(self.thread(), file)?.ok_or_else(|| errno(libc::ENOENT))?;
        let how = How { flags: OFlags::WRONLY | OFlags::NONBLOCK, mode: Mode::empty(), who: Some(&self.who) };
        let file = self.names.open_path(self.thread(), &path, how)?;
        rustix::fs::ftruncate(file, u64::try_from(length).map_err(|_| errno(libc::EINVAL))?)?;
        DONE
    }

    fn set_times(&self, file: &Where, times: u64, format: super::call::TimeFormat) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let times = super::times::read(self.thread(), times, format)?;
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
        let place = self.place(place).map_err(exists_if_busy)?;
        let mode = self.masked(mode)?;
        if !self.is_waiting() {
            return DONE;
        }
        let _acting = self.acting()?;
        rustix::fs::mknodat(&place.directory, OsStr::from_bytes(&place.name), kind, mode, device)?;
        DONE
    }

    fn make_directory(&self, place: &Where, mode: u32) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let place = self.place(place).map_err(exists_if_busy)?;
        let mode = self.masked(mode)? - Mode::SUID - Mode::SGID;
        if !self.is_waiting() {
            return DONE;
        }
        let _acting = self.acting()?;
        rustix::fs::mkdirat(&place.directory, OsStr::from_bytes(&place.name), mode)?;
        DONE
    }

    fn make_symlink(&self, to: u64, place: &Where) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let to = memory::read_string(self.thread(), to)?;
        let place = self.place(place).map_err(exists_if_busy)?;
        if !self.is_waiting() {
            return DONE;
        }
        let _acting = self.acting()?;
        rustix::fs::symlinkat(OsStr::from_bytes(&to), &place.directory, OsStr::from_bytes(&place.name))?;
        DONE
    }

    fn remove(&self, place: &Where, directory: bool) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let place = self.place(place)?;
        if !self.is_waiting() {
            return DONE;
        }
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _acting = self.acting()?;
        rustix::fs::unlinkat(&place.directory, OsStr::from_bytes(&place.name), flags)?;
        DONE
    }

    fn rename(&self, from: &Where, to: &Where, flags: u32) -> io::Result<Reply> {
        if self.is_native(&[from, to])? {
            return CONTINUE;
        }
        let (from, to) = (self.place(from)?, self.place(to)?);
        if !self.is_waiting() {
            return DONE;
        }
        let _acting = self.acting()?;
        rustix::fs::renameat_with(
            &from.directory,
            OsStr::from_bytes(&from.name),
            &to.directory,
            OsStr::from_bytes(&to.name),
            RenameFlags::from_bits_retain(flags),
        )?;
        DONE
    }

    fn link(&self, from: &Where, to: &Where) -> io::Result<Reply> {
        if self.is_native(&[from, to])? {
            return CONTINUE;
        }
        let to = self.place(to).map_err(exists_if_busy)?;
        let name = OsStr::from_bytes(&to.name);
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

    fn get_attribute(&self, file: &Where, name: u64, place: u64, size: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let name = memory::read_string(self.thread(), name)?;
        let mut content = vec![0; MAX_ATTRIBUTE];
        let length = {
            let _acting = self.acting()?;
            rustix::fs::getxattr(link_to(&file), OsStr::from_bytes(&name), &mut content[..])?
        };
        self.hand_out(&content[..length], place, size)
    }

    fn set_attribute(&self, file: &Where, name: u64, content: (u64, u64), flags: u32) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let name = memory::read_string(self.thread(), name)?;
        let (place, size) = content;
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_ATTRIBUTE).ok_or(Errno::TOOBIG)?;
        let mut content = vec![0; size];
        if size > 0 {
            memory::read(self.thread(), place, &mut content)?;
        }
        let _acting = self.acting()?;
        let flags = rustix::fs::XattrFlags::from_bits_retain(flags);
        rustix::fs::setxattr(link_to(&file), OsStr::from_bytes(&name), &content, flags)?;
        DONE
    }

    fn remove_attribute(&self, file: &Where, name: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let name = memory::read_string(self.thread(), name)?;
        let _acting = self.acting()?;
        rustix::fs::removexattr(link_to(&file), OsStr::from_bytes(&name))?;
        DONE
    }

    fn list_attributes(&self, file: &Where, list: u64, size: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let mut content = vec![0; MAX_ATTRIBUTE];
        let length = {
            let _acting = self.acting()?;
            rustix::fs::listxattr(link_to(&file), &mut content[..])?
        };
        self.hand_out(&content[..length], list, size)
    }

    /// Gives the caller bytes that it has made room for; without room, their number.
    fn hand_out(&self, content: &[u8], place: u64, size: u64) -> io::Result<Reply> {
        if size != 0 {
            if content.len() as u64 > size {
                return Err(errno(libc::ERANGE));
            }
            memory::write(self.thread(), place, content)?;
        }
        value(i64::try_from(content.len()).unwrap_or(i64::MAX))
    }

    fn change_directory(&self, file: &Where) -> io::Result<Reply> {
        if file.path.is_some() && self.is_native(&[file])? {
            return CONTINUE;
        }
        let directory = self.look(file)?;
        may(&directory, &self.who, X_OK)?;
        if self.names.is_in_root(&host_path(&directory)?) {
            return CONTINUE;
        }
        // A working directory outside of its root would let a process out.
        Err(errno(libc::EACCES))
    }

    /// A program is about to run: a setuid one makes its caller somebody else.
    fn execute(&self, file: &Where) -> io::Result<Reply> {
        let program = self.look(file)?;
        let known = status(&program)?;
        let mode = u32::from(known.stx_mode);
        if mode & libc::S_IFMT != libc::S_IFREG {
            return Err(errno(libc::EACCES));
        }
        may(&program, &self.who, X_OK)?;
        if let Some(path) = file.path
            && !text(self.thread(), file)?.is_some_and(|text| self.names.is_plain(&text))
        {
            self.put_path(path, file, &host_path(&program)?)?;
        }
        self.supervisor.becomes(self.thread(), mode, known.stx_uid, known.stx_gid)?;
        CONTINUE
    }

    /// Has the kernel find a program that it would not find by the path that its caller gave: by its path in the root,
    /// put where the other one is. A caller whose call succeeds never sees it again.
    fn put_path(&self, address: u64, file: &Where, host: &[u8]) -> io::Result<()> {
        let shown =
            self.names.shown(host).filter(|_| self.names.is_in_root(host)).ok_or_else(|| errno(libc::EACCES))?;
        let room = text(self.thread(), file)?.map_or(0, |text| text.len());
        if shown.len() > room {
            return Err(errno(libc::ENOENT));
        }
        memory::write_through(self.thread(), address, &[&shown[..], b"\0"].concat())
    }

    /// Signals go to the step's own processes.
    fn kill(&self, process: i32, signal: i32) -> io::Result<Reply> {
        match process {
            0 => CONTINUE,
            -1 => {
                self.names.signal_all(super::names::process_of(self.thread())?, signal)?;
                DONE
            }
            _ => {
                let leader = process.saturating_abs();
                let exists = rustix::fs::access(leader.to_string(), Access::EXISTS).is_ok();
                if exists && leader != self.names.shepherd && !self.names.is_ours(leader) {
                    return Err(errno(libc::ESRCH));
                }
                if leader == self.names.shepherd {
                    return Err(errno(libc::EPERM));
                }
                CONTINUE
            }
        }
    }
}

/// No attribute, and no list of their names, is longer.
const MAX_ATTRIBUTE: usize = 65536;
const X_OK: u32 = 1;

/// What is there already, and cannot be made: a name of the view's own.
fn exists_if_busy(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(libc::EBUSY) { errno(libc::EEXIST) } else { error }
}

/// What the disk says of an open file.
fn status(file: &OwnedFd) -> io::Result<Statx> {
    Ok(rustix::fs::statx(file.as_fd(), "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?)
}

/// Whether somebody may do this to a file.
fn may(file: &OwnedFd, who: &Credentials, mode: u32) -> io::Result<()> {
    let _acting = Acting::for_files(Some(who))?;
    // As who this thread acts, not as who it is.
    Ok(rustix::fs::accessat(CWD, link_to(file), Access::from_bits_retain(mode), AtFlags::EACCESS)?)
}
