//! What a probe's child tries, one real call after the other. Each check stands for something a sandbox would do.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{FileType, Mode};
use rustix::mount::MountFlags;

use super::plan::{HostPath, Namespaces};
use super::probe::{Check, Trial};
use super::stage;
use super::{emulate, overlay};
use crate::sys::{mount, process};

/// Tries everything in the order a sandbox would need it; what cannot be tried after a refusal is left out.
/// `work` is an empty directory of the state folder.
pub fn all(work: &Path) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |trial: Trial, result: io::Result<()>| {
        let works = result.is_ok();
        checks.push(Check { trial, refusal: result.err().map(|error| error.to_string()) });
        works
    };
    note(Trial::OtherOwner, other_owner(work));
    note(Trial::Device, device(work));
    note(Trial::OtherUser, in_child(other_user));
    note(Trial::ChangeRoot, in_child(|| Ok(nix::unistd::chroot(work)?)));
    note(Trial::Trace, traced());
    note(Trial::Answers, std::env::set_current_dir("/proc").and_then(|()| emulate::answers()));
    let namespaces = stage::enter(Namespaces { pid: true, network: false });
    if !note(Trial::Namespaces, namespaces.map_err(|failure| failure.error())) {
        return checks;
    }
    if !note(Trial::Tmpfs, tmpfs(work)) {
        return checks;
    }
    note(Trial::Bind, bind(work));
    note(Trial::Overlay, overlay(work));
    // The first child after `enter` is process 1 of the new pid namespace; there can be no other child after it.
    note(Trial::Proc, in_child(|| plain("proc", work, "")));
    note(Trial::Sysfs, plain("sysfs", work, ""));
    note(Trial::Devpts, plain("devpts", work, "newinstance,ptmxmode=0666"));
    checks
}

/// chown to two ids that images use.
fn other_owner(work: &Path) -> io::Result<()> {
    let path = work.join("owner");
    File::create(&path)?;
    for id in [1, 65534] {
        std::os::unix::fs::lchown(&path, Some(id), Some(id))?;
    }
    fs::remove_file(path)
}

fn device(work: &Path) -> io::Result<()> {
    let path = work.join("device");
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o600), null)?;
    fs::remove_file(path)
}

fn other_user() -> io::Result<()> {
    use rustix::process::{Gid, Uid};
    let (uid, gid) = (Uid::from_raw(65534), Gid::from_raw(65534));
    rustix::thread::set_thread_groups(&[gid])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(())
}

/// Traces a child, and looks at a call that it makes.
fn traced() -> io::Result<()> {
    use crate::sys::seccomp::{Action, Filter, Rule, When};
    use crate::sys::trace::{self, Event, Pending};
    const MARK: i32 = 39;
    let (mut go, ready) = io::pipe()?;
    let Some(child) = process::fork()? else {
        drop(ready);
        let rule = Rule { call: libc::SYS_getppid, when: When::Always, action: Action::Trace };
        let filter = Filter { native: vec![rule], ..Filter::default() };
        let marked = go
            .read_exact(&mut [0])
            .and_then(|()| Ok(nix::sys::prctl::set_no_new_privs()?))
            .and_then(|()| filter.install())
            .is_ok_and(|()| nix::unistd::getppid().as_raw() == -MARK);
        std::process::exit(i32::from(!marked));
    };
    drop(go);
    trace::seize(child.as_raw())?;
    (&ready).write_all(b"1")?;
    let mut seen = false;
    while let Some(event) = trace::wait()? {
        match event {
            Event::Ended(_) => break,
            Event::Call(thread) => {
                Pending::of(thread)?.refuse(MARK)?;
                seen = true;
                trace::resume(thread, 0)?;
            }
            Event::Signal(thread, signal) => trace::resume(thread, signal)?,
            Event::Stop(thread) | Event::Started(thread) | Event::Other(thread) => trace::resume(thread, 0)?,
        }
    }
    if seen { Ok(()) } else { Err(io::Error::other("a marked call was not told of")) }
}

fn tmpfs(work: &Path) -> io::Result<()> {
    mount::make_private()?;
    let place = made(work, "tmpfs")?;
    mount::mount("tmpfs", &place, MountFlags::NOSUID | MountFlags::NODEV, "size=4k")?;
    mount::detach(&place)
}

fn bind(work: &Path) -> io::Result<()> {
    let place = work.join("null");
    File::create(&place)?;
    mount::bind(Path::new("/dev/null"), &place, true)?;
    mount::detach(&place)
}

/// A mount that succeeds proves little: what fails in practice is whatever needs an attribute on the upper layer.
fn overlay(work: &Path) -> io::Result<()> {
    let lower = made(work, "lower")?;
    let (upper, inner) = (made(work, "upper")?, made(work, "work")?);
    made(&lower, "directory")?;
    fs::write(lower.join("directory/file"), "content")?;
    std::env::set_current_dir(work)?;
    overlay::overlay("merged", &[HostPath::from(&lower)], &upper, &inner)?;
    let merged = work.join("merged");
    fs::set_permissions(merged.join("directory/file"), fs::Permissions::from_mode(0o640))?;
    fs::remove_dir_all(merged.join("directory"))?;
    if !fs::symlink_metadata(upper.join("directory"))?.file_type().is_char_device() {
        return Err(io::Error::other("a removed directory leaves no whiteout"));
    }
    fs::create_dir(merged.join("directory"))?;
    if fs::read_dir(merged.join("directory"))?.next().is_some() {
        return Err(io::Error::other("a directory made anew shows the old content"));
    }
    mount::detach(&merged)
}

fn plain(kind: &str, work: &Path, options: &str) -> io::Result<()> {
    let place = made(work, kind)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount::mount(kind, &place, if kind == "devpts" { MountFlags::NOSUID } else { flags }, options)?;
    mount::detach(&place)
}

fn made(parent: &Path, name: &str) -> io::Result<std::path::PathBuf> {
    let path = parent.join(name);
    fs::create_dir(&path)?;
    Ok(path)
}

/// Tries something that must not happen to this process.
fn in_child(trial: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (mut reader, writer) = io::pipe()?;
    let Some(child) = process::fork()? else {
        drop(reader);
        let errno = trial().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EIO));
        let sent = (&writer).write_all(&errno.to_ne_bytes());
        std::process::exit(i32::from(sent.is_err()));
    };
    drop(writer);
    let mut errno = [0; 4];
    let answered = reader.read_exact(&mut errno);
    nix::sys::wait::waitpid(child, None)?;
    answered?;
    match i32::from_ne_bytes(errno) {
        0 => Ok(()),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}
