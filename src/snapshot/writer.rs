//! Writing a delta: every change goes to the delta alone, on the understanding of what lies below it.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::delta::{Answer, Data, Delta, Name, Stack, Upper, default_root};
use super::pool::{Job, Pool};
use super::tree::{FileData, Node, Tree, resolve};
use crate::layer::{Entry, Target};
use crate::sys::{Kind, Meta, Mtime};

/// Writes one delta over the layers below it.
///
/// Paths are relative, normalised, and taken as they are: no symlink in them is followed ([`DeltaWriter::resolve`] does
/// that). Only the [`Target`] calls resolve parents, as an archive means them.
pub struct DeltaWriter {
    upper: Arc<Pending>,
    below: Arc<dyn Tree>,
    tree: Stack,
    /// Directories that the delta has, and whether those below it show through.
    dirs: HashMap<PathBuf, Through>,
    pool: Pool,
}

/// Whether the layers below have a visible directory at the same path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Through {
    Merged,
    /// Nothing below: no name in here needs to be looked up there.
    Alone,
}

impl DeltaWriter {
    pub(super) fn new(upper: Arc<dyn Upper>, below: Arc<dyn Tree>) -> Self {
        let upper = Arc::new(Pending { upper, dirs: Mutex::default() });
        let tree = Stack::over(Arc::clone(&upper) as Arc<dyn Delta>, Arc::clone(&below));
        let dirs = HashMap::from([(PathBuf::new(), Through::Merged)]);
        Self { pool: Pool::new(Arc::clone(&upper.upper)), upper, below, tree, dirs }
    }

    /// The state so far: what lies below with what was written.
    pub fn tree(&self) -> &dyn Tree {
        &self.tree
    }

    pub fn lookup(&self, path: &Path) -> io::Result<Option<Node>> {
        // The layers below need not be asked about a directory that they do not have.
        if let Some(parent) = path.parent()
            && self.dirs.get(parent) == Some(&Through::Alone)
        {
            return Ok(self.upper.find(path)?.node);
        }
        self.tree.lookup(path)
    }

    /// Whether a directory is at the path.
    pub fn is_dir(&self, path: &Path) -> io::Result<bool> {
        // All that such a directory has was made by this writer, which remembers its directories.
        if path.parent().is_some_and(|parent| self.dirs.get(parent) == Some(&Through::Alone)) {
            return Ok(self.dirs.contains_key(path));
        }
        Ok(self.lookup(path)?.is_some_and(|node| node.is_dir()))
    }

    /// Resolves symlinks in the state so far; see [`resolve`].
    pub fn resolve(&self, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
        resolve(&self.tree, path, follow_last)
    }

    /// Makes anything but a regular file or a hard link. What is in its way is removed, except that a directory stays
    /// one and gets the metadata.
    pub fn make(&mut self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        match kind {
            Kind::Directory => self.make_dir(path, meta),
            Kind::File { .. } | Kind::Hardlink { .. } => Err(io::ErrorKind::InvalidInput.into()),
            _ => {
                self.clear(path)?;
                self.upper.upper.make_special(path, kind, meta)
            }
        }
    }

    /// Makes a regular file of `size` bytes, replacing what is in its way.
    pub fn file(&mut self, path: &Path, meta: &Meta, size: u64, data: FileData) -> io::Result<()> {
        self.clear(path)?;
        match data {
            FileData::File(file) => self.upper.upper.make_file(path, meta, size, Data::File(&file)),
            FileData::Stream(mut stream) => self.upper.upper.make_file(path, meta, size, Data::Read(&mut stream)),
        }
    }

    /// As [`DeltaWriter::file`], done some time before [`DeltaWriter::flush`] on another thread. Until then the path
    /// must not be touched again.
    pub fn file_later(
        &mut self,
        path: &Path,
        meta: Meta,
        size: u64,
        open: impl FnOnce() -> io::Result<FileData> + Send + 'static,
    ) -> io::Result<()> {
        self.clear(path)?;
        self.pool.add(Job { path: path.to_owned(), meta, size, open: Box::new(open) })
    }

    /// Waits for all files; the first error is the answer.
    pub fn flush(&mut self) -> io::Result<()> {
        self.pool.flush()
    }

