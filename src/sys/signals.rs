//! Signals as a stream of plain values: a handler that only writes to a pipe, so that all decisions are made on an
//! ordinary thread. Blocking them and reading a signalfd would need no handler, but a blocked mask is inherited by
//! every program that we start.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use nix::fcntl::OFlag;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// A signal that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    pub signal: Signal,
    /// Made by the kernel (a terminal's Ctrl-C, which the whole process group has got), not sent by a process.
    pub from_kernel: bool,
}

/// Where the handler writes; -1 before [`watch`]. Never closed, so that the handler cannot meet another file there.
static PIPE: AtomicI32 = AtomicI32::new(-1);

/// The signals of one process, in order of arrival.
pub struct Signals(File);

/// Catches signals from now on. Only the latest caller gets them; there is meant to be one in a process. SIGHUP stays
/// ignored where it was when we were started: that is what `nohup` does.
pub fn watch(signals: &[Signal]) -> io::Result<Signals> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    // The handler must not hang when nobody reads: then the signal is lost, which is what signals are.
    nix::fcntl::fcntl(&write, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    PIPE.store(into_static(write), Ordering::SeqCst);
    let action =
        SigAction::new(SigHandler::SigAction(on_signal), SaFlags::SA_RESTART | SaFlags::SA_SIGINFO, SigSet::empty());
    for &signal in signals {
        // SAFETY: `on_signal` is async-signal-safe: it reads an atomic and the siginfo that the kernel made for this
        // call, writes two bytes from its own stack to a descriptor that is never closed, and puts errno back. What is
        // put back afterwards names no handler.
        #[expect(unsafe_code, reason = "there is no safe way to install a handler")]
        unsafe {
            let before = sigaction(signal, &action)?;
            // Not of SIGINT: a script's shell ignores it for all that it starts with `&`.
            if signal == Signal::SIGHUP && matches!(before.handler(), SigHandler::SigIgn) {
                sigaction(signal, &before)?;
            }
        }
    }
    Ok(Signals(File::from(read)))
}

/// Leaks the descriptor on purpose: a handler may run until the process is gone.
fn into_static(fd: OwnedFd) -> i32 {
    let raw = fd.as_raw_fd();
    std::mem::forget(fd);
    raw
}

extern "C" fn on_signal(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid siginfo for the duration of the handler; `write` is given two
    // bytes that live on this stack; errno's location is this thread's own.
    #[expect(unsafe_code, reason = "a handler is given raw pointers, and only write(2) is allowed in it")]
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let from_kernel = !info.is_null() && (*info).si_code > 0;
        let bytes = [signal as u8, u8::from(from_kernel)];
        libc::write(PIPE.load(Ordering::SeqCst), bytes.as_ptr().cast(), bytes.len());
        *errno = before;
    }
}

impl Signals {
    /// Waits for the next one.
    pub fn wait(&mut self) -> io::Result<Arrived> {
        let mut bytes = [0; 2];
        self.0.read_exact(&mut bytes)?;
        let signal = Signal::try_from(i32::from(bytes[0]))?;
        Ok(Arrived { signal, from_kernel: bytes[1] != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_sent_by_a_process_arrives_as_one() {
        let mut signals = watch(&[Signal::SIGUSR2]).unwrap();
        nix::sys::signal::raise(Signal::SIGUSR2).unwrap();
        assert_eq!(signals.wait().unwrap(), Arrived { signal: Signal::SIGUSR2, from_kernel: false });
    }
}
