//! Calls that make, move and take away names, for steps whose names are looked at.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Statx, StatxFlags};

use super::call::Where;
use super::credentials::CAP_MKNOD;
use super::files::{Place, kind, link_to};
use super::names;
use super::ownership::umask;
use super::paths::Named;
use super::permission::{EXECUTE, WRITE};
use super::{CONTINUE, DONE, Reply, errno, memory};
use crate::sys::owner::Device;

impl Named<'_> {
    /// The bits that the caller's umask leaves of a mode.
    pub(super) fn masked(&self, mode: u32) -> io::Result<Mode> {
        Ok(Mode::from_raw_mode(mode & 0o7777 & !umask(self.thread())?))
    }

    pub(super) fn make_node(&self, place: &Where, mode: u32, device: u64) -> io::Result<Reply> {
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
        let device = stands_in.then(|| Device {
            block: kind == FileType::BlockDevice,
            major: rustix::fs::major(device),
            minor: rustix::fs::minor(device),
        });
        self.make_owned(&place, Some(mode), device, || {
            let name = OsStr::from_bytes(&place.name);
            rustix::fs::mknodat(&place.directory, name, on_disk, self.widened(mode, false), number)
        })?;
        DONE
    }

    pub(super) fn make_directory(&self, place: &Where, mode: u32) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let place = self.new_place(place)?;
        let mode = self.masked(mode)? - Mode::SUID - Mode::SGID;
        if !self.is_waiting() {
            return DONE;
        }
        self.make_owned(&place, Some(mode), None, || {
            let name = OsStr::from_bytes(&place.name);
            rustix::fs::mkdirat(&place.directory, name, self.widened(mode, true))
        })?;
        DONE
    }

    pub(super) fn make_symlink(&self, to: u64, place: &Where) -> io::Result<Reply> {
        if self.is_native(&[place])? {
            return CONTINUE;
        }
        let to = memory::read_string(self.thread(), to)?;
        let place = self.new_place(place)?;
        if !self.is_waiting() {
            return DONE;
        }
        self.make_owned(&place, None, None, || {
            rustix::fs::symlinkat(OsStr::from_bytes(&to), &place.directory, OsStr::from_bytes(&place.name))
        })?;
        DONE
    }

    /// Not left to the kernel, since this may change where names lead.
    pub(super) fn remove(&self, place: &Where, directory: bool) -> io::Result<Reply> {
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
    pub(super) fn rename(&self, from: &Where, to: &Where, flags: u32) -> io::Result<Reply> {
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

    pub(super) fn link(&self, from: &Where, to: &Where) -> io::Result<Reply> {
        if self.is_native(&[from, to])? {
            // Whatever else may be wrong, the kernel says.
            return if self.are_apart(from, to).unwrap_or(false) { Err(errno(libc::EXDEV)) } else { CONTINUE };
        }
        if !self.names.own_root {
            self.may_link(from)?;
        }
        let to = self.new_place(to)?;
        let name = OsStr::from_bytes(&to.name);
        self.may_leave(from)?;
        let apart = self.home(from).and_then(|home| Ok(self.names.are_apart(&home, &names::host_path(&to.directory)?)));
        if apart.unwrap_or(false) {
            return Err(errno(libc::EXDEV));
        }
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

    /// Whether two names lie in what are two file systems for the step, as /dev is one of its own: no link leads across.
    fn are_apart(&self, from: &Where, to: &Where) -> io::Result<bool> {
        Ok(self.names.are_apart(&self.home(from)?, &self.home(to)?))
    }

    /// Where a name lies on the host: the directory that it is in, or the file itself where it may lie anywhere.
    fn home(&self, file: &Where) -> io::Result<Vec<u8>> {
        match file.follow || file.path.is_none() {
            true => names::host_path(&self.look(file)?),
            false => names::host_path(&self.place(file)?.directory),
        }
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
}
