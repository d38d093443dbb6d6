//! What users of a step may do to its files, where all of them are one user to the kernel: judged before the kernel does
//! it. Root is not judged.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};

use super::call::{Call, Where};
use super::credentials::Credentials;
use super::files::{Known, Place, link_to};
use super::permission::{EXECUTE, Guarded, READ, WRITE};
use super::{Supervisor, errno};
use crate::sys::notify::Notification;

/// Where everything is the kernel's, or the machine's: it belongs to the user that all are.
const OF_THE_KERNEL: [&[u8]; 3] = [b"/proc", b"/sys", b"/dev"];

/// One call of a user's.
struct Case<'a> {
    supervisor: &'a Supervisor,
    thread: i32,
    who: Credentials,
}

impl Supervisor {
    /// Refuses what the kernel would refuse this user. What is not there, or not to be found, is the kernel's to tell.
    pub(super) fn judge(&self, notification: &Notification, call: &Call) -> io::Result<()> {
        let thread = notification.thread;
        let who = self.credentials(thread)?;
        let asks_for_another = matches!(call, Call::Access { effective: false, .. });
        let who = if asks_for_another { who.really() } else { who };
        if who.user.files == 0 {
            return Ok(());
        }
        match (Case { supervisor: self, thread, who }).judge(call) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Err(error),
            _ => Ok(()),
        }
    }
}

