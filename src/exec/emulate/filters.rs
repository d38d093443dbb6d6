//! Which calls of an emulated step are answered, which are rewritten, and which are the kernel's: what goes in front of
//! the rules of a confined step.

use serde::{Deserialize, Serialize};

use super::call::{FCHMODAT2, NOTE};
use crate::exec::detour;
use crate::sys::seccomp::{Action, Filter, Rule, When};

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

/// Calls that change what is there, by a path or by a descriptor: a user may not do them to root's files.
const CHANGES: &[i64] = &[
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
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

/// Calls that look at what is there, or go there.
const LOOKS: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_statfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_chdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
];

/// What else depends on what names mean, and on whom they are about.
const NAMES: &[i64] = &[
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_fchdir,
    libc::SYS_getcwd,
    libc::SYS_kill,
    libc::SYS_uname,
    libc::SYS_mount,
];

/// Calls about what processes share by a number, where no namespace keeps a step's to itself.
const SHARED: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
];

/// The ways to begin to trace somebody; the other requests are of a process that is traced already.
fn tracing() -> Vec<Rule> {
    let requests = [libc::PTRACE_TRACEME, libc::PTRACE_ATTACH, libc::PTRACE_SEIZE];
    requests.map(|value| of_first(libc::SYS_ptrace, value, Action::Notify)).into()
}

/// Calls that reach another process, where no namespace keeps a step's to itself.
fn touching() -> Vec<Rule> {
    let mut rules = tracing();
    // One's own limits.
    rules.push(of_first(libc::SYS_prlimit64, 0, Action::Allow));
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
///
/// What changes a file is always judged. What only looks is judged where the step starts as a user: for root, and for whom
/// root becomes, it would cost more than all else.
pub fn owners_filter(confined: Filter, starts_as_user: bool) -> Filter {
    let writes = (libc::O_CREAT | libc::O_WRONLY | libc::O_RDWR | libc::O_TRUNC).unsigned_abs();
    let opening = |call, argument| Rule {
        call,
        when: if starts_as_user { When::Always } else { When::AnyOf { argument, bits: writes } },
        action: Action::Notify,
    };
    let mut native: Vec<_> =
        [IDENTITY, OWNERSHIP, STORED, CHANGES].into_iter().flatten().map(|call| notify(*call)).collect();
    native.extend(always());
    native.extend(tracing());
    native.push(opening(libc::SYS_openat, 2));
    #[cfg(target_arch = "x86_64")]
    native.push(opening(libc::SYS_open, 1));
    if starts_as_user {
        native.extend(LOOKS.iter().map(|call| notify(*call)));
    }
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

/// The rules for a step without namespaces, whose names are looked at: those of every file, but for what goes by a
/// [detour](crate::exec::detour).
pub fn names_filter(confined: Filter, reach: Reach, detours: bool) -> Filter {
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
    if detours {
        native.extend(detour::rules());
    }
    let answered = [IDENTITY, OWNERSHIP, CHANGES, LOOKS, NAMES, SHARED];
    native.extend(answered.into_iter().flatten().map(|call| notify(*call)));
    native.extend(always());
    native.extend(touching());
    // Queues with names are everybody's; few programs use them, and those can do without.
    native.push(Rule { action: Action::Errno(libc::ENOSYS), ..notify(libc::SYS_mq_open) });
    // By a handle instead of a path: nobody could say whose file it is.
    native.push(Rule { call: libc::SYS_name_to_handle_at, when: When::Always, action: Action::Errno(libc::ENOSYS) });
    native.extend(confined.native);
    // A 32-bit program would do by other numbers what is looked at here.
    Filter { native, compat: Vec::new(), compat_default: Some(Action::Errno(libc::ENOSYS)) }
}

/// Which calls of a step a supervisor answers.
pub struct Answers {
    filter: Filter,
    rewritten: bool,
}

impl Answers {
    pub fn of_owners(starts_as_user: bool) -> Self {
        Self { filter: owners_filter(Filter::default(), starts_as_user), rewritten: false }
    }

    pub fn of_names(reach: Reach) -> Self {
        Self { filter: names_filter(Filter::default(), reach, false), rewritten: reach == Reach::Host }
    }

    pub fn include(&self, call: i64, arguments: &[u64; 6]) -> bool {
        self.filter.verdict(call, arguments) == Action::Notify
    }

    /// Whether a tracer has to do with others.
    pub fn are_rewritten(&self) -> bool {
        self.rewritten
    }
}

fn notify(call: i64) -> Rule {
    Rule { call, when: When::Always, action: Action::Notify }
}

/// A rule for one value of a call's first argument.
fn of_first(call: i64, value: u32, action: Action) -> Rule {
    Rule { call, when: When::Equals { argument: 0, mask: u32::MAX, value }, action }
}

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
    use super::super::call::decode;
    use super::*;

    #[test]
    fn opening_for_a_look_is_nobodys_business_but_a_users() {
        let open = |flags: i32| [0, 0, flags.unsigned_abs().into(), 0, 0, 0];
        for (starts_as_user, flags, expected) in [
            (false, libc::O_RDONLY, false),
            (false, libc::O_WRONLY | libc::O_CREAT, true),
            (false, libc::O_RDWR, true),
            (true, libc::O_RDONLY, true),
        ] {
            let answers = Answers::of_owners(starts_as_user);
            assert_eq!(answers.include(libc::SYS_openat, &open(flags)), expected, "{starts_as_user} {flags}");
        }
        assert!(!Answers::of_names(Reach::Host).include(libc::SYS_connect, &[0; 6]), "it may wait for its own reasons");
    }

    #[test]
    fn whatever_waits_can_be_decoded() {
        let filters = [
            owners_filter(Filter::default(), false),
            owners_filter(Filter::default(), true),
            names_filter(Filter::default(), Reach::OwnRoot, true),
            names_filter(Filter::default(), Reach::Host, false),
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
}
