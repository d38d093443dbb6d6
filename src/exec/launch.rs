//! The last steps of the child that becomes the step's process: it gives up what the step may not have, in the order
//! that each giving up needs, and executes the program.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use rustix::fs::Mode;
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::emulate::Reach;
use super::plan::{Answered, Launch};
use super::wire::{self, Failure, Message};
use super::{emulate, filter, limits};
use crate::sys::landlock;
use crate::sys::process::{self, default_signals};
use crate::sys::seccomp::Filter;

/// What Docker leaves a container, by number: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
/// net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
pub const KEPT: u64 = 0xa804_25fb;
/// There is none above, for some time.
const CAPABILITIES: u32 = 64;

/// Where an image that sets no PATH has its programs.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Becomes the program. Returns only when that failed.
///
/// `supervisor` is where the listener for its answered calls goes.
pub fn launch(launch: &Launch, streams: Streams, supervisor: &OwnedFd) -> Failure {
    match prepare(launch, streams, supervisor) {
        Ok(()) => execute(launch),
        Err(failure) => failure,
    }
}

/// What the process reads and writes.
pub enum Streams {
    /// Standard input is this; the other two are in place.
    Input(OwnedFd),
    /// All three are this terminal.
    Terminal(OwnedFd),
}

fn prepare(launch: &Launch, streams: Streams, supervisor: &OwnedFd) -> Result<(), Failure> {
    let named = |call: &str| {
        let call = call.to_owned();
        move |error: io::Error| Failure::setup(call, &error)
    };
    rustix::process::setsid().map_err(io::Error::from).map_err(named("start a session"))?;
    attach(streams).map_err(named("attach the standard streams"))?;
    default_signals().map_err(named("reset signals"))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    for (name, soft, hard) in &launch.ulimits {
        limits::apply(name, *soft, *hard).map_err(named(&format!("set the limit {name} to {soft}:{hard}")))?;
    }
    let in_cwd = |launch: &Launch| {
        std::env::set_current_dir(&launch.cwd).map_err(named(&format!("change to the directory {}", launch.cwd)))
    };
    match (&launch.root, launch.answered) {
        // By its own names, once somebody knows what they mean.
        (Some(root), Answered::Names(Reach::Host)) => {
            std::env::set_current_dir(root).map_err(named("change to the root"))?;
        }
        (Some(root), _) => {
            nix::unistd::chroot(root.as_ref()).map_err(io::Error::from).map_err(named("change the root"))?;
            in_cwd(launch)?;
        }
        // As root still: a user's own working directory may lie where the user cannot look.
        (None, _) => in_cwd(launch)?,
    }
    if launch.confined && launch.answered != Answered::Names(Reach::Host) {
        // Before the filter and the user id: both take away the right to.
        drop_capabilities().map_err(named("drop capabilities"))?;
    }
    let mut filter = if launch.confined { filter::confined() } else { Filter::default() };
    if launch.offline {
        filter.native.splice(0..0, filter::offline());
    }
    let rules = match launch.answered {
        Answered::Kernel => None,
        Answered::Owners => Some(emulate::owners_filter(filter.clone(), launch.uid != 0)),
        Answered::Names(reach) => {
            let traced = wait_for_tracer(supervisor).map_err(named("be traced"))?;
            // There is no right here to install a filter without it; setuid programs are dockless's to start.
            nix::sys::prctl::set_no_new_privs().map_err(io::Error::from).map_err(named("forgo further privileges"))?;
            // Those of processes are laid by the tracer.
            Some(emulate::names_filter(filter.clone(), reach, launch.detours && traced))
        }
    };
    if launch.confined && launch.answered != Answered::Names(Reach::Host) {
        // While the right to is still there. Where calls are rewritten, the stage has done it.
        let _kept = landlock::keep_to_itself().map_err(named("keep the step's processes from others"))?;
    }
    if let Some(rules) = rules {
        hand_over(&rules, supervisor).map_err(named("hand system calls over to dockless"))?;
        return match launch.answered {
            Answered::Names(Reach::Host) => in_cwd(launch),
            _ => Ok(()),
        };
    }
    // Before the user id: without no_new_privs, which would break sudo, only root may install one.
    filter.install().map_err(named("install a system call filter"))?;
    become_user(launch).map_err(|error| {
        let hint = if error.raw_os_error() == Some(libc::EINVAL) { " (this id is not mapped here)" } else { "" };
        Failure::setup(format!("become user {}, group {}{hint}", launch.uid, launch.gid), &error)
    })
}

