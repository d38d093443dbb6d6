//! Puts this whole process into a user namespace in which it may chown and mount, where it may not already.
//!
//! The process itself goes in, rather than a child of it, so that there is one process: signals, terminal and exit
//! code need no passing on. Somebody outside must write its id maps, so a helper is forked off before.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::sched::CloneFlags;
use nix::sys::wait::WaitStatus;
use rustix::mount::MountFlags;
use rustix::thread::CapabilitySet;

use super::{Error, Isolation};
use crate::base::Env;
use crate::sys::idmap::{self, Range};
use crate::sys::{mount, process};

/// What [`enter`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// This process could chown and mount already, or was asked for an isolation that does neither.
    NotNeeded,
    /// In a user namespace with as many ids as an image can want.
    ManyIds,
    /// In a user namespace that maps nobody but the caller; ownership is emulated.
    OneId,
    /// User namespaces or mounts in them are refused; nothing was changed.
    Refused,
}

/// Why there are not more ids, for whoever asks why the isolation is not better.
static FEW_IDS: OnceLock<String> = OnceLock::new();

/// The reason [`enter`] found for [`Entered::OneId`] or [`Entered::Refused`].
pub(super) fn few_ids() -> Option<&'static str> {
    FEW_IDS.get().map(String::as_str)
}

/// Enters a user namespace if that helps. `main` calls it while there is one thread, before anything is opened;
/// `Env::uid` stays the caller's.
pub fn enter(env: &Env, wanted: Isolation) -> Result<Entered, Error> {
    let failed = |call: &'static str| move |source: io::Error| Error::Setup { call: call.into(), source };
    if matches!(wanted, Isolation::Chroot | Isolation::Rewrite) {
        return Ok(Entered::NotNeeded);
    }
    let capabilities = rustix::thread::capabilities(None).map_err(io::Error::from).map_err(failed("capget"))?.effective;
    if capabilities.contains(CapabilitySet::SYS_ADMIN) {
        return Ok(Entered::NotNeeded);
    }
    if let Err(refusal) = rehearse(env).map_err(failed("try a user namespace"))? {
        let _ = FEW_IDS.set(refusal);
        return Ok(Entered::Refused);
    }
    let maps = if capabilities.contains(CapabilitySet::SETUID | CapabilitySet::SETGID) {
        Some(Maps::own().map_err(failed("read this process's id maps"))?)
    } else if wanted == Isolation::Ns1 {
        None
    } else {
        match Maps::lent(env) {
            Ok(maps) => Some(maps),
            Err(reason) => {
                let _ = FEW_IDS.set(reason);
                None
            }
        }
    };
    go_in(env, maps).map_err(failed("enter a user namespace"))
}

/// Tries in a child whether a user namespace, and a mount in it, would work: some hosts allow the first and then
/// take every right away, and there is no way back out.
fn rehearse(env: &Env) -> io::Result<Result<(), String>> {
    let (mut reader, writer) = io::pipe()?;
    let Some(child) = process::fork()? else {
        drop(reader);
        let refusal = attempt(env.uid(), env.gid()).err().unwrap_or_default();
        let sent = (&writer).write_all(refusal.as_bytes());
        std::process::exit(i32::from(sent.is_err()));
    };
    drop(writer);
    let mut refusal = String::new();
    reader.read_to_string(&mut refusal)?;
    Ok(match nix::sys::wait::waitpid(child, None)? {
        WaitStatus::Exited(_, 0) if refusal.is_empty() => Ok(()),
        WaitStatus::Exited(_, 0) => Err(refusal),
        other => Err(format!("a trial ended with {other:?}")),
    })
}

fn attempt(uid: u32, gid: u32) -> Result<(), String> {
    let refused = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    nix::sched::unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)
        .map_err(io::Error::from)
        .map_err(refused("user namespaces are refused"))?;
    map_self(uid, gid).map_err(refused("a user namespace's id map is refused"))?;
    mount::make_private().map_err(refused("mounts are refused in a user namespace"))?;
    mount::mount("tmpfs", "/".as_ref(), MountFlags::empty(), "size=4k")
        .map_err(refused("mounts are refused in a user namespace"))
}

/// Maps nobody but the caller, as root. Anybody may do that, if groups can no longer be dropped.
fn map_self(uid: u32, gid: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", idmap::text(&idmap::map_of(uid, &[])))?;
    std::fs::write("/proc/self/gid_map", idmap::text(&idmap::map_of(gid, &[])))
}