impl Case<'_> {
    fn judge(&self, call: &Call) -> io::Result<()> {
        match *call {
            Call::Create { place, flags, .. } => self.open(&place, flags),
            // Rules about the way there change nothing about whose the file is.
            Call::CreateHow { place, how } => {
                let mut flags = [0; 8];
                super::memory::read(self.thread, how, &mut flags)?;
                self.open(&place, i32::try_from(u64::from_ne_bytes(flags)).map_err(|_| errno(libc::EINVAL))?)
            }
            Call::MakeNode { place, .. } | Call::MakeDirectory { place, .. } | Call::MakeSymlink { place, .. } => {
                self.add(&self.place(&place)?)
            }
            Call::Remove { place, .. } => self.take(&self.place(&place)?),
            Call::Rename { from, to, .. } => {
                let (from, to) = (self.place(&from)?, self.place(&to)?);
                self.take(&from)?;
                match self.take(&to) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => self.add(&to),
                    result => result,
                }
            }
            Call::Link { from, to } => {
                self.lend(&from)?;
                self.add(&self.place(&to)?)
            }
            Call::ChangeMode { file, .. } => self.guarded(&file)?.map_or(Ok(()), |file| file.is_of(&self.who)),
            // Who may write may say that it was just now.
            Call::SetTimes { file, times, .. } => self.guarded(&file)?.map_or(Ok(()), |file| {
                file.is_of(&self.who).or_else(|no| if times == 0 { file.permits(&self.who, WRITE) } else { Err(no) })
            }),
            Call::Access { file, mode, .. } => self.permits(&file, mode),
            Call::Truncate { file, .. } | Call::SetAttribute { file, .. } | Call::RemoveAttribute { file, .. } => {
                self.permits(&file, WRITE)
            }
            Call::GetAttribute { file, .. } => self.permits(&file, READ),
            Call::Execute { file } | Call::ChangeDirectory { file } => self.permits(&file, EXECUTE),
            Call::Chown { file, .. }
            | Call::Stat { file, .. }
            | Call::StatFileSystem { file, .. }
            | Call::ReadLink { file, .. }
            | Call::ListAttributes { file, .. } => self.permits(&file, 0),
            _ => Ok(()),
        }
    }

    fn open(&self, place: &Where, flags: i32) -> io::Result<()> {
        let wanted = OFlags::from_bits_retain(flags.unsigned_abs());
        let file = Where { follow: !wanted.contains(OFlags::NOFOLLOW), ..*place };
        let mut needed = match wanted & OFlags::ACCMODE {
            _ if wanted.contains(OFlags::PATH) => 0,
            // A file without a name, in this directory.
            _ if wanted.contains(OFlags::TMPFILE) => WRITE | EXECUTE,
            OFlags::WRONLY => WRITE,
            OFlags::RDWR => READ | WRITE,
            _ => READ,
        };
        if wanted.contains(OFlags::TRUNC) {
            needed |= WRITE;
        }
        match self.permits(&file, needed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && wanted.contains(OFlags::CREATE) => {
                self.add(&self.place(place)?)
            }
            result => result,
        }
    }

    fn permits(&self, file: &Where, wanted: u32) -> io::Result<()> {
        self.guarded(file)?.map_or(Ok(()), |file| file.permits(&self.who, wanted))
    }

    /// What a call names, if it can be reached; none for what is not judged.
    fn guarded(&self, file: &Where) -> io::Result<Option<Guarded>> {
        let known = self.supervisor.files.know(self.supervisor.files.open(self.thread, file)?)?;
        // What is open already was reached once.
        let judged = if file.path.is_some() { self.reach(&known.file)? } else { is_judged(&path(&known.file)?) };
        Ok(judged.then(|| guarded_by(&known)))
    }

    /// The directory for a name.
    fn place(&self, place: &Where) -> io::Result<Place> {
        let place = self.supervisor.files.place(self.thread, place)?;
        self.reach(&place.directory)?;
        Ok(place)
    }

    fn add(&self, place: &Place) -> io::Result<()> {
        // That a name is taken, the kernel says before it asks who wants it.
        if rustix::fs::statat(&place.directory, OsStr::from_bytes(&place.name), AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return Ok(());
        }
        match self.directory(place)? {
            Some(directory) => directory.permits(&self.who, WRITE | EXECUTE),
            None => Ok(()),
        }
    }

    fn take(&self, place: &Place) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&place.directory, OsStr::from_bytes(&place.name), flags, Mode::empty())?;
        match self.directory(place)? {
            Some(directory) => directory.lets_go(&self.who, guarded_by(&self.supervisor.files.know(file)?)),
            None => Ok(()),
        }
    }

    /// As kernels that protect links have it: only what one owns, or could change, gets a further name.
    fn lend(&self, file: &Where) -> io::Result<()> {
        self.guarded(file)?.map_or(Ok(()), |file| file.may_be_linked(&self.who))
    }

    fn directory(&self, place: &Place) -> io::Result<Option<Guarded>> {
        let known = self.supervisor.files.know(place.directory.try_clone()?)?;
        Ok(is_judged(&path(&known.file)?).then(|| guarded_by(&known)))
    }

    /// Every directory on the way must be one that the caller may look into. Whether the file is judged at all.
    fn reach(&self, file: &OwnedFd) -> io::Result<bool> {
        let path = path(file)?;
        if !is_judged(&path) {
            return Ok(false);
        }
        let mut end = path.len();
        while let Some(slash) = path[..end].iter().rposition(|byte| *byte == b'/') {
            let parent = if slash == 0 { &b"/"[..] } else { &path[..slash] };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let parent =
                rustix::fs::openat2(CWD, OsStr::from_bytes(parent), flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
            guarded_by(&self.supervisor.files.know(parent)?).permits(&self.who, EXECUTE)?;
            end = slash;
        }
        Ok(true)
    }
}

/// Where an open file lies in the step's root.
fn path(file: &OwnedFd) -> io::Result<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt;
    Ok(std::fs::read_link(link_to(file))?.into_os_string().into_vec())
}

/// Pipes, sockets and files in memory are whoever's has them open.
fn is_judged(path: &[u8]) -> bool {
    let within = |base: &&[u8]| path.strip_prefix(*base).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')));
    path.first() == Some(&b'/') && !OF_THE_KERNEL.iter().any(within)
}

/// Here the disk tells the mode, and the store the owner: root, where it says nothing.
fn guarded_by(known: &Known) -> Guarded {
    let owner = known.owner.unwrap_or_default();
    Guarded { uid: owner.uid, gid: owner.gid, mode: known.stat.stx_mode.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_kernels_is_not_judged() {
        for (path, judged) in [
            ("/", true),
            ("/etc/passwd", true),
            ("/process", true),
            ("/proc", false),
            ("/dev/null", false),
            ("pipe:[7]", false),
        ] {
            assert_eq!(is_judged(path.as_bytes()), judged, "{path}");
        }
    }
}
