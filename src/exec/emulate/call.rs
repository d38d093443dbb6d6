//! A waiting system call, decoded: the many spellings of one deed become one.

use crate::sys::seccomp::{Action, Filter, Rule, When};

/// A file as a call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Where {
    /// A descriptor of the caller, or `AT_FDCWD`.
    pub directory: i32,
    /// Where in the caller's memory the path is; none for the descriptor itself.
    pub path: Option<u64>,
    /// A link at the end is followed.
    pub follow: bool,
    /// An empty path means the descriptor itself.
    pub may_be_empty: bool,
}

/// What a process wants. Addresses are in its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    SetUid(u32),
    SetGid(u32),
    SetReuid(u32, u32),
    SetRegid(u32, u32),
    SetResuid([u32; 3]),
    SetResgid([u32; 3]),
    SetFsuid(u32),
    SetFsgid(u32),
    SetGroups {
        count: u32,
        list: u64,
    },
    GetUid,
    GetEuid,
    GetGid,
    GetEgid,
    GetResuid([u64; 3]),
    GetResgid([u64; 3]),
    GetGroups {
        room: i32,
        list: u64,
    },
    CapGet {
        header: u64,
        data: u64,
    },
    CapSet {
        header: u64,
        data: u64,
    },
    GetKeepCaps,
    SetKeepCaps(bool),
    Chown {
        file: Where,
        uid: u32,
        gid: u32,
    },
    /// `extended`: the answer is a `struct statx`.
    Stat {
        file: Where,
        buffer: u64,
        extended: bool,
    },
    MakeNode {
        place: Where,
        mode: u32,
        device: u64,
    },
    MakeDirectory {
        place: Where,
        mode: u32,
    },
    MakeSymlink {
        to: u64,
        place: Where,
    },
    Create {
        place: Where,
        flags: i32,
        mode: u32,
    },
    /// openat2: what it wants is in memory too.
    CreateHow {
        place: Where,
        how: u64,
    },
    ListAttributes {
        file: Where,
        list: u64,
        size: u64,
    },
    Execute {
        file: Where,
    },
    ChangeRoot,
}

const AT_FDCWD: i32 = libc::AT_FDCWD;

