//! Finds out by real calls, each in a child of its own, what this place allows, and chooses an isolation by the
//! result. Who we are (root, a user) is never asked: what works is.

use std::path::{Path, PathBuf};

use super::{Error, Isolation};
use crate::base::Env;
use crate::sys::Ownership;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was tried: `mount overlay`.
    pub name: String,
    /// Why it did not work, with the errno's name; none when it worked.
    pub refusal: Option<String>,
}

/// What this place allows. Made once per process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub checks: Vec<Check>,
    state: PathBuf,
}

/// The isolation that RUN steps get here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub isolation: Isolation,
    /// Overlay mounts work on the state folder; else a step's root must be a plain directory.
    pub overlay: bool,
    /// Where ownership is kept: on the disk itself, or in the owner store.
    pub ownership: Ownership,
    /// One plain line for the log.
    pub reason: String,
    /// What would make a better isolation possible; none at the top.
    pub better: Option<String>,
}

/// Tries everything; `state` is the folder that step roots will lie in.
pub fn probe(_env: &Env, _state: &Path) -> Report {
    todo!()
}

impl Report {
    /// The best isolation for `Auto`, or the one asked for if it works here; else an error that says which call
    /// was refused.
    pub fn choose(&self, _wanted: Isolation) -> Result<Choice, Error> {
        todo!()
    }
}
