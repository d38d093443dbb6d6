//! What the processes of one run know of its engines. Each chooses by itself; only what was lost is written down.

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::engine::Place;

/// One run: a task with all its processes, or one process.
#[derive(Debug)]
pub struct Run {
    root: PathBuf,
    /// Shared by the processes of the run: a line for each engine that was lost.
    file: Option<PathBuf>,
    /// Lost while this process looked.
    seen: Mutex<BTreeSet<String>>,
}

impl Run {
    /// `root` is the folder that names of sources begin at: it may be called something else the next time.
    pub fn new(root: PathBuf, file: Option<PathBuf>) -> Self {
        Self { root, file, seen: Mutex::default() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn has_lost(&self, place: &Place) -> bool {
        let name = place.to_string();
        if self.seen().contains(&name) {
            return true;
        }
        // No file, no engine lost. One that cannot be read costs a second attempt.
        let text = self.file.as_ref().and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default();
        text.lines().any(|line| line == name)
    }

    pub fn note_lost(&self, place: &Place) {
        let name = place.to_string();
        if let Some(file) = &self.file {
            let open = OpenOptions::new().append(true).create(true).open(file);
            // One write: the kernel places it whole at the end, whoever else is writing.
            if let Err(error) = open.and_then(|mut open| open.write_all(format!("{name}\n").as_bytes())) {
                tracing::debug!(%error, file = %file.display(), "the other processes will find out for themselves");
            }
        }
        self.seen().insert(name);
    }

    fn seen(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Each change is one insertion.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processes_of_a_run_tell_each_other_what_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let process = || Run::new("/".into(), Some(dir.path().join("lost")));
        let (one, other) = (process(), process());
        let [gone, here] = ["unix:///gone", "unix:///gone2"].map(|name| name.parse().unwrap());
        assert!(!other.has_lost(&gone));
        one.note_lost(&gone);
        for run in [&one, &other] {
            assert!(run.has_lost(&gone) && !run.has_lost(&here));
        }
        let alone = Run::new("/".into(), None);
        alone.note_lost(&gone);
        assert!(alone.has_lost(&gone) && !alone.has_lost(&here));
    }
}
