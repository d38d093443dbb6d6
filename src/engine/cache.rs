//! The solver's records on disk: one small file for each key, made beside its place and renamed into it. A record
//! that cannot be read is no record, so a torn disk costs a rebuild and nothing else.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::used::Used;
use crate::base::{Cancel, Digest};
use crate::solver::{CacheStore, Record};
use crate::store::lock::FileLock;
use crate::sys::quiet;

/// Longer than any record; what is longer is not ours.
const MAX_RECORD: u64 = 1 << 20;

/// Records under one directory, with their locks in another. When each was used last stands beside them.
pub struct DiskCache {
    records: PathBuf,
    locks: PathBuf,
    used: Used,
}

/// One record as prune sees it.
pub struct Listed {
    pub key: Digest,
    pub used: SystemTime,
}

impl DiskCache {
    /// Makes nothing: the directories come with the first record.
    pub fn new(records: PathBuf, locks: PathBuf) -> Self {
        let used = Used::new(records.with_file_name("used"));
        Self { records, locks, used }
    }

    pub fn used(&self) -> &Used {
        &self.used
    }

    fn path(&self, key: &Digest) -> PathBuf {
        let hex = key.hex();
        self.records.join(&hex[..2]).join(format!("{hex}.json"))
    }

    /// All records, with the time of their last use.
    pub fn list(&self) -> anyhow::Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for shelf in entries(&self.records)? {
            for path in entries(&shelf)? {
                let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
                let Some(key) = name.and_then(|hex| format!("sha256:{hex}").parse().ok()) else { continue };
                if let Ok(meta) = fs::symlink_metadata(&path) {
                    let made = meta.modified()?;
                    let used = self.used.last(&short(&key)).map_or(made, |used| used.max(made));
                    listed.push(Listed { key, used });
                }
            }
        }
        Ok(listed)
    }

    /// Ok means that the record is gone, not that this call removed it.
    pub fn remove(&self, key: &Digest) -> anyhow::Result<()> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes what killed writers left: half-written records, and locks that nobody holds.
    pub fn sweep(&self, older_than: Duration) -> anyhow::Result<()> {
        for path in entries(&self.records)?.iter().map(|shelf| entries(shelf)).collect::<Result<Vec<_>, _>>()?.concat()
        {
            let half = path.extension().is_none_or(|extension| extension != "json");
            let old = fs::symlink_metadata(&path)
                .and_then(|meta| meta.modified())
                .is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age > older_than));
            if half && old {
                fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
            }
        }
        for path in entries(&self.locks)? {
            if let Some(lock) = FileLock::try_exclusive(&path)? {
                lock.remove()?;
            }
        }
        Ok(())
    }
}

impl DiskCache {
    /// A record with the time at which it was made. Unlike a build's, this look is no use.
    fn look(&self, key: &Digest) -> anyhow::Result<Option<(Record, SystemTime)>> {
        let path = self.path(key);
        let file = match quiet::file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("open {}", path.display()))?,
        };
        let mut text = Vec::new();
        (&file).take(MAX_RECORD).read_to_end(&mut text).with_context(|| format!("read {}", path.display()))?;
        let Ok(record) = serde_json::from_slice(&text) else {
            tracing::debug!(path = %path.display(), "cache record is unreadable");
            return Ok(None);
        };
        let made = file.metadata().and_then(|meta| meta.modified());
        Ok(Some((record, made.with_context(|| format!("look at {}", path.display()))?)))
    }

    /// For those who count what records lead to.
    pub fn peek(&self, key: &Digest) -> anyhow::Result<Option<Record>> {
        Ok(self.look(key)?.map(|(record, _)| record))
    }

    /// Forgets when records were used that are gone.
    pub fn tidy(&self) -> anyhow::Result<()> {
        let listed = self.list()?;
        let here: HashSet<String> = listed.iter().map(|listed| short(&listed.key)).collect();
        self.used.forget(&|name| name.len() == SHORT && !here.contains(name))
    }
}

/// Enough of a key to tell it from all others of a state folder.
fn short(key: &Digest) -> String {
    key.hex()[..SHORT].to_owned()
}

