//! What a person needs to know of a step that failed: which one, where it is written, what it said last.

use crate::base::VertexDigest;
use crate::exec::Exit;

/// A vertex of a build failed. The cause is its source.
#[derive(Debug, thiserror::Error)]
#[error("{name}")]
pub struct StepFailed {
    pub vertex: VertexDigest,
    /// What progress calls it: `[build 2/4] RUN make`.
    pub name: String,
    /// Where it is written; none for definitions without a source map.
    pub location: Option<Location>,
    /// The command line and how it ended, for a step that ran a process.
    pub process: Option<(String, Exit)>,
    /// The last lines of its output, oldest first.
    pub last_lines: Vec<String>,
    pub source: anyhow::Error,
}

/// A place in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    pub file: String,
    /// The whole text, for the snippet.
    pub text: String,
    /// First and last line, counted from 1; never empty.
    pub lines: Vec<(usize, usize)>,
}
