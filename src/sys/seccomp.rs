//! System call filters: a list of rules becomes a BPF program, and the program is installed.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use libc::sock_filter;

/// What a filter does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Allow,
    /// The call fails with this errno, unseen by anybody. 0 makes it succeed without doing anything.
    Errno(i32),
    /// A supervisor is asked.
    Notify,
    /// A tracer is told, and may change the call.
    Trace,
}

/// When a rule applies, beside its call's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    /// The low half of an argument, masked, equals a value.
    Equals {
        argument: u8,
        mask: u32,
        value: u32,
    },
    /// The low half of an argument has at least one of these bits.
    AnyOf {
        argument: u8,
        bits: u32,
    },
    /// One argument is more than another by this much: addresses in the same block of memory.
    Apart {
        from: u8,
        to: u8,
        by: u32,
    },
    Both(&'static [When; 2]),
}

/// What a condition looks at, and the test that this must pass.
type Condition = (Vec<sock_filter>, u16, u32);

impl When {
    fn applies(self, arguments: &[u64; 6]) -> bool {
        let low = |argument: u8| arguments[usize::from(argument)] as u32;
        match self {
            Self::Always => true,
            Self::Equals { argument, mask, value } => low(argument) & mask == value,
            Self::AnyOf { argument, bits } => low(argument) & bits != 0,
            Self::Apart { from, to, by } => low(to).wrapping_sub(low(from)) == by,
            Self::Both(both) => both.iter().all(|when| when.applies(arguments)),
        }
    }

    fn conditions(self) -> Vec<Condition> {
        // Little-endian: the low half of an argument comes first.
        let low = |argument: u8| op(LOAD, ARGUMENTS + 8 * u32::from(argument));
        match self {
            Self::Always => Vec::new(),
            Self::Equals { argument, mask, value } => vec![(vec![low(argument), op(AND, mask)], IF_EQUAL, value)],
            Self::AnyOf { argument, bits } => vec![(vec![low(argument)], IF_ANY, bits)],
            Self::Apart { from, to, by } => {
                vec![(vec![low(from), op(KEEP, 0), low(to), op(LESS_KEPT, 0)], IF_EQUAL, by)]
            }
            Self::Both(both) => both.iter().flat_map(|when| when.conditions()).collect(),
        }
    }
}

/// The first rule that applies decides; a call without one is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub call: i64,
    pub when: When,
    pub action: Action,
}

impl Rule {
    pub fn applies(&self, call: i64, arguments: &[u64; 6]) -> bool {
        self.call == call && self.when.applies(arguments)
    }
}

/// Rules for the native architecture and for the 32-bit one that the same processor runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Filter {
    pub native: Vec<Rule>,
    pub compat: Vec<Rule>,
    /// What becomes of a 32-bit call without a rule, where not all of them are as free as native ones.
    pub compat_default: Option<Action>,
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: (u32, u32) = (0xc000_003e, 0x4000_0003);
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: (u32, u32) = (0xc000_00b7, 0x4000_0028);

/// Calls of the x32 kind carry this bit; they would slip past every rule.
const X32: u32 = 0x4000_0000;

// Offsets into `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
/// Keeps what is loaded in the other register, and takes that from what is loaded then.
const KEEP: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const LESS_KEPT: u16 = (libc::BPF_ALU | libc::BPF_SUB | libc::BPF_X) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_ANY: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;

/// Before Linux 5.16 a filter would also forbid the processor to guess ahead, which costs compilers some percent. That is for
/// programs that hold others' secrets in their own memory; container runtimes allow it too. Since 4.17.
const SPECULATE: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;

const fn op(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Goes on with the next instruction if true, else skips `otherwise` of them.
const fn test(code: u16, k: u32, otherwise: u8) -> sock_filter {
    sock_filter { code, jt: 0, jf: otherwise, k }
}

fn verdict(action: Action) -> sock_filter {
    op(
        RETURN,
        match action {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno.unsigned_abs() & libc::SECCOMP_RET_DATA),
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Trace => libc::SECCOMP_RET_TRACE,
        },
    )
}

impl Rule {
    /// Begins and ends with the call's number loaded.
    fn emit(&self, program: &mut Vec<sock_filter>) {
        let conditions = self.when.conditions();
        let mut body = vec![verdict(self.action)];
        if !conditions.is_empty() {
            body.push(op(LOAD, NUMBER));
        }
        // From the last to the first: a test that fails skips to the end.
        for (look, code, k) in conditions.into_iter().rev() {
            let skipped = body.len() - 1;
            body.insert(0, test(code, k, skipped as u8));
            body.splice(0..0, look);
        }
        program.push(test(IF_EQUAL, self.call as u32, body.len() as u8));
        program.extend(body);
    }
}

impl Filter {
    /// The rules as a program. Native calls are looked at first; those of the 32-bit kind have a part of their own;
    /// any other kind is told that there is no such call.
    fn compile(&self) -> Vec<sock_filter> {
        let body = |rules: &[Rule], otherwise| {
            let mut body = vec![op(LOAD, NUMBER)];
            rules.iter().for_each(|rule| rule.emit(&mut body));
            body.push(verdict(otherwise));
            body
        };
        let native = body(&self.native, Action::Allow);
        let mut program = vec![op(LOAD, ARCHITECTURE), test(IF_EQUAL, ARCHITECTURES.0, 1)];
        // A conditional jump reaches 255 instructions, an unconditional one any.
        let check_x32 = [op(LOAD, NUMBER), test(IF_AT_LEAST, X32, 1), verdict(Action::Errno(libc::ENOSYS))];
        program.push(op(JUMP, 1));
        program.push(op(JUMP, u32::try_from(check_x32.len() + native.len()).unwrap_or(u32::MAX)));
        program.extend(check_x32);
        program.extend(native);
        program.extend([test(IF_EQUAL, ARCHITECTURES.1, 1), op(JUMP, 1), verdict(Action::Errno(libc::ENOSYS))]);
        program.extend(body(&self.compat, self.compat_default.unwrap_or(Action::Allow)));
        program
    }

