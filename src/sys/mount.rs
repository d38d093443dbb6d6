//! Mounts as plain functions that name what they did in their errors.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// A path that stands for a descriptor wherever /proc is mounted.
pub fn descriptor_path(file: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// Makes every mount of this namespace private, so that nothing done here is seen outside.
pub fn make_private() -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    Ok(())
}

/// Mounts a file system that has no device.
pub fn mount(kind: &str, target: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = CString::new(options)?;
    rustix::mount::mount(kind, target, kind, flags, options.as_c_str())?;
    Ok(())
}

/// Makes what is at `source` appear at `target`; with what is mounted below it when `recursive`.
pub fn bind(source: &Path, target: &Path, recursive: bool) -> io::Result<()> {
    if recursive {
        rustix::mount::mount_bind_recursive(source, target)?;
    } else {
        rustix::mount::mount_bind(source, target)?;
    }
    Ok(())
}

/// Makes the mount at `target` read-only and keeps what else it is: in a user namespace a flag that came from outside
/// is locked, and a remount without it is refused.
pub fn make_read_only(target: &Path) -> io::Result<()> {
    let kept = kept_flags(&rustix::fs::statvfs(target)?);
    rustix::mount::mount_remount(target, MountFlags::BIND | MountFlags::RDONLY | kept, c"")?;
    Ok(())
}

/// Has no device opened by way of the mount at `target`, and keeps what else it is.
pub fn forbid_devices(target: &Path) -> io::Result<()> {
    let stat = rustix::fs::statvfs(target)?;
    let mut flags = MountFlags::BIND | MountFlags::NODEV | kept_flags(&stat);
    flags.set(MountFlags::RDONLY, stat.f_flag.contains(StatVfsMountFlags::RDONLY));
    rustix::mount::mount_remount(target, flags, c"")?;
    Ok(())
}

/// Takes back what [`make_read_only`] did.
pub fn make_writable(target: &Path) -> io::Result<()> {
    let kept = kept_flags(&rustix::fs::statvfs(target)?);
    rustix::mount::mount_remount(target, MountFlags::BIND | kept, c"")?;
    Ok(())
}

fn kept_flags(stat: &StatVfs) -> MountFlags {
    let mut flags = MountFlags::empty();
    for (seen, kept) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ] {
        if stat.f_flag.contains(seen) {
            flags |= kept;
        }
    }
    flags
}

/// Does something to the mount at `target` and to all below it. `mounts` is the text of /proc/self/mountinfo.
pub fn and_below(target: &Path, mounts: &str, deed: fn(&Path) -> io::Result<()>) -> io::Result<()> {
    for point in mount_points(mounts).filter(|point| point.starts_with(target)) {
        match deed(&point) {
            // Covered by another mount, or not for us to see: then not for the step either.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT | libc::EACCES)) => {}
            result => result?,
        }
    }
    Ok(())
}

/// The mount points in a mountinfo text, in order.
fn mount_points(mountinfo: &str) -> impl Iterator<Item = PathBuf> + '_ {
    mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|point| unescape(point).into())
}

/// mountinfo writes space, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    plain
}

/// Takes a mount out of the tree now; it ends when its last user does.
pub fn detach(target: &Path) -> io::Result<()> {
    rustix::mount::unmount(target, UnmountFlags::DETACH)?;
    Ok(())
}

/// Makes `root`, which is a mount, the root of this mount namespace, and everything that was there before gone.
pub fn pivot(root: &Path) -> io::Result<()> {
    rustix::process::chdir(root)?;
    // Stacking the old root under the new one needs no directory inside the new one to put it.
    match rustix::process::pivot_root(".", ".") {
        Ok(()) => rustix::mount::unmount(".", UnmountFlags::DETACH)?,
        // The first root file system of a machine (an initramfs) cannot be pivoted away from, only covered.
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_move(".", "/")?;
            rustix::process::chroot(".")?;
        }
        Err(error) => return Err(error.into()),
    }
    rustix::process::chdir("/")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_unescaped() {
        let text = "22 1 8:1 / / rw,relatime - ext4 /dev/root rw\n\
                    30 22 0:5 / /a\\040b\\134c rw - tmpfs tmpfs rw\n\
                    31 22 0:5 / /odd\\9 rw - tmpfs tmpfs rw\n";
        let points: Vec<_> = mount_points(text).collect();
        assert_eq!(points, [Path::new("/"), Path::new("/a b\\c"), Path::new("/odd\\9")]);
    }
}
