//! A process in a root becomes a list of steps: data that a test compares, and that the sandbox's first process
//! ([`super::init`]) carries out one after the other.

mod host_path;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use self::host_path::HostPath;
use super::emulate::Reach;
use super::view::{self, View};
use super::{Error, Isolation, Mount, MountSource, Network, Process};
use crate::sys::RootFs;

/// What the place allows, as far as a plan depends on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// A new /proc may be mounted, so the step gets a pid namespace. Where /proc is masked it may not.
    pub own_proc: bool,
    /// A new /sys may be mounted: only by who owns the network namespace it shows.
    pub own_sysfs: bool,
    /// Ids beyond the first exist; else they are emulated.
    pub many_ids: bool,
    /// In the first user namespace: `insecure` means something.
    pub privileged: bool,
    /// An empty directory of the state folder that every sandbox mounts its scratch space on, each in a namespace of
    /// its own.
    pub scratch: HostPath,
}

/// What every step's /etc gets from outside.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostFiles {
    /// The content of /etc/resolv.conf.
    pub resolv_conf: Vec<u8>,
}

/// All that the sandbox does for one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// None where there can be none.
    pub namespaces: Option<Namespaces>,
    /// Where nothing can be mounted: what names mean.
    pub view: Option<View>,
    /// Done in order, in the new namespaces, before anything of the image runs.
    pub setup: Vec<Step>,
    pub launch: Launch,
}

/// Beside those for mounts, host name and System V IPC, which every step gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    pub pid: bool,
    pub network: bool,
}

/// One deed. `name`s are paths in the scratch space, `target`s are paths in the step's root: text, until the root
/// that is being built resolves them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Nothing mounted from here on is seen outside.
    PrivateMounts,
    /// A small file system in memory, and the working directory from here on.
    Scratch {
        at: HostPath,
    },
    WriteFile {
        name: String,
        content: Content,
        mode: u32,
        uid: u32,
        gid: u32,
    },
    /// Overlay with `userxattr`; `lower` topmost first.
    Overlay {
        name: String,
        lower: Vec<HostPath>,
        upper: HostPath,
        work: HostPath,
    },
    /// A directory becomes a mount.
    Directory {
        name: String,
        directory: HostPath,
    },
    Mount {
        kind: Kind,
        target: String,
        options: String,
    },
    Bind {
        from: Source,
        target: String,
        recursive: bool,
        read_only: bool,
    },
    Symlink {
        target: String,
        to: String,
    },
    /// An empty thing in place of what is there, if anything is there.
    Hide {
        target: String,
    },
    /// Where a directory is mounted, no device that lies in it can be opened: a step may make one of a disk.
    NoDevices {
        target: String,
    },
    /// What is there, read-only from now on, if anything is there.
    Protect {
        target: String,
    },
    /// A directory, with its parents, where none is.
    MakeDirectory {
        target: String,
    },
    Hostname(String),
    Loopback,
    /// What was built becomes `/`; the host's files are gone.
    Pivot {
        read_only: bool,
    },
}

/// The file systems that a step gets new, each with the flags that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Proc,
    Sysfs,
    /// Devices work in it.
    Dev,
    Devpts,
    Mqueue,
    /// For files, not for devices.
    Tmpfs,
}

/// Where a bind mount comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    Host(HostPath),
    Scratch(String),
    /// A path in a root that was mounted in the scratch space; resolved in there.
    View {
        name: String,
        path: HostPath,
    },
}

/// A file's bytes. They may be a secret, so `Debug` only counts them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content(pub Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The process itself, once its root stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    pub ulimits: Vec<(String, u64, u64)>,
    /// Capabilities and system calls are those of a Docker container; else all that dockless has.
    pub confined: bool,
    pub answered: Answered,
    /// What stands for /proc and /sys lets the kernel answer realpath; see [`detour`](super::detour).
    pub detours: bool,
    /// Speaks to nobody but processes of this machine, where no namespace sees to that.
    pub offline: bool,
    /// The directory that is its `/`, where no mount has made it that.
    pub root: Option<HostPath>,
    pub terminal: bool,
}

/// Who answers the process's system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answered {
    /// The kernel, all of them.
    Kernel,
    /// There is one id here: who the process is, and whose files are, dockless pretends.
    Owners,
    /// There are no mounts here: what names mean, and who the process is, dockless pretends.
    Names(Reach),
}

/// The step's root, in the scratch space.
pub const ROOT: &str = "root";

/// As BuildKit names the machine that a RUN step sees; it ends up in files that packages make.
pub const HOSTNAME: &str = "buildkitsandbox";

/// Tells about the host, or reaches it.
const HIDDEN: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Would change the host.
const PROTECTED: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Where the place for a mount point must be, in an image that may not have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stub {
    pub target: String,
    pub directory: bool,
}

