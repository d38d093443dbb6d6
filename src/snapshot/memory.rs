//! A delta in memory: the index of a layer that was only read through, and the second implementation that keeps the
//! first one honest in tests.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::delta::{Answer, Data, Delta, Name, Upper};
use super::tree::{FileData, Node};
use crate::sys::{Kind, Meta};

/// Which contents are kept; the others can only be read from the layer itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// The user database, which `--chown=name` asks for: no layer should be unpacked for it.
    Users,
    /// Everything.
    #[cfg(test)]
    All,
}

/// No user database worth keeping is longer.
const MAX_KEPT: u64 = 256 << 10;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub kind: Slot,
    pub meta: Meta,
    pub content: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Slot {
    /// A directory that was made to hold something; what is known of it is another layer's.
    #[default]
    Implied,
    Whiteout,
    Node(Kind),
}

#[derive(Debug, Default)]
struct Place {
    /// Into `entries`: two names of one file have one entry.
    entry: usize,
    opaque: bool,
    children: BTreeMap<OsString, Place>,
}

#[derive(Debug, Default)]
struct Inner {
    root: Place,
    entries: Vec<Entry>,
}

/// A delta that is a table.
pub(super) struct MemoryDelta {
    inner: Mutex<Inner>,
    keep: Keep,
    /// Stands for the device number, so that inodes of two tables never look equal.
    device: u64,
}

/// One line of the table, for writing it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub path: std::path::PathBuf,
    pub entry: usize,
    pub opaque: bool,
}

impl MemoryDelta {
    pub fn new(device: u64, keep: Keep) -> Self {
        let inner = Inner { root: Place::default(), entries: vec![Entry::default()] };
        Self { inner: Mutex::new(inner), keep, device }
    }

    /// The whole table: entries, and the names they have, parents first.
    pub fn lines(&self) -> (Vec<Entry>, Vec<Line>) {
        fn walk(place: &Place, path: &Path, lines: &mut Vec<Line>) {
            lines.push(Line { path: path.to_owned(), entry: place.entry, opaque: place.opaque });
            for (name, child) in &place.children {
                walk(child, &path.join(name), lines);
            }
        }
        let inner = self.lock();
        let mut lines = Vec::new();
        walk(&inner.root, Path::new(""), &mut lines);
        (inner.entries.clone(), lines)
    }

    /// A table from what [`MemoryDelta::lines`] gave; none when it does not hang together.
    pub fn from_lines(device: u64, keep: Keep, entries: Vec<Entry>, lines: Vec<Line>) -> Option<Self> {
        let mut root = Place::default();
        for line in lines {
            if line.entry >= entries.len() {
                return None;
            }
            let mut place = &mut root;
            let mut names = line.path.iter().peekable();
            while let Some(name) = names.next() {
                place = match names.peek() {
                    Some(_) => place.children.get_mut(name)?,
                    None => place.children.entry(name.to_owned()).or_default(),
                };
            }
            place.entry = line.entry;
            place.opaque = line.opaque;
        }
        Some(Self { inner: Mutex::new(Inner { root, entries }), keep, device })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keeps(&self, path: &Path, size: u64) -> bool {
        match self.keep {
            Keep::Users => is_of_users(path, size),
            #[cfg(test)]
            Keep::All => true,
        }
    }

    fn insert(&self, path: &Path, entry: Entry) -> io::Result<()> {
        let mut inner = self.lock();
        let index = inner.entries.len();
        let (parent, name) = parent_mut(&mut inner.root, path)?;
        if parent.children.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        parent.children.insert(name.to_owned(), Place { entry: index, ..Place::default() });
        inner.entries.push(entry);
        Ok(())
    }
}

/// Whether a file is one of the user database's, and worth keeping.
pub(super) fn is_of_users(path: &Path, size: u64) -> bool {
    size <= MAX_KEPT && (path == Path::new("etc/passwd") || path == Path::new("etc/group"))
}

fn parent_mut<'a, 'p>(root: &'a mut Place, path: &'p Path) -> io::Result<(&'a mut Place, &'p OsStr)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let parent = path.parent().unwrap_or(Path::new(""));
    Ok((place_mut(root, parent)?, name))
}

