//! When things of the state folder were used last, all in one small file: a build that finds everything it needs
//! writes nothing else, and this at most once an hour. What was made is new by its own date.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

/// The unit of time here: exact enough for "least recently used".
const HOUR: u64 = 3600;

/// A file of this size is written anew, with one line for each thing.
const LONG: u64 = 1 << 20;

/// The file of one state folder.
pub struct Used {
    path: PathBuf,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// What the file says, and what was noted since; none before anybody asked.
    hours: Option<HashMap<String, u64>>,
    /// Not in the file yet.
    fresh: BTreeSet<String>,
}

impl Used {
    pub fn new(path: PathBuf) -> Self {
        Self { path, noted: Mutex::default() }
    }

    /// Notes that a thing is used now. What was made or noted within the hour needs no note.
    pub fn note(&self, name: &str, made: SystemTime) {
        let time = SystemTime::now();
        let now = hour(time);
        if time.duration_since(made).unwrap_or_default() < Duration::from_secs(HOUR) {
            return;
        }
        let mut noted = self.lock();
        let hours = noted.hours.get_or_insert_with(|| self.read());
        // The last one may have been at the end of its hour.
        if hours.get(name).is_none_or(|&last| last + 1 < now) {
            hours.insert(name.to_owned(), now);
            noted.fresh.insert(name.to_owned());
        }
    }

    /// When a thing was used last, as far as that is noted.
    pub fn last(&self, name: &str) -> Option<SystemTime> {
        let hours = *self.lock().hours.get_or_insert_with(|| self.read()).get(name)?;
        UNIX_EPOCH.checked_add(Duration::from_secs(hours * HOUR))
    }

    /// Everything that is noted and begins with a word, without it.
    pub fn names(&self, word: &str) -> Vec<String> {
        let mut noted = self.lock();
        let hours = noted.hours.get_or_insert_with(|| self.read());
        let mut names: Vec<String> =
            hours.keys().filter_map(|name| Some(name.strip_prefix(word)?.to_owned())).collect();
        names.sort();
        names
    }

    /// Writes what is new. A note that is lost costs a later prune its order, and nothing else.
    pub fn save(&self) {
        let mut noted = self.lock();
        if noted.fresh.is_empty() {
            return;
        }
        let now = hour(SystemTime::now());
        let lines: String = std::mem::take(&mut noted.fresh).iter().map(|name| format!("{now} {name}\n")).collect();
        let append = || {
            let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            // One write: the kernel places it whole at the end, whoever else is writing.
            file.write_all(lines.as_bytes())?;
            Ok::<_, io::Error>(file.metadata()?.len())
        };
        let written = match append() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| append())
            }
            other => other,
        };
        drop(noted);
        let tidied = match written {
            Ok(bytes) if bytes > LONG => self.forget(&|_| false),
            other => other.map(drop).map_err(Into::into),
        };
        if let Err(error) = tidied {
            tracing::debug!(%error, path = %self.path.display(), "the last use of things is not noted");
        }
    }

    /// Removes the notes of what is gone. Notes that another process adds meanwhile may go, too.
    pub fn forget(&self, is_gone: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
        let mut noted = self.lock();
        let mut hours = self.read();
        hours.retain(|name, _| !is_gone(name));
        let mut lines: Vec<String> = hours.iter().map(|(name, hour)| format!("{hour} {name}\n")).collect();
        lines.sort();
        let text = lines.concat();
        noted.hours = Some(hours);
        if fs::read_to_string(&self.path).unwrap_or_default() == text {
            return Ok(());
        }
        let write = || {
            let folder = self.path.parent().unwrap_or(&self.path);
            let mut file = tempfile::Builder::new().prefix(".").tempfile_in(folder)?;
            file.write_all(text.as_bytes())?;
            file.persist(&self.path).map_err(|error| error.error)
        };
        write().map(drop).with_context(|| format!("write {}", self.path.display()))
    }

    fn read(&self) -> HashMap<String, u64> {
        let mut hours = HashMap::new();
        // Without it nothing was ever used again; what cannot be read is as good as that.
        for line in fs::read_to_string(&self.path).unwrap_or_default().lines() {
            let Some((hour, name)) = line.split_once(' ') else { continue };
            let Ok(hour) = hour.parse::<u64>() else { continue };
            let known = hours.entry(name.to_owned()).or_insert(hour);
            *known = hour.max(*known);
        }
        hours
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        // A note is whole or is not there.
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hour(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_noted_once_an_hour_and_never_for_what_is_new() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache/used");
        let now = SystemTime::now();
        let old = now - Duration::from_secs(10 * HOUR);
        let used = Used::new(path.clone());
        used.note("new", now);
        used.save();
        assert!(!path.exists(), "nothing to say");
        used.note("thing", old);
        used.save();
        let text = fs::read_to_string(&path).unwrap();
        assert!(used.last("thing").unwrap() > old);
        let again = Used::new(path.clone());
        again.note("thing", old);
        again.save();
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "it was said");
        let later = format!("{} thing\n", hour(now) - 2);
        fs::write(&path, &later).unwrap();
        let again = Used::new(path.clone());
        again.note("thing", old);
        again.save();
        assert!(fs::read_to_string(&path).unwrap().len() > later.len(), "more than an hour ago");
        assert_eq!(again.last("other"), None);
    }

    #[test]
    fn notes_of_what_is_gone_go_and_torn_lines_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("used");
        fs::write(&path, "5 a\n7 a\n6 b\n\nnonsense\nx y\n8 image r.example/x:1\n9").unwrap();
        let used = Used::new(path.clone());
        assert_eq!(used.last("a"), UNIX_EPOCH.checked_add(Duration::from_secs(7 * HOUR)));
        assert_eq!(used.names("image "), ["r.example/x:1"]);
        used.forget(&|name| name == "b").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "7 a\n8 image r.example/x:1\n");
        assert_eq!(used.last("b"), None);
    }
}
