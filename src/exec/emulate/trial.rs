//! Whether system calls can be answered here at all: one is, by a process for its child.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::memory;
use crate::exec::wire::{self, Message};
use crate::sys::notify::Listener;
use crate::sys::process;
use crate::sys::seccomp::{Action, Filter, Rule, When};

/// What the child asks for; it must not exist.
const NAME: &str = "/dockless asks whether calls can be answered";

/// Has a child open a file that is not there, and gives it one. The working directory must be /proc.
pub fn answers() -> io::Result<()> {
    let (ours, theirs) = wire::pair()?;
    let (mut gift, giver) = io::pipe()?;
    let Some(child) = process::fork()? else {
        // Nobody else's end is kept: when the parent is killed, nothing is left to wait for.
        drop((ours, giver));
        let code = ask(&theirs, &mut gift).err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        std::process::exit(code);
    };
    drop((theirs, gift));
    let answered = answer(&ours, &giver);
    match nix::sys::wait::waitpid(child, None)? {
        nix::sys::wait::WaitStatus::Exited(_, 0) => answered,
        nix::sys::wait::WaitStatus::Exited(_, code) => Err(io::Error::from_raw_os_error(code)),
        other => Err(io::Error::other(format!("a trial ended with {other:?}"))),
    }
}

/// The child's part: what it is given must be the pipe's other end.
fn ask(supervisor: &OwnedFd, gift: &mut impl Read) -> io::Result<()> {
    nix::sys::prctl::set_no_new_privs()?;
    let rule = |call| Rule { call, when: When::Always, action: Action::Notify };
    let filter = Filter { native: vec![rule(libc::SYS_openat)], ..Filter::default() };
    let listener = filter.install_listener()?;
    wire::send(supervisor, &Message::Listener, &[listener.as_fd()])?;
    drop(listener);
    let given = rustix::fs::openat(CWD, NAME, OFlags::WRONLY, Mode::empty())?;
    rustix::io::write(&given, b"!")?;
    gift.read_exact(&mut [0])
}

fn answer(calls: &OwnedFd, giver: &impl AsFd) -> io::Result<()> {
    // Without a listener the child has failed, and says why with its exit code.
    let Some((Message::Listener, descriptors)) = wire::receive::<Message>(calls)? else { return Ok(()) };
    let listener = Listener::new(descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?);
    let Some(notification) = listener.receive()? else { return Ok(()) };
    if memory::read_string(notification.thread, notification.arguments[1])? != NAME.as_bytes() {
        return Err(io::Error::other("another process's memory reads wrong"));
    }
    listener.answer_descriptor(&notification, giver.as_fd().try_clone_to_owned()?, OFlags::WRONLY | OFlags::CLOEXEC)
}
