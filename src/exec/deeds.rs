//! Carries out the steps of a plan. Runs in the sandbox's first process, alone, before anything of the image does.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;
use rustix::mount::MountFlags;

use super::mount_point::{self, Made};
use super::overlay::overlay;
use super::plan::{Kind, ROOT, Source, Step};
use super::wire::Failure;
use crate::sys::mount::{self, descriptor_path};
use crate::sys::{Owner, Root, net};

/// What the steps so far have come to.
#[derive(Default)]
pub struct Ground {
    root: Option<Root>,
    made: Vec<Made>,
    /// What was mounted last, if it is a file system of its own: no other mount is below it yet.
    alone: Option<String>,
    read_only: bool,
}

impl Ground {
    /// Carries out one step; the failure names it.
    pub fn carry_out(&mut self, step: &Step) -> Result<(), Failure> {
        self.attempt(step).map_err(|error| Failure::setup(name(step), &error))
    }

    /// Takes away what the steps had to make in the image.
    pub fn clean(self) -> io::Result<()> {
        if self.read_only && !self.made.is_empty() {
            mount::make_writable(Path::new("/"))?;
        }
        mount_point::remove(self.made)
    }

    fn attempt(&mut self, step: &Step) -> io::Result<()> {
        let alone = self.alone.take();
        match step {
            Step::PrivateMounts => mount::make_private(),
            Step::Scratch { at } => {
                mount::mount("tmpfs", at.as_ref(), MountFlags::NOSUID | MountFlags::NODEV, "mode=755,size=16m")?;
                std::env::set_current_dir(at)
            }
            Step::WriteFile { name, content, mode, uid, gid } => write_file(name, &content.0, *mode, (*uid, *gid)),
            Step::Overlay { name, lower, upper, work } => {
                overlay(name, lower, upper.as_ref(), work.as_ref())?;
                self.alone = (name == ROOT).then(|| "/".to_owned());
                self.built(name)
            }
            Step::Directory { name, directory } => {
                fs::create_dir(name)?;
                mount::bind(directory.as_ref(), Path::new(name), true)?;
                self.built(name)
            }
            Step::Mount { kind, target, options } => {
                self.alone = Some(target.clone());
                self.mount(*kind, target, options)
            }
            Step::Bind { from, target, recursive, read_only } => self.bind(from, target, *recursive, *read_only),
            Step::Symlink { target, to } => {
                let (parent, name) = self.root()?.parent(Path::new(target))?;
                rustix::fs::symlinkat(to, parent, name)?;
                Ok(())
            }
            Step::Hide { target } => self.if_there(target, hide),
            Step::NoDevices { target } => self.if_there(target, |place, kind| match kind {
                FileType::Directory => {
                    mount::forbid_devices(place)?;
                    // The kernel's list of mounts names every layer of the root.
                    if alone.as_ref() == Some(target) { Ok(()) } else { and_below(place, mount::forbid_devices) }
                }
                // A device that was asked for by its name.
                _ => Ok(()),
            }),
            Step::Protect { target } => {
                self.if_there(target, |place, _| mount::bind(place, place, true))?;
                // Looked up again, to find the mount rather than what it covers.
                self.if_there(target, |place, _| mount::make_read_only(place))
            }
            Step::MakeDirectory { target } => self.root()?.make_dirs(Path::new(target)),
            Step::Hostname(name) => if_allowed(rustix::system::sethostname(name.as_bytes()).map_err(io::Error::from)),
            Step::Loopback => if_allowed(net::loopback_up()),
            Step::Pivot { read_only } => {
                mount::pivot(Path::new(ROOT))?;
                if *read_only {
                    mount::make_read_only(Path::new("/"))?;
                    self.read_only = true;
                }
                Ok(())
            }
        }
    }

    fn built(&mut self, name: &str) -> io::Result<()> {
        if name == ROOT {
            self.root = Some(Root::open(Path::new(name))?);
        }
        Ok(())
    }

    fn root(&self) -> io::Result<&Root> {
        self.root.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }

    fn place(&mut self, target: &str, directory: bool) -> io::Result<OwnedFd> {
        let root = self.root.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        mount_point::open(root, Path::new(target), directory, &mut self.made)
    }

