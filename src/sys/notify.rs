//! The supervisor's end of a system call filter: calls that wait for an answer, and the answers.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock};

use rustix::fs::{Mode, OFlags};

/// Where notifications come from; see [`Filter::install_listener`](super::seccomp::Filter::install_listener).
pub struct Listener {
    descriptor: OwnedFd,
    /// Held by whoever hands over a file that can be written to, until its own descriptor of it is closed.
    handing: RwLock<()>,
}

/// A call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notification {
    id: u64,
    /// The calling thread, as this process's pid namespace counts.
    pub thread: i32,
    pub call: i64,
    pub arguments: [u64; 6],
}

impl Notification {
    /// A call that waits for a tracer instead.
    pub fn stopped(thread: i32, call: i64, arguments: [u64; 6]) -> Self {
        Self { id: 0, thread, call, arguments }
    }
}

/// What a waiting call is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Value(i64),
    Errno(i32),
    /// Carry it out as if nobody had asked.
    Continue,
}

// From <linux/seccomp.h>.
const ADDFD_FLAG_SEND: u32 = 2;
const RESPONSE_FLAG_CONTINUE: u32 = 1;
const FD_SYNC_WAKE_UP: u64 = 1;

impl Listener {
    pub fn new(descriptor: OwnedFd) -> Self {
        // The answerer and the asker then take turns on one processor, which halves the time of a call. Before Linux
        // 6.6 there is no such thing, and nothing else changes.
        #[expect(unsafe_code, reason = "no wrapper offers this ioctl")]
        // SAFETY: the argument of this request is a number, not a pointer.
        let _ = unsafe { libc::ioctl(descriptor.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, FD_SYNC_WAKE_UP) };
        Self { descriptor, handing: RwLock::default() }
    }

    /// Waits for the next call; none when no process with the filter is left. Each call wakes all threads that wait here.
    /// Unless the kernel [tells them of the end](tells_of_the_end), they wait for ever.
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        loop {
            if let Some(notification) = self.take()? {
                return Ok(Some(notification));
            }
            if !self.anybody_calls(Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))? {
                return Ok(None);
            }
        }
    }

    /// The same, told of the end by any kernel, at the price of one more system call.
    pub fn receive_alone(&self) -> io::Result<Option<Notification>> {
        while self.anybody_calls(None)? {
            if let Some(notification) = self.take()? {
                return Ok(Some(notification));
            }
        }
        Ok(None)
    }

    /// Whether further calls wait to be received.
    pub fn has_more(&self) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags};
        let mut ready = [PollFd::new(&self.descriptor, PollFlags::IN)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, Some(&now)))?;
        Ok(ready[0].revents().contains(PollFlags::IN))
    }

    /// False when no process with the filter is left; waits for a call at most this long.
    fn anybody_calls(&self, timeout: Option<&rustix::time::Timespec>) -> io::Result<bool> {
        use rustix::event::{PollFd, PollFlags};
        let mut ready = [PollFd::new(&self.descriptor, PollFlags::IN)];
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut ready, timeout))?;
        let events = ready[0].revents();
        Ok(events.contains(PollFlags::IN) || !events.intersects(PollFlags::HUP | PollFlags::ERR))
    }

    /// Takes the next call; none if it was taken back.
    fn take(&self) -> io::Result<Option<Notification>> {
        let mut raw = libc::seccomp_notif {
            id: 0,
            pid: 0,
            flags: 0,
            data: libc::seccomp_data { nr: 0, arch: 0, instruction_pointer: 0, args: [0; 6] },
        };
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut raw) {
            Ok(_) => Ok(Some(Notification {
                id: raw.id,
                thread: i32::try_from(raw.pid).unwrap_or(0),
                call: raw.data.nr.into(),
                arguments: raw.data.args,
            })),
            // The caller was killed meanwhile, or we were interrupted.
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether the call still waits. What was read from the caller's memory is only then known to be the caller's.
    pub fn is_waiting(&self, notification: &Notification) -> bool {
        let mut id = notification.id;
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Answers a call. One that waits no more (its caller was killed) needs no answer.
    pub fn answer(&self, notification: &Notification, answer: Answer) -> io::Result<()> {
        let mut raw = libc::seccomp_notif_resp { id: notification.id, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Value(value) => raw.val = value,
            Answer::Errno(errno) => raw.error = -errno,
            Answer::Continue => raw.flags = RESPONSE_FLAG_CONTINUE,
        }
        gone_is_fine(self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut raw).map(drop))
    }

    /// Answers a call with a descriptor: the caller gets one of its own, which it asked for with these flags.
    pub fn answer_descriptor(&self, notification: &Notification, file: OwnedFd, flags: OFlags) -> io::Result<()> {
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        let _handing = writes.then(|| self.handing.read().unwrap_or_else(PoisonError::into_inner));
        let mut raw = libc::seccomp_notif_addfd {
            id: notification.id,
            flags: ADDFD_FLAG_SEND,
            srcfd: u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX),
            newfd: 0,
            newfd_flags: (flags & OFlags::CLOEXEC).bits(),
        };
        match self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ADDFD, &mut raw) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.answer(notification, Answer::Errno(libc::EMFILE))
            }
            // The kernel hands over no `O_PATH` descriptor: an open one must do.
            Err(error) if error.raw_os_error() == Some(libc::EBADF) => {
                let reading = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                match rustix::fs::open(super::mount::descriptor_path(&file), reading, Mode::empty()) {
                    Ok(open) => self.answer_descriptor(notification, open, flags & OFlags::CLOEXEC),
                    // Of a link there is none but an `O_PATH` one. Whoever wants it wants to change the link's mode, as
                    // the C library and GNU tar do, and takes it well that links have none.
                    Err(rustix::io::Errno::LOOP) => self.answer(notification, Answer::Errno(libc::EOPNOTSUPP)),
                    Err(error) => self.answer(notification, Answer::Errno(error.raw_os_error())),
                }
            }
            other => {
                drop(file);
                gone_is_fine(other.map(drop))
            }
        }
    }

    /// Before a program is run: a file is busy as long as a writer is left here, though whoever asked for it may have
    /// closed it already.
    pub fn settle(&self) {
        drop(self.handing.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: &mut T) -> io::Result<i32> {
        // SAFETY: every caller passes the structure that this request reads and writes, and nothing else; it is alive
        // and not otherwise borrowed until the call returns, and the kernel keeps no pointer to it.
        #[expect(unsafe_code, reason = "no wrapper offers these ioctls")]
        let result = unsafe { libc::ioctl(self.descriptor.as_raw_fd(), request, std::ptr::from_mut(argument)) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// Whether a thread that waits for a call is woken when nobody is left to make one: since Linux 6.11.
pub fn tells_of_the_end() -> bool {
    is_at_least(&rustix::system::uname().release().to_string_lossy(), (6, 11))
}

/// Compares a kernel's release, such as `6.18.44-generic`, with a version.
fn is_at_least(release: &str, version: (u32, u32)) -> bool {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= version
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_their_numbers() {
        for (release, expected) in [
            ("6.11.0", true),
            ("6.9.12-arch1", false),
            ("10.0", true),
            ("5.15.0-91-generic", false),
            ("strange", false),
        ] {
            assert_eq!(is_at_least(release, (6, 11)), expected, "{release}");
        }
    }
}
