//! What a walk saw, kept small: a record of fixed length for each file, a directory at a time, with the names behind.
//! The first few megabytes stay in memory; the rest of a large context waits in a file without a name, so that memory
//! does not grow with the number of files.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::scan::Stamp;

const NUMBERS: usize = 9;
const RECORD: usize = NUMBERS * 8;

/// Up to here listings stay in memory: some fifty thousand files. Few in tests, so that contexts meet the file too.
const BUDGET: usize = if cfg!(test) { 1 << 10 } else { 4 << 20 };

/// How many listings that were read back are kept: files come in families, for as many threads as there may be.
const MAX_RECENT: usize = 16;

/// Marks beside a mode, which has 32 bits.
const WAY: u64 = 1 << 32;
const LINKED: u64 = 1 << 33;

/// One file of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child<'a> {
    pub name: &'a OsStr,
    pub stamp: Stamp,
    /// A directory that is here only for what is below it, if anything is.
    pub way: bool,
    /// A file that has further names, here or elsewhere.
    pub linked: bool,
}

/// The files of one directory, sorted bytewise.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listing {
    count: usize,
    /// All records, then all names: a record says where its name ends.
    bytes: Box<[u8]>,
}

/// A listing in the making.
pub struct Builder {
    records: Vec<u8>,
    names: Vec<u8>,
}

impl Builder {
    /// With room for so many files.
    pub fn new(count: usize) -> Self {
        Self { records: Vec::with_capacity(count * RECORD), names: Vec::new() }
    }

    /// Adds a file whose name comes after those that are here.
    pub fn add(&mut self, child: Child<'_>) {
        let Child { name, stamp, way, linked } = child;
        self.names.extend_from_slice(name.as_bytes());
        let marks = if way { WAY } else { 0 } | if linked { LINKED } else { 0 };
        let numbers: [u64; NUMBERS] = [
            u64::from(stamp.mode) | marks,
            stamp.device,
            stamp.inode,
            stamp.size,
            stamp.mtime.0 as u64,
            stamp.ctime.0 as u64,
            u64::from(stamp.mtime.1) << 32 | u64::from(stamp.ctime.1),
            stamp.rdev,
            self.names.len() as u64,
        ];
        numbers.iter().for_each(|number| self.records.extend_from_slice(&number.to_le_bytes()));
    }

    pub fn finish(self) -> Listing {
        let Self { mut records, names } = self;
        let count = records.len() / RECORD;
        records.extend_from_slice(&names);
        Listing { count, bytes: records.into() }
    }
}

impl Listing {
    /// Of children that are sorted already.
    pub fn of<'a>(children: impl IntoIterator<Item = Child<'a>>) -> Self {
        let mut listing = Builder::new(0);
        children.into_iter().for_each(|child| listing.add(child));
        listing.finish()
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = Child<'_>> {
        (0..self.count).map(|i| self.child(i))
    }

    pub fn child(&self, i: usize) -> Child<'_> {
        let number = |n: usize| self.number(i, n);
        let (mode, nanos) = (number(0), number(6));
        Child {
            name: self.name(i),
            stamp: Stamp {
                mode: mode as u32,
                device: number(1),
                inode: number(2),
                size: number(3),
                mtime: (number(4) as i64, (nanos >> 32) as u32),
                ctime: (number(5) as i64, nanos as u32),
                rdev: number(7),
            },
            way: mode & WAY != 0,
            linked: mode & LINKED != 0,
        }
    }

    /// Where a name is.
    pub fn find(&self, name: &OsStr) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.name(middle).as_bytes().cmp(name.as_bytes()) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn name(&self, i: usize) -> &OsStr {
        let start = if i == 0 { 0 } else { self.number(i - 1, NUMBERS - 1) as usize };
        let end = self.number(i, NUMBERS - 1) as usize;
        OsStr::from_bytes(&self.bytes[self.count * RECORD..][start..end])
    }

    fn number(&self, i: usize, n: usize) -> u64 {
        let mut number = [0; 8];
        number.copy_from_slice(&self.bytes[i * RECORD + n * 8..][..8]);
        u64::from_le_bytes(number)
    }
}

/// A listing that was put away.
pub struct Kept {
    place: Place,
    count: usize,
    /// A bit for each file: it was asked for extended attributes, and had none.
    bare: Box<[AtomicU8]>,
}

enum Place {
    Memory(Arc<Listing>),
    File { offset: u64, length: usize },
}

impl Kept {
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn is_bare(&self, i: usize) -> bool {
        self.bare[i / 8].load(Ordering::Relaxed) & 1 << (i % 8) != 0
    }

    pub fn set_bare(&self, i: usize) {
        self.bare[i / 8].fetch_or(1 << (i % 8), Ordering::Relaxed);
    }
}

/// Where listings are put away.
pub struct Shelf {
    /// Where a file may be made; none to keep everything in memory.
    dir: Option<PathBuf>,
    budget: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    in_memory: usize,
    file: Option<File>,
    end: u64,
    /// Listings that were read back, by their places, latest first.
    recent: Vec<(u64, Arc<Listing>)>,
}

