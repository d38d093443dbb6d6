//! ptrace(2), as far as a supervisor needs it: it is told when a process of its own is about to make a call that the
//! filter marks, and may change the call.

use std::io;

use nix::sys::ptrace::{self, Options};
use nix::unistd::Pid;

/// What a wait is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A process or thread is gone.
    Ended(i32),
    /// A thread is about to make a marked call.
    Call(i32),
    /// A thread gets a signal, by number.
    Signal(i32, i32),
    /// A thread stops with its process, until the process is continued.
    Stop(i32),
    /// A thread has started, or come out of a stop.
    Started(i32),
    /// A thread has started another.
    Other(i32),
}

/// Traces a process and all that it will start. They die with the calling thread, which is the tracer.
pub fn seize(process: i32) -> io::Result<()> {
    if !cfg!(target_arch = "x86_64") {
        // What a stopped thread is about to do could not be told.
        return Err(io::ErrorKind::Unsupported.into());
    }
    let options = Options::PTRACE_O_TRACESECCOMP
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_EXITKILL;
    Ok(ptrace::seize(Pid::from_raw(process), options)?)
}

/// Waits for the next event of any child or traced thread of the calling thread's own; none when there is nobody left.
pub fn wait() -> io::Result<Option<Event>> {
    loop {
        let mut status = 0;
        // SAFETY: the status is ours and alive until the call returns. nix would drop what a signal without a name says.
        #[expect(unsafe_code, reason = "nix and rustix refuse the statuses of real-time signals")]
        let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if thread >= 0 {
            return Ok(Some(decode(thread, status)));
        }
        match io::Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            error if error.raw_os_error() == Some(libc::EINTR) => {}
            error => return Err(error),
        }
    }
}

fn decode(thread: i32, status: i32) -> Event {
    if !libc::WIFSTOPPED(status) {
        return Event::Ended(thread);
    }
    let signal = libc::WSTOPSIG(status);
    match status >> 16 {
        0 => Event::Signal(thread, signal),
        libc::PTRACE_EVENT_SECCOMP => Event::Call(thread),
        libc::PTRACE_EVENT_STOP if matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => {
            Event::Stop(thread)
        }
        libc::PTRACE_EVENT_STOP => Event::Started(thread),
        _ => Event::Other(thread),
    }
}

/// Lets a thread go on, with a signal if that is not 0. One that was killed meanwhile needs no leave.
pub fn resume(thread: i32, signal: i32) -> io::Result<()> {
    request(libc::PTRACE_CONT, thread, signal)
}

/// Has a thread stop as soon as it is about to go on, with a signal that only its tracer sees.
pub fn stop(thread: i32) -> io::Result<()> {
    // SAFETY: the call takes two numbers.
    #[expect(unsafe_code, reason = "no wrapper signals a thread of another process")]
    let result = unsafe { libc::syscall(libc::SYS_tkill, thread, libc::SIGSTOP) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Traces a thread no more; it goes on.
pub fn release(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_DETACH, thread, 0)
}

/// Leaves a thread stopped, to be told when that changes.
pub fn leave_stopped(thread: i32) -> io::Result<()> {
    request(libc::PTRACE_LISTEN, thread, 0)
}

fn request(request: libc::c_uint, thread: i32, data: i32) -> io::Result<()> {
    // SAFETY: these requests take two numbers and no address of ours.
    #[expect(unsafe_code, reason = "nix knows neither PTRACE_LISTEN nor signals without a name")]
    let result = unsafe { libc::ptrace(request, thread, 0, libc::c_long::from(data)) };
    if result == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

// From <linux/errno.h>: what a call leaves for the delivery of a signal, and no program ever sees.
#[cfg(target_arch = "x86_64")]
const ERESTARTSYS: u64 = 512;
/// Makes the call anew once its signals are dealt with, whatever their handlers say. A thread that has none pending sees
/// the number.
pub const ERESTARTNOINTR: i32 = 513;

/// The call that a thread is about to make, or that a signal keeps it from making.
#[cfg(target_arch = "x86_64")]
pub struct Pending {
    thread: i32,
    registers: libc::user_regs_struct,
}

#[cfg(target_arch = "x86_64")]
impl Pending {
    pub fn of(thread: i32) -> io::Result<Self> {
        Ok(Self { thread, registers: ptrace::getregs(Pid::from_raw(thread))? })
    }

    pub fn number(&self) -> i64 {
        self.registers.orig_rax.cast_signed()
    }

    pub fn arguments(&self) -> [u64; 6] {
        let r = &self.registers;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9]
    }

    /// An address below the stack that nothing is at, with this much room above it: below the red zone.
    pub fn scratch(&self, size: usize) -> u64 {
        (self.registers.rsp - 128 - size as u64) & !15
    }

    /// Makes it this call instead, with these first three arguments; the others stay.
    pub fn replace(mut self, number: i64, arguments: [u64; 3]) -> io::Result<()> {
        let r = &mut self.registers;
        r.orig_rax = number.cast_unsigned();
        [r.rdi, r.rsi, r.rdx] = arguments;
        self.store()
    }

    /// Whether it ends without a result because of a signal that is about to be delivered, and whether it begins again
    /// is for the signal's handler to say.
    pub fn is_interrupted(&self) -> bool {
        self.registers.rax == ERESTARTSYS.wrapping_neg()
    }

    /// Begins again behind the handler, whatever the handler says.
    pub fn restart(mut self) -> io::Result<()> {
        self.registers.rax = (-i64::from(ERESTARTNOINTR)).cast_unsigned();
        self.store()
    }

    /// The call does not happen, and returns this.
    pub fn refuse(mut self, errno: i32) -> io::Result<()> {
        self.registers.orig_rax = u64::MAX;
        self.registers.rax = (-i64::from(errno)).cast_unsigned();
        self.store()
    }

    fn store(self) -> io::Result<()> {
        match ptrace::setregs(Pid::from_raw(self.thread), self.registers) {
            Err(nix::Error::ESRCH) => Ok(()),
            result => Ok(result?),
        }
    }
}

/// The call that a thread is about to make; not yet told on this architecture, so that nobody can be traced.
#[cfg(not(target_arch = "x86_64"))]
pub enum Pending {}

#[cfg(not(target_arch = "x86_64"))]
impl Pending {
    pub fn of(_thread: i32) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn number(&self) -> i64 {
        match *self {}
    }

    pub fn arguments(&self) -> [u64; 6] {
        match *self {}
    }

    pub fn scratch(&self, _size: usize) -> u64 {
        match *self {}
    }

    pub fn replace(self, _number: i64, _arguments: [u64; 3]) -> io::Result<()> {
        match self {}
    }

    pub fn is_interrupted(&self) -> bool {
        match *self {}
    }

    pub fn restart(self) -> io::Result<()> {
        match self {}
    }

    pub fn refuse(self, _errno: i32) -> io::Result<()> {
        match self {}
    }
}
