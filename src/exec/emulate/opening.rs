//! Calls that open files, for steps whose names are looked at: what is there, and what is made by opening it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

use super::call::Where;
use super::files::{Place, kind};
use super::names::{How, is_device, text};
use super::paths::{Named, NearFile, exists_if_busy};
use super::{CONTINUE, DONE, Reply, errno, memory};

impl Named<'_> {
    pub(super) fn open(&self, place: &Where, flags: i32, mode: u32) -> io::Result<Reply> {
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
            return Ok(Reply::Descriptor(file, wanted));
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
            Ok(file) => Ok(Reply::Descriptor(file, wanted)),
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
        let file = rustix::fs::openat(&directory.file, &name, flags, Mode::empty())?;
        // Somebody may have put a device there meanwhile. Where owners are not real, there is none.
        if self.names.own_root && is_device(&file)? {
            return Err(errno(libc::EACCES));
        }
        Ok(Some(Reply::Descriptor(file, wanted)))
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
        Ok(Reply::Descriptor(file, wanted))
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
        let made = self.make_owned(place, Some(mode), None, || {
            rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, on_disk)
        });
        let file = match made {
            Err(Errno::EXIST) if !exclusive => return Ok(None),
            result => result?,
        };
        Ok(Some(Reply::Descriptor(file, wanted)))
    }

    /// `struct open_how`: flags, mode, and how to resolve.
    pub(super) fn open_how(&self, place: &Where, how: u64) -> io::Result<Reply> {
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
}
