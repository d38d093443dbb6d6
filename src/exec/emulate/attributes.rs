//! Extended attributes of files whose names are looked at, without those that a step must not see.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use super::call::Where;
use super::files::link_to;
use super::paths::Named;
use super::permission::WRITE;
use super::{CONTINUE, DONE, Reply, errno, memory, value};
use crate::sys::meta::CAPABILITY;
use crate::sys::owner::REFUSED_XATTR;

/// No attribute, and no list of their names, is longer.
const MAX_ATTRIBUTE: usize = 65536;
/// Attributes that no step sees.
const PRIVATE: &[u8] = b"user.dockless.";
const CAP_SETFCAP: u64 = 1 << 31;

impl Named<'_> {
    pub(super) fn get_attribute(&self, file: &Where, name: u64, place: u64, size: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let name = self.attribute(name)?;
        let mut content = vec![0; MAX_ATTRIBUTE];
        let length = {
            let _acting = self.acting()?;
            rustix::fs::getxattr(link_to(&file), OsStr::from_bytes(&name), &mut content[..])?
        };
        self.hand_out(&content[..length], place, size)
    }

    pub(super) fn set_attribute(&self, file: &Where, name: u64, content: (u64, u64), flags: u32) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look_to_change(file)?;
        let name = self.attribute(name)?;
        self.may_change_attribute(&file, &name)?;
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

    pub(super) fn remove_attribute(&self, file: &Where, name: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look_to_change(file)?;
        let name = self.attribute(name)?;
        self.may_change_attribute(&file, &name)?;
        let _acting = self.acting()?;
        rustix::fs::removexattr(link_to(&file), OsStr::from_bytes(&name))?;
        DONE
    }

    pub(super) fn list_attributes(&self, file: &Where, list: u64, size: u64) -> io::Result<Reply> {
        if self.is_native(&[file])? {
            return CONTINUE;
        }
        let file = self.look(file)?;
        let mut content = vec![0; MAX_ATTRIBUTE];
        let length = {
            let _acting = self.acting()?;
            rustix::fs::listxattr(link_to(&file), &mut content[..])?
        };
        let shown: Vec<u8> =
            content[..length].split_inclusive(|byte| *byte == 0).flat_map(shown_attribute).copied().collect();
        self.hand_out(&shown, list, size)
    }

    /// The name that an attribute has on disk.
    fn attribute(&self, name: u64) -> io::Result<Vec<u8>> {
        let name = memory::read_string(self.thread(), name)?;
        if name.starts_with(PRIVATE) {
            return Err(errno(libc::EOPNOTSUPP));
        }
        if !self.names.own_root && name == CAPABILITY.as_bytes() {
            return Ok([REFUSED_XATTR.as_bytes(), &name].concat());
        }
        Ok(name)
    }

    fn may_change_attribute(&self, file: &OwnedFd, name: &[u8]) -> io::Result<()> {
        if self.names.own_root {
            return Ok(());
        }
        if name.starts_with(REFUSED_XATTR.as_bytes()) && !self.who.can(CAP_SETFCAP) {
            return Err(errno(libc::EPERM));
        }
        self.guarded(file)?.permits(&self.who, WRITE)
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
}

/// A name in a list of attributes as the step sees it, with its NUL; our own it does not see.
fn shown_attribute(name: &[u8]) -> &[u8] {
    name.strip_prefix(REFUSED_XATTR.as_bytes()).unwrap_or(if name.starts_with(PRIVATE) { b"" } else { name })
}