/// Plans a process.
///
/// `stubs` is a directory with an empty file or directory for every mount point ([`stubs`]): as the lowest layer of the
/// root it lends them to images that lack them, and the step's own layer stays as it was.
pub fn plan(
    root: &RootFs,
    process: &Process,
    terminal: bool,
    place: &Place,
    host: &HostFiles,
    stubs: &Path,
) -> Result<Plan, Error> {
    if process.insecure && !place.privileged {
        return Err(Error::Unsupported {
            what: "a step with all privileges".into(),
            isolation: Isolation::Ns,
            hint: "it needs root on the machine itself".into(),
        });
    }
    check(process, Isolation::Ns)?;
    let confined = !process.insecure;
    let hostname = process.hostname.as_deref().unwrap_or(HOSTNAME);
    let mut setup = vec![Step::PrivateMounts, Step::Scratch { at: place.scratch.clone() }];
    setup.push(mount_root(ROOT, root, Some(stubs)));
    // In other user namespaces than the first the kernel sees to it.
    let no_devices = confined && place.privileged;
    if no_devices {
        setup.push(Step::NoDevices { target: "/".into() });
    }
    kernel_file_systems(place, confined, &mut setup);
    etc(process, hostname, host, &mut setup);
    for (number, mount) in process.mounts.iter().enumerate() {
        user_mount(number, mount, &mut setup);
        if no_devices {
            setup.push(Step::NoDevices { target: mount.target.clone() });
        }
    }
    setup.push(Step::MakeDirectory { target: process.cwd.clone() });
    setup.push(Step::Hostname(hostname.to_owned()));
    if process.network == Network::None {
        setup.push(Step::Loopback);
    }
    setup.push(Step::Pivot { read_only: process.read_only_root });
    Ok(Plan {
        namespaces: Some(Namespaces { pid: place.own_proc, network: process.network == Network::None }),
        view: None,
        setup,
        launch: Launch {
            confined,
            ..launch(process, if place.many_ids { Answered::Kernel } else { Answered::Owners }, terminal)
        },
    })
}

/// The process in its root, confined.
pub fn launch(process: &Process, answered: Answered, terminal: bool) -> Launch {
    Launch {
        args: process.args.clone(),
        env: process.env.clone(),
        cwd: process.cwd.clone(),
        uid: process.uid,
        gid: process.gid,
        groups: process.groups.clone(),
        ulimits: process.ulimits.clone(),
        confined: true,
        answered,
        detours: false,
        offline: false,
        root: None,
        terminal,
    }
}

/// The mount points of a process, known before anything is mounted. Those inside of other images (a file of a view)
/// are not known and are made, and removed again, in place.
pub fn stubs(process: &Process) -> Vec<Stub> {
    let directory = |target: &str| Stub { target: target.to_owned(), directory: true };
    let file = |target: &str| Stub { target: target.to_owned(), directory: false };
    let mut stubs: Vec<_> = ["/dev", "/proc", "/sys"].map(directory).into();
    stubs.extend(["/etc/hosts", "/etc/hostname", "/etc/resolv.conf"].map(file));
    for mount in &process.mounts {
        match &mount.source {
            MountSource::Bind(path) if path.is_dir() => stubs.push(directory(&mount.target)),
            MountSource::Bind(_) | MountSource::Secret { .. } => stubs.push(file(&mount.target)),
            MountSource::Tmpfs { .. } => stubs.push(directory(&mount.target)),
            MountSource::RootFs { subpath, .. } if subpath.components().next().is_none() => {
                stubs.push(directory(&mount.target));
            }
            MountSource::RootFs { .. } => {}
        }
    }
    stubs.retain(|stub| !["/dev/", "/proc/", "/sys/"].iter().any(|covered| stub.target.starts_with(covered)));
    stubs.sort_by(|a, b| a.target.cmp(&b.target));
    stubs.dedup();
    stubs
}

/// What no executor can give.
pub fn check(process: &Process, isolation: Isolation) -> Result<(), Error> {
    let unsupported = |what: String, hint: &str| Error::Unsupported { what, isolation, hint: hint.into() };
    let texts = process.args.iter().map(|text| ("an argument", text));
    let texts = texts.chain(process.env.iter().map(|text| ("a variable", text)));
    if let Some((kind, text)) = texts.chain([("the working directory", &process.cwd)]).find(|it| it.1.contains('\0')) {
        let what = format!("{kind} ({})", text.escape_default());
        return Err(Error::Nul { what });
    }
    for (name, ..) in &process.ulimits {
        if super::limits::by_name(name).is_none() {
            return Err(unsupported(format!("the limit {name}"), "there is no limit of this name"));
        }
    }
    for mount in &process.mounts {
        let names = Path::new(&mount.target).components().count();
        if !mount.target.starts_with('/') || names < 2 {
            return Err(unsupported(
                format!("a mount at {:?}", mount.target),
                "its target must be an absolute path below /",
            ));
        }
    }
    Ok(())
}

