//! Mounts where nothing can be mounted: what shall be seen changes places with what is there, and back when the step is
//! over, so that nothing of it shows in the step's layer.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::mount_point::{self, Made};
use crate::sys::Root;
use crate::sys::mount::descriptor_path;

/// Everything that was placed in one root.
pub struct Placing {
    root: Root,
    placed: Vec<Placed>,
    made: Vec<Made>,
}

/// One directory or file in its place. What it covers is where it came from.
struct Placed {
    parent: OwnedFd,
    name: OsString,
    home: PathBuf,
}

impl Placing {
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self { root: Root::open(root)?, placed: Vec::new(), made: Vec::new() })
    }

    /// A mount point for what is only a name: something empty, where there is nothing.
    pub fn mark(&mut self, target: &Path, directory: bool) -> io::Result<()> {
        mount_point::open(&self.root, target, directory, &mut self.made).map(drop)
    }

    /// Moves a directory or file of the same file system to its place. The place, from the root and without links.
    pub fn place(&mut self, from: &Path, target: &Path) -> io::Result<PathBuf> {
        let directory = std::fs::symlink_metadata(from)?.is_dir();
        let point = mount_point::open(&self.root, target, directory, &mut self.made)?;
        let inside = self.inside(&point)?;
        let (parent, name) = self.root.parent(&inside)?;
        let modified = mount_point::modified(&parent)?;
        rustix::fs::renameat_with(CWD, from, &parent, &name, RenameFlags::EXCHANGE)?;
        mount_point::set_modified(&parent, modified)?;
        self.placed.push(Placed { parent, name, home: from.to_owned() });
        Ok(inside)
    }

    /// Where the root is, without links.
    pub fn root_path(&self) -> io::Result<PathBuf> {
        std::fs::read_link(descriptor_path(self.root.fd()))
    }

    /// Where in the root an open file is.
    fn inside(&self, file: &OwnedFd) -> io::Result<PathBuf> {
        let (path, root) = (std::fs::read_link(descriptor_path(file))?, self.root_path()?);
        let inside = path.strip_prefix(&root).map_err(|_| io::Error::from(Errno::XDEV))?;
        if inside.as_os_str().is_empty() {
            return Err(Errno::BUSY.into());
        }
        Ok(inside.to_owned())
    }

    /// Puts everything back, the last first.
    pub fn undo(self) -> io::Result<()> {
        let mut result = Ok(());
        for placed in self.placed.into_iter().rev() {
            result = result.and(placed.undo());
        }
        result.and(mount_point::remove(self.made))
    }
}

impl Placed {
    fn undo(self) -> io::Result<()> {
        let Self { parent, name, home } = self;
        // As the step left it.
        let modified = mount_point::modified(&parent)?;
        match rustix::fs::renameat_with(CWD, &home, &parent, &name, RenameFlags::EXCHANGE) {
            // The step has removed it.
            Err(Errno::NOENT) => {
                rustix::fs::renameat(CWD, &home, &parent, &name)?;
                std::fs::create_dir_all(&home)?;
            }
            result => result?,
        }
        mount_point::set_modified(&parent, modified)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn what_is_placed_is_seen_and_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for path in ["root/var/cache", "cache", "view"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        fs::write(at("root/var/cache/image"), "").unwrap();
        fs::write(at("cache/kept"), "").unwrap();
        let before: Vec<_> = ["root"].map(|path| fs::metadata(at(path)).unwrap().mtime_nsec()).into();
        let mut placing = Placing::new(&at("root")).unwrap();
        placing.place(&at("cache"), Path::new("/var/cache")).unwrap();
        placing.place(&at("view"), Path::new("/new/place")).unwrap();
        placing.mark(Path::new("/run/secret"), false).unwrap();
        assert!(at("root/var/cache/kept").exists() && !at("root/var/cache/image").exists());
        fs::write(at("root/var/cache/more"), "").unwrap();
        fs::write(at("root/new/place/file"), "").unwrap();
        fs::create_dir(at("root/var/made")).unwrap();
        let left = fs::metadata(at("root/var")).unwrap().mtime_nsec();
        placing.undo().unwrap();
        assert_eq!(fs::metadata(at("root/var")).unwrap().mtime_nsec(), left, "the time of what the step did stays");
        assert!(at("root/var/cache/image").exists() && at("cache/more").exists() && at("cache/kept").exists());
        assert!(!at("root/new").exists() && !at("root/run").exists());
        let after: Vec<_> = ["root"].map(|path| fs::metadata(at(path)).unwrap().mtime_nsec()).into();
        assert_eq!(before, after);
    }

    #[test]
    fn a_step_may_remove_what_was_placed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("root")).unwrap();
        fs::create_dir_all(at("cache")).unwrap();
        let mut placing = Placing::new(&at("root")).unwrap();
        placing.place(&at("cache"), Path::new("/cache")).unwrap();
        fs::remove_dir(at("root/cache")).unwrap();
        placing.undo().unwrap();
        assert!(!at("root/cache").exists() && at("cache").is_dir());
    }
}
