//! A folder of the state folder for what one step needs beside its root, and the locks on what it borrows.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::{Cancel, Digest};

/// How often a lock that somebody holds is tried again.
const PAUSE: Duration = Duration::from_millis(20);

/// The folder of one step. Dropping it removes it; what a killed process left, the next one removes.
pub struct StepFolder {
    path: PathBuf,
    /// Held as long as the folder is in use.
    _lock: File,
}

impl StepFolder {
    /// `folder` is where all of them are; made where it is missing.
    pub fn make(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        // Whoever makes or sweeps folders holds this, so that none is swept before it is locked.
        let gate = File::open(folder)?;
        gate.lock()?;
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() && File::open(&path)?.try_lock().is_ok() {
                remove(&path)?;
            }
        }
        let path = folder.join(format!("{}-{}", std::process::id(), rand()?));
        fs::DirBuilder::new().mode(0o755).create(&path)?;
        let lock = File::open(&path)?;
        lock.lock()?;
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A fresh directory in it.
    pub fn directory(&self, name: &str, mode: u32) -> io::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path.join(name);
        fs::create_dir(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        Ok(path)
    }

    /// Removes the folder now, and says when that fails.
    pub fn remove(self) -> io::Result<()> {
        remove(&self.path)
    }
}

impl Drop for StepFolder {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            // Unlocked from now on, so the next one tries again.
            tracing::warn!(path = %self.path.display(), %error, "the folder of a step could not be removed");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
    crate::sys::Root::open(parent)?.remove(Path::new(name))
}

/// Two steps of one process must differ.
fn rand() -> io::Result<String> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// A directory that one step at a time has in its root.
pub struct Borrowed {
    lock: File,
}

impl Borrowed {
    /// Waits until nobody else has it. If whoever had it last was killed, what lies there is not what was there: it is
    /// emptied.
    pub fn take(locks: &Path, directory: &Path, cancel: &Cancel) -> io::Result<Self> {
        use std::os::unix::ffi::OsStrExt;
        fs::create_dir_all(locks)?;
        let name = format!("{}.lock", Digest::of(directory.as_os_str().as_bytes()).hex());
        let mut lock = File::options().read(true).write(true).create(true).truncate(false).open(locks.join(name))?;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {
                    cancel.check().map_err(io::Error::other)?;
                    std::thread::sleep(PAUSE);
                }
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        let mut mark = Vec::new();
        lock.read_to_end(&mut mark)?;
        if !mark.is_empty() && directory.is_dir() {
            crate::sys::dir::clear_dir(File::open(directory)?)?;
        }
        lock.rewind()?;
        lock.write_all(b"lent")?;
        Ok(Self { lock })
    }

    /// It is back where it was.
    pub fn give_back(self) -> io::Result<()> {
        self.lock.set_len(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_lives_stays() {
        let dir = tempfile::tempdir().unwrap();
        let live = StepFolder::make(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("1-dead/sub")).unwrap();
        let other = StepFolder::make(dir.path()).unwrap();
        assert!(live.path().exists() && !dir.path().join("1-dead").exists());
        other.remove().unwrap();
        drop(live);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_lent_to_a_dead_process_is_emptied() {
        let dir = tempfile::tempdir().unwrap();
        let (locks, cache) = (dir.path().join("locks"), dir.path().join("cache"));
        fs::create_dir(&cache).unwrap();
        fs::write(cache.join("kept"), "").unwrap();
        Borrowed::take(&locks, &cache, &Cancel::new()).unwrap().give_back().unwrap();
        assert!(cache.join("kept").exists());
        drop(Borrowed::take(&locks, &cache, &Cancel::new()).unwrap());
        Borrowed::take(&locks, &cache, &Cancel::new()).unwrap().give_back().unwrap();
        assert!(!cache.join("kept").exists());
    }
}