impl Shelf {
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self { dir, budget: BUDGET, state: Mutex::default() }
    }

    #[cfg(test)]
    pub fn with_budget(dir: Option<PathBuf>, budget: usize) -> Self {
        Self { dir, budget, state: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, listing: Listing) -> Kept {
        let count = listing.count;
        let bare = (0..count.div_ceil(8)).map(|_| AtomicU8::new(0)).collect();
        Kept { place: self.place(listing), count, bare }
    }

    fn place(&self, listing: Listing) -> Place {
        let mut state = self.lock();
        let length = listing.bytes.len();
        if state.in_memory + length > self.budget && length > 0 {
            match self.write(&mut state, &listing.bytes) {
                Ok(offset) => return Place::File { offset, length },
                // Where nothing can be written it costs memory.
                Err(error) => tracing::debug!(%error, "what the context holds stays in memory"),
            }
        }
        state.in_memory += length;
        Place::Memory(Arc::new(listing))
    }

    fn write(&self, state: &mut State, bytes: &[u8]) -> io::Result<u64> {
        if state.file.is_none() {
            let dir = self.dir.as_ref().ok_or(io::ErrorKind::Unsupported)?;
            std::fs::create_dir_all(dir)?;
            state.file = Some(tempfile::tempfile_in(dir)?);
        }
        let file = state.file.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let offset = state.end;
        file.write_all_at(bytes, offset)?;
        state.end += bytes.len() as u64;
        Ok(offset)
    }

    pub fn get(&self, kept: &Kept) -> io::Result<Arc<Listing>> {
        let (offset, length) = match &kept.place {
            Place::Memory(listing) => return Ok(Arc::clone(listing)),
            Place::File { offset, length } => (*offset, *length),
        };
        let mut state = self.lock();
        if let Some(i) = state.recent.iter().position(|(known, _)| *known == offset) {
            state.recent[..=i].rotate_right(1);
            return Ok(Arc::clone(&state.recent[0].1));
        }
        let mut bytes = vec![0; length];
        state.file.as_ref().ok_or(io::ErrorKind::NotFound)?.read_exact_at(&mut bytes, offset)?;
        let listing = Arc::new(Listing { count: kept.count, bytes: bytes.into() });
        state.recent.truncate(MAX_RECENT - 1);
        state.recent.insert(0, (offset, Arc::clone(&listing)));
        Ok(listing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn child(name: &str, n: u64) -> Child<'_> {
        let stamp = Stamp {
            mode: 0o100_644 + n as u32,
            device: n + 1,
            inode: u64::MAX - n,
            size: n << 33,
            mtime: (-(n as i64), 999_999_999),
            ctime: (i64::MAX - n as i64, n as u32),
            rdev: n + 2,
        };
        Child { name: OsStr::new(name), stamp, way: n % 2 == 1, linked: n % 3 == 1 }
    }

    #[test]
    fn what_is_put_away_comes_back_from_memory_and_from_a_file() {
        let tmp = tempfile::tempdir().unwrap();
        let names = ["a", "a.b", "ab", "b\u{fc}", "\u{fc}"];
        let children: Vec<Child<'_>> = names.iter().zip(0..).map(|(name, n)| child(name, n)).collect();
        let of = |count: usize| Listing::of(children[..count].iter().copied());
        let cases = [
            (Shelf::new(None), "memory"),
            (Shelf::with_budget(Some(tmp.path().join("new")), 0), "a file"),
            (Shelf::with_budget(Some(tmp.path().into()), 500), "some of both"),
            (Shelf::with_budget(Some("/proc/none".into()), 0), "memory, since no file can be made"),
            (Shelf::with_budget(None, 0), "memory, since no file may be made"),
        ];
        for (shelf, place) in cases {
            let kept: Vec<Kept> = (0..100).map(|i| shelf.put(of(i % 6))).collect();
            for i in (0..100).chain(40..60).rev() {
                let listing = shelf.get(&kept[i]).unwrap();
                assert_eq!(listing.iter().collect::<Vec<_>>(), children[..i % 6], "{place}");
                assert_eq!(kept[i].is_empty(), i % 6 == 0, "{place}");
            }
            let file = shelf.lock().file.is_some();
            assert_eq!(file, matches!(place, "a file" | "some of both"), "{place}");
        }
    }

    #[test]
    fn names_are_found_and_others_are_not() {
        let listing = Listing::of([child("a", 0), child("b", 1), child("bb", 2)]);
        for (name, found) in [("a", Some(0)), ("b", Some(1)), ("bb", Some(2)), ("", None), ("ba", None), ("c", None)] {
            assert_eq!(listing.find(OsStr::new(name)), found, "{name}");
        }
        assert_eq!(Listing::of([]).find(OsStr::new("a")), None);
    }

    #[test]
    fn a_file_without_attributes_is_told_from_its_neighbours() {
        let kept = Shelf::new(None).put(Listing::of((0..20).map(|n| child("x", n))));
        kept.set_bare(9);
        assert!((0..20).all(|i| kept.is_bare(i) == (i == 9)));
    }
}
