//! A waiting system call, decoded: the many spellings of one deed become one.

use crate::sys::ipc::Kind;

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
    /// The limit that holds the note of who a process is, looked at or to be set.
    NoteLimit {
        new: u64,
        old: u64,
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
    StatFileSystem {
        file: Where,
        buffer: u64,
    },
    /// May the caller read, write, execute? `effective`: as who it acts, not as who it is.
    Access {
        file: Where,
        mode: u32,
        effective: bool,
    },
    ReadLink {
        file: Where,
        buffer: u64,
        size: u64,
    },
    Remove {
        place: Where,
        directory: bool,
    },
    Rename {
        from: Where,
        to: Where,
        flags: u32,
    },
    Link {
        from: Where,
        to: Where,
    },
    ChangeMode {
        file: Where,
        mode: u32,
    },
    Truncate {
        file: Where,
        length: i64,
    },
    /// `times` is zero for now.
    SetTimes {
        file: Where,
        times: u64,
        format: TimeFormat,
    },
    GetAttribute {
        file: Where,
        name: u64,
        value: u64,
        size: u64,
    },
    SetAttribute {
        file: Where,
        name: u64,
        value: u64,
        size: u64,
        flags: u32,
    },
    RemoveAttribute {
        file: Where,
        name: u64,
    },
    ChangeDirectory {
        file: Where,
    },
    WorkingDirectory {
        buffer: u64,
        size: u64,
    },
    NameMachine {
        buffer: u64,
    },
    Mount,
    /// A signal to a process, to a group (negative), or to everybody (-1).
    Kill {
        process: i32,
        signal: i32,
    },
    /// Signals, reads or limits another process or thread.
    Touch {
        process: i32,
    },
    /// Begins to trace another thread.
    Trace {
        thread: i32,
    },
    /// Asks to be traced by its parent.
    BeTraced,
    /// Finds or makes a System V object.
    GetShared {
        kind: Kind,
        key: i32,
        size: u64,
        flags: i32,
    },
    UseShared {
        kind: Kind,
        id: i32,
    },
    ControlShared {
        kind: Kind,
        id: i32,
        command: i32,
    },
}

/// How two times lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeFormat {
    Seconds,
    Micros,
    Nanos,
}

const AT_FDCWD: i32 = libc::AT_FDCWD;

/// Too new for the C library's headers, the same on every architecture.
pub const FCHMODAT2: i64 = 452;

/// The limit that holds the note of who a process is; see [`crate::sys::process::inherited_note`].
pub const NOTE: i32 = libc::RLIMIT_MSGQUEUE as i32;