/// Decodes a call by its number; none for one that is not in [`filter`].
pub fn decode(call: i64, arguments: [u64; 6]) -> Option<Call> {
    let [a, b, c, d, e, _] = arguments;
    let descriptor = |number: u64| number as i32;
    let ids = |x: u64, y: u64, z: u64| [x as u32, y as u32, z as u32];
    let path = |path: u64, follow| Where { directory: AT_FDCWD, path: Some(path), follow, may_be_empty: false };
    let at = |dir: u64, path: u64, flags: u64| Where {
        directory: descriptor(dir),
        path: Some(path),
        follow: flags as i32 & libc::AT_SYMLINK_NOFOLLOW == 0,
        may_be_empty: flags as i32 & libc::AT_EMPTY_PATH != 0,
    };
    let itself = |fd: u64| Where { directory: descriptor(fd), path: None, follow: true, may_be_empty: true };
    let new = |dir: u64, path: u64| Where {
        directory: descriptor(dir),
        path: Some(path),
        follow: false,
        may_be_empty: false,
    };
    Some(match call {
        libc::SYS_setuid => Call::SetUid(a as u32),
        libc::SYS_setgid => Call::SetGid(a as u32),
        libc::SYS_setreuid => Call::SetReuid(a as u32, b as u32),
        libc::SYS_setregid => Call::SetRegid(a as u32, b as u32),
        libc::SYS_setresuid => Call::SetResuid(ids(a, b, c)),
        libc::SYS_setresgid => Call::SetResgid(ids(a, b, c)),
        libc::SYS_setfsuid => Call::SetFsuid(a as u32),
        libc::SYS_setfsgid => Call::SetFsgid(a as u32),
        libc::SYS_setgroups => Call::SetGroups { count: a as u32, list: b },
        libc::SYS_getuid => Call::GetUid,
        libc::SYS_geteuid => Call::GetEuid,
        libc::SYS_getgid => Call::GetGid,
        libc::SYS_getegid => Call::GetEgid,
        libc::SYS_getresuid => Call::GetResuid([a, b, c]),
        libc::SYS_getresgid => Call::GetResgid([a, b, c]),
        libc::SYS_getgroups => Call::GetGroups { room: a as i32, list: b },
        libc::SYS_capget => Call::CapGet { header: a, data: b },
        libc::SYS_capset => Call::CapSet { header: a, data: b },
        libc::SYS_prctl if a as i32 == libc::PR_GET_KEEPCAPS => Call::GetKeepCaps,
        libc::SYS_prctl if a as i32 == libc::PR_SET_KEEPCAPS => Call::SetKeepCaps(b != 0),
        libc::SYS_fchown => Call::Chown { file: itself(a), uid: b as u32, gid: c as u32 },
        libc::SYS_fchownat => Call::Chown { file: at(a, b, e), uid: c as u32, gid: d as u32 },
        libc::SYS_fstat => Call::Stat { file: itself(a), buffer: b, extended: false },
        libc::SYS_newfstatat => Call::Stat { file: at(a, b, d), buffer: c, extended: false },
        libc::SYS_statx => Call::Stat { file: at(a, b, c), buffer: e, extended: true },
        libc::SYS_mknodat => Call::MakeNode { place: new(a, b), mode: c as u32, device: d },
        libc::SYS_mkdirat => Call::MakeDirectory { place: new(a, b), mode: c as u32 },
        libc::SYS_symlinkat => Call::MakeSymlink { to: a, place: new(b, c) },
        libc::SYS_openat => Call::Create { place: new(a, b), flags: c as i32, mode: d as u32 },
        libc::SYS_openat2 => Call::CreateHow { place: new(a, b), how: c },
        libc::SYS_listxattr => Call::ListAttributes { file: path(a, true), list: b, size: c },
        libc::SYS_llistxattr => Call::ListAttributes { file: path(a, false), list: b, size: c },
        libc::SYS_flistxattr => Call::ListAttributes { file: itself(a), list: b, size: c },
        libc::SYS_execve => Call::Execute { file: path(a, true) },
        libc::SYS_execveat => Call::Execute { file: at(a, b, e) },
        libc::SYS_chroot => Call::ChangeRoot,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chown => Call::Chown { file: path(a, true), uid: b as u32, gid: c as u32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lchown => Call::Chown { file: path(a, false), uid: b as u32, gid: c as u32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_stat => Call::Stat { file: path(a, true), buffer: b, extended: false },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_lstat => Call::Stat { file: path(a, false), buffer: b, extended: false },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mknod => Call::MakeNode { place: path(a, false), mode: b as u32, device: c },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => Call::MakeDirectory { place: path(a, false), mode: b as u32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_symlink => Call::MakeSymlink { to: a, place: path(b, false) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Call::Create { place: path(a, false), flags: b as i32, mode: c as u32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => Call::Create {
            place: path(a, false),
            flags: libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC,
            mode: b as u32,
        },
        _ => return None,
    })
}

/// The calls that always wait for an answer.
const ASKED: &[i64] = &[
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getresuid,
    libc::SYS_getresgid,
    libc::SYS_getgroups,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_openat2,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chroot,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
];

/// Too new to be decoded, and what they do can be done with older calls: setxattrat, getxattrat, listxattrat,
/// removexattrat.
const ABSENT: &[i64] = &[463, 464, 465, 466];

/// The rules by which a step's calls come here, in front of those of a confined step.
pub fn filter(confined: Filter) -> Filter {
    let rule = |call, when, action| Rule { call, when, action };
    let option = |number: i32| When::Equals { argument: 0, mask: u32::MAX, value: number.unsigned_abs() };
    let creates = |argument| When::AnyOf { argument, bits: libc::O_CREAT.unsigned_abs() };
    let mut native: Vec<_> = ASKED.iter().map(|call| rule(*call, When::Always, Action::Notify)).collect();
    native.extend(ABSENT.iter().map(|call| rule(*call, When::Always, Action::Errno(libc::ENOSYS))));
    native.extend([
        rule(libc::SYS_prctl, option(libc::PR_GET_KEEPCAPS), Action::Notify),
        rule(libc::SYS_prctl, option(libc::PR_SET_KEEPCAPS), Action::Notify),
        // sudo, ssh-agent and the like make their memory unreadable; then no call of theirs could be understood.
        rule(libc::SYS_prctl, option(libc::PR_SET_DUMPABLE), Action::Errno(0)),
        rule(libc::SYS_openat, creates(2), Action::Notify),
        // What is done through a ring passes no filter; programs take the error to mean that the kernel is old.
        rule(libc::SYS_io_uring_setup, When::Always, Action::Errno(libc::ENOSYS)),
    ]);
    #[cfg(target_arch = "x86_64")]
    native.push(rule(libc::SYS_open, creates(1), Action::Notify));
    native.extend(confined.native);
    Filter { native, compat: confined.compat }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_waits_can_be_decoded() {
        let filter = filter(Filter::default());
        for rule in filter.native.iter().filter(|rule| rule.action == Action::Notify) {
            let mut arguments = [0; 6];
            if let When::Equals { argument, value, .. } = rule.when {
                arguments[usize::from(argument)] = value.into();
            }
            assert!(decode(rule.call, arguments).is_some(), "call {}", rule.call);
        }
    }

    #[test]
    fn spellings_of_one_deed_are_one_call() {
        let decoded = |call, arguments| decode(call, arguments).unwrap();
        let minus_one = u64::MAX;
        let file = Where { directory: 7, path: Some(100), follow: false, may_be_empty: true };
        let flags = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u64;
        assert_eq!(
            decoded(libc::SYS_fchownat, [7, 100, 33, minus_one, flags, 0]),
            Call::Chown { file, uid: 33, gid: u32::MAX }
        );
        assert_eq!(
            decoded(libc::SYS_fchown, [7, 33, 34, 0, 0, 0]),
            Call::Chown { file: Where { path: None, follow: true, ..file }, uid: 33, gid: 34 }
        );
        assert_eq!(
            decoded(libc::SYS_newfstatat, [AT_FDCWD as u32 as u64, 100, 200, 0, 0, 0]),
            Call::Stat {
                file: Where { directory: AT_FDCWD, path: Some(100), follow: true, may_be_empty: false },
                buffer: 200,
                extended: false,
            }
        );
    }
}