fn mount_root(name: &str, root: &RootFs, stubs: Option<&Path>) -> Step {
    let name = name.to_owned();
    match root {
        RootFs::Overlay { lower, upper, work } => Step::Overlay {
            name,
            lower: lower.iter().map(Path::new).chain(stubs).map(HostPath::from).collect(),
            upper: upper.into(),
            work: work.into(),
        },
        RootFs::Directory(directory) => Step::Directory { name, directory: directory.into() },
    }
}

fn kernel_file_systems(place: &Place, confined: bool, setup: &mut Vec<Step>) {
    let bind = |from: &str, target: &str| Step::Bind {
        from: Source::Host(Path::new(from).into()),
        target: target.to_owned(),
        recursive: true,
        read_only: false,
    };
    let mount = |kind, target: &str, options: &str| Step::Mount {
        kind,
        target: target.to_owned(),
        options: options.to_owned(),
    };
    setup.push(if place.own_proc { mount(Kind::Proc, "/proc", "") } else { bind("/proc", "/proc") });
    setup.push(if place.own_sysfs {
        mount(Kind::Sysfs, "/sys", "")
    } else {
        Step::Bind {
            from: Source::Host(Path::new("/sys").into()),
            target: "/sys".into(),
            recursive: true,
            read_only: confined,
        }
    });
    setup.push(mount(Kind::Dev, "/dev", "mode=755,size=64k"));
    if confined && place.privileged {
        // Those that belong there are mounts of their own.
        setup.push(Step::NoDevices { target: "/dev".into() });
    }
    for device in view::DEVICES {
        let path = format!("/dev/{device}");
        setup.push(bind(&path, &path));
    }
    let terminals = if place.many_ids {
        "newinstance,ptmxmode=0666,mode=0620,gid=5"
    } else {
        "newinstance,ptmxmode=0666,mode=0620"
    };
    setup.push(mount(Kind::Devpts, "/dev/pts", terminals));
    setup.push(mount(Kind::Tmpfs, "/dev/shm", "mode=1777,size=64m"));
    setup.push(mount(Kind::Mqueue, "/dev/mqueue", ""));
    for (name, to) in view::DEVICE_LINKS {
        setup.push(Step::Symlink { target: format!("/dev/{name}"), to: to.into() });
    }
    if confined {
        setup.extend(HIDDEN.map(|target| Step::Hide { target: target.into() }));
        setup.extend(PROTECTED.map(|target| Step::Protect { target: target.into() }));
    }
}

/// The files of /etc that come from outside.
pub fn etc_files(process: &Process, hostname: &str, host: &HostFiles) -> [(&'static str, Vec<u8>); 3] {
    let mut hosts = format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n");
    for (name, address) in &process.extra_hosts {
        hosts.push_str(&format!("{address}\t{name}\n"));
    }
    [
        ("hostname", format!("{hostname}\n").into_bytes()),
        ("hosts", hosts.into_bytes()),
        ("resolv.conf", host.resolv_conf.clone()),
    ]
}

/// Bound over what the image has, so that no layer ever holds the host's names.
fn etc(process: &Process, hostname: &str, host: &HostFiles, setup: &mut Vec<Step>) {
    for (name, content) in etc_files(process, hostname, host) {
        setup.push(Step::WriteFile { name: name.into(), content: Content(content), mode: 0o644, uid: 0, gid: 0 });
        setup.push(Step::Bind {
            from: Source::Scratch(name.into()),
            target: format!("/etc/{name}"),
            recursive: false,
            read_only: false,
        });
    }
}

fn user_mount(number: usize, mount: &Mount, setup: &mut Vec<Step>) {
    let bind = |from| Step::Bind { from, target: mount.target.clone(), recursive: true, read_only: mount.read_only };
    match &mount.source {
        MountSource::Bind(path) => setup.push(bind(Source::Host(path.into()))),
        MountSource::RootFs { root, subpath } => {
            let name = format!("view{number}");
            setup.push(mount_root(&name, root, None));
            setup.push(bind(Source::View { name, path: subpath.into() }));
        }
        MountSource::Tmpfs { size, mode } => {
            let mut options = format!("mode={:o}", mode.unwrap_or(0o1777));
            if let Some(size) = size {
                options.push_str(&format!(",size={size}"));
            }
            setup.push(Step::Mount { kind: Kind::Tmpfs, target: mount.target.clone(), options });
            if mount.read_only {
                setup.push(Step::Protect { target: mount.target.clone() });
            }
        }
        MountSource::Secret { value, mode, uid, gid } => {
            let name = format!("secret{number}");
            setup.push(Step::WriteFile {
                name: name.clone(),
                content: Content(value.expose().to_vec()),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            });
            setup.push(bind(Source::Scratch(name)));
        }
    }
}

#[cfg(test)]
mod tests;
