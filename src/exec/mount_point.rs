//! Finds the place that a mount goes to inside a root, makes it where it is missing, and takes away again what was
//! made, so that the step's layer does not show where things were mounted.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};

use crate::sys::Root;
use crate::sys::mount::descriptor_path;

/// Symbolic links followed before a path counts as a loop; the kernel's own number.
const MAX_LINKS: usize = 40;

/// Something that was not in the image.
#[derive(Debug)]
pub struct Made {
    parent: OwnedFd,
    name: OsString,
    directory: bool,
}

/// Opens what a path in a root leads to; a missing end is made, as a directory or an empty file, and added to `made`.
/// A dangling link is followed to where it points, as runc does: `/etc/resolv.conf` often is one.
pub fn open(root: &Root, target: &Path, directory: bool, made: &mut Vec<Made>) -> io::Result<OwnedFd> {
    let mut path = normal(target);
    let mut links = 0;
    loop {
        match root.locate(&path, true) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let (missing, rest) = first_missing(root, &path)?;
        match read_link(root, &missing)? {
            Some(link) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(rustix::io::Errno::LOOP.into());
                }
                // By components: joining an empty rest would end the path with a slash, which only directories have.
                path = missing
                    .parent()
                    .unwrap_or(Path::new(""))
                    .join(link)
                    .components()
                    .chain(rest.components())
                    .collect();
            }
            None => {
                let new = make(root, &missing, directory || rest.components().next().is_some())?;
                // What is made in a file system of our own, such as /dev, goes with it.
                if same_file_system(root.fd(), &new.parent)? {
                    made.push(new);
                }
            }
        }
    }
}

/// Takes away what was made, newest first. What the step has put there stays, and so does what it stands in.
pub fn remove(made: Vec<Made>) -> io::Result<()> {
    for Made { parent, name, directory } in made.into_iter().rev() {
        // Whatever was mounted on it hides it and keeps it from being removed.
        while crate::sys::mount::detach(&descriptor_path(&parent).join(&name)).is_ok() {}
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        use rustix::io::Errno;
        // As the step left it.
        let modified = modified(&parent)?;
        match rustix::fs::unlinkat(&parent, &name, flags) {
            Ok(()) => set_modified(&parent, modified)?,
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::ISDIR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// When something in a directory last changed its name.
pub fn modified(directory: &OwnedFd) -> io::Result<Timespec> {
    let stat = rustix::fs::fstat(directory)?;
    Ok(Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) })
}

pub fn set_modified(directory: &OwnedFd, modified: Timespec) -> io::Result<()> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access, last_modification: modified };
    // Not by its path in /proc: that may just have been taken away. `O_PATH` has no times to set.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::futimens(rustix::fs::openat(directory, ".", flags, Mode::empty())?, &times)?;
    Ok(())
}

/// Without `.`, and absolute: `..` is for the root to resolve.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|component| !matches!(component, Component::CurDir)).collect()
}

/// Splits a path after the first name that is not there.
fn first_missing(root: &Root, path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let names: Vec<_> = path.components().collect();
    for count in 1..=names.len() {
        let head: PathBuf = names[..count].iter().collect();
        match root.locate(&head, true) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok((head, names[count..].iter().collect()));
            }
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// What the link at a path says; none where there is nothing.
fn read_link(root: &Root, path: &Path) -> io::Result<Option<PathBuf>> {
    match root.locate(path, false) {
        Ok(file) => Ok(Some(OsString::from_vec(rustix::fs::readlinkat(&file, "", Vec::new())?.into_bytes()).into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn same_file_system(a: impl AsFd, b: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(a)?.st_dev == rustix::fs::fstat(b)?.st_dev)
}

fn make(root: &Root, path: &Path, directory: bool) -> io::Result<Made> {
    let (parent, name) = root.parent(path)?;
    let modified = modified(&parent)?;
    if directory {
        rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755))?;
    } else {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(parent.as_fd(), &name, flags, Mode::from_raw_mode(0o644))?;
    }
    set_modified(&parent, modified)?;
    Ok(Made { parent, name, directory })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn mount_points_are_found_or_made_inside_the_root_and_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for (target, directory, expected, why) in [
            ("/etc/hosts", false, "etc/hosts", "a file that is there"),
            ("/etc/resolv.conf", false, "run/resolv.conf", "a dangling link's end is made inside"),
            ("/escape/x", true, "outside/x", "an absolute link starts at the root"),
            ("/../../up", true, "up", "dots stop at the root"),
            ("/var/run/a/b", false, "run/a/b", "a link on the way"),
            ("/a/./b", true, "a/b", "all directories on the way"),
        ] {
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(root.join("var")).unwrap();
            fs::write(root.join("etc/hosts"), "").unwrap();
            symlink("../run/resolv.conf", root.join("etc/resolv.conf")).unwrap();
            symlink("/run", root.join("var/run")).unwrap();
            symlink(&outside, root.join("escape")).unwrap();
            let before = tree(&root);
            let mut made = Vec::new();
            let found = open(&Root::open(&root).unwrap(), Path::new(target), directory, &mut made).unwrap();
            let path = fs::read_link(descriptor_path(&found)).unwrap();
            let expected = match target {
                "/escape/x" => root.join(outside.strip_prefix("/").unwrap()).join("x"),
                _ => root.join(expected),
            };
            assert_eq!(path, expected, "{why}");
            assert_eq!(path.is_dir(), directory, "{why}");
            assert!(!outside.exists(), "{why}");
            remove(made).unwrap();
            assert_eq!(tree(&root), before, "{why}");
            fs::remove_dir_all(&root).unwrap();
        }
    }

    #[test]
    fn a_loop_of_links_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let error = open(&Root::open(dir.path()).unwrap(), Path::new("/a/x"), true, &mut Vec::new()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ELOOP));
    }

    #[test]
    fn what_the_step_put_into_a_made_directory_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        open(&Root::open(dir.path()).unwrap(), Path::new("/a/b"), true, &mut made).unwrap();
        fs::write(dir.path().join("a/kept"), "").unwrap();
        remove(made).unwrap();
        assert!(dir.path().join("a/kept").exists());
        assert!(!dir.path().join("a/b").exists());
    }

    /// Names and times: what a layer would show.
    fn tree(root: &Path) -> Vec<(PathBuf, i64, i64)> {
        let mut found = Vec::new();
        let mut left = vec![root.to_owned()];
        while let Some(path) = left.pop() {
            let meta = fs::symlink_metadata(&path).unwrap();
            found.push((path.clone(), meta.mtime(), meta.mtime_nsec()));
            if meta.is_dir() {
                left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        found.sort();
        found
    }
}
