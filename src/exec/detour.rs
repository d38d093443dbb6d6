//! Detours: how realpath(3) gets by without a supervisor, in a step whose root is its own.
//!
//! A compiler asks of every folder on the way to each header whether it is a link, which is most of what it asks at all,
//! and a filter that sees no path cannot leave it to the kernel. But it can tell that realpath is asking: the GNU C library
//! and gnulib keep the path and the room for the answer a fixed distance apart, and the room has a size of its own. What is
//! asked so goes to the kernel, and that is right wherever the root is what the step sees. Elsewhere, as in /proc, the kernel
//! finds a detour: a link that is too long for the room. realpath then asks again with more room, which the filter does not
//! know, and the supervisor answers; as it does from there on to the end of that path.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::sys::seccomp::{Action, Rule, When};

/// The room that realpath begins with, less the byte for the end (`struct scratch_buffer`: 1024).
const ROOM: u32 = 1023;
/// From the path to the room: two such structures (`struct realpath_bufs`: seen in glibc 2.36 and 2.41, and in coreutils).
/// A libc that keeps them otherwise is answered as ever.
const DISTANCE: u32 = 2 * (16 + 1024);

/// Which calls are realpath's, and the kernel's.
pub fn rules() -> Vec<Rule> {
    let rule = |call, when| Rule { call, when: When::Both(when), action: Action::Allow };
    vec![
        #[cfg(target_arch = "x86_64")]
        rule(
            libc::SYS_readlink,
            &[When::Equals { argument: 2, mask: u32::MAX, value: ROOM }, When::Apart { from: 0, to: 1, by: DISTANCE }],
        ),
        #[cfg(not(target_arch = "x86_64"))]
        rule(
            libc::SYS_readlinkat,
            &[When::Equals { argument: 3, mask: u32::MAX, value: ROOM }, When::Apart { from: 1, to: 2, by: DISTANCE }],
        ),
    ]
}

/// A directory of detours, which stands where the step sees another.
pub struct Detours(OwnedFd);

impl Detours {
    pub fn open(directory: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(directory, flags, Mode::empty())?))
    }

    /// A detour for each of these names.
    pub fn lay_all(&self, names: impl IntoIterator<Item = impl AsRef<OsStr>>) -> io::Result<()> {
        let mut names = names.into_iter();
        let Some(first) = names.next() else { return Ok(()) };
        self.lay(first.as_ref())?;
        names.try_for_each(|name| self.lay_like(first.as_ref(), name.as_ref()))
    }

    fn lay(&self, name: &OsStr) -> io::Result<()> {
        // For the kernel, which may follow it, it leads to nothing.
        let target = format!("{}nowhere", "./".repeat(ROOM.div_ceil(2) as usize));
        unless_there(rustix::fs::symlinkat(target, &self.0, name))
    }

    /// Another name for a detour that is there: so long a link takes a block of its own.
    pub fn lay_like(&self, other: &OsStr, name: &OsStr) -> io::Result<()> {
        match unless_there(rustix::fs::linkat(&self.0, other, &self.0, name, AtFlags::empty())) {
            // A file has no more than so many names, and on some file systems one.
            Err(_) => self.lay(name),
            done => done,
        }
    }

    pub fn take_away(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, name, AtFlags::empty())?)
    }
}

fn unless_there(result: Result<(), Errno>) -> io::Result<()> {
    match result {
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detour_fills_the_room_and_leads_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let detours = Detours::open(dir.path()).unwrap();
        detours.lay_all(["self", "mounts"]).unwrap();
        detours.lay_all(["self", "net"]).unwrap();
        for name in ["self", "mounts", "net"] {
            let path = dir.path().join(name);
            let target = std::fs::read_link(&path).unwrap();
            assert!(target.as_os_str().len() >= ROOM as usize, "{name}");
            assert_eq!(std::fs::metadata(path.join("exe")).unwrap_err().kind(), io::ErrorKind::NotFound);
        }
        detours.take_away(OsStr::new("net")).unwrap();
        assert!(std::fs::symlink_metadata(dir.path().join("net")).is_err());
    }

    #[test]
    fn only_what_realpath_asks_is_left_to_the_kernel() {
        let filter = crate::sys::seccomp::Filter { native: rules(), ..Default::default() };
        let stack = 0x7ffd_ffff_fa00_u64;
        for (room, distance, expected) in
            [(1023, 2080, true), (1023, -2080, false), (1023, 1024, false), (1024, 2080, false)]
        {
            let at = usize::from(!cfg!(target_arch = "x86_64"));
            let mut arguments = [0; 6];
            arguments[at] = stack;
            arguments[at + 1] = stack.wrapping_add_signed(distance);
            arguments[at + 2] = room;
            let rule = &filter.native[0];
            assert_eq!(rule.applies(rule.call, &arguments), expected, "{room} {distance}");
        }
    }
}
