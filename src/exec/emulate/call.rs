//! A waiting system call, decoded: the many spellings of one deed become one.

use serde::{Deserialize, Serialize};

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
    /// Traces, signals, reads or limits another process or thread.
    Touch {
        process: i32,
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
const FCHMODAT2: i64 = 452;

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
        libc::SYS_ptrace | libc::SYS_tgkill | libc::SYS_rt_tgsigqueueinfo => Call::Touch { process: b as i32 },
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

/// Calls about who a process is, and the one that may change it in passing.
const IDENTITY: &[i64] = &[
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
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chroot,
];

/// Calls that ask or say whose a file is, or make one, by a path or by a descriptor.
const OWNERSHIP: &[i64] = &[
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_mknodat,
    libc::SYS_mkdirat,
    libc::SYS_symlinkat,
    libc::SYS_openat2,
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

/// What only an owner store changes the answer of.
const STORED: &[i64] = &[libc::SYS_fstat, libc::SYS_listxattr, libc::SYS_llistxattr, libc::SYS_flistxattr];

/// The calls that only their caller can make, and that must be made with another path.
const REWRITTEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_chdir,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_inotify_add_watch,
];

/// The other calls that name a file by a path, and the few by a descriptor that a user may not do to root's files.
const NAMES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_getcwd,
    libc::SYS_kill,
    libc::SYS_uname,
    libc::SYS_mount,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// Calls that reach another process, where no namespace keeps a step's to itself.
fn touching() -> Vec<Rule> {
    let with = |call, value: u32, action| {
        let argument = 0;
        Rule { call, when: When::Equals { argument, mask: u32::MAX, value }, action }
    };
    let mut rules = vec![
        // The other requests are of a process that is traced already.
        with(libc::SYS_ptrace, libc::PTRACE_ATTACH, Action::Notify),
        with(libc::SYS_ptrace, libc::PTRACE_SEIZE, Action::Notify),
        // One's own limits.
        with(libc::SYS_prlimit64, 0, Action::Allow),
    ];
    rules.extend(
        [
            libc::SYS_prlimit64,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_kcmp,
            libc::SYS_pidfd_open,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
        ]
        .map(notify),
    );
    // Such descriptors come with sockets too; Docker refuses this to whoever may not trace everybody.
    rules.push(Rule { action: Action::Errno(libc::EPERM), ..notify(libc::SYS_pidfd_getfd) });
    rules
}

/// Too new to be decoded, and what they do can be done with older calls: setxattrat, getxattrat, listxattrat,
/// removexattrat, open_tree_attr, file_getattr, file_setattr.
const ABSENT: &[i64] = &[463, 464, 465, 466, 467, 468, 469];

/// The rules by which the calls of a step with namespaces and one id come here, in front of those of a confined step.
pub fn owners_filter(confined: Filter) -> Filter {
    let creates = |argument| When::AnyOf { argument, bits: libc::O_CREAT.unsigned_abs() };
    let mut native: Vec<_> = [IDENTITY, OWNERSHIP, STORED].into_iter().flatten().map(|call| notify(*call)).collect();
    native.extend(always());
    native.push(Rule { call: libc::SYS_openat, when: creates(2), action: Action::Notify });
    #[cfg(target_arch = "x86_64")]
    native.push(Rule { call: libc::SYS_open, when: creates(1), action: Action::Notify });
    native.extend(confined.native);
    Filter { native, ..confined }
}

/// How far the names of a step without namespaces reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reach {
    /// A root of its own: programs and directories are what the kernel takes them for.
    OwnRoot,
    /// Every path of the host, if nobody looked; owners are kept in the owner store.
    Host,
}

/// The rules for a step without namespaces, whose names are looked at: those of every file.
pub fn names_filter(confined: Filter, reach: Reach) -> Filter {
    let mut native = Vec::new();
    if reach == Reach::Host {
        native.extend(REWRITTEN.iter().map(|call| Rule { action: Action::Trace, ..notify(*call) }));
        native.extend(STORED.iter().chain([&libc::SYS_fgetxattr]).map(|call| notify(*call)));
    } else {
        // Of a descriptor that is open already there is nothing to find out.
        native.extend([(libc::SYS_newfstatat, 3), (libc::SYS_statx, 2)].map(|(call, argument)| Rule {
            call,
            when: When::AnyOf { argument, bits: libc::AT_EMPTY_PATH.unsigned_abs() },
            action: Action::Allow,
        }));
    }
    native.extend([IDENTITY, OWNERSHIP, NAMES].into_iter().flatten().map(|call| notify(*call)));
    native.extend(always());
    native.extend(touching());
    // By a handle instead of a path: nobody could say whose file it is.
    native.push(Rule { call: libc::SYS_name_to_handle_at, when: When::Always, action: Action::Errno(libc::ENOSYS) });
    native.extend(confined.native);
    // A 32-bit program would do by other numbers what is looked at here.
    Filter { native, compat: Vec::new(), compat_default: Some(Action::Errno(libc::ENOSYS)) }
}

fn notify(call: i64) -> Rule {
    Rule { call, when: When::Always, action: Action::Notify }
}

/// Whether a call waits for nothing but its supervisor, where all names are the supervisor's. To open a fifo is the
/// exception, which no signal but a fatal one interrupts there.
pub fn never_waits(call: i64, arguments: [u64; 6]) -> bool {
    decode(call, arguments).is_some() && !REWRITTEN.contains(&call)
}

/// See [`crate::sys::process::inherited_note`].
const NOTE: i32 = libc::RLIMIT_MSGQUEUE as i32;

/// Whatever is emulated.
fn always() -> Vec<Rule> {
    let rule = |call, when, action| Rule { call, when, action };
    let option = |number: i32| When::Equals { argument: 0, mask: u32::MAX, value: number.unsigned_abs() };
    let mut rules: Vec<_> = ABSENT.iter().map(|call| rule(*call, When::Always, Action::Errno(libc::ENOSYS))).collect();
    rules.extend([
        rule(libc::SYS_prctl, option(libc::PR_GET_KEEPCAPS), Action::Notify),
        rule(libc::SYS_prctl, option(libc::PR_SET_KEEPCAPS), Action::Notify),
        // The limit that holds the note of who a process is: looked at, never set. pam_limits sets what it has read.
        rule(libc::SYS_setrlimit, option(NOTE), Action::Errno(0)),
        rule(
            libc::SYS_prlimit64,
            When::Equals { argument: 1, mask: u32::MAX, value: NOTE.unsigned_abs() },
            Action::Notify,
        ),
        // sudo, ssh-agent and the like make their memory unreadable; then no call of theirs could be understood.
        rule(libc::SYS_prctl, option(libc::PR_SET_DUMPABLE), Action::Errno(0)),
        // What is done through a ring passes no filter; programs take the error to mean that the kernel is old.
        rule(libc::SYS_io_uring_setup, When::Always, Action::Errno(libc::ENOSYS)),
    ]);
    rules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_waits_can_be_decoded() {
        let filters = [
            owners_filter(Filter::default()),
            names_filter(Filter::default(), Reach::OwnRoot),
            names_filter(Filter::default(), Reach::Host),
        ];
        for filter in filters {
            for rule in filter.native.iter().filter(|rule| rule.action == Action::Notify) {
                let mut arguments = [0; 6];
                if let When::Equals { argument, value, .. } = rule.when {
                    arguments[usize::from(argument)] = value.into();
                }
                assert!(decode(rule.call, arguments).is_some(), "call {}", rule.call);
            }
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