fn place_mut<'a>(root: &'a mut Place, path: &Path) -> io::Result<&'a mut Place> {
    path.iter().try_fold(root, |place, name| place.children.get_mut(name).ok_or(io::ErrorKind::NotFound.into()))
}

impl Delta for MemoryDelta {
    fn find(&self, path: &Path) -> io::Result<Answer> {
        let inner = self.lock();
        let mut place = &inner.root;
        let mut alone = place.opaque;
        for name in path.iter() {
            if !matches!(inner.entries[place.entry].kind, Slot::Implied | Slot::Node(Kind::Directory)) {
                return Ok(Answer { node: None, alone: true });
            }
            match place.children.get(name) {
                Some(child) => place = child,
                None => return Ok(Answer { node: None, alone }),
            }
            alone |= place.opaque;
        }
        let entry = &inner.entries[place.entry];
        Ok(match &entry.kind {
            Slot::Implied => Answer { node: None, alone },
            Slot::Whiteout => Answer { node: None, alone: true },
            Slot::Node(kind) => {
                let alone = alone || *kind != Kind::Directory;
                let inode = matches!(kind, Kind::File { .. }).then_some((self.device, place.entry as u64));
                Answer { node: Some(Node { kind: kind.clone(), meta: entry.meta.clone(), inode }), alone }
            }
        })
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<Name>> {
        let mut inner = self.lock();
        let Inner { root, entries } = &mut *inner;
        let place = place_mut(root, dir)?;
        Ok(place
            .children
            .iter()
            .map(|(name, child)| match entries[child.entry].kind {
                Slot::Whiteout => Name::Whiteout(name.clone()),
                Slot::Implied | Slot::Node(_) => Name::Entry(name.clone()),
            })
            .collect())
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        let mut inner = self.lock();
        let entry = place_mut(&mut inner.root, path)?.entry;
        match &inner.entries[entry].content {
            Some(content) => Ok(FileData::Stream(Box::new(Cursor::new(content.clone())))),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Upper for MemoryDelta {
    fn make_dir(&self, path: &Path) -> io::Result<()> {
        self.insert(path, Entry { kind: Slot::Node(Kind::Directory), ..Entry::default() })
    }

    fn make_file(&self, path: &Path, meta: &Meta, size: u64, data: Data<'_>) -> io::Result<()> {
        let content = if self.keeps(path, size) {
            let mut bytes = Vec::new();
            match data {
                Data::File(mut file) => file.read_to_end(&mut bytes)?,
                Data::Read(read) => read.read_to_end(&mut bytes)?,
            };
            Some(bytes)
        } else {
            None
        };
        self.remove(path)?;
        self.insert(path, Entry { kind: Slot::Node(Kind::File { size }), meta: meta.clone(), content })
    }

    fn make_special(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        self.remove(path)?;
        self.insert(path, Entry { kind: Slot::Node(kind.clone()), meta: meta.clone(), content: None })
    }

    fn link(&self, existing: &Path, new: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        let entry = place_mut(&mut inner.root, existing)?.entry;
        let (parent, name) = parent_mut(&mut inner.root, new)?;
        parent.children.insert(name.to_owned(), Place { entry, ..Place::default() });
        Ok(())
    }

    fn set_meta(&self, path: &Path, kind: &Kind, meta: &Meta) -> io::Result<()> {
        let mut inner = self.lock();
        let entry = place_mut(&mut inner.root, path)?.entry;
        // Both names of a file get the metadata, as on disk; a directory that was implied is known now.
        let entry = &mut inner.entries[entry];
        entry.meta = meta.clone();
        if *kind == Kind::Directory {
            entry.kind = Slot::Node(Kind::Directory);
        }
        Ok(())
    }

    fn set_opaque(&self, dir: &Path) -> io::Result<()> {
        place_mut(&mut self.lock().root, dir)?.opaque = true;
        Ok(())
    }

    fn whiteout(&self, path: &Path) -> io::Result<()> {
        self.insert(path, Entry { kind: Slot::Whiteout, ..Entry::default() })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut inner = self.lock();
        match parent_mut(&mut inner.root, path) {
            Ok((parent, name)) => {
                parent.children.remove(name);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}
