//! The system calls that a confined step is refused: what Docker's default profile refuses a container, told as a
//! list of what is dangerous rather than of what is not, so that a call too new for this list still works.

use crate::sys::seccomp::{Action, Filter, Rule, When};

/// Reconfigures the kernel, the machine or the namespaces, reaches keys, or has been a way out before.
const REFUSED: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[i64] = &[];

/// The same for 32-bit programs: numbers of the i386 table.
#[cfg(target_arch = "x86_64")]
const REFUSED_32: &[i64] = &[
    21, 22, 51, 52, 79, 87, 88, 101, 103, 110, 111, 115, 128, 129, 131, 217, 253, 264, 283, 286, 287, 288, 310, 317,
    336, 342, 346, 350, 357, 374, 404, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
];
/// The same for 32-bit programs: numbers of the arm table.
#[cfg(target_arch = "aarch64")]
const REFUSED_32: &[i64] = &[
    21, 51, 52, 79, 87, 88, 103, 111, 115, 128, 129, 131, 218, 249, 262, 309, 310, 311, 337, 344, 347, 364, 371, 375,
    379, 386, 388, 401, 404, 425, 426, 427, 428, 429, 430, 431, 432, 433, 442,
];

/// Namespaces, as flags of clone(2).
const NEW_NAMESPACES: u32 = 0x7e02_0000;
const AF_VSOCK: u32 = 40;
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;

/// The filter of a confined step.
pub fn confined() -> Filter {
    let refuse = |call, when| Rule { call, when, action: Action::Errno(libc::EPERM) };
    let absent = |call| Rule { call, when: When::Always, action: Action::Errno(libc::ENOSYS) };
    let flags = |call| refuse(call, When::AnyOf { argument: 0, bits: NEW_NAMESPACES });
    let equals = |call, argument, value| refuse(call, When::Equals { argument, mask: u32::MAX, value });
    let mut native: Vec<_> = REFUSED.iter().chain(REFUSED_HERE).map(|call| refuse(*call, When::Always)).collect();
    native.extend([
        flags(libc::SYS_clone),
        // Its flags lie in memory, out of a filter's sight; without it the C library uses clone.
        absent(libc::SYS_clone3),
        equals(libc::SYS_socket, 0, AF_VSOCK),
        // Would type into the terminal that a step shares with its caller.
        equals(libc::SYS_ioctl, 1, TIOCSTI),
        equals(libc::SYS_ioctl, 1, TIOCLINUX),
    ]);
    let mut compat: Vec<_> = REFUSED_32.iter().map(|call| refuse(*call, When::Always)).collect();
    compat.extend([flags(120), absent(435), equals(54, 1, TIOCSTI), equals(54, 1, TIOCLINUX)]);
    Filter { native, compat, compat_default: None }
}

/// The rules of a step without network: sockets are for processes of this machine, and to ask the kernel.
pub fn offline() -> Vec<Rule> {
    let family = |family: i32| When::Equals { argument: 0, mask: u32::MAX, value: family.unsigned_abs() };
    let socket = |when, action| Rule { call: libc::SYS_socket, when, action };
    vec![
        socket(family(libc::AF_UNIX), Action::Allow),
        socket(family(libc::AF_NETLINK), Action::Allow),
        socket(When::Always, Action::Errno(libc::EAFNOSUPPORT)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_can_still_be_started_under_the_filter() {
        let filter = confined();
        for call in [libc::SYS_execve, libc::SYS_clone, libc::SYS_setresuid, libc::SYS_capset, libc::SYS_ptrace] {
            let refused = filter.native.iter().any(|rule| rule.call == call && rule.when == When::Always);
            assert!(!refused, "call {call}");
        }
    }

    #[test]
    fn lists_have_no_doubles() {
        for list in [REFUSED, REFUSED_32] {
            let mut sorted = list.to_vec();
            sorted.sort_unstable();
            sorted.dedup();
            assert_eq!(sorted.len(), list.len());
        }
    }
}
