//! The supervisor of a step without mounts, in the stage's process: outside of the step, with nothing open but what
//! the step may have, and with a working directory and a umask of its own.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use nix::unistd::Pid;
use rustix::fs::Mode;

use super::emulate::{Answers, Credentials, Names, Reach, Supervisor, Tracer};
use super::init;
use super::plan::{Answered, Launch};
use super::view::View;
use super::wire::{self, Message};
use crate::sys::{SideTable, trace};

/// Answers the calls of what `shepherd` starts, until `shepherd` ends. The threads that do end with this process.
pub fn attend(view: &View, launch: &Launch, shepherd: Pid, calls: &OwnedFd) -> io::Result<()> {
    // If the shepherd dies, its flock comes to us.
    nix::sys::prctl::set_child_subreaper(true)?;
    let attended = answer(view, launch, shepherd, calls);
    if attended.is_err() {
        // Nobody answers any more.
        let _ = nix::sys::signal::kill(shepherd, nix::sys::signal::Signal::SIGKILL);
    }
    // Unless the tracer has seen it end.
    match nix::sys::wait::waitpid(shepherd, None) {
        Ok(_) | Err(nix::errno::Errno::ECHILD) => {}
        Err(error) => return attended.and(Err(error.into())),
    }
    init::end_all(false)?;
    let Some(supervisor) = attended? else { return Ok(()) };
    supervisor.shared.clear();
    if let Some(fault) = supervisor.fault() {
        return Err(fault);
    }
    if launch.answered == Answered::Names(Reach::Host) {
        supervisor.table().store(view.root.as_ref())?;
    }
    Ok(())
}

/// None when the step failed before it made a call, and says so itself.
fn answer(view: &View, launch: &Launch, shepherd: Pid, calls: &OwnedFd) -> io::Result<Option<Arc<Supervisor>>> {
    let Answered::Names(reach) = launch.answered else { return Ok(None) };
    let Some((Message::Traceable(process), _)) = wire::receive::<Message>(calls)? else { return Ok(None) };
    let traced = match trace::seize(i32::try_from(process).unwrap_or(0)) {
        Err(error) if reach == Reach::Host => return Err(error),
        result => result.is_ok(),
    };
    wire::send(calls, &traced, &[])?;
    let Some((Message::Listener, descriptors)) = wire::receive::<Message>(calls)? else { return Ok(None) };
    let listener = descriptors.into_iter().next().ok_or(io::ErrorKind::InvalidData)?;
    std::env::set_current_dir("/proc")?;
    rustix::process::umask(Mode::empty());
    let names = Names::open(view, shepherd.as_raw(), reach == Reach::OwnRoot)?;
    names.has_started(i32::try_from(process).unwrap_or(0));
    let below = SideTable::load(view.root.as_ref())?;
    let first = Credentials::new(launch.uid, launch.gid, launch.groups.clone());
    let supervisor = Supervisor::of_names(listener, first, names, &below)?;
    supervisor.start_detached()?;
    // Where that is forbidden, a signal may interrupt what it should not.
    if traced {
        Tracer::new(&supervisor, Answers::of_names(reach)).attend(Some(shepherd.as_raw()))?;
    }
    Ok(Some(supervisor))
}
