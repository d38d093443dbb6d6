//! dockless started again as the first process of a sandbox: it takes a request from the socket that is its standard
//! input, goes into new namespaces, and leaves the rest to [`init`](super::init).
//!
//! It is a fresh program rather than a fork of dockless because dockless has threads, and after a fork what they held
//! locked would stay locked.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use nix::sys::signal::Signal;

use super::emulate::Reach;
use super::plan::{Answered, Namespaces};
use super::wire::{self, Failure, Message, Request};
use super::{attend, init, trial};
use crate::sys::{landlock, process};

/// The name a stage is started under; nobody types it.
pub const NAME: &str = "dockless-sandbox";

/// Becomes a sandbox stage, never to return, if dockless started this process as one. The first thing in `main`.
pub fn startup() {
    if std::env::args_os().next().as_deref() == Some(OsStr::new(NAME)) {
        let code = match run() {
            Ok(()) => 0,
            Err(error) => {
                // Standard error is the step's: whoever reads its log sees this.
                eprintln!("dockless: sandbox: {error}");
                1
            }
        };
        std::process::exit(code);
    }
}

fn run() -> io::Result<()> {
    process::close_inherited()?;
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    // A Ctrl-C at dockless's terminal is for dockless, which tells us what it means.
    rustix::process::setsid()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let Some(((), descriptors)) = wire::receive(&control)? else {
        return Ok(());
    };
    let mut descriptors = descriptors.into_iter();
    let request = descriptors.next().ok_or(io::ErrorKind::InvalidData)?;
    match wire::read_request(request)? {
        Request::Probe(scratch) => wire::send(&control, &Message::Probed(trial::all(&scratch)), &[]),
        Request::Run(plan) => {
            let input = descriptors.next().map_or_else(|| File::open("/dev/null").map(OwnedFd::from), Ok)?;
            if let Some(namespaces) = plan.namespaces
                && let Err(failure) = enter(namespaces)
            {
                return wire::send(&control, &Message::Failed(failure), &[]);
            }
            if plan.launch.answered == Answered::Names(Reach::Host) {
                // Before the step is there, and for this process too: paths that a call is rewritten to lead through
                // its descriptors.
                nix::sys::prctl::set_no_new_privs()?;
                let _kept = landlock::keep_to_itself()?;
            }
            let (ours, theirs) = plan.view.as_ref().map(|_| wire::pair()).transpose()?.unzip();
            // The process that made a pid namespace is not in it; its first child is.
            match process::fork()? {
                None => {
                    drop(ours);
                    init::run(&plan, control, theirs, input);
                    std::process::exit(0);
                }
                Some(child) => {
                    drop((input, theirs));
                    let (Some(view), Some(calls)) = (&plan.view, ours) else {
                        nix::sys::wait::waitpid(child, None)?;
                        return Ok(());
                    };
                    attend::attend(view, &plan.launch, child, &calls).or_else(|error| {
                        let failure = Failure::setup("answer the step's system calls", &error);
                        wire::send(&control, &Message::Failed(failure), &[])
                    })
                }
            }
        }
    }
}

/// Goes into new namespaces; a pid namespace is entered by the next child.
pub fn enter(namespaces: Namespaces) -> Result<(), Failure> {
    let mut flags = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    flags.set(CloneFlags::CLONE_NEWPID, namespaces.pid);
    flags.set(CloneFlags::CLONE_NEWNET, namespaces.network);
    nix::sched::unshare(flags).map_err(|error| Failure::setup("make namespaces", &error.into()))
}
