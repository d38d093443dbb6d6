//! A look at what stat says of files: at a whole root file system, in parallel, or at single directories.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustix::fs::{AtFlags, Mode, RawDir};

use super::stamps::{Listing, Stamp, Stamps};
use crate::base::{Cancel, spread};
use crate::sys::{Root, Watch, dir};

pub(super) struct Look<'a> {
    /// Where it is.
    path: &'a Path,
    root: Root,
    /// An earlier look: directories that are as they were then need not be listed.
    before: Option<&'a Stamps>,
    /// From now on told of all that is new; it has been of the rest since the look before.
    watch: Option<Arc<Watch>>,
    /// Nothing has been watched since that look.
    anew: bool,
    /// It could not be told of all of it.
    is_unwatched: AtomicBool,
    /// When it began.
    now: SystemTime,
    cancel: &'a Cancel,
}

impl<'a> Look<'a> {
    pub fn new(
        path: &'a Path,
        before: Option<&'a Stamps>,
        watch: Option<Arc<Watch>>,
        cancel: &'a Cancel,
    ) -> io::Result<Self> {
        Ok(Self {
            path,
            root: Root::open(path)?,
            before,
            watch,
            anew: false,
            is_unwatched: AtomicBool::default(),
            now: SystemTime::now(),
            cancel,
        })
    }

    /// Watches all there is, not only what is new.
    pub fn watching_all(self) -> Self {
        Self { anew: true, ..self }
    }

    /// Looks at all there is.
    pub fn everything(self) -> io::Result<Stamps> {
        let root = self.root()?;
        let as_it_was = self.before.is_some_and(|before| before.root.proves(root));
        let parts = spread((PathBuf::new(), as_it_was), &|job, below, found| self.list(job, below, found))?;
        let watch = self.watch.filter(|_| !self.is_unwatched.into_inner());
        Ok(Stamps { root, dirs: parts.into_iter().flatten().collect(), watch })
    }

    /// Looks at the root directory itself.
    pub fn root(&self) -> io::Result<Stamp> {
        Ok(Stamp::of(&rustix::fs::fstat(self.root.fd())?, self.now))
    }

    /// Looks at one directory; with whether it is known to hold the names that it held before.
    fn list(
        &self,
        (path, as_it_was): (PathBuf, bool),
        below: &mut VecDeque<(PathBuf, bool)>,
        found: &mut Vec<(PathBuf, Box<Listing>)>,
    ) -> io::Result<()> {
        let before = self.before.map_or(&[] as &Listing, |before| before.in_dir(&path));
        if !as_it_was || self.anew {
            self.watch(&path);
        }
        let (dir, names) = self.open(&path, as_it_was.then_some(before))?;
        let mut listing = Vec::with_capacity(names.len());
        let mut known = before.iter();
        for name in names {
            let (name, stamp) = self.at(&dir, name)?;
            if stamp.is_dir {
                let before = known.find(|(known, _)| known.as_bytes() >= name.as_bytes());
                let as_it_was = before.is_some_and(|(known, before)| *known == name && before.proves(stamp));
                below.push_back((path.join(&*name), as_it_was));
            }
            listing.push((name, stamp));
        }
        found.push((path, listing.into()));
        Ok(())
    }

    /// Looks at one directory alone.
    pub fn directory(&self, path: &Path) -> io::Result<Box<Listing>> {
        let (dir, names) = self.open(path, None)?;
        names.into_iter().map(|name| self.at(&dir, name)).collect()
    }

    /// Opens a directory; with the names that are in it, which may be known.
    fn open(&self, path: &Path, known: Option<&Listing>) -> io::Result<(OwnedFd, Vec<Arc<OsStr>>)> {
        self.cancel.check().map_err(io::Error::other)?;
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        // Nobody works in here now: what was a directory a moment ago is none that leads elsewhere.
        let dir = rustix::fs::openat(self.root.fd(), here, dir::READ, Mode::empty())?;
        let names = match known {
            Some(known) => known.iter().map(|(name, _)| Arc::clone(name)).collect(),
            None => names(&dir)?,
        };
        Ok((dir, names))
    }

    fn at(&self, dir: &OwnedFd, name: Arc<OsStr>) -> io::Result<(Arc<OsStr>, Stamp)> {
        let stat = rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((name, Stamp::of(&stat, self.now)))
    }

    fn watch(&self, path: &Path) {
        // Who cannot be told of one directory need not be told of any.
        if let Some(watch) = self.watch.as_ref().filter(|_| !self.is_unwatched.load(Ordering::Relaxed))
            && watch.add(&self.path.join(path), path).is_err()
        {
            self.is_unwatched.store(true, Ordering::Relaxed);
        }
    }
}

/// The names in an open directory, sorted bytewise.
fn names(dir: &OwnedFd) -> io::Result<Vec<Arc<OsStr>>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(Arc::from(OsStr::from_bytes(name)));
        }
    }
    names.sort_unstable_by(|a: &Arc<OsStr>, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}
