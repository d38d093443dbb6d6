//! What the faces of one task did, as JSON lines in one file: every process appends whole lines (`O_APPEND`, one
//! write), the task reads them when the native build is done.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::{Digest, Env, Reference};

/// The variable by which a task tells its faces where to write.
pub const VARIABLE: &str = "DOCKLESS_JOURNAL";

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Record {
    /// An image was made; it has names when it is in the store.
    Built {
        image: Digest,
        names: Vec<Reference>,
        /// Archives and layout folders that the build itself wrote.
        archives: Vec<PathBuf>,
        /// None for what has no stages to go back to.
        request: Option<Box<BuildRecord>>,
    },
    Tagged {
        image: Digest,
        name: Reference,
    },
    Removed {
        name: Reference,
    },
    /// An archive was written from the store.
    Saved {
        path: PathBuf,
    },
}

/// How an image was built, as far as it takes to solve another stage of it from the cache. Values of secrets are
/// not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Where the build was started: what relative paths of secrets begin at.
    pub cwd: PathBuf,
    pub context: PathBuf,
    /// Absolute; none for the context's own `Dockerfile`.
    pub dockerfile: Option<PathBuf>,
    /// The text, where it came from standard input.
    pub text: Option<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub platform: Option<String>,
    pub named_contexts: BTreeMap<String, String>,
    /// `--secret` as typed.
    pub secrets: Vec<String>,
    /// `--ssh` as typed.
    pub ssh: Vec<String>,
    pub extra_hosts: Vec<(String, String)>,
    /// `--network`, where it was said.
    pub network: Option<String>,
    /// `--allow` as typed.
    pub allow: Vec<String>,
    pub ulimits: Vec<(String, u64, u64)>,
    pub shm_size: Option<u64>,
    /// Which of several engines built it.
    pub engine: Option<String>,
}

/// The journal of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal(PathBuf);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("journal {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("journal {path}, line {line}: {source}")]
    Line { path: PathBuf, line: usize, source: serde_json::Error },
}

impl Journal {
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The journal of the task that this process is part of; none outside a task.
    pub fn of(env: &Env) -> Option<Self> {
        env.nonempty(VARIABLE).map(|path| Self(env.absolute(path)))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Adds one line. The file is readable by nobody else: build arguments may be delicate.
    pub fn append(&self, record: &Record) -> Result<(), Error> {
        let mut line =
            serde_json::to_vec(record).map_err(|source| Error::Line { path: self.0.clone(), line: 0, source })?;
        line.push(b'\n');
        let write = || {
            let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(&self.0)?;
            // One write: the kernel places it whole at the end, whoever else is writing.
            file.write_all(&line)
        };
        write().map_err(|source| Error::Io { path: self.0.clone(), source })
    }

    /// All lines so far; none where nothing was written yet. A last line without its end belongs to a process that
    /// was killed while writing, and did not happen.
    pub fn read(&self) -> Result<Records, Error> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => parse(&text).map_err(|(line, source)| Error::Line { path: self.0.clone(), line, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Records::default()),
            Err(source) => Err(Error::Io { path: self.0.clone(), source }),
        }
    }
}

/// What happened, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(pub Vec<Record>);

/// The error is the number of a line, counted from 1, and what is wrong with it.
pub fn parse(text: &str) -> Result<Records, (usize, serde_json::Error)> {
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(n, line)| serde_json::from_str(line).map_err(|error| (n + 1, error)))
        .collect::<Result<_, _>>()
        .map(Records)
}

impl Records {
    /// What the names stand for at the end: a name that was built or tagged and not removed since. Tags of images
    /// that this task did not build are not among them.
    pub fn names(&self) -> BTreeMap<Reference, Digest> {
        let mut built = std::collections::BTreeSet::new();
        let mut names = BTreeMap::new();
        for record in &self.0 {
            match record {
                Record::Built { image, names: given, .. } => {
                    built.insert(*image);
                    names.extend(given.iter().map(|name| (name.clone(), *image)));
                }
                Record::Tagged { image, name } => {
                    if built.contains(image) {
                        names.insert(name.clone(), *image);
                    } else {
                        names.remove(name);
                    }
                }
                Record::Removed { name } => {
                    names.remove(name);
                }
                Record::Saved { .. } => {}
            }
        }
        names
    }

    /// Every archive that a face wrote, in order.
    pub fn archives(&self) -> Vec<&Path> {
        self.0
            .iter()
            .flat_map(|record| match record {
                Record::Built { archives, .. } => archives.iter().map(PathBuf::as_path).collect(),
                Record::Saved { path } => vec![path.as_path()],
                Record::Tagged { .. } | Record::Removed { .. } => Vec::new(),
            })
            .collect()
    }

    /// How an image was built, the last time that it was.
    pub fn request(&self, wanted: &Digest) -> Option<&BuildRecord> {
        self.0.iter().rev().find_map(|record| match record {
            Record::Built { image, request: Some(request), .. } if image == wanted => Some(&**request),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> Reference {
        text.parse::<Reference>().unwrap().or_latest()
    }

    fn built(image: &str, names: &[&str]) -> Record {
        Record::Built {
            image: Digest::of(image),
            names: names.iter().map(|n| name(n)).collect(),
            archives: Vec::new(),
            request: None,
        }
    }

    #[test]
    fn the_last_word_on_a_name_counts() {
        let records = Records(vec![
            built("one", &["app", "app:1"]),
            built("two", &["app"]),
            Record::Tagged { image: Digest::of("base"), name: name("mine") },
            Record::Tagged { image: Digest::of("two"), name: name("app:2") },
            Record::Removed { name: name("app:1") },
        ]);
        let names: Vec<_> = records.names().into_iter().map(|(n, d)| (n.familiar(), d)).collect();
        assert_eq!(names, [("app:2".to_owned(), Digest::of("two")), ("app:latest".to_owned(), Digest::of("two"))]);
    }

    #[test]
    fn many_writers_lose_no_line_and_a_torn_one_did_not_happen() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::at(dir.path().join("journal"));
        assert_eq!(journal.read().unwrap(), Records::default());
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..50 {
                        journal.append(&built(&format!("{writer}-{n}"), &["x"])).unwrap();
                    }
                });
            }
        });
        OpenOptions::new().append(true).open(journal.path()).unwrap().write_all(b"{\"event\":\"bui").unwrap();
        assert_eq!(journal.read().unwrap().0.len(), 200);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\{\"event\":)?.{0,60}\n?") {
            let _ = parse(&text);
        }
    }
}
