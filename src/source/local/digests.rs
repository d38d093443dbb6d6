//! Digests of files, remembered by what stat says of them: a file that was hashed once is not read again to know
//! that it is the same.
//!
//! One file for each context: a magic line, then records of fixed length, appended. A record that is torn or damaged
//! is passed over; a lost one costs a hash. Memory holds where records are, and the few that were asked for last.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::scan::Stamp;
use crate::base::{Digest, Hasher};

/// With the layout of records in its name: another layout is another file content, and starts over.
const MAGIC: &[u8; 16] = b"dockless-files1\n";

/// The stamp's digest, the content's digest, and a check over both.
const RECORD: usize = 32 + 32 + 4;

/// A file with more records than this is started over: stale ones would otherwise gather for ever.
const MAX_RECORDS: usize = 400_000;

const BUFFER: usize = 256 * 1024;

/// Records that are read at once: files are asked for in much the same order as before.
const WINDOW: usize = 256;

pub struct Digests {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The file as it was when it was first needed; grown since by what was learnt.
    records: Option<Records>,
    /// Learnt, and not in the file yet.
    fresh: HashMap<[u8; 32], Digest>,
    unsaved: Vec<u8>,
}

impl Digests {
    /// Remembered below `cache` for the context at `dir`; with none, nothing is.
    pub fn new(cache: Option<&Path>, dir: &Path) -> Self {
        let name = |dir: &Path| {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            Digest::of(dir.as_os_str().as_encoded_bytes()).hex()
        };
        Self { file: cache.map(|cache| cache.join(name(dir))), state: Mutex::default() }
    }

    /// The digest of the file that had this stamp when it was walked, and that `open` opens.
    pub fn of(&self, stamp: &Stamp, open: impl FnOnce() -> io::Result<File>) -> io::Result<Digest> {
        let racy = stamp.is_racy(SystemTime::now());
        let key = key(stamp);
        if !racy && let Some(digest) = self.known(&key) {
            return Ok(digest);
        }
        let mut file = open()?;
        let before = rustix::fs::fstat(&file)?;
        if rustix::fs::FileType::from_raw_mode(before.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file any more"));
        }
        let digest = hash((&mut file).take(stamp.size), stamp.size)?;
        let after = Stamp::of(&rustix::fs::fstat(&file)?);
        // Remembered only when nothing happened to the file meanwhile, nor could have without a trace.
        if !racy && after == *stamp && Stamp::of(&before) == *stamp {
            self.remember(key, digest);
        }
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, key: &[u8; 32]) -> Option<Digest> {
        let path = self.file.as_ref()?;
        let mut state = self.lock();
        let state = &mut *state;
        let found = state.records.get_or_insert_with(|| Records::open(path)).get(key);
        found.or_else(|| state.fresh.get(key).copied())
    }

    fn remember(&self, key: [u8; 32], digest: Digest) {
        /// Saved in pieces of this size, and at the end.
        const SAVE: usize = 1000 * RECORD;
        let Some(path) = &self.file else { return };
        let mut state = self.lock();
        state.fresh.insert(key, digest);
        let start = state.unsaved.len();
        state.unsaved.extend_from_slice(&key);
        state.unsaved.extend_from_slice(digest.as_bytes());
        let check = crc32fast::hash(&state.unsaved[start..]);
        state.unsaved.extend_from_slice(&check.to_le_bytes());
        if state.unsaved.len() >= SAVE {
            state.save(path);
        }
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        if let Some(path) = &self.file {
            self.state.get_mut().unwrap_or_else(PoisonError::into_inner).save(path);
        }
    }
}

impl State {
    /// A cache that cannot be written only costs time.
    fn save(&mut self, path: &Path) {
        if self.unsaved.is_empty() {
            return;
        }
        let records = self.records.get_or_insert_with(|| Records::open(path));
        if let Err(error) = records.append(path, &self.unsaved) {
            tracing::debug!(path = %path.display(), %error, "digests of files are not remembered");
        }
        self.unsaved.clear();
        self.fresh.clear();
    }
}

/// The file, by the beginnings of its keys.
#[derive(Default)]
struct Records {
    file: Option<File>,
    /// The number of a record; should two keys begin alike, of the later one.
    index: HashMap<[u8; 6], [u8; 4]>,
    /// What was read last, from which record on.
    window: (u32, Vec<u8>),
    start_over: bool,
}

impl Records {
    /// A cache that cannot be read is an empty one.
    fn open(path: &Path) -> Self {
        let mut records = Self::default();
        let Ok(mut file) = File::open(path) else { return records };
        let mut magic = [0; MAGIC.len()];
        let count = file.metadata().map_or(0, |meta| meta.len() as usize).saturating_sub(MAGIC.len()) / RECORD;
        records.start_over = file.read_exact(&mut magic).is_err() || magic != *MAGIC || count > MAX_RECORDS;
        if magic != *MAGIC {
            return records;
        }
        records.index.reserve(count);
        let (mut number, mut buffer) = (0, vec![0; WINDOW * RECORD]);
        loop {
            let Ok(length) = read_full(&mut file, &mut buffer) else { return records };
            for record in buffer[..length].chunks_exact(RECORD) {
                records.note(record, number);
                number += 1;
            }
            // Torn by a kill: what is appended behind it would be out of step.
            records.start_over |= !length.is_multiple_of(RECORD);
            if length < buffer.len() {
                records.file = Some(file);
                return records;
            }
        }
    }

    fn note(&mut self, record: &[u8], number: u32) {
        if let Some(start) = record.first_chunk() {
            self.index.insert(*start, number.to_le_bytes());
        }
    }

