//! Who may do what to a file, where the kernel cannot tell users apart: the rules of path_resolution(7), over what the
//! owner store says.

use std::io;

use rustix::fs::Statx;

use super::credentials::Credentials;
use super::errno;

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXECUTE: u32 = 1;

/// Whose a file is, and what it lets them do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guarded {
    pub uid: u32,
    pub gid: u32,
    /// With the type.
    pub mode: u32,
}

impl Guarded {
    /// Of a file as a step sees it.
    pub fn by(shown: &Statx) -> Self {
        Self { uid: shown.stx_uid, gid: shown.stx_gid, mode: shown.stx_mode.into() }
    }

    fn is_directory(self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }

    /// Whether somebody may do all of `wanted`.
    pub fn permits(self, who: &Credentials, wanted: u32) -> io::Result<()> {
        if who.user.files == 0 {
            // Root may everything but run what nobody may.
            let runs = wanted & EXECUTE != 0 && !self.is_directory();
            return if runs && self.mode & 0o111 == 0 { Err(errno(libc::EACCES)) } else { Ok(()) };
        }
        let shift = match self {
            _ if self.uid == who.user.files => 6,
            _ if who.in_group(self.gid) => 3,
            _ => 0,
        };
        if (self.mode >> shift) & wanted == wanted { Ok(()) } else { Err(errno(libc::EACCES)) }
    }

    /// Whether somebody may change its mode and times.
    pub fn is_of(self, who: &Credentials) -> io::Result<()> {
        if who.user.files == 0 || who.user.files == self.uid { Ok(()) } else { Err(errno(libc::EPERM)) }
    }

    /// As kernels that protect links have it: only what one owns, or could change, gets a further name.
    pub fn may_be_linked(self, who: &Credentials) -> io::Result<()> {
        let plain = self.mode & libc::S_IFMT == libc::S_IFREG && self.mode & libc::S_ISUID == 0;
        self.is_of(who).or_else(|error| match plain {
            true => self.permits(who, READ | WRITE).map_err(|_| error),
            false => Err(error),
        })
    }

    /// Whether somebody may take a file out of this directory.
    pub fn lets_go(self, who: &Credentials, file: Self) -> io::Result<()> {
        self.permits(who, WRITE | EXECUTE)?;
        let sticky = self.mode & libc::S_ISVTX != 0;
        if sticky && self.is_of(who).is_err() { file.is_of(who) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_those_of_the_first_class_that_fits() {
        let user = Credentials::new(1000, 1000, vec![27]);
        let root = Credentials::new(0, 0, vec![]);
        let file = |uid, gid, mode| Guarded { uid, gid, mode: libc::S_IFREG | mode };
        for (who, file, wanted, allowed, why) in [
            (&user, file(1000, 0, 0o600), READ | WRITE, true, "its owner"),
            (&user, file(1000, 1000, 0o077), READ, false, "an owner is no other"),
            (&user, file(0, 27, 0o060), WRITE, true, "by a further group"),
            (&user, file(0, 27, 0o606), READ, false, "a member is no other"),
            (&user, file(0, 0, 0o644), READ, true, "all may read"),
            (&user, file(0, 0, 0o644), WRITE, false, "not all may write"),
            (&root, file(5, 5, 0o000), READ | WRITE, true, "root may"),
            (&root, file(5, 5, 0o644), EXECUTE, false, "nobody runs what is no program"),
            (&root, file(5, 5, 0o645), EXECUTE, true, "somebody may run it"),
        ] {
            assert_eq!(file.permits(who, wanted).is_ok(), allowed, "{why}");
        }
    }

    #[test]
    fn a_sticky_directory_keeps_what_is_anothers() {
        let user = Credentials::new(1000, 1000, vec![]);
        let tmp = Guarded { uid: 0, gid: 0, mode: libc::S_IFDIR | 0o1777 };
        let of = |uid| Guarded { uid, gid: 0, mode: libc::S_IFREG | 0o666 };
        assert!(tmp.lets_go(&user, of(1000)).is_ok());
        assert!(tmp.lets_go(&user, of(0)).is_err());
        assert!(Guarded { mode: libc::S_IFDIR | 0o777, ..tmp }.lets_go(&user, of(0)).is_ok());
    }
}
