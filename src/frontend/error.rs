//! A mistake in a Dockerfile, with the place where it is and what to do about it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Lines of a Dockerfile, and the text to show them from.
#[derive(Clone, PartialEq, Eq)]
pub struct Place {
    pub file: Arc<str>,
    pub text: Arc<str>,
    /// From 1.
    pub lines: RangeInclusive<usize>,
    /// The offending words, where they are known better than by line: bytes of `text`.
    pub span: Option<std::ops::Range<usize>>,
}

/// Why a Dockerfile cannot be built.
#[derive(Debug, thiserror::Error)]
pub struct Error {
    pub message: String,
    pub place: Option<Place>,
    /// What the user may do about it.
    pub hint: Option<String>,
    /// What went wrong outside, such as a registry's answer.
    pub source: Option<anyhow::Error>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "{place}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Display for Place {
    /// `Dockerfile:3`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.lines.start())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}-{}", self.file, self.lines.start(), self.lines.end())
    }
}
