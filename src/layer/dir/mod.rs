//! Flattens layers into a plain directory, as `umoci unpack` does: owners, devices and attributes as far as the host
//! allows, whiteouts carried out, directory times as the layers say.

mod folders;
mod later;
#[cfg(test)]
mod tests;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::{Entry, Made, Target};
use crate::sys::meta::{Known, Refused};
use crate::sys::{Kind, Meta, Parents, Root, dir, meta, root};
use folders::{Folder, Folders};
use later::{Later, SMALL};

/// What to attempt.
#[derive(Debug, Clone)]
pub struct DirOptions {
    /// Give files to the owners that the image names; otherwise all stay the caller's.
    pub owners: bool,
    pub devices: bool,
    pub xattrs: bool,
}

impl Default for DirOptions {
    fn default() -> Self {
        Self { owners: true, devices: true, xattrs: true }
    }
}

/// What was left out or the host would not take, by class.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost {
    pub owners: Loss,
    pub devices: Loss,
    pub xattrs: Loss,
}

/// How often something was lost, and where first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    pub count: u64,
    pub example: Option<PathBuf>,
}

impl Loss {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        self.example.get_or_insert_with(|| path.to_owned());
    }
}

/// A directory that layers are applied to, one over the other.
pub struct DirTarget {
    folders: Folders,
    /// Where hard links lead: kept apart, so that a run of links does not lose the folder they are made in.
    links: Parents,
    later: Later,
    made: Made,
    options: DirOptions,
    lost: Lost,
}

impl DirTarget {
    pub fn new(root: Root, options: DirOptions) -> Self {
        Self {
            folders: Folders::new(root),
            links: Parents::new(),
            later: Later::default(),
            made: Made::default(),
            options,
            lost: Lost::default(),
        }
    }

    /// Sets the times of directories, which everything made in them had changed, and says what could not be kept.
    pub fn finish(mut self) -> anyhow::Result<Lost> {
        self.later.finish()?;
        self.folders.finish().context("set the times of directories")?;
        Ok(self.lost)
    }

    fn file(
        &mut self,
        path: &Path,
        name: &OsStr,
        meta: &Meta,
        size: u64,
        data: &mut dyn BufRead,
    ) -> anyhow::Result<()> {
        let (mut file, folder) = loop {
            let (fd, folder) = self.folders.enter(dir_of(path))?;
            match root::create_file_at(fd, name, meta.mode & 0o777) {
                Ok(file) => break (file, folder),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.clear(path, name)?,
                Err(error) => return Err(error.into()),
            }
        };
        if folder.owner.is_none() || !folder.modes.contains(&meta.mode) {
            learn(folder, &file, meta)?;
        }
        let known = Known { mode: folder.modes.contains(&meta.mode), ..self.options.known(folder, meta) };
        let wanted = self.options.wanted(meta);
        // Of such a file nothing can be refused, so that there is nothing to note.
        if size <= SMALL && known.owner && wanted.xattrs.is_empty() {
            self.later.add(file, path, &wanted, known, data)?;
            self.note(path, meta, Refused::default());
            return Ok(());
        }
        copy(data, &mut file)?;
        let refused = meta::write_fd(&file, &wanted, known)?;
        self.note(path, meta, refused);
        Ok(())
    }

    fn directory(&mut self, path: &Path, name: &OsStr, meta: &Meta) -> anyhow::Result<()> {
        // The caller must be able to fill it, whatever its mode says; the real one comes at the end.
        let open_mode = meta.mode | 0o700;
        let late_mode = (open_mode != meta.mode).then_some(meta.mode);
        let meta = Meta { mode: open_mode, ..meta.clone() };
        let wanted = self.options.wanted(&meta);
        let (fd, new) = loop {
            let (fd, _) = self.folders.enter(dir_of(path))?;
            match rustix::fs::mkdirat(fd, name, Mode::from_raw_mode(open_mode & 0o777)) {
                Ok(()) => break (fd, true),
                Err(Errno::EXIST) => match root::file_type_at(fd, name)? {
                    Some(FileType::Directory) => break (fd, false),
                    _ => self.clear(path, name)?,
                },
                Err(error) => return Err(error.into()),
            }
        };
        let mut stat = rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let known = Known {
            owner: !self.options.owners || (stat.st_uid, stat.st_gid) == (meta.uid, meta.gid),
            mode: stat.st_mode & 0o7777 == meta.mode,
        };
        let mut refused = Refused::default();
        if !new || !known.owner || !known.mode || !wanted.xattrs.is_empty() {
            let dir = folders::open(fd, name)?;
            if !new && self.options.xattrs {
                meta::clear_xattrs(&dir)?;
            }
            refused = meta::write_fd(&dir, &wanted, known)?;
            stat = rustix::fs::fstat(&dir)?;
        }
        self.folders.set(path, &stat, meta.mtime, late_mode);
        self.note(path, &meta, refused);
        Ok(())
    }