/// A call that is marked for a tracer fails without one, and no other may be made before it is there to hear of signals.
/// True if it is.
fn wait_for_tracer(supervisor: &OwnedFd) -> io::Result<bool> {
    wire::send(supervisor, &Message::Traceable(std::process::id()), &[])?;
    match wire::receive(supervisor)? {
        Some((traced, _)) => Ok(traced),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// From here on dockless answers for the kernel, and this process is who dockless says it is.
fn hand_over(rules: &Filter, supervisor: &OwnedFd) -> io::Result<()> {
    process::set_inherited_note(0, 0)?;
    let listener = rules.install_listener()?;
    wire::send(supervisor, &Message::Listener, &[listener.as_fd()])
}

fn attach(streams: Streams) -> io::Result<()> {
    match streams {
        Streams::Input(input) => nix::unistd::dup2_stdin(&input)?,
        Streams::Terminal(terminal) => {
            rustix::process::ioctl_tiocsctty(&terminal)?;
            nix::unistd::dup2_stdin(&terminal)?;
            nix::unistd::dup2_stdout(&terminal)?;
            nix::unistd::dup2_stderr(&terminal)?;
        }
    }
    Ok(())
}

/// Root keeps what the bounding set leaves when it executes a program; a user gets nothing.
fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    for number in 0..CAPABILITIES {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if KEPT & one.bits() != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The kernel knows no more.
            Err(rustix::io::Errno::INVAL) => break,
            result => result?,
        }
    }
    let now = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, CapabilitySets { inheritable: CapabilitySet::empty(), ..now })?;
    Ok(())
}

fn become_user(launch: &Launch) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(launch.uid), Gid::from_raw(launch.gid));
    let groups: Vec<_> = launch.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    // Groups before the user: a user may not change them.
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

fn execute(launch: &Launch) -> Failure {
    let text = |text: &String| CString::new(text.as_str());
    let (Ok(args), Ok(env)) = (
        launch.args.iter().map(text).collect::<Result<Vec<_>, _>>(),
        launch.env.iter().map(text).collect::<Result<Vec<_>, _>>(),
    ) else {
        return Failure::setup("pass arguments and environment", &io::ErrorKind::InvalidInput.into());
    };
    let Some(program) = launch.args.first() else {
        return Failure::NotFound { path: String::new() };
    };
    let mut refused = None;
    for path in candidates(program, &launch.env) {
        let Ok(c_path) = CString::new(path.as_str()) else { continue };
        match nix::unistd::execve(&c_path, &args, &env) {
            Ok(never) => match never {},
            // What is there for no program is looked past, as a shell does, and told of if nothing better comes.
            Err(Errno::ENOENT | Errno::ENOTDIR) if !exists(&path) => {}
            Err(Errno::EACCES) => {
                refused.get_or_insert((path, Errno::EACCES));
            }
            Err(error) => return Failure::NotExecutable { path, errno: error as i32 },
        }
    }
    match refused {
        Some((path, error)) => Failure::NotExecutable { path, errno: error as i32 },
        None => Failure::NotFound { path: program.clone() },
    }
}

/// A script whose interpreter is missing gives ENOENT as well.
fn exists(path: &str) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The files that a command's first word may mean.
fn candidates(program: &str, env: &[String]) -> Vec<String> {
    if program.contains('/') {
        return vec![program.to_owned()];
    }
    // The last of several wins, as getenv of most programs would not have it, but as Docker has.
    let path = env.iter().rev().find_map(|line| line.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|directory| match directory {
            // An empty word means the working directory.
            "" => format!("./{program}"),
            _ => format!("{}/{program}", directory.trim_end_matches('/')),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_path() {
        let env = |path: &str| vec!["A=b".to_owned(), format!("PATH={path}")];
        assert_eq!(candidates("sh", &env("/bin:/usr/bin/:")), ["/bin/sh", "/usr/bin/sh", "./sh"]);
        assert_eq!(candidates("./sh", &env("/bin")), ["./sh"]);
        assert_eq!(candidates("sh", &[])[0], "/usr/local/sbin/sh");
    }
}
