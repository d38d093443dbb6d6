//! What a person needs to know of a step that failed: which one, where it is written, what it said last.

use crate::base::VertexDigest;
use crate::exec::Exit;
use crate::llb;
use crate::ops::ProcessFailed;
use crate::solver;

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

/// A solver's error with what the definition knows of the vertex.
pub fn of_step(error: solver::Error, definition: &llb::Graph) -> anyhow::Error {
    let (vertex, name, source) = match error {
        solver::Error::Vertex { vertex, name, source } => (vertex, name, source),
        // As itself, so that whoever asks "was it cancelled?" need not know the solver.
        solver::Error::Cancelled(cancelled) => return cancelled.into(),
        other @ solver::Error::Graph(_) => return other.into(),
    };
    let location = location(&vertex, definition);
    let (process, last_lines) = match source.downcast_ref::<ProcessFailed>() {
        Some(failed) => (Some((failed.command.clone(), failed.exit)), failed.last_lines.clone()),
        None => (None, Vec::new()),
    };
    StepFailed { vertex, name, location, process, last_lines, source }.into()
}

/// A failure of a vertex that ran elsewhere: what the other side says of it, and what it had said.
pub fn elsewhere(
    vertex: VertexDigest,
    name: String,
    why: &str,
    last_lines: Vec<String>,
    definition: &llb::Graph,
) -> anyhow::Error {
    // A server that normalises a definition gives its ops new digests; the names are ours.
    let known = definition.vertex(&vertex).or_else(|| definition.vertices().iter().find(|known| known.name() == name));
    let command = known.filter(|known| matches!(known.op.op, Some(llb::pb::op::Op::Exec(_))));
    let failed = command.zip(exit_code(why)).map(|(known, code)| ProcessFailed {
        command: llb::print::summary(&known.op),
        exit: Exit::Code(code),
        last_lines: last_lines.clone(),
    });
    let (process, source) = match failed {
        Some(failed) => (Some((failed.command.clone(), failed.exit)), failed.into()),
        None => (None, anyhow::anyhow!("{why}")),
    };
    let location = known.and_then(|known| location(&known.digest, definition));
    StepFailed { vertex, name, location, process, last_lines, source }.into()
}

/// `… exit code: 3`, as BuildKit of any age ends it.
fn exit_code(why: &str) -> Option<i32> {
    let (_, code) = why.trim_end().rsplit_once("exit code: ")?;
    code.parse().ok()
}

/// Where the Dockerfile says it; none for definitions without a source map.
fn location(vertex: &VertexDigest, definition: &llb::Graph) -> Option<Location> {
    let locations = definition.vertex(vertex).map(|vertex| vertex.locations.as_slice()).unwrap_or_default();
    locations.first().map(|first| Location {
        file: first.file.to_string(),
        text: String::from_utf8_lossy(&first.text).into_owned(),
        lines: locations
            .iter()
            .filter(|location| location.file == first.file)
            .map(|location| (*location.lines.start() as usize, *location.lines.end() as usize))
            .collect(),
    })
}