    /// Gives a file a further name. `existing` may be a file of the layers below: it is copied up first, since a link
    /// cannot lead out of its delta.
    pub fn link(&mut self, existing: &Path, new: &Path) -> io::Result<()> {
        self.flush()?;
        let node = self.lookup(existing)?.ok_or(io::ErrorKind::NotFound)?;
        if node.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if existing == new {
            return Ok(());
        }
        if self.upper.find(existing)?.node.is_none() {
            self.copy_up(existing, &node)?;
        }
        self.clear(new)?;
        self.upper.upper.link(existing, new)
    }

    /// Removes a name and all below it. Ok when nothing was there.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.flush()?;
        if self.lookup(path)?.is_none() {
            return Ok(());
        }
        if path.as_os_str().is_empty() {
            return Err(io::Error::other("the root directory cannot be removed"));
        }
        let through = self.enter(path.parent().unwrap_or(Path::new("")))?;
        self.drop_upper(path)?;
        if through == Through::Merged && self.below.lookup(path)?.is_some() {
            self.upper.upper.whiteout(path)?;
        }
        Ok(())
    }

    /// Changes the metadata of what is there, which is copied up when it is below.
    pub fn set_meta(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        self.flush()?;
        let node = self.lookup(path)?.ok_or(io::ErrorKind::NotFound)?;
        if node.is_dir() {
            self.enter(path)?;
            self.upper.later(path, meta);
            return Ok(());
        }
        if self.upper.find(path)?.node.is_none() {
            self.copy_up(path, &node)?;
        }
        self.upper.upper.set_meta(path, &node.kind, meta)
    }

    /// Waits for all files and gives directories their metadata, which making things in them had changed.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.upper.settle()
    }

    fn make_dir(&mut self, path: &Path, meta: &Meta) -> io::Result<()> {
        if self.dirs.contains_key(path) {
            self.upper.later(path, meta);
            return Ok(());
        }
        let parent = self.enter(path.parent().unwrap_or(Path::new("")))?;
        let below = match parent {
            Through::Merged => self.below.lookup(path)?.filter(Node::is_dir),
            Through::Alone => None,
        };
        let mut through = if below.is_some() { Through::Merged } else { Through::Alone };
        if let Err(error) = self.upper.upper.make_dir(path) {
            if error.kind() != io::ErrorKind::AlreadyExists {
                return Err(error);
            }
            // A whiteout or a file: what it hid stays hidden.
            self.drop_upper(path)?;
            self.upper.upper.make_dir(path)?;
            if through == Through::Merged {
                self.upper.upper.set_opaque(path)?;
            }
            through = Through::Alone;
        }
        self.dirs.insert(path.to_owned(), through);
        self.upper.later(path, meta);
        Ok(())
    }

    /// Makes sure that the delta has the directory, with the metadata it has below.
    fn enter(&mut self, path: &Path) -> io::Result<Through> {
        if let Some(through) = self.dirs.get(path) {
            return Ok(*through);
        }
        let parent = path.parent().unwrap_or(Path::new(""));
        let above = self.enter(parent)?;
        if let Some(node) = self.upper.find(path)?.node {
            return if node.is_dir() { Ok(Through::Merged) } else { Err(io::ErrorKind::NotADirectory.into()) };
        }
        let node = match above {
            Through::Merged => self.tree.lookup(path)?,
            Through::Alone => None,
        };
        match node {
            None => Err(io::ErrorKind::NotFound.into()),
            Some(node) if !node.is_dir() => Err(io::ErrorKind::NotADirectory.into()),
            Some(node) => {
                self.upper.upper.make_dir(path)?;
                self.upper.later(path, &node.meta);
                self.dirs.insert(path.to_owned(), Through::Merged);
                Ok(Through::Merged)
            }
        }
    }

    /// Makes room for something that is no directory: the delta replaces what else it has there. What is below needs no
    /// whiteout, it will be covered.
    fn clear(&mut self, path: &Path) -> io::Result<()> {
        let Some(parent) = path.parent() else { return Err(io::ErrorKind::IsADirectory.into()) };
        self.enter(parent)?;
        if self.dirs.contains_key(path) { self.drop_upper(path) } else { Ok(()) }
    }

    fn drop_upper(&mut self, path: &Path) -> io::Result<()> {
        if self.dirs.contains_key(path) {
            self.flush()?;
            self.dirs.retain(|dir, _| !dir.starts_with(path));
            self.upper.drop_later(path);
        }
        self.upper.upper.remove(path)
    }

    fn copy_up(&mut self, path: &Path, node: &Node) -> io::Result<()> {
        match &node.kind {
            Kind::File { size } => {
                let data = self.below.open(path)?;
                self.file(path, &node.meta, *size, data)
            }
            kind => self.make(path, kind, &node.meta),
        }
    }

    /// The path that an archive's entry means: its folders' symlinks followed, missing folders made.
    pub(super) fn land(&mut self, path: &Path) -> io::Result<PathBuf> {
        let Some(name) = path.file_name() else { return Ok(PathBuf::new()) };
        let parent = path.parent().unwrap_or(Path::new(""));
        if self.dirs.contains_key(parent) {
            return Ok(path.to_owned());
        }
        let parent = self.resolve(parent, true)?;
        self.make_parents(&parent)?;
        Ok(parent.join(name))
    }

    fn make_parents(&mut self, path: &Path) -> io::Result<()> {
        match self.enter(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other.map(drop),
        }
        if let Some(parent) = path.parent() {
            self.make_parents(parent)?;
        }
        // No layer says who owns it or when it was made: as little as can be.
        let meta = Meta { mode: 0o755, mtime: Mtime::default(), ..Meta::default() };
        self.make_dir(path, &meta)
    }
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> anyhow::Error + '_ {
    move |error| anyhow::Error::new(error).context(format!("/{}", path.display()))
}

