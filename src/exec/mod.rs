//! Runs one process in a root file system: a [`Process`] becomes a plan (a list of steps, data), the sandbox
//! carries it out. No code outside this module and `snapshot` may assume that a root file system is mounted,
//! that chown took, or that a process inside is pid 1.

mod attend;
mod deeds;
mod detour;
mod emulate;
mod filter;
mod init;
mod launch;
mod limits;
mod mount_point;
mod ns;
mod overlay;
mod placing;
mod plan;
mod probe;
mod pty;
mod recording;
mod stage;
mod step_folder;
mod stream;
mod trial;
mod unmounted;
mod userns;
mod view;
mod wire;

use std::io::Write;
use std::path::PathBuf;

pub use probe::{Check, Choice, Report, Trial, probe};
pub use recording::Recording;
pub use stage::startup;
pub use userns::{Entered, enter};

use crate::base::{Cancel, Secret};
use crate::sys::RootFs;

/// The executor of a choice.
pub fn executor(choice: &Choice) -> Box<dyn Executor> {
    match choice.isolation {
        isolation @ (Isolation::Chroot | Isolation::Rewrite) => {
            let chroot = isolation == Isolation::Chroot;
            Box::new(unmounted::Unmounted::new(&choice.program, &choice.work, chroot))
        }
        _ => Box::new(ns::Namespaced::new(&choice.program, &choice.work, choice.place.clone())),
    }
}

/// dockless itself, whatever its name and wherever it lies.
pub const THIS_PROGRAM: &str = "/proc/self/exe";

/// How steps are boxed (spec: ARCHITECTURE.md, "Isolation").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Isolation {
    #[default]
    Auto,
    /// Namespaces and many ids.
    Ns,
    /// Namespaces and one id; ownership is emulated.
    Ns1,
    /// No mounts: chroot, real ownership, /proc and /dev through the notifier.
    Chroot,
    /// Nothing at all: every path is rewritten.
    Rewrite,
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::Auto, Self::Ns, Self::Ns1, Self::Chroot, Self::Rewrite];
        // A parameter of a pipeline is empty where nobody said anything.
        let text = if text.is_empty() { "auto" } else { text };
        let named = all.into_iter().find(|isolation| isolation.to_string() == text);
        named.ok_or_else(|| format!("{text:?} is not known (auto, ns, ns1, chroot, rewrite)"))
    }
}

/// As `--isolation` takes it.
impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ns => "ns",
            Self::Ns1 => "ns1",
            Self::Chroot => "chroot",
            Self::Rewrite => "rewrite",
        })
    }
}

/// What to run, resolved: nothing in here needs to be looked up in the image again.
#[derive(Debug, Clone, Default)]
pub struct Process {
    /// `argv`; the first word is looked up in the `PATH` of `env` inside the root.
    pub args: Vec<String>,
    /// `KEY=value`, in order.
    pub env: Vec<String>,
    /// Absolute, inside the root.
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub hostname: Option<String>,
    pub network: Network,
    pub mounts: Vec<Mount>,
    /// `name ip` lines beside the usual ones.
    pub extra_hosts: Vec<(String, String)>,
    /// `ulimit`s: name as setrlimit(2) has it without `RLIMIT_`, lower case; soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// `RUN --security=insecure`, `docker run --privileged`: an executor that cannot give it says so.
    pub insecure: bool,
    pub read_only_root: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The host's network, as rootless BuildKit does.
    #[default]
    Host,
    /// Loopback only.
    None,
}

/// One mount of a step, beside /proc, /dev and /sys, which every step gets.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute, inside the root; made where it is missing.
    pub target: String,
    pub source: MountSource,
    pub read_only: bool,
}

#[derive(Debug, Clone)]
pub enum MountSource {
    /// A file or directory of the host that dockless chose.
    Bind(PathBuf),
    /// A layered view with a throw-away upper.
    RootFs {
        root: RootFs,
        subpath: PathBuf,
    },
    Tmpfs {
        size: Option<u64>,
        mode: Option<u32>,
    },
    /// A file that exists in memory only.
    Secret {
        value: Secret,
        mode: u32,
        uid: u32,
        gid: u32,
    },
}

/// Where the step's streams go.
pub struct Io<'a> {
    pub stdin: Stdin,
    pub stdout: Box<dyn Write + Send + 'a>,
    pub stderr: Box<dyn Write + Send + 'a>,
}

pub enum Stdin {
    Null,
    /// dockless's own, for `docker run -i`.
    Inherit,
    /// A pseudo terminal on dockless's own terminal, for `docker run -it`.
    Terminal,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl Exit {
    /// As a shell reports it: 128 + signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: no such program in the image")]
    NotFound { path: String },
    #[error("{path}: not executable: {source}")]
    NotExecutable { path: String, source: std::io::Error },
    #[error("{what} has a NUL byte in it, which ends a text for the kernel: take it out")]
    Nul { what: String },
    #[error("{call}: {source}")]
    Setup { call: String, source: std::io::Error },
    #[error("{what} is not possible with isolation {isolation}: {hint}")]
    Unsupported { what: String, isolation: Isolation, hint: String },
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

/// Boxes processes. Real ones differ in what a place allows; a recording one serves tests.
pub trait Executor: Send + Sync {
    fn isolation(&self) -> Isolation;

    /// Runs to the end. When it returns, nothing that the process started is still running.
    fn run(&self, root: &RootFs, process: &Process, io: Io<'_>, cancel: &Cancel) -> Result<Exit, Error>;
}
