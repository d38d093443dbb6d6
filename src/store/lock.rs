//! Advisory locks on files, by which processes that share a state folder keep out of each other's way. The system
//! drops them with the process, however it ends.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Error, Result};
use crate::base::Cancel;

/// A held lock; dropping it releases.
#[derive(Debug)]
pub struct FileLock {
    // Held open: closing it is what releases the lock.
    _file: File,
    path: PathBuf,
}

/// The first pause between tries, and the longest: short enough that nobody notices a lock that was held briefly,
/// long enough that waiting for another process's build costs nothing.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(25));

#[derive(Clone, Copy)]
enum Mode {
    Shared,
    Exclusive,
}

impl FileLock {
    /// Waits until nobody else holds the lock. The file and its directory are made where missing.
    pub fn exclusive(path: &Path, cancel: &Cancel) -> Result<Self> {
        Self::wait(path, Mode::Exclusive, cancel)
    }

    /// Waits until nobody holds the lock exclusively.
    pub fn shared(path: &Path, cancel: &Cancel) -> Result<Self> {
        Self::wait(path, Mode::Shared, cancel)
    }

    /// None when somebody else holds the lock in any way.
    pub fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        Self::attempt(path, Mode::Exclusive)
    }

    /// None when somebody else holds the lock exclusively.
    pub fn try_shared(path: &Path) -> Result<Option<Self>> {
        Self::attempt(path, Mode::Shared)
    }

    /// Removes the lock's file and releases: for locks whose names come and go. Those who wait for it start afresh.
    pub fn remove(self) -> Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at(&self.path)(error)),
            _ => Ok(()),
        }
    }

    fn wait(path: &Path, mode: Mode, cancel: &Cancel) -> Result<Self> {
        let mut pause = PAUSES.0;
        loop {
            cancel.check()?;
            if let Some(lock) = Self::attempt(path, mode)? {
                return Ok(lock);
            }
            cancel.wait(pause);
            pause = (pause * 2).min(PAUSES.1);
        }
    }

    fn attempt(path: &Path, mode: Mode) -> Result<Option<Self>> {
        loop {
            let file = open(path)?;
            let locked = match mode {
                Mode::Shared => file.try_lock_shared(),
                Mode::Exclusive => file.try_lock(),
            };
            match locked {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(Error::at(path)(error)),
            }
            // Whoever held it before may have removed the file; then this lock is on nothing that others will meet.
            if same_file(&file, path)? {
                return Ok(Some(Self { _file: file, path: path.to_owned() }));
            }
        }
    }
}

fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    // Never truncated: the holder may have written in it who it is.
    options.read(true).write(true).create(true).truncate(false);
    match options.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = path.parent().unwrap_or(Path::new("."));
            fs::create_dir_all(dir).map_err(Error::at(dir))?;
            options.open(path).map_err(Error::at(path))
        }
        other => other.map_err(Error::at(path)),
    }
}

fn same_file(file: &File, path: &Path) -> Result<bool> {
    let held = file.metadata().map_err(Error::at(path))?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_a_writer_is_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b.lock");
        let cancel = Cancel::new();
        let one = FileLock::shared(&path, &cancel).unwrap();
        let two = FileLock::try_shared(&path).unwrap();
        assert!(two.is_some());
        assert!(FileLock::try_exclusive(&path).unwrap().is_none());
        drop((one, two));
        let alone = FileLock::try_exclusive(&path).unwrap();
        assert!(alone.is_some());
        assert!(FileLock::try_shared(&path).unwrap().is_none());
    }

    #[test]
    fn a_waiter_gets_the_lock_after_its_file_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let first = FileLock::try_exclusive(&path).unwrap().unwrap();
        let waiter = std::thread::spawn({
            let path = path.clone();
            move || FileLock::exclusive(&path, &Cancel::new()).unwrap()
        });
        std::thread::sleep(Duration::from_millis(5));
        first.remove().unwrap();
        let second = waiter.join().unwrap();
        assert!(FileLock::try_exclusive(&path).unwrap().is_none(), "the waiter's lock is on the file others meet");
        drop(second);
    }

    #[test]
    fn waiting_ends_with_cancellation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let _held = FileLock::try_exclusive(&path).unwrap().unwrap();
        let cancel = Cancel::new();
        cancel.cancel();
        assert!(matches!(FileLock::exclusive(&path, &cancel), Err(Error::Cancelled(_))));
    }
}