    fn get(&mut self, key: &[u8; 32]) -> Option<Digest> {
        let number = u32::from_le_bytes(*self.index.get(key.first_chunk::<6>()?)?);
        let (first, window) = &mut self.window;
        let mut at = number.checked_sub(*first).map_or(usize::MAX, |skip| skip as usize * RECORD);
        if at.saturating_add(RECORD) > window.len() {
            let start = MAGIC.len() as u64 + u64::from(number) * RECORD as u64;
            window.resize(WINDOW * RECORD, 0);
            let length = self.file.as_ref()?.read_at(window, start).unwrap_or(0);
            window.truncate(length);
            (*first, at) = (number, 0);
        }
        let (body, check) = window.get(at..at + RECORD)?.split_at(64);
        let digest = body[32..].try_into().ok()?;
        let valid = body[..32] == *key && crc32fast::hash(body).to_le_bytes() == check;
        valid.then(|| Digest::from_bytes(digest))
    }

    fn append(&mut self, path: &Path, records: &[u8]) -> io::Result<()> {
        if !self.start_over {
            match OpenOptions::new().read(true).append(true).open(path) {
                Ok(file) => return self.append_to(file, path, records),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let dir = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(dir)?;
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(MAGIC)?;
        new.write_all(records)?;
        new.persist(path)?;
        *self = Self::open(path);
        Ok(())
    }

    fn append_to(&mut self, mut file: File, path: &Path, records: &[u8]) -> io::Result<()> {
        // One write: records of several processes do not mix.
        file.write_all(records)?;
        let start = file.stream_position()?.saturating_sub((MAGIC.len() + records.len()) as u64);
        let inode = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        let same = match &self.file {
            Some(known) => inode(known)? == inode(&file)?,
            None => false,
        };
        if !same {
            // Another process began it, or started it over.
            *self = Self::open(path);
            return Ok(());
        }
        let first = u32::try_from(start / RECORD as u64).unwrap_or(u32::MAX);
        for (number, record) in (first..).zip(records.chunks_exact(RECORD)) {
            self.note(record, number);
        }
        Ok(())
    }
}

fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

fn key(stamp: &Stamp) -> [u8; 32] {
    let mut hasher = Hasher::new();
    stamp.hash(&mut hasher);
    *hasher.finish().as_bytes()
}

/// As much as a copy will take of it: a file that grows meanwhile is not remembered.
fn hash(mut file: impl Read, size: u64) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; usize::try_from(size).map_or(BUFFER, |size| size.clamp(1, BUFFER))];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// A context of numbered files, of which stat tells that they are old.
    struct Files {
        cache: tempfile::TempDir,
        file: tempfile::NamedTempFile,
    }

    impl Files {
        fn digests(&self) -> Digests {
            Digests::new(Some(self.cache.path()), Path::new("/context"))
        }

        fn stamp(&self) -> Stamp {
            Stamp::of(&rustix::fs::fstat(self.file.as_file()).unwrap())
        }
    }

    fn files() -> Files {
        let files = Files { cache: tempfile::tempdir().unwrap(), file: tempfile::NamedTempFile::new().unwrap() };
        std::thread::sleep(std::time::Duration::from_millis(80));
        files
    }

    /// Gives the file a new stamp, and remembers a digest for it.
    fn learn(digests: &Digests, files: &Files, number: u64) -> Stamp {
        let stamp = Stamp { inode: number, ..files.stamp() };
        digests.remember(key(&stamp), Digest::of(number.to_le_bytes()));
        stamp
    }

    fn known(digests: &Digests, stamp: &Stamp) -> bool {
        let asked = Cell::new(false);
        let digest = digests.of(stamp, || {
            asked.set(true);
            Err(io::ErrorKind::NotFound.into())
        });
        assert!(asked.get() || digest.unwrap() == Digest::of(stamp.inode.to_le_bytes()), "the digest of another file");
        !asked.get()
    }

    #[test]
    fn what_was_learnt_is_known_at_once_and_later_and_to_others() {
        let files = files();
        let (ours, theirs) = (files.digests(), files.digests());
        let mut stamps = Vec::new();
        // Saved in pieces of a thousand, in turns with another process.
        for number in 0..2500 {
            stamps.push(learn(if number % 3 == 0 { &theirs } else { &ours }, &files, number));
        }
        assert!(stamps.iter().all(|stamp| known(&ours, stamp) || known(&theirs, stamp)));
        drop((ours, theirs));
        let later = files.digests();
        assert!(stamps.iter().all(|stamp| known(&later, stamp)), "in the order they were learnt in");
        assert!(stamps.iter().rev().all(|stamp| known(&later, stamp)), "and in any other");
        assert!(!known(&later, &Stamp { inode: 9999, ..files.stamp() }));
    }

    #[test]
    fn a_file_that_another_process_started_over_is_read_anew() {
        let files = files();
        let ours = files.digests();
        let old: Vec<Stamp> = (0..1000).map(|number| learn(&ours, &files, number)).collect();
        assert!(known(&ours, &old[7]));
        std::fs::remove_dir_all(files.cache.path()).unwrap();
        let theirs = files.digests();
        let new: Vec<Stamp> = (5000..6000).map(|number| learn(&theirs, &files, number)).collect();
        drop(theirs);
        let ours_too: Vec<Stamp> = (1000..2000).map(|number| learn(&ours, &files, number)).collect();
        assert!(new.iter().chain(&ours_too).all(|stamp| known(&ours, stamp)));
    }

    #[test]
    fn nothing_is_remembered_where_nothing_shall_be() {
        let files = files();
        let digests = Digests::new(None, Path::new("/context"));
        let stamp = learn(&digests, &files, 1);
        assert!(!known(&digests, &stamp));
    }
}