/// Decodes a call by its number; none for one that no filter of [`super::filters`] sends here.
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
        libc::SYS_prlimit64 if b as i32 == NOTE => Call::NoteLimit { new: c, old: d },
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
        libc::SYS_statfs => Call::StatFileSystem { file: path(a, true), buffer: b },
        libc::SYS_faccessat => Call::Access { file: at(a, b, 0), mode: c as u32, effective: false },
        libc::SYS_faccessat2 => {
            Call::Access { file: at(a, b, d), mode: c as u32, effective: d as i32 & libc::AT_EACCESS != 0 }
        }
        libc::SYS_readlinkat => Call::ReadLink { file: Where { may_be_empty: true, ..new(a, b) }, buffer: c, size: d },
        libc::SYS_unlinkat => Call::Remove { place: new(a, b), directory: c as i32 & libc::AT_REMOVEDIR != 0 },
        libc::SYS_renameat => Call::Rename { from: new(a, b), to: new(c, d), flags: 0 },
        libc::SYS_renameat2 => Call::Rename { from: new(a, b), to: new(c, d), flags: e as u32 },
        libc::SYS_linkat => {
            let flags = e as i32;
            let from = Where {
                directory: descriptor(a),
                path: Some(b),
                follow: flags & libc::AT_SYMLINK_FOLLOW != 0,
                may_be_empty: flags & libc::AT_EMPTY_PATH != 0,
            };
            Call::Link { from, to: new(c, d) }
        }
        libc::SYS_fchmod => Call::ChangeMode { file: itself(a), mode: b as u32 },
        libc::SYS_fchmodat => Call::ChangeMode { file: at(a, b, 0), mode: c as u32 },
        FCHMODAT2 => Call::ChangeMode { file: at(a, b, d), mode: c as u32 },
        libc::SYS_truncate => Call::Truncate { file: path(a, true), length: b as i64 },
        libc::SYS_utimensat => {
            // Without a path it is the descriptor's times that change.
            let file = if b == 0 { itself(a) } else { at(a, b, d) };
            Call::SetTimes { file, times: c, format: TimeFormat::Nanos }
        }
        libc::SYS_getxattr => Call::GetAttribute { file: path(a, true), name: b, value: c, size: d },
        libc::SYS_lgetxattr => Call::GetAttribute { file: path(a, false), name: b, value: c, size: d },
        libc::SYS_fgetxattr => Call::GetAttribute { file: itself(a), name: b, value: c, size: d },
        libc::SYS_setxattr => Call::SetAttribute { file: path(a, true), name: b, value: c, size: d, flags: e as u32 },
        libc::SYS_lsetxattr => Call::SetAttribute { file: path(a, false), name: b, value: c, size: d, flags: e as u32 },
        libc::SYS_fsetxattr => Call::SetAttribute { file: itself(a), name: b, value: c, size: d, flags: e as u32 },
        libc::SYS_removexattr => Call::RemoveAttribute { file: path(a, true), name: b },
        libc::SYS_lremovexattr => Call::RemoveAttribute { file: path(a, false), name: b },
        libc::SYS_fremovexattr => Call::RemoveAttribute { file: itself(a), name: b },
        libc::SYS_chdir => Call::ChangeDirectory { file: path(a, true) },
        libc::SYS_fchdir => Call::ChangeDirectory { file: itself(a) },
        libc::SYS_getcwd => Call::WorkingDirectory { buffer: a, size: b },
        libc::SYS_mount => Call::Mount,
        libc::SYS_uname => Call::NameMachine { buffer: a },
        libc::SYS_kill => Call::Kill { process: a as i32, signal: b as i32 },
        libc::SYS_prlimit64
        | libc::SYS_process_vm_readv
        | libc::SYS_process_vm_writev
        | libc::SYS_kcmp
        | libc::SYS_pidfd_open
        | libc::SYS_tkill
        | libc::SYS_rt_sigqueueinfo => Call::Touch { process: a as i32 },
        libc::SYS_ptrace if a as u32 == libc::PTRACE_TRACEME => Call::BeTraced,
        libc::SYS_ptrace => Call::Trace { thread: b as i32 },
        libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => Call::Touch { process: b as i32 },
        libc::SYS_shmget => Call::GetShared { kind: Kind::Memory, key: a as i32, size: b, flags: c as i32 },
        libc::SYS_semget => Call::GetShared { kind: Kind::Semaphores, key: a as i32, size: b, flags: c as i32 },
        libc::SYS_msgget => Call::GetShared { kind: Kind::Messages, key: a as i32, size: 0, flags: b as i32 },
        libc::SYS_shmat => Call::UseShared { kind: Kind::Memory, id: a as i32 },
        libc::SYS_semop | libc::SYS_semtimedop => Call::UseShared { kind: Kind::Semaphores, id: a as i32 },
        libc::SYS_msgsnd | libc::SYS_msgrcv => Call::UseShared { kind: Kind::Messages, id: a as i32 },
        libc::SYS_shmctl => Call::ControlShared { kind: Kind::Memory, id: a as i32, command: b as i32 },
        libc::SYS_semctl => Call::ControlShared { kind: Kind::Semaphores, id: a as i32, command: c as i32 },
        libc::SYS_msgctl => Call::ControlShared { kind: Kind::Messages, id: a as i32, command: b as i32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_access => Call::Access { file: path(a, true), mode: b as u32, effective: false },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_readlink => Call::ReadLink { file: path(a, false), buffer: b, size: c },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => Call::Remove { place: path(a, false), directory: false },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir => Call::Remove { place: path(a, false), directory: true },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Call::Rename { from: path(a, false), to: path(b, false), flags: 0 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => Call::Link { from: path(a, false), to: path(b, false) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_chmod => Call::ChangeMode { file: path(a, true), mode: b as u32 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_utime => Call::SetTimes { file: path(a, true), times: b, format: TimeFormat::Seconds },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_utimes => Call::SetTimes { file: path(a, true), times: b, format: TimeFormat::Micros },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_futimesat => Call::SetTimes { file: at(a, b, 0), times: c, format: TimeFormat::Micros },
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

#[cfg(test)]
mod tests {
    use super::*;

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
