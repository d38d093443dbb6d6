//! /proc as a step may see it: its own processes, under the paths that the step knows.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{FileType, Mode, OFlags};

use super::walk::Step;
use super::{How, Names, path};
use crate::exec::emulate::{errno, turn};

/// Tells about the host, or reaches it.
const HIDDEN: [&[u8]; 12] = [
    b"acpi",
    b"asound",
    b"interrupts",
    b"kcore",
    b"keys",
    b"kmsg",
    b"latency_stats",
    b"sched_debug",
    b"scsi",
    b"sysrq-trigger",
    b"timer_list",
    b"timer_stats",
];

impl Names {
    /// Opens a path below /proc that has been walked: only its last name can be a link.
    pub(super) fn open_proc(&self, thread: i32, rest: &[u8], how: How<'_>) -> io::Result<OwnedFd> {
        let rest = self.process_path(thread, rest)?;
        let first = path::names(&rest).next().unwrap_or_default();
        let of_process = first.iter().all(u8::is_ascii_digit) && !first.is_empty();
        if HIDDEN.contains(&first) {
            return Err(errno(libc::EACCES));
        }
        if how.writes() && !of_process {
            return Err(errno(libc::EROFS));
        }
        let path = if rest.is_empty() { b".".to_vec() } else { rest };
        let flags = (how.flags - OFlags::CREATE - OFlags::EXCL) | OFlags::CLOEXEC | OFlags::NOCTTY;
        if !flags.contains(OFlags::PATH) {
            // A descriptor's link may lead to a fifo.
            turn::give_way();
        }
        // Relative to the working directory, which is /proc.
        Ok(rustix::fs::open(OsStr::from_bytes(&path), flags, Mode::empty())?)
    }

    pub(super) fn step_in_proc(&self, thread: i32, rest: &[u8]) -> io::Result<Step> {
        let rest = self.process_path(thread, rest)?;
        if rest.is_empty() {
            return Ok(Step::Directory);
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(OsStr::from_bytes(&rest), look, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) {
            FileType::Directory => return Ok(Step::Directory),
            FileType::Symlink => {}
            _ => return Ok(Step::Other),
        }
        if path::names(&rest).last() == Some(b"root") {
            return Ok(Step::Link(b"/".to_vec()));
        }
        let target = rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes();
        if target.first() != Some(&b'/') {
            // `mounts` and `net` are links like any other; `pipe:[1]` is none.
            return Ok(if target.contains(&b':') { Step::Dead } else { Step::Link(target) });
        }
        // What was deleted is still open; what lies elsewhere is not for the step but by this descriptor.
        let leads_there = std::fs::metadata(OsStr::from_bytes(&rest))
            .and_then(|there| Ok((there, std::fs::metadata(OsStr::from_bytes(&target))?)))
            .is_ok_and(|(one, other)| {
                use std::os::unix::fs::MetadataExt;
                (one.dev(), one.ino()) == (other.dev(), other.ino())
            });
        match self.shown(&target) {
            Some(shown) if leads_there || self.programs.original(&target).is_some() => Ok(Step::Link(shown)),
            _ => Ok(Step::Dead),
        }
    }

    /// What a link of /proc says, for the step.
    pub fn read_proc_link(&self, thread: i32, rest: &[u8]) -> io::Result<Vec<u8>> {
        match rest {
            b"" => return Err(errno(libc::EINVAL)),
            b"self" => return Ok(process_of(thread)?.to_string().into_bytes()),
            b"thread-self" => return Ok(format!("{}/task/{thread}", process_of(thread)?).into_bytes()),
            _ => {}
        }
        let rest = self.process_path(thread, rest)?;
        if path::names(&rest).last() == Some(b"root") {
            return Ok(b"/".to_vec());
        }
        let target = std::fs::read_link(OsStr::from_bytes(&rest))?.into_os_string().into_vec();
        Ok(self.shown(&target).unwrap_or(target))
    }

    /// A path below /proc with the caller's number for `self`, if it is about no process but one of the step's.
    fn process_path(&self, thread: i32, rest: &[u8]) -> io::Result<Vec<u8>> {
        let mut names = path::names(rest);
        let first = names.next().unwrap_or_default();
        let mut whole = match first {
            b"self" => process_of(thread)?.to_string().into_bytes(),
            b"thread-self" => format!("{}/task/{thread}", process_of(thread)?).into_bytes(),
            _ => {
                if let Some(process) = std::str::from_utf8(first).ok().and_then(|text| text.parse().ok())
                    && !self.is_ours(process)
                {
                    return Err(errno(libc::ENOENT));
                }
                first.to_vec()
            }
        };
        for name in names {
            whole.push(b'/');
            whole.extend(name);
        }
        Ok(whole)
    }

    /// Sends a signal to every process of the step but one, as `kill -1` does in a container.
    pub fn signal_all(&self, except: i32, signal: i32) -> io::Result<()> {
        let signal = nix::sys::signal::Signal::try_from(signal)?;
        for entry in std::fs::read_dir(".")? {
            let process = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
            if let Some(process) = process.filter(|process| *process != except && self.is_ours(*process)) {
                match nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), signal) {
                    // It has just ended.
                    Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Whether a process belongs to the step.
    pub fn is_ours(&self, process: i32) -> bool {
        let mut process = process;
        while process > 1 {
            let Some(parent) = parent_of(process) else { return false };
            if parent == self.shepherd {
                return true;
            }
            process = parent;
        }
        false
    }
}

/// The process that a thread belongs to.
pub fn process_of(thread: i32) -> io::Result<i32> {
    let status = std::fs::read_to_string(format!("{thread}/status"))?;
    field(&status, "Tgid:").ok_or_else(|| errno(libc::ESRCH))
}

fn parent_of(process: i32) -> Option<i32> {
    field(&std::fs::read_to_string(format!("{process}/status")).ok()?, "PPid:")
}

fn field(status: &str, name: &str) -> Option<i32> {
    status.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok())
}