/// The maps for a namespace with many ids.
#[derive(Debug, PartialEq, Eq)]
struct Maps {
    users: Vec<Range>,
    groups: Vec<Range>,
    /// Written by newuidmap and newgidmap, which may lend what is not ours; else by ourselves.
    lent: bool,
}

impl Maps {
    /// All ids that this process's own namespace has, each as itself: root in a container may hand them on.
    fn own() -> io::Result<Self> {
        let read = |path| Ok::<_, io::Error>(idmap::identity(&idmap::parse(&std::fs::read_to_string(path)?)));
        Ok(Self { users: read("/proc/self/uid_map")?, groups: read("/proc/self/gid_map")?, lent: false })
    }

    /// The caller as root, and what the system lends to the caller. The error says what is missing.
    fn lent(env: &Env) -> Result<Self, String> {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = idmap::user_name(&passwd, env.uid()).or_else(|| env.nonempty("USER"));
        let range = |path: &str, own| {
            let table = std::fs::read_to_string(path).unwrap_or_default();
            let map = idmap::map_of(own, &idmap::subordinate(&table, name, env.uid()));
            match idmap::covered(&map) {
                ids if ids >= idmap::ENOUGH => Ok(map),
                ids => Err(format!("{path} lends this user {} ids, and {} are needed", ids - 1, idmap::ENOUGH - 1)),
            }
        };
        let maps =
            Self { users: range("/etc/subuid", env.uid())?, groups: range("/etc/subgid", env.gid())?, lent: true };
        for program in ["newuidmap", "newgidmap"] {
            which::which_in(program, Some(env.path()), env.cwd())
                .map_err(|_| format!("{program} is not installed (package uidmap)"))?;
        }
        Ok(maps)
    }

    /// Writes the maps of a process; called outside of its new namespace.
    fn write(&self, pid: u32, env: &Env) -> io::Result<()> {
        let files = [("newuidmap", "uid_map", &self.users), ("newgidmap", "gid_map", &self.groups)];
        if !self.lent {
            return files
                .into_iter()
                .try_for_each(|(_, file, map)| std::fs::write(format!("/proc/{pid}/{file}"), idmap::text(map)));
        }
        let mut running = Vec::new();
        for (program, _, map) in files {
            let path = which::which_in(program, Some(env.path()), env.cwd()).map_err(io::Error::other)?;
            let numbers = map.iter().flat_map(|range| [range.inside, range.outside, range.count]);
            let child = Command::new(path)
                .arg(pid.to_string())
                .args(numbers.map(|number| number.to_string()))
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()?;
            running.push(child);
        }
        for child in running {
            let output = child.wait_with_output()?;
            if !output.status.success() {
                return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
            }
        }
        Ok(())
    }
}

/// Goes into a new user namespace for good. With no maps, or where they cannot be written, there is one id in it.
fn go_in(env: &Env, maps: Option<Maps>) -> io::Result<Entered> {
    let unshare = || nix::sched::unshare(CloneFlags::CLONE_NEWUSER).map_err(io::Error::from);
    let Some(maps) = maps else {
        unshare()?;
        map_self(env.uid(), env.gid())?;
        return Ok(Entered::OneId);
    };
    let own = std::process::id();
    let (mut go, ready) = io::pipe()?;
    let (mut answer, report) = io::pipe()?;
    let Some(helper) = process::fork()? else {
        drop((ready, answer));
        // One byte when the namespace is there; the end of the pipe when it will not be.
        let result = match go.read(&mut [0]) {
            Ok(1) => maps.write(own, env),
            _ => Ok(()),
        };
        let text = result.err().map(|error| error.to_string()).unwrap_or_default();
        let sent = (&report).write_all(text.as_bytes());
        std::process::exit(i32::from(sent.is_err()));
    };
    drop((go, report));
    let unshared = unshare().and_then(|()| (&ready).write_all(b"1"));
    drop(ready);
    let mut refusal = String::new();
    answer.read_to_string(&mut refusal)?;
    nix::sys::wait::waitpid(helper, None)?;
    unshared?;
    if refusal.is_empty() {
        return Ok(Entered::ManyIds);
    }
    let _ = FEW_IDS.set(refusal);
    map_self(env.uid(), env.gid())?;
    Ok(Entered::OneId)
}
