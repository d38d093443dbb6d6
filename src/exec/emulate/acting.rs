//! A supervisor's thread that acts on files as one of the step's users, where the place has users: then the kernel
//! itself says what that user may do, and whose a new file is.

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::credentials::Credentials;

/// While this lives, files are this user's business. Dropping it makes the thread root again.
pub struct Acting(bool);

impl Acting {
    /// As `who`; as nobody in particular, if that is root.
    pub fn for_files(who: Option<&Credentials>) -> io::Result<Self> {
        let Some(who) = who.filter(|who| !who.is_root_for_files()) else { return Ok(Self(false)) };
        let acting = Self(true);
        let groups: Vec<_> = who.groups.iter().map(|group| rustix::process::Gid::from_raw(*group)).collect();
        // Groups first: they are root's to set. All of this is the thread's own, and takes the rights of root over
        // files with it.
        rustix::thread::set_thread_groups(&groups)?;
        setfsgid(Gid::from_raw(who.group.files));
        setfsuid(Uid::from_raw(who.user.files));
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if self.0 {
            setfsuid(Uid::from_raw(0));
            setfsgid(Gid::from_raw(0));
            // Root's groups matter to nothing here.
            let _ = rustix::thread::set_thread_groups(&[]);
        }
    }
}
