//! fork and the little else about processes that Rust cannot promise anything about.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};
use rustix::thread::CapabilitySet;

/// Forks a process that has one thread. None in the child, the child's id in the parent.
pub fn fork() -> io::Result<Option<Pid>> {
    // After fork a child may only use what no other thread could have held locked. With one thread there is no such
    // thing, so the child is as free as the parent was.
    if threads()? != 1 {
        return Err(io::Error::other("fork: this process has more than one thread"));
    }
    // SAFETY: the calling thread is the only one, as just counted; nobody else can start one meanwhile.
    #[expect(unsafe_code, reason = "fork is unsafe for processes with several threads; this one has one")]
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => Ok(None),
    }
}

/// How many threads this process has.
fn threads() -> io::Result<usize> {
    // The link count of a process's task directory is its number of threads plus two.
    let links = std::os::unix::fs::MetadataExt::nlink(&std::fs::metadata("/proc/self/task")?);
    Ok(usize::try_from(links).unwrap_or(usize::MAX).saturating_sub(2))
}

/// Puts every signal back to its default and unblocks all: what a program expects to start with. Rust itself ignores
/// SIGPIPE, and nohup, make and CI runners ignore more.
pub fn default_signals() -> io::Result<()> {
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: SIG_DFL names no handler, so no code of ours can run in a signal's context; the old disposition,
        // which could be one, is dropped unused.
        #[expect(unsafe_code, reason = "setting a handler is unsafe; the default one is none")]
        unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) }?;
    }
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    Ok(())
}

/// Closes what this process inherited beyond its three streams: a make jobserver, a CI runner's log.
pub fn close_inherited() -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        if let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) {
            open.push(number);
        }
    }
    for number in open.into_iter().filter(|number| *number > 2) {
        // One of them was the listing's own and is closed already.
        let _ = nix::unistd::close(number);
    }
    Ok(())
}

/// Whether this process may give files away.
pub fn may_chown() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN))
}

/// Whether this process may give files away, but lacks another right of those that root has in a container.
pub fn may_only_chown() -> bool {
    let others = CapabilitySet::FOWNER | CapabilitySet::SETUID | CapabilitySet::SETGID | CapabilitySet::SYS_CHROOT;
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(CapabilitySet::CHOWN) && !sets.effective.contains(others))
}

/// A number that a process inherits from its parent, keeps over execve, and shares among its threads: the soft limit
/// on its POSIX message queues. Emulation keeps a note of who the process believes to be in it.
pub fn inherited_note(process: i32) -> io::Result<u64> {
    note(process, None)
}

/// Sets the note of a process that has our user id. Notes up to the hard limit (by default 819200) fit.
pub fn set_inherited_note(process: i32, value: u64) -> io::Result<()> {
    note(process, Some(value)).map(drop)
}

fn note(process: i32, value: Option<u64>) -> io::Result<u64> {
    let mut old = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let read = |old: &mut libc::rlimit| {
        // SAFETY: the new limit is absent, which the null pointer says; `old` is alive and ours until the call returns.
        #[expect(unsafe_code, reason = "rustix cannot ask for another process's limit without setting it")]
        let result = unsafe { libc::prlimit(process, libc::RLIMIT_MSGQUEUE, std::ptr::null(), old) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    read(&mut old)?;
    if let Some(value) = value {
        let pid = rustix::process::Pid::from_raw(process);
        let limit = rustix::process::Rlimit { current: Some(value), maximum: Some(old.rlim_max) };
        rustix::process::prlimit(pid, rustix::process::Resource::Msgqueue, limit)?;
    }
    Ok(old.rlim_cur)
}
