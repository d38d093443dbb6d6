//! fork and the little else about processes that Rust cannot promise anything about.

use std::io;

use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal};
use nix::unistd::{ForkResult, Pid};

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
