//! A build context on this machine, read in place: nothing is copied, and what nobody asks for is not looked at.

mod digests;
mod follow;
mod listing;
mod scan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::base::patterns::Matcher;
use crate::base::{Cancel, Digest};
use crate::snapshot::{FileData, Node, Tree};
use crate::sys::{Kind, LastDirs, Meta, Mtime, Root, meta, quiet};
use digests::Digests;
use scan::{Scan, Seen, Stamp};

/// Which part of a directory is the context, as LLB's local source has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalOptions {
    /// Patterns of what is in it; empty for everything.
    pub include: Vec<String>,
    /// Patterns of what is not (`.dockerignore`).
    pub exclude: Vec<String>,
    /// Paths that are in it with what their symlinks lead to; empty for everything.
    pub follow: Vec<String>,
    /// Where digests of files are remembered between runs; none to remember nothing.
    pub cache: Option<PathBuf>,
}

/// A directory of the host as a tree. As every builder does, it shows all files as owned by 0:0, so that images do not
/// depend on who built them.
///
/// What is in it is decided once, by a walk at the first question; contents are read when they are asked for.
pub struct LocalContext {
    root: Root,
    exclude: Matcher,
    include: Matcher,
    follow: Vec<String>,
    scan: OnceLock<Scan>,
    scanning: Mutex<()>,
    dirs: LastDirs,
    digests: Digests,
    cache: Option<PathBuf>,
}

impl LocalContext {
    pub fn open(dir: &Path, options: LocalOptions) -> io::Result<Self> {
        let patterns = |patterns: &[String]| {
            Matcher::new(patterns).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
        };
        Ok(Self {
            root: Root::open(dir).map_err(|error| at(dir, error))?,
            exclude: patterns(&options.exclude)?,
            include: patterns(&options.include)?,
            follow: options.follow,
            scan: OnceLock::new(),
            scanning: Mutex::new(()),
            dirs: LastDirs::default(),
            digests: Digests::new(options.cache.as_deref(), dir),
            cache: options.cache,
        })
    }

    /// Changes whenever a file of the context changes, by one walk that reads no file: names, types, modes, sizes,
    /// times and inodes. The bytes of files that changed a moment ago count too, because the next change could leave
    /// the same times.
    pub fn identity(&self, cancel: &Cancel) -> io::Result<Digest> {
        self.scan(cancel)?.identity(|path| self.file_digest(path))
    }

    /// Changes whenever a file does that may have kept its size and mtime in doing so; none where no file could have.
    /// For an engine elsewhere, which compares no more than those two with what it has from before.
    pub fn behind_mtimes(&self, cancel: &Cancel) -> io::Result<Option<Digest>> {
        self.scan(cancel)?.behind_mtimes()
    }

    /// The digest of a regular file's bytes, remembered for as long as its stat stays the same.
    pub fn file_digest(&self, path: &Path) -> io::Result<Digest> {
        let stamp = self.scan(&Cancel::new())?.find(path)?.ok_or(io::ErrorKind::NotFound)?.stamp;
        if !stamp.is_file() {
            return Err(at(path, io::ErrorKind::InvalidInput.into()));
        }
        self.digests.of(&stamp, || self.open_file(path)).map_err(|error| at(path, error))
    }

    /// For a path that is not in the tree: the exclude pattern that hides it, if one does and the host has it.
    pub fn hidden_by(&self, path: &Path) -> Option<String> {
        self.root.locate(path, false).ok()?;
        let pattern = self.exclude.decisive(&path.to_string_lossy())?;
        (!pattern.is_exclusion()).then(|| pattern.text().to_owned())
    }

