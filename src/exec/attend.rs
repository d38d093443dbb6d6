//! The supervisor of a step without mounts, in the stage's process: outside of the step, with nothing open but what
//! the step may have, and with a working directory and a umask of its own.

use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::Pid;
use rustix::fs::Mode;

use super::emulate::{Credentials, Names, Supervisor};
use super::plan::Launch;
use super::view::View;
use super::wire::{self, Message};

/// Starts answering the calls of what `shepherd` starts. The threads that do end with this process.
pub fn attend(view: &View, launch: &Launch, shepherd: Pid, calls: &OwnedFd) -> io::Result<()> {
    let Some((Message::Listener, descriptors)) = wire::receive::<Message>(calls)? else {
        // It failed before, and says so itself.
        return Ok(());
    };
    let listener = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    std::env::set_current_dir("/proc")?;
    rustix::process::umask(Mode::empty());
    let names = Names::open(view, shepherd.as_raw())?;
    let first = Credentials::new(launch.uid, launch.gid, launch.groups.clone());
    Supervisor::of_names(listener, first, names)?.start_detached()
}