const SHORT: usize = 16;

impl CacheStore for DiskCache {
    fn get(&self, key: &Digest) -> anyhow::Result<Option<Record>> {
        let Some((record, made)) = self.look(key)? else { return Ok(None) };
        self.used.note(&short(key), made);
        Ok(Some(record))
    }

    fn put(&self, key: &Digest, record: &Record) -> anyhow::Result<()> {
        let path = self.path(key);
        let shelf = path.parent().unwrap_or(&self.records);
        let text = serde_json::to_vec(record)?;
        let write = || {
            let mut file = tempfile::Builder::new().prefix(".").tempfile_in(shelf)?;
            file.write_all(&text)?;
            file.persist(&path).map_err(|error| error.error)
        };
        let written = match write() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(shelf).and_then(|()| write()),
            other => other,
        };
        written.map(drop).with_context(|| format!("write {}", path.display()))
    }

    fn lock(&self, key: &Digest, cancel: &Cancel) -> anyhow::Result<Box<dyn Send>> {
        let path = self.locks.join(format!("{}.lock", key.hex()));
        Ok(Box::new(Held(Some(FileLock::exclusive(&path, cancel)?))))
    }
}

/// A lock whose file goes with it: there are as many keys as there were ever steps.
struct Held(Option<FileLock>);

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(FileLock::remove) {
            tracing::debug!(%error, "a lock file stays until the next prune");
        }
    }
}

/// Paths in a directory, sorted; none where the directory is not.
pub(super) fn entries(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        other => other.with_context(|| format!("read {}", dir.display()))?,
    };
    let mut paths = list
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<Vec<_>>>()
        .with_context(|| format!("read {}", dir.display()))?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(dir: &Path) -> DiskCache {
        DiskCache::new(dir.join("keys"), dir.join("locks"))
    }

    fn record(text: &str) -> Record {
        Record { identity: Digest::of(text), results: vec![text.to_owned()] }
    }

    #[test]
    fn keeps_replaces_lists_and_forgets() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = Digest::of("key");
        assert_eq!(cache.get(&key).unwrap(), None);
        cache.put(&key, &record("one")).unwrap();
        cache.put(&key, &record("two")).unwrap();
        assert_eq!(cache.get(&key).unwrap(), Some(record("two")));
        assert_eq!(cache.list().unwrap().iter().map(|listed| listed.key).collect::<Vec<_>>(), [key]);
        cache.remove(&key).unwrap();
        cache.remove(&key).unwrap();
        assert_eq!(cache.get(&key).unwrap(), None);
    }

    #[test]
    fn a_torn_record_is_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = Digest::of("key");
        cache.put(&key, &record("one")).unwrap();
        for torn in ["", "{\"identity\":\"sha256:", "\0\0\0\0"] {
            fs::write(cache.path(&key), torn).unwrap();
            assert_eq!(cache.get(&key).unwrap(), None, "{torn:?}");
        }
    }

    #[test]
    fn a_lock_keeps_others_out_and_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let (key, cancel) = (Digest::of("key"), Cancel::new());
        let held = cache.lock(&key, &cancel).unwrap();
        let late = Cancel::new();
        late.cancel();
        assert!(cache.lock(&key, &late).is_err(), "a cancelled wait ends");
        drop(held);
        drop(cache.lock(&key, &cancel).unwrap());
        assert_eq!(entries(&dir.path().join("locks")).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn a_sweep_removes_what_killed_writers_left_and_no_held_lock() {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path());
        let key = Digest::of("key");
        cache.put(&key, &record("one")).unwrap();
        let shelf = cache.path(&key).parent().unwrap().to_owned();
        fs::write(shelf.join(".half"), "{").unwrap();
        let held = cache.lock(&key, &Cancel::new()).unwrap();
        fs::write(dir.path().join("locks/left.lock"), "").unwrap();
        cache.sweep(Duration::ZERO).unwrap();
        assert_eq!(entries(&shelf).unwrap(), [cache.path(&key)]);
        assert_eq!(entries(&dir.path().join("locks")).unwrap().len(), 1);
        drop(held);
    }
}
