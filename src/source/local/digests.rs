//! Digests of files, remembered by what stat says of them: a file that was hashed once is not read again to know
//! that it is the same.
//!
//! One file for each context: a magic line, then records of fixed length, appended. A record that is torn or damaged
//! is passed over; a lost one costs a hash.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
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

pub struct Digests {
    file: Option<PathBuf>,
    known: OnceLock<HashMap<[u8; 32], Digest>>,
    fresh: Mutex<Fresh>,
}

#[derive(Default)]
struct Fresh {
    known: HashMap<[u8; 32], Digest>,
    unsaved: Vec<u8>,
    start_over: bool,
}

impl Digests {
    /// Remembered below `cache` for the context at `dir`.
    pub fn new(cache: Option<&Path>, dir: &Path) -> Self {
        let name = |dir: &Path| {
            let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
            Digest::of(dir.as_os_str().as_encoded_bytes()).hex()
        };
        Self {
            file: cache.map(|cache| cache.join(name(dir))),
            known: OnceLock::new(),
            fresh: Mutex::new(Fresh::default()),
        }
    }

    /// The digest of the file that had this stamp when it was walked, and that `open` opens.
    pub fn of(&self, stamp: &Stamp, open: impl FnOnce() -> io::Result<File>) -> io::Result<Digest> {
        let racy = stamp.is_racy(SystemTime::now());
        let key = key(stamp);
        if !racy {
            let known = self.known.get_or_init(|| self.load());
            if let Some(digest) = known.get(&key).copied().or_else(|| self.lock().known.get(&key).copied()) {
                return Ok(digest);
            }
        }
        let mut file = open()?;
        let before = rustix::fs::fstat(&file)?;
        if rustix::fs::FileType::from_raw_mode(before.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file any more"));
        }
        let digest = hash(&mut file)?;
        let after = Stamp::of(&rustix::fs::fstat(&file)?);
        // Remembered only when nothing happened to the file meanwhile, nor could have without a trace.
        if !racy && after == *stamp && Stamp::of(&before) == *stamp {
            self.remember(key, digest);
        }
        Ok(digest)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Fresh> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, key: [u8; 32], digest: Digest) {
        /// Saved in pieces of this size, and at the end.
        const SAVE: usize = 1000 * RECORD;
        let mut fresh = self.lock();
        fresh.known.insert(key, digest);
        if self.file.is_some() {
            fresh.unsaved.extend_from_slice(&key);
            fresh.unsaved.extend_from_slice(digest.as_bytes());
            let record = &fresh.unsaved[fresh.unsaved.len() - 64..];
            let check = crc32fast::hash(record);
            fresh.unsaved.extend_from_slice(&check.to_le_bytes());
            if fresh.unsaved.len() >= SAVE {
                self.save(&mut fresh);
            }
        }
    }

    /// A cache that cannot be read is an empty one.
    fn load(&self) -> HashMap<[u8; 32], Digest> {
        let mut known = HashMap::new();
        let Some(path) = &self.file else { return known };
        let Ok(mut file) = File::open(path) else { return known };
        let mut content = Vec::new();
        if file.read_to_end(&mut content).is_err() {
            return known;
        }
        let Some(records) = content.strip_prefix(MAGIC) else {
            self.lock().start_over = true;
            return known;
        };
        for record in records.chunks_exact(RECORD) {
            let (body, check) = record.split_at(64);
            if crc32fast::hash(body).to_le_bytes() == check
                && let (Ok(key), Ok(digest)) = (body[..32].try_into(), body[32..].try_into())
            {
                known.insert(key, Digest::from_bytes(digest));
            }
        }
        // Torn by a kill: what is appended behind it would be out of step.
        if !records.len().is_multiple_of(RECORD) || records.len() / RECORD > MAX_RECORDS {
            self.lock().start_over = true;
        }
        known
    }

    /// A cache that cannot be written only costs time.
    fn save(&self, fresh: &mut Fresh) {
        let Some(path) = &self.file else { return };
        if fresh.unsaved.is_empty() {
            return;
        }
        let records = std::mem::take(&mut fresh.unsaved);
        if let Err(error) = append(path, &records, std::mem::take(&mut fresh.start_over)) {
            tracing::debug!(path = %path.display(), %error, "digests of files are not remembered");
        }
    }
}

impl Drop for Digests {
    fn drop(&mut self) {
        let mut fresh = std::mem::take(self.fresh.get_mut().unwrap_or_else(PoisonError::into_inner));
        self.save(&mut fresh);
    }
}

fn append(path: &Path, records: &[u8], start_over: bool) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let make = |path: &Path| -> io::Result<()> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(MAGIC)?;
        new.write_all(records)?;
        new.persist(path)?;
        Ok(())
    };
    if start_over {
        return make(path);
    }
    match OpenOptions::new().append(true).open(path) {
        // One write: records of several processes do not mix.
        Ok(mut file) => file.write_all(records),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(path),
        Err(error) => Err(error),
    }
}

fn key(stamp: &Stamp) -> [u8; 32] {
    let mut hasher = Hasher::new();
    stamp.hash(&mut hasher);
    *hasher.finish().as_bytes()
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
