//! A generic solver for graphs of operations: it knows no disk, no network and no container. Keys first, content
//! only when a key misses, nothing below a hit is made, and one vertex is made once however many ask.

mod graph;
mod report;
mod run;
#[cfg(test)]
mod tests;
mod vertex;

use std::sync::Arc;

use crate::base::{Cancel, Digest, Progress, VertexDigest};

pub use graph::{Graph, GraphError};

/// One operation, as the solver sees it. `R` is what operations produce.
pub trait Op<R>: Send + Sync {
    /// What of this operation decides its result, inputs aside. Secrets and names are not in it.
    fn cache_map(&self, cancel: &Cancel) -> anyhow::Result<CacheMap>;

    /// For an input marked [`InputKey::Content`]: the checksum of what this operation reads of it.
    fn content(&self, input: usize, result: &R, cancel: &Cancel) -> anyhow::Result<Digest>;

    /// Does the work. The results are this operation's outputs, by index.
    fn exec(&self, inputs: &[R], cancel: &Cancel) -> anyhow::Result<Vec<R>>;
}

/// How an operation is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMap {
    pub digest: Digest,
    /// One for each input, in order.
    pub inputs: Vec<InputKey>,
    pub policy: Policy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputKey {
    /// Only the identity of the input counts.
    Identity,
    /// When the identity is not known, what the operation reads of it counts.
    Content,
}

/// What is done with the records of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Looked up, and stored when built.
    #[default]
    Shared,
    /// Built anew whatever is stored (`--no-cache`). What stands on it is built anew too, and later builds
    /// find this result instead of the older one.
    Fresh,
    /// Neither looked up nor stored: the result costs nothing to make (a directory that is read in place).
    Transient,
}

/// A vertex of a graph: an operation and where its inputs come from.
pub struct Node<R> {
    pub digest: VertexDigest,
    pub name: String,
    pub op: Arc<dyn Op<R>>,
    /// The vertex and which of its outputs.
    pub inputs: Vec<(VertexDigest, usize)>,
}

/// What is known about a solved key.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Record {
    /// What later keys are made of.
    pub identity: Digest,
    /// One opaque id for each output, understood by the [`Results`].
    pub results: Vec<String>,
}

/// Remembers keys. The disk one keeps a small file for each; the memory one serves tests.
pub trait CacheStore: Send + Sync {
    fn get(&self, key: &Digest) -> anyhow::Result<Option<Record>>;
    fn put(&self, key: &Digest, record: &Record) -> anyhow::Result<()>;
    /// Held while the vertex of this key is built, across all processes on one state folder.
    fn lock(&self, key: &Digest, cancel: &Cancel) -> anyhow::Result<Box<dyn Send>>;

    /// Whether it may know a vertex and not what that stands on, as what was brought from elsewhere does. Then nothing
    /// is built before it is known to be needed; otherwise a vertex that misses is built at once, because what stands on
    /// it will miss, too.
    fn has_gaps(&self) -> bool {
        false
    }
}

/// Turns results into ids that outlive the process, and back.
pub trait Results<R>: Send + Sync {
    fn save(&self, result: &R) -> anyhow::Result<String>;
    /// None when it was pruned since: the solver builds it again.
    fn load(&self, id: &str) -> anyhow::Result<Option<R>>;
}

/// Why a graph has no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first vertex that failed; the others were stopped because of it.
    #[error("{name}")]
    Vertex { vertex: VertexDigest, name: String, source: anyhow::Error },
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Solves graphs against one cache.
pub struct Solver<R> {
    cache: Arc<dyn CacheStore>,
    results: Arc<dyn Results<R>>,
    progress: Progress,
}

impl<R: Clone + Send + Sync> Solver<R> {
    pub fn new(cache: Arc<dyn CacheStore>, results: Arc<dyn Results<R>>, progress: Progress) -> Self {
        Self { cache, results, progress }
    }

    /// The results of the wanted outputs, in their order. Returns when nothing of it is running any more.
    pub fn solve(&self, graph: &Graph<R>, wanted: &[(VertexDigest, usize)], cancel: &Cancel) -> Result<Vec<R>, Error> {
        run::solve(self, graph, wanted, cancel)
    }
}