    fn scan(&self, cancel: &Cancel) -> io::Result<&Scan> {
        if let Some(scan) = self.scan.get() {
            return Ok(scan);
        }
        // Those who ask meanwhile wait for the one walk; a failed one is tried again by the next who asks.
        let _one = self.scanning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(scan) = self.scan.get() {
            return Ok(scan);
        }
        let follow = follow::follow(&self.root, &self.follow)?;
        let filter = scan::Filter { exclude: &self.exclude, include: &self.include, follow: follow.as_ref() };
        let scan = Scan::of(&self.root, &filter, self.cache.clone(), cancel)?;
        Ok(self.scan.get_or_init(|| scan))
    }

    /// Gives the directory that holds a path, by descriptor, and the last name.
    fn beside<T>(
        &self,
        path: &Path,
        ask: impl FnOnce(std::os::fd::BorrowedFd<'_>, &OsStr) -> io::Result<T>,
    ) -> io::Result<T> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let dir = self.dirs.get(path.parent().unwrap_or(Path::new("")), || Ok(self.root.parent(path)?.0))?;
        ask(dir.as_fd(), name)
    }

    /// A regular file as the walk saw it: a copy asks for each twice, and most have no extended attributes.
    fn file(&self, path: &Path, seen: &Seen<'_>) -> io::Result<Node> {
        let Stamp { mode, device, inode, size, mtime: (seconds, nanos), .. } = seen.stamp;
        let kind = Kind::File { size };
        let mut xattrs = BTreeMap::new();
        if !seen.is_bare() {
            xattrs = self.beside(path, |dir, name| meta::read_xattrs(dir, name, &kind))?;
            if xattrs.is_empty() {
                seen.set_bare();
            }
        }
        let meta = Meta { mode: mode & 0o7777, uid: 0, gid: 0, mtime: Mtime { seconds, nanos }, xattrs };
        Ok(node(meta::Found { kind, meta, inode: (device, inode), links: if seen.linked { 2 } else { 1 } }))
    }

    /// In one call, since the walk saw a regular file there. The last name is not followed.
    fn open_file(&self, path: &Path) -> io::Result<File> {
        self.beside(path, |dir, name| Ok(quiet::open_in(dir, name)?.into()))
    }
}

impl Tree for LocalContext {
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>> {
        let scan = self.scan(&Cancel::new())?;
        if path.as_os_str().is_empty() {
            // Whoever made the directory, and with whatever umask: in a build it is a root directory like any other.
            let mut root = node(meta::read_fd(self.root.fd())?);
            root.meta.mode = 0o755;
            root.meta.xattrs.clear();
            return Ok(Some(root));
        }
        let Some(seen) = scan.find(path)? else { return Ok(None) };
        if seen.stamp.is_file() {
            return self.file(path, &seen).map(Some).map_err(|error| at(path, error));
        }
        let found = self.beside(path, |dir, name| meta::read(dir, name)).map_err(|error| at(path, error))?;
        Ok(found.map(node))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let names = self.scan(&Cancel::new())?.names(path)?;
        names.ok_or_else(|| at(path, io::ErrorKind::NotADirectory.into()))
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        match self.scan(&Cancel::new())?.find(path)? {
            None => Err(at(path, io::ErrorKind::NotFound.into())),
            Some(seen) if seen.stamp.is_file() => {
                Ok(FileData::File(self.open_file(path).map_err(|error| at(path, error))?))
            }
            Some(_) => Err(at(path, io::ErrorKind::InvalidInput.into())),
        }
    }

    fn digest(&self, path: &Path) -> io::Result<Digest> {
        self.file_digest(path)
    }
}

/// As the image is to see a file of the host: what depends on the host stays behind.
fn node(found: meta::Found) -> Node {
    let meta::Found { kind, mut meta, inode, links } = found;
    (meta.uid, meta.gid) = (0, 0);
    // ACLs name users of the host, and a directory's default ACL marks whatever is made below it.
    meta.xattrs.retain(|name, _| name.as_bytes().starts_with(b"user.") || name == "security.capability");
    let inode = (links > 1 && !matches!(kind, Kind::Directory)).then_some(inode);
    Node { kind, meta, inode }
}

fn at(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
