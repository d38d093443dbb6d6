//! Landlock, for one thing: processes that keep to themselves. It needs no right at all, and the kernel's own checks
//! are what it asks, wherever names, ids and namespaces do not tell processes apart.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

// From <linux/landlock.h>.
const CREATE_VERSION: u32 = 1;
const RULE_PATH_BENEATH: u32 = 1;
const FS_REFER: u64 = 1 << 13;
const SCOPE_ABSTRACT_SOCKETS: u64 = 1;
const SCOPE_SIGNALS: u64 = 1 << 1;

/// The versions that can say what is needed: that files may be moved and linked from one directory to another, which
/// the first of them forbade whoever asked for anything; and that signals and abstract sockets are for neighbours only.
const WITH_REFER: i64 = 2;
const WITH_SCOPES: i64 = 6;

#[repr(C)]
struct Ruleset {
    handled_fs: u64,
    handled_net: u64,
    scoped: u64,
}

#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// From now on this process, and all that it will start, can trace, look into, signal (Linux 6.12) and reach by abstract
/// sockets (6.12) only each other. It needs no_new_privs or CAP_SYS_ADMIN. False where the kernel cannot do it (before
/// 5.19), or a container's filter does not let it.
pub fn keep_to_itself() -> io::Result<bool> {
    let version = call(libc::SYS_landlock_create_ruleset, [0, 0, CREATE_VERSION.into(), 0]).unwrap_or(0);
    match keep_to_itself_by(version) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => Ok(false),
        result => result,
    }
}

fn keep_to_itself_by(version: i64) -> io::Result<bool> {
    let (handled_fs, scoped) = match version {
        WITH_SCOPES.. => (0, SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS),
        WITH_REFER.. => (FS_REFER, 0),
        _ => return Ok(false),
    };
    let ruleset = Ruleset { handled_fs, handled_net: 0, scoped };
    // Versions without scopes know only the structure's first field.
    let size = if scoped == 0 { size_of::<u64>() } else { size_of::<Ruleset>() };
    let number = call(libc::SYS_landlock_create_ruleset, [address(&ruleset), size as u64, 0, 0])?;
    let number = i32::try_from(number).map_err(io::Error::other)?;
    // SAFETY: the kernel just made this descriptor for us; nothing else knows its number.
    #[expect(unsafe_code, reason = "landlock_create_ruleset(2) returns a descriptor as a number")]
    let rules = unsafe { OwnedFd::from_raw_fd(number) };
    let descriptor = rules.as_raw_fd().cast_unsigned().into();
    if handled_fs != 0 {
        let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let rule = PathBeneath { allowed: handled_fs, parent: root.as_raw_fd() };
        call(libc::SYS_landlock_add_rule, [descriptor, RULE_PATH_BENEATH.into(), address(&rule), 0])?;
    }
    call(libc::SYS_landlock_restrict_self, [descriptor, 0, 0, 0])?;
    Ok(true)
}

fn address<T>(of: &T) -> u64 {
    std::ptr::from_ref(of) as u64
}

fn call(number: libc::c_long, arguments: [u64; 4]) -> io::Result<i64> {
    let [a, b, c, d] = arguments;
    // SAFETY: every caller passes null, or the address of the structure that this call reads, which it keeps alive
    // until the call returns; the kernel writes nothing and keeps no pointer.
    #[expect(unsafe_code, reason = "no wrapper offers landlock's calls")]
    let result = unsafe { libc::syscall(number, a, b, c, d) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each on a thread of its own, which is all that is kept.
    #[test]
    fn files_can_still_be_moved() {
        let version = call(libc::SYS_landlock_create_ruleset, [0, 0, CREATE_VERSION.into(), 0]).unwrap_or(0);
        for asked in [WITH_REFER, WITH_SCOPES] {
            if version < asked {
                eprintln!("skip: landlock {asked}: this kernel has {version}");
                continue;
            }
            let dir = tempfile::tempdir().unwrap();
            let [from, to] = ["a", "b"].map(|name| dir.path().join(name));
            for path in [&from, &to] {
                std::fs::create_dir(path).unwrap();
            }
            std::fs::write(from.join("file"), "x").unwrap();
            let kept = std::thread::spawn(move || {
                nix::sys::prctl::set_no_new_privs().unwrap();
                assert!(keep_to_itself_by(asked).unwrap());
                std::fs::rename(from.join("file"), to.join("file")).unwrap();
                std::fs::hard_link(to.join("file"), from.join("again")).unwrap();
                std::fs::File::open("/proc/1/environ").map(drop)
            });
            let neighbour = kept.join().unwrap();
            assert_eq!(neighbour.unwrap_err().kind(), io::ErrorKind::PermissionDenied, "version {asked}");
        }
    }
}