    fn mount(&mut self, kind: Kind, target: &str, options: &str) -> io::Result<()> {
        let place = self.place(target, true)?;
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        let (kind, flags) = match kind {
            Kind::Proc => ("proc", quiet),
            Kind::Sysfs => ("sysfs", quiet | MountFlags::RDONLY),
            Kind::Dev => ("tmpfs", MountFlags::NOSUID | MountFlags::STRICTATIME),
            Kind::Devpts => ("devpts", MountFlags::NOSUID | MountFlags::NOEXEC),
            Kind::Mqueue => ("mqueue", quiet),
            Kind::Tmpfs => ("tmpfs", MountFlags::NOSUID | MountFlags::NODEV),
        };
        mount::mount(kind, &descriptor_path(&place), flags, options)
    }

    fn bind(&mut self, from: &Source, target: &str, recursive: bool, read_only: bool) -> io::Result<()> {
        let (source, held) = match from {
            Source::Host(path) => (path.as_ref().to_owned(), None),
            Source::Scratch(name) => (PathBuf::from(name), None),
            Source::View { name, path } => {
                let file = Root::open(Path::new(name))?.locate(path.as_ref(), true)?;
                (descriptor_path(&file), Some(file))
            }
        };
        let place = self.place(target, fs::metadata(&source)?.is_dir())?;
        mount::bind(&source, &descriptor_path(&place), recursive)?;
        drop(held);
        if read_only {
            // Found again: the descriptor is of what the mount now covers.
            let mounted = self.root()?.locate(Path::new(target), true)?;
            let place = descriptor_path(&mounted);
            mount::make_read_only(&place)?;
            if recursive {
                and_below(&place, mount::make_read_only)?;
            }
        }
        Ok(())
    }

    /// Does something to what is at a path in the root, if there is anything.
    fn if_there(&self, target: &str, deed: impl FnOnce(&Path, FileType) -> io::Result<()>) -> io::Result<()> {
        match self.root()?.locate(Path::new(target), true) {
            Ok(found) => {
                let kind = FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
                deed(&descriptor_path(&found), kind)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Does something to all mounts below one, too.
fn and_below(place: &Path, deed: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    mount::and_below(&fs::read_link(place)?, &fs::read_to_string("/proc/self/mountinfo")?, deed)
}

/// Some containers that allow mounts withhold the right to name a machine or to configure a network. Neither is worth
/// a build: /etc/hosts knows the name, and no network is what was asked for.
fn if_allowed(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Ok(()),
        result => result,
    }
}

fn hide(place: &Path, kind: FileType) -> io::Result<()> {
    if kind == FileType::Directory {
        let flags = MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount::mount("tmpfs", place, flags, "mode=755,size=0")
    } else {
        mount::bind(Path::new("/dev/null"), place, false)
    }
}

fn write_file(name: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> io::Result<()> {
    let mut file = File::create_new(name)?;
    file.write_all(content)?;
    if owner != (0, 0) {
        // Owner before mode: chown clears setuid.
        match std::os::unix::fs::fchown(&file, Some(owner.0), Some(owner.1)) {
            // There is no such id here; emulation shows the step the one that is recorded.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                Owner { uid: owner.0, gid: owner.1, ..Owner::default() }.set(&file)?;
            }
            result => result?,
        }
    }
    file.set_permissions(Permissions::from_mode(mode))
}

/// What a step does, as the first half of an error message.
fn name(step: &Step) -> String {
    match step {
        Step::PrivateMounts => "make mounts private".into(),
        Step::Scratch { at } => format!("mount a scratch space on {at:?}"),
        Step::WriteFile { name, .. } => format!("write {name}"),
        Step::Overlay { name, lower, upper, .. } => {
            format!("mount overlay of {} layers on {upper:?} as {name}", lower.len())
        }
        Step::Directory { directory, .. } => format!("mount {directory:?} as the root"),
        Step::Mount { kind, target, .. } => format!("mount {kind:?} on {target}"),
        Step::Bind { from: Source::Host(path), target, .. } => format!("bind {path:?} to {target}"),
        Step::Bind { from: Source::Scratch(name), target, .. } => format!("bind {name} to {target}"),
        Step::Bind { from: Source::View { path, .. }, target, .. } => format!("bind {path:?} of an image to {target}"),
        Step::Symlink { target, .. } => format!("link {target}"),
        Step::Hide { target } => format!("hide {target}"),
        Step::NoDevices { target } => format!("forbid devices in {target}"),
        Step::Protect { target } => format!("make {target} read-only"),
        Step::MakeDirectory { target } => format!("make the working directory {target}"),
        Step::Hostname(name) => format!("set the host name {name}"),
        Step::Loopback => "bring the loopback device up".into(),
        Step::Pivot { .. } => "change the root".into(),
    }
}
