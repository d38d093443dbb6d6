//! What a step without mounts sees in place of some names, as data: made by an executor, carried out by the
//! supervisor that answers for those names.

use std::io;

use serde::{Deserialize, Serialize};

use super::plan::{Content, HostPath};

/// A step's root directory, and the names that lead elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub root: HostPath,
    pub entries: Vec<Entry>,
    /// Directories in the root that are as if mounted, though the kernel finds them there by itself.
    pub placed: Vec<HostPath>,
    /// What stands in the place of /proc, if detours do: one for each process.
    pub detours: Option<HostPath>,
    /// What the machine is called.
    pub hostname: String,
    /// A directory for copies of programs, where they cannot be run as they are.
    pub programs: HostPath,
}

/// One name, as if something were mounted on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Absolute, inside the root, with no `.`, `..` or doubled slash in it.
    pub target: String,
    pub lead: Lead,
    pub read_only: bool,
}

/// Where a name leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lead {
    /// The processes of the step, and what else /proc tells.
    Proc,
    /// The host's /sys.
    Sys,
    /// A device of the host.
    Device(HostPath),
    /// A file or a directory of the host that dockless chose.
    Host(HostPath),
    /// A file that exists in memory only.
    Memory { content: Content, mode: u32, uid: u32, gid: u32 },
}

/// The devices that every step gets.
pub const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The links that every step gets in /dev.
pub const DEVICE_LINKS: [(&str, &str); 6] = [
    ("core", "/proc/kcore"),
    ("fd", "/proc/self/fd"),
    ("ptmx", "pts/ptmx"),
    ("stderr", "/proc/self/fd/2"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
];

impl View {
    /// /proc, /sys and the devices.
    pub fn of_kernel() -> Vec<Entry> {
        let entry = |target: String, lead| Entry { target, lead, read_only: false };
        let mut entries = vec![entry("/proc".into(), Lead::Proc), entry("/sys".into(), Lead::Sys)];
        entries.extend(DEVICES.map(|name| {
            let path = format!("/dev/{name}");
            entry(path.clone(), Lead::Device(std::path::Path::new(&path).into()))
        }));
        entries.push(entry("/dev/pts".into(), Lead::Host(std::path::Path::new("/dev/pts").into())));
        entries
    }
}

/// A file in memory with this content, owner and mode.
pub fn memory_file(content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<std::os::fd::OwnedFd> {
    use std::io::{Seek, Write};
    let mut file = std::fs::File::from(rustix::fs::memfd_create("file", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    if owner != (0, 0) {
        // Where there is one id, the owner store says whose it is.
        match std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EINVAL)) => {}
            result => result?,
        }
    }
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode))?;
    Ok(file.into())
}