impl Target for DeltaWriter {
    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let apply = || -> io::Result<()> {
            let path = self.land(&entry.path)?;
            match &entry.kind {
                Kind::Directory => self.make_dir(&path, &entry.meta),
                Kind::File { size } => {
                    self.clear(&path)?;
                    self.upper.upper.make_file(&path, &entry.meta, *size, Data::Read(&mut io::Read::take(data, *size)))
                }
                Kind::Hardlink { target } => {
                    let target = self.resolve(target, false)?;
                    self.link(&target, &path).map_err(|error| {
                        io::Error::new(error.kind(), format!("hard link to /{}: {error}", target.display()))
                    })
                }
                kind => self.make(&path, kind, &entry.meta),
            }
        };
        apply().map_err(named(&entry.path))
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut apply = || -> io::Result<()> {
            let parent = path.parent().unwrap_or(Path::new(""));
            let parent = self.resolve(parent, true)?;
            let path = parent.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
            // What this very layer made is spared; a directory of its own stops showing what is below.
            if self.dirs.contains_key(&path) {
                return self.hide_below(&path);
            }
            match self.enter(&parent) {
                Ok(_) => {}
                // Nothing there to hide.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            match self.upper.upper.whiteout(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                other => other,
            }
        };
        apply().map_err(named(path))
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        let mut apply = || -> io::Result<()> {
            let dir = self.resolve(dir, true)?;
            match self.enter(&dir) {
                Ok(_) => self.hide_below(&dir),
                // Nothing there to hide.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(()),
                Err(error) => Err(error),
            }
        };
        apply().map_err(named(dir))
    }
}

impl DeltaWriter {
    fn hide_below(&mut self, dir: &Path) -> io::Result<()> {
        if self.dirs.get(dir) == Some(&Through::Alone) {
            return Ok(());
        }
        self.upper.upper.set_opaque(dir)?;
        for (path, through) in &mut self.dirs {
            if path.starts_with(dir) {
                *through = Through::Alone;
            }
        }
        Ok(())
    }
}

/// A delta in the making: its directories get their metadata last, and look as if they had it.
struct Pending {
    upper: Arc<dyn Upper>,
    dirs: Mutex<BTreeMap<PathBuf, Meta>>,
}

impl Pending {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, Meta>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self, path: &Path, meta: &Meta) {
        self.lock().insert(path.to_owned(), meta.clone());
    }

    fn drop_later(&self, path: &Path) {
        self.lock().retain(|dir, _| !dir.starts_with(path));
    }

    fn settle(&self) -> io::Result<()> {
        let dirs = std::mem::take(&mut *self.lock());
        // Children first: setting a child's metadata does not touch its parent, but a parent's mode may shut us out.
        for (path, meta) in dirs.iter().rev() {
            self.upper
                .set_meta(path, &Kind::Directory, meta)
                .map_err(|error| io::Error::new(error.kind(), format!("metadata of /{}: {error}", path.display())))?;
        }
        Ok(())
    }
}

impl Delta for Pending {
    fn find(&self, path: &Path) -> io::Result<Answer> {
        let mut answer = self.upper.find(path)?;
        if let Some(meta) = self.lock().get(path) {
            let node = answer.node.get_or_insert_with(default_root);
            node.meta = meta.clone();
        }
        Ok(answer)
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<Name>> {
        self.upper.names(dir)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.upper.open(path)
    }
}
