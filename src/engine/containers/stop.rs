//! Ending a container that another process of ours attends to.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::find_stored;
use crate::base::Cancel;
use crate::engine::State;

/// Who attends to a container's process, told to those who want it ended.
pub struct Attended(PathBuf);

impl Attended {
    /// For the process that holds the container's lock.
    pub fn note(dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join("attendant");
        fs::write(&path, std::process::id().to_string()).with_context(|| format!("write {}", path.display()))?;
        Ok(Self(path))
    }

    /// None where nobody does.
    fn read(dir: &Path) -> Option<Pid> {
        let text = fs::read_to_string(dir.join("attendant")).ok()?;
        Pid::from_raw(text.parse().ok()?)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        // Whoever reads it later finds the lock free.
        let _ = fs::remove_file(&self.0);
    }
}

/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// What a container that was not let end says of itself.
const KILLED: i32 = 128 + libc::SIGKILL;

/// Ends a running container: asks its process to (SIGTERM), and makes it when it has not after `patience`. What it wrote
/// is kept only when it ended by itself. Ok when it does not run.
pub fn stop(state: &State, name: &str, patience: Duration, cancel: &Cancel) -> anyhow::Result<()> {
    let found = find_stored(state, name)?;
    let asked = Instant::now();
    let mut signals = 0;
    let _lock = loop {
        if let Some(lock) = found.try_lock(state)? {
            break lock;
        }
        if let Some(attendant) = Attended::read(&found.dir(state))
            && (signals == 0 || signals == 1 && asked.elapsed() > patience)
        {
            // The attendant hands the first one on to the step; a second one ends it, and the step with it.
            match kill_process(attendant, Signal::TERM) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => signals += 1,
                Err(error) => return Err(io::Error::from(error)).context(format!("stop container {name}")),
            }
        }
        if cancel.wait(PAUSE) {
            cancel.check()?;
        }
    };
    let mut stored = find_stored(state, &found.container.id)?;
    if signals > 0 && stored.container.exit.is_none() {
        stored.container.exit = Some(KILLED);
        stored.write(&stored.dir(state))?;
    }
    Ok(())
}
