//! The first process of a sandbox: it builds the root, starts the step's process as its child, reaps what that
//! leaves behind, passes signals on, and ends everything when the process has ended.
//!
//! The step is not process 1 itself: that one is deaf to signals it has no handler for, and programs do not expect to
//! inherit other people's children.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags};
use rustix::pty::OpenptFlags;

use super::deeds::Ground;
use super::launch::{Streams, launch};
use super::plan::Plan;
use super::wire::{self, Failure, Message, Order};
use crate::sys::process;

/// Runs a plan to its end and tells how it ended.
///
/// `supervisor` hears of the process's answered calls; without one, dockless itself does.
pub fn run(plan: &Plan, control: OwnedFd, supervisor: Option<OwnedFd>, input: OwnedFd) {
    let message = attempt(plan, &control, supervisor, input).unwrap_or_else(Message::Failed);
    // If nobody listens any more, nobody wants to know.
    let _ = wire::send(&control, &message, &[]);
}

fn attempt(plan: &Plan, control: &OwnedFd, supervisor: Option<OwnedFd>, input: OwnedFd) -> Result<Message, Failure> {
    let named = |call: &'static str| move |error: io::Error| Failure::setup(call, &error);
    let own_pids = plan.namespaces.is_some_and(|namespaces| namespaces.pid);
    if own_pids {
        // With process 1 goes its whole namespace.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(io::Error::from)
            .map_err(named("set the death signal"))?;
    } else {
        nix::sys::prctl::set_child_subreaper(true)
            .map_err(io::Error::from)
            .map_err(named("become the reaper of the step's processes"))?;
    }
    let mut ground = Ground::default();
    for step in &plan.setup {
        ground.carry_out(step)?;
    }
    let streams = if plan.launch.terminal {
        Streams::Terminal(terminal(control, plan.launch.uid).map_err(named("make a terminal"))?)
    } else {
        Streams::Input(input)
    };
    // Blocked before the child exists, so that its end cannot be missed; the child unblocks all.
    let mut awaited = SigSet::empty();
    awaited.add(Signal::SIGCHLD);
    awaited.thread_block().map_err(io::Error::from).map_err(named("block signals"))?;
    let signals = SignalFd::with_flags(&awaited, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(io::Error::from)
        .map_err(named("wait for signals"))?;
    let child = match process::fork().map_err(named("fork"))? {
        None => {
            let failure = launch(&plan.launch, streams, supervisor.as_ref().unwrap_or(control));
            let _ = wire::send(control, &Message::Failed(failure), &[]);
            std::process::exit(127);
        }
        Some(child) => child,
    };
    drop((streams, supervisor));
    let ended = attend(child, control, &signals).map_err(named("wait for the step"));
    end_all(own_pids).map_err(named("end the step's processes"))?;
    ground.clean().map_err(named("take mount points away"))?;
    Ok(match ended? {
        Some(WaitStatus::Exited(_, code)) => Message::Exited(code),
        Some(WaitStatus::Signaled(_, signal, _)) => Message::Signalled(signal as i32),
        _ => Message::Signalled(libc::SIGKILL),
    })
}

/// Makes a terminal inside, where the step can find it under its name, and hands its other side out.
fn terminal(control: &OwnedFd, uid: u32) -> io::Result<OwnedFd> {
    let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::unlockpt(&master)?;
    let slave =
        rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    std::os::unix::fs::fchown(&slave, Some(uid), None)?;
    wire::send(control, &Message::Terminal, &[master.as_fd()])?;
    Ok(slave)
}

/// Waits for the end of `child`; none when it was ended by order, or because dockless is gone.
fn attend(child: Pid, control: &OwnedFd, signals: &SignalFd) -> io::Result<Option<WaitStatus>> {
    loop {
        let mut ready = [PollFd::new(signals, PollFlags::IN), PollFd::new(control, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, None))?;
        let told = !ready[1].revents().is_empty();
        while signals.read_signal()?.is_some() {}
        if let Some(status) = reap(child)? {
            return Ok(Some(status));
        }
        if told {
            match wire::receive(control)? {
                Some((Order::Signal(number), _)) => signal(child, number)?,
                Some((Order::Kill, _)) | None => return Ok(None),
            }
        }
    }
}

/// Sends a signal to the step's process and its group, which it may not have made yet.
fn signal(child: Pid, number: i32) -> io::Result<()> {
    let signal = Signal::try_from(number)?;
    match killpg(child, signal) {
        Err(Errno::ESRCH) => match kill(child, signal) {
            Err(Errno::ESRCH) => Ok(()),
            result => Ok(result?),
        },
        result => Ok(result?),
    }
}

/// Collects all that has ended; the status of `child`, if it was among them.
fn reap(child: Pid) -> io::Result<Option<WaitStatus>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..))) if pid == child => {
                return Ok(Some(status));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Ends every process that the step left behind, and waits until it is gone.
pub fn end_all(own_pids: bool) -> io::Result<()> {
    loop {
        if own_pids {
            // As process 1 of a namespace: everybody in it but ourselves.
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => return Err(error.into()),
            }
        } else {
            for child in children()? {
                let _ = kill(child, Signal::SIGKILL);
            }
        }
        // As their reaper we inherit the children of those who end: round and round until there is none.
        match waitpid(None, None) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// The processes whose parent is this one.
fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let text = std::fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    Ok(text.split_whitespace().filter_map(|word| word.parse().ok()).map(Pid::from_raw).collect())
}