    /// What becomes of a native call.
    pub fn verdict(&self, call: i64, arguments: &[u64; 6]) -> Action {
        self.native.iter().find(|rule| rule.applies(call, arguments)).map_or(Action::Allow, |rule| rule.action)
    }

    /// Installs the filter on this thread and all that it will start. Needs CAP_SYS_ADMIN or no_new_privs.
    pub fn install(&self) -> io::Result<()> {
        match self.load(SPECULATE) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.load(0).map(drop),
            result => result.map(drop),
        }
    }

    /// Installs the filter and returns the descriptor on which a supervisor hears of the calls with
    /// [`Action::Notify`]. A call that the supervisor has taken on waits for its answer through all signals but fatal
    /// ones, where the kernel can do that (5.19): else an interrupted call would be carried out twice.
    pub fn install_listener(&self) -> io::Result<OwnedFd> {
        let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | SPECULATE;
        let number = match self.load(listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => self.load(listen)?,
            result => result?,
        };
        // SAFETY: the kernel just made this descriptor for us; nothing else knows its number.
        #[expect(unsafe_code, reason = "seccomp(2) returns a descriptor as a number")]
        Ok(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn load(&self, flags: libc::c_ulong) -> io::Result<i32> {
        let mut program = self.compile();
        let length = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let header = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
        // SAFETY: `header` and the program it points to live until the call returns; the kernel copies both and
        // keeps neither pointer. It checks the program itself.
        #[expect(unsafe_code, reason = "no wrapper offers seccomp(2) with flags")]
        let result = unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::from_ref(&header))
        };
        i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program says, run on the kernel's input by hand.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(architecture.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_le_bytes()));
        let (mut at, mut a, mut x) = (0usize, 0u32, 0u32);
        loop {
            let op = program[at];
            at += 1;
            let branch = |condition: bool| usize::from(if condition { op.jt } else { op.jf });
            match op.code {
                LOAD => a = u32::from_le_bytes(data[op.k as usize..][..4].try_into().unwrap()),
                AND => a &= op.k,
                KEEP => x = a,
                LESS_KEPT => a = a.wrapping_sub(x),
                RETURN => return op.k,
                JUMP => at += op.k as usize,
                IF_EQUAL => at += branch(a == op.k),
                IF_ANY => at += branch(a & op.k != 0),
                IF_AT_LEAST => at += branch(a >= op.k),
                other => panic!("instruction {other}"),
            }
        }
    }

    #[test]
    fn the_program_does_what_the_rules_say() {
        let filter = Filter {
            native: vec![
                Rule { call: 5, when: When::Always, action: Action::Errno(1) },
                Rule { call: 6, when: When::Equals { argument: 1, mask: 0xf0, value: 0x20 }, action: Action::Notify },
                Rule { call: 6, when: When::AnyOf { argument: 2, bits: 0b110 }, action: Action::Errno(38) },
                Rule {
                    call: 7,
                    when: When::Both(&[
                        When::Apart { from: 0, to: 1, by: 16 },
                        When::Equals { argument: 2, mask: u32::MAX, value: 9 },
                    ]),
                    action: Action::Errno(3),
                },
                Rule { call: 7, when: When::Always, action: Action::Notify },
            ],
            compat: vec![Rule { call: 5, when: When::Always, action: Action::Errno(2) }],
            compat_default: None,
        };
        let program = filter.compile();
        let (native, compat) = ARCHITECTURES;
        let errno = |errno: u32| libc::SECCOMP_RET_ERRNO | errno;
        let with = |index: usize, value: u64| {
            let mut arguments = [0; 6];
            arguments[index] = value;
            arguments
        };
        for (architecture, number, arguments, expected, why) in [
            (native, 4, [0; 6], libc::SECCOMP_RET_ALLOW, "no rule"),
            (native, 5, [0; 6], errno(1), "a plain rule"),
            (native, 6, with(1, 0x2f), libc::SECCOMP_RET_USER_NOTIF, "the masked value is equal"),
            (native, 6, with(1, 0x3f), libc::SECCOMP_RET_ALLOW, "the masked value differs"),
            (native, 6, with(2, 0b100), errno(38), "the next rule for the same call"),
            (native, 6, with(2, 0b001), libc::SECCOMP_RET_ALLOW, "another bit"),
            (native, 7, [8, 24, 9, 0, 0, 0], errno(3), "both conditions are met"),
            (native, 7, [8, 24, 8, 0, 0, 0], libc::SECCOMP_RET_USER_NOTIF, "one is not"),
            (native, 7, [24, 8, 9, 0, 0, 0], libc::SECCOMP_RET_USER_NOTIF, "the other is not"),
            (native, 5 | X32, [0; 6], errno(38), "x32 calls do not exist"),
            (compat, 5, [0; 6], errno(2), "the 32-bit rules"),
            (compat, 6, with(1, 0x2f), libc::SECCOMP_RET_ALLOW, "native rules do not count there"),
            (77, 5, [0; 6], errno(38), "an unknown architecture"),
        ] {
            assert_eq!(run(&program, architecture, number, arguments), expected, "{why}");
        }
    }
}