    fn root_directory(&mut self, meta: &Meta) -> anyhow::Result<()> {
        let dir = self.folders.root().open_dir(Path::new(""))?;
        if self.options.xattrs {
            meta::clear_xattrs(&dir)?;
        }
        let open_mode = meta.mode | 0o700;
        let wanted = Meta { mode: open_mode, ..self.options.wanted(meta).into_owned() };
        let refused = meta::write_fd(&dir, &wanted, Known { owner: !self.options.owners, mode: false })?;
        let late_mode = (open_mode != meta.mode).then_some(meta.mode);
        self.folders.set(Path::new(""), &rustix::fs::fstat(&dir)?, meta.mtime, late_mode);
        self.note(Path::new(""), meta, refused);
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, name: &OsStr, target: &Path) -> anyhow::Result<()> {
        let missing = || format!("hard link to {}, which is not in the image", target.display());
        let target_name = target.file_name().with_context(missing)?;
        loop {
            let (from, _) = self.links.get(self.folders.root(), dir_of(target)).with_context(missing)?;
            // Borrowed from `links` alone, so that the folder can be entered, and made, meanwhile.
            let from = from.try_clone_to_owned()?;
            let (fd, _) = self.folders.enter(dir_of(path))?;
            match rustix::fs::linkat(&from, target_name, fd, name, AtFlags::empty()) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => return Err(io::Error::from(Errno::NOENT)).with_context(missing),
                Err(Errno::EXIST) => {
                    let inode = |dir: BorrowedFd<'_>, name| {
                        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                        io::Result::Ok((stat.st_dev, stat.st_ino))
                    };
                    // A link to itself: removing what is in the way would remove the file.
                    if inode(std::os::fd::AsFd::as_fd(&from), target_name).with_context(missing)? == inode(fd, name)? {
                        return Ok(());
                    }
                    self.clear(path, name)?;
                }
                Err(error) => {
                    return Err(io::Error::from(error)).with_context(|| format!("hard link to {}", target.display()));
                }
            }
        }
    }

    /// Symlinks and nodes: what is made in one call.
    fn node(&mut self, path: &Path, name: &OsStr, kind: &Kind, meta: &Meta) -> anyhow::Result<()> {
        if !self.options.devices && matches!(kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            self.clear(path, name)?;
            self.lost.devices.add(path);
            return Ok(());
        }
        loop {
            let (fd, folder) = self.folders.enter(dir_of(path))?;
            match make_node(fd, name, kind) {
                Ok(()) => {
                    let known = self.options.known(folder, meta);
                    let refused = meta::write_new(fd, name, kind, &self.options.wanted(meta), known)?;
                    self.note(path, meta, refused);
                    return Ok(());
                }
                Err(Errno::EXIST) => self.clear(path, name)?,
                Err(Errno::PERM) if !matches!(kind, Kind::Symlink { .. }) => {
                    self.clear(path, name)?;
                    self.lost.devices.add(path);
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes what is in the way of a new entry, or hidden.
    fn clear(&mut self, path: &Path, name: &OsStr) -> io::Result<()> {
        let Some(fd) = self.folders.find(dir_of(path))? else { return Ok(()) };
        let kind = root::file_type_at(fd, name)?;
        dir::remove(fd, name)?;
        if !matches!(kind, None | Some(FileType::RegularFile)) {
            self.folders.forget();
            self.links.forget();
        }
        Ok(())
    }

    /// Removes what lower layers have in a directory.
    fn clear_lower(&mut self, dir: &Path) -> io::Result<()> {
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            let Some(fd) = self.folders.find(&dir)? else { continue };
            for (name, kind) in dir::list(fd)? {
                let path = dir.join(&name);
                if !self.made.contains(&path) {
                    self.clear(&path, &name)?;
                } else if kind == FileType::Directory {
                    todo.push(path);
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &Path, meta: &Meta, refused: Refused) {
        if refused.owner.is_some() {
            self.lost.owners.add(path);
        }
        if !refused.xattrs.is_empty() || (!self.options.xattrs && !meta.xattrs.is_empty()) {
            self.lost.xattrs.add(path);
        }
    }
}

impl Target for DirTarget {
    fn start(&mut self) -> anyhow::Result<()> {
        self.made.clear();
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let Entry { path, kind, meta } = entry;
        let Some(name) = path.file_name() else { return self.root_directory(meta) };
        self.made.add(path);
        match kind {
            Kind::File { size } => self.file(path, name, meta, *size, data),
            Kind::Directory => self.directory(path, name, meta),
            Kind::Hardlink { target } => self.hard_link(path, name, target),
            kind => self.node(path, name, kind, meta),
        }
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        let Some(name) = path.file_name() else { anyhow::bail!("whiteout of the root") };
        if self.made.contains(path) {
            return Ok(self.clear_lower(path)?);
        }
        Ok(self.clear(path, name)?)
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        Ok(self.clear_lower(dir)?)
    }
}

impl DirOptions {
    fn wanted<'m>(&self, meta: &'m Meta) -> std::borrow::Cow<'m, Meta> {
        if self.xattrs || meta.xattrs.is_empty() {
            return std::borrow::Cow::Borrowed(meta);
        }
        std::borrow::Cow::Owned(Meta { xattrs: Default::default(), ..meta.clone() })
    }

    fn known(&self, folder: &Folder, meta: &Meta) -> Known {
        Known { owner: !self.owners || folder.owner == Some((meta.uid, meta.gid)), mode: false }
    }
}

fn dir_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Sees on a new file what new files in this folder get without asking.
fn learn(folder: &mut Folder, file: &File, meta: &Meta) -> io::Result<()> {
    /// More different modes than this in one folder are not worth remembering.
    const MODES: usize = 8;
    let stat = rustix::fs::fstat(file)?;
    folder.owner = Some((stat.st_uid, stat.st_gid));
    if stat.st_mode & 0o7777 == meta.mode && folder.modes.len() < MODES {
        folder.modes.push(meta.mode);
    }
    Ok(())
}

fn make_node(dir: BorrowedFd<'_>, name: &OsStr, kind: &Kind) -> Result<(), Errno> {
    let (kind, device) = match kind {
        Kind::Symlink { target } => return rustix::fs::symlinkat(target, dir, name),
        Kind::CharDevice { major, minor } => (FileType::CharacterDevice, rustix::fs::makedev(*major, *minor)),
        Kind::BlockDevice { major, minor } => (FileType::BlockDevice, rustix::fs::makedev(*major, *minor)),
        Kind::Socket => (FileType::Socket, 0),
        _ => (FileType::Fifo, 0),
    };
    rustix::fs::mknodat(dir, name, kind, Mode::RUSR | Mode::WUSR, device)
}

/// Writes content piece by piece as it comes, large zeros as holes.
fn copy(data: &mut dyn BufRead, file: &mut File) -> io::Result<()> {
    /// A block of most file systems: smaller holes save nothing.
    const HOLE: usize = 4096;
    let mut ends_in_hole = false;
    loop {
        let piece = data.fill_buf()?;
        if piece.is_empty() {
            break;
        }
        let length = piece.len();
        ends_in_hole = length >= HOLE && piece.iter().all(|byte| *byte == 0);
        if ends_in_hole {
            file.seek(SeekFrom::Current(length as i64))?;
        } else {
            file.write_all(piece)?;
        }
        data.consume(length);
    }
    if ends_in_hole {
        let length = file.stream_position()?;
        file.set_len(length)?;
    }
    Ok(())
}
