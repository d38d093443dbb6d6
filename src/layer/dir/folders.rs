//! The directories of a target: entered by descriptor, their times and modes remembered until nothing changes in
//! them any more.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

use crate::sys::{Mtime, Parents, Root};

/// Device and inode.
type Inode = (u64, u64);

/// What is known of a directory that something was made in.
pub struct Folder {
    path: PathBuf,
    mtime: Mtime,
    /// To be set at the end: its owner could not work in it with this mode.
    late_mode: Option<u32>,
    /// Who owns what is newly made in it. Asked of the first file: it depends on setgid, mount options and the
    /// user namespace.
    pub owner: Option<(u32, u32)>,
    /// Modes that a new file was seen to get as they were asked for: that depends on the umask and default ACLs.
    pub modes: Vec<u32>,
}

pub struct Folders {
    root: Root,
    parents: Parents,
    known: HashMap<Inode, Folder>,
    current: Option<(PathBuf, Inode)>,
}

impl Folders {
    pub fn new(root: Root) -> Self {
        Self { root, parents: Parents::new(), known: HashMap::new(), current: None }
    }

    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A directory to make something in; it and those above it are made where they are missing.
    pub fn enter(&mut self, dir: &Path) -> io::Result<(BorrowedFd<'_>, &mut Folder)> {
        if self.current.as_ref().is_none_or(|(path, _)| path != dir) {
            let inode = match self.remember(dir, None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => self.make(dir)?,
                result => result?,
            };
            self.current = Some((dir.to_owned(), inode));
        }
        let Some((_, inode)) = self.current else { return Err(io::ErrorKind::NotFound.into()) };
        let (fd, _) = self.parents.get(&self.root, dir)?;
        let folder = self.known.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        Ok((fd, folder))
    }

    /// A directory as it is; none where there is none.
    pub fn find(&mut self, dir: &Path) -> io::Result<Option<BorrowedFd<'_>>> {
        match self.remember(dir, None) {
            Ok(_) => Ok(Some(self.parents.get(&self.root, dir)?.0)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Missing directories that no layer names: like everything else they come out the same each time.
    fn make(&mut self, dir: &Path) -> io::Result<Inode> {
        let mut inode = self.remember(Path::new(""), None)?;
        let mut done = PathBuf::new();
        for part in dir.components() {
            done.push(part);
            inode = match self.remember(&done, None) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.root.make_dirs(&done)?;
                    self.remember(&done, Some(Mtime::default()))?
                }
                result => result?,
            };
        }
        Ok(inode)
    }

    /// Notes the time a directory had before anything is made in it, or the one it shall have.
    fn remember(&mut self, dir: &Path, mtime: Option<Mtime>) -> io::Result<Inode> {
        let (fd, _) = self.parents.get(&self.root, dir)?;
        let stat = rustix::fs::fstat(fd)?;
        let found = Mtime { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 };
        let folder = self.known.entry(inode(&stat)).or_insert_with(|| Folder::new(dir, mtime.unwrap_or(found)));
        if let Some(mtime) = mtime {
            // Just made; its inode may have been another directory's, removed since.
            *folder = Folder::new(dir, mtime);
        }
        Ok(inode(&stat))
    }

    /// Notes what a layer says of a directory that was just made or met.
    pub fn set(&mut self, path: &Path, stat: &Stat, mtime: Mtime, late_mode: Option<u32>) {
        let folder = self.known.entry(inode(stat)).or_insert_with(|| Folder::new(path, mtime));
        // All else starts anew: the inode may have been another directory's, removed since, and with another mode
        // (setgid) or ACL, what is made inside may differ.
        *folder = Folder { late_mode, ..Folder::new(path, mtime) };
    }

    /// To be called when anything that is not a regular file was removed or replaced.
    pub fn forget(&mut self) {
        self.parents.forget();
        self.current = None;
    }

    /// Sets late modes and all times, deepest first.
    pub fn finish(mut self) -> io::Result<()> {
        let mut folders: Vec<(Inode, Folder)> = self.known.drain().collect();
        folders.sort_unstable_by(|a, b| b.1.path.cmp(&a.1.path));
        for (wanted, folder) in folders {
            match self.settle(wanted, &folder) {
                // Removed by a later layer.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                result => result?,
            }
        }
        Ok(())
    }

    fn settle(&mut self, wanted: Inode, folder: &Folder) -> io::Result<()> {
        if let (Some(parent), Some(name), None) = (folder.path.parent(), folder.path.file_name(), folder.late_mode) {
            let (parent, _) = self.parents.get(&self.root, parent)?;
            let stat = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if inode(&stat) == wanted => {
                    return crate::sys::meta::set_mtime(parent, name, folder.mtime);
                }
                FileType::Symlink => {}
                _ => return Ok(()),
            }
        }
        // The root itself, or a directory known by way of a symlink.
        let fd = self.root.open_dir(&folder.path)?;
        if inode(&rustix::fs::fstat(&fd)?) != wanted {
            return Ok(());
        }
        if let Some(mode) = folder.late_mode {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode))?;
        }
        crate::sys::meta::set_mtime_fd(&fd, folder.mtime)
    }
}

impl Folder {
    fn new(path: &Path, mtime: Mtime) -> Self {
        Self { path: path.to_owned(), mtime, late_mode: None, owner: None, modes: Vec::new() }
    }
}

fn inode(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

/// A directory, not by way of a symlink, for changing it.
pub fn open(parent: impl AsFd, name: &std::ffi::OsStr) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
