//! LLB operations as the solver runs them: sources, processes, file actions, merge and diff. Everything that an
//! operation needs of the machine is handed to it.

pub mod cache_mount;
pub mod content;
mod copy;
mod exec;
pub mod file;
mod file_op;
#[cfg(test)]
mod file_tests;
mod fill;
mod layout;
mod merge;
mod mode;
mod mounts;
mod owner;
pub mod select;
mod source;
pub mod ssh;
pub mod tail;
mod unpack;
pub mod user;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

use crate::base::{Cancel, Digest, Env, Progress, Secret};
use crate::exec::Executor;
use crate::image::ImageStore;
use crate::llb::{self, pb};
use crate::registry::Registry;
use crate::snapshot::{Snapshot, Snapshots, Tree};
use crate::solver;
use crate::source::local::LocalContext;

pub use exec::{ForeignPlatform, ProcessFailed};
pub use fill::fill;

/// What an operation produces.
#[derive(Clone)]
pub enum Ref {
    Snapshot(Snapshot),
    /// A directory of the caller's, read in place: it becomes a snapshot only when it must be mounted.
    Local(Arc<LocalContext>),
}

/// What operations need of the machine; implemented by the engine's state folder, which opens each part when it is
/// first asked for.
pub trait Machine: Send + Sync {
    /// For looking at snapshots and writing files in them.
    fn snapshots(&self) -> anyhow::Result<&Snapshots>;
    /// The same, for running processes in, which asks more of the machine.
    fn mountable(&self) -> anyhow::Result<&Snapshots>;
    fn executor(&self) -> anyhow::Result<&Arc<dyn Executor>>;
    fn images(&self) -> &ImageStore;
    fn registry(&self) -> anyhow::Result<&Registry>;
    fn env(&self) -> &Env;
    /// Where folders of `RUN --mount=type=cache` live.
    fn cache_mounts(&self) -> anyhow::Result<PathBuf>;
    /// Where what is known of files in build contexts, git repositories and downloads is kept.
    fn source_cache(&self, kind: &str) -> PathBuf;
    /// A directory that goes with the value, or with the process.
    fn tmp(&self) -> anyhow::Result<tempfile::TempDir>;
}

/// What one request brings.
pub struct Request {
    pub machine: Arc<dyn Machine>,
    /// Directories by the name of their `local://` source.
    pub locals: BTreeMap<String, PathBuf>,
    /// OCI layouts by the name of their store.
    pub layouts: BTreeMap<String, PathBuf>,
    pub secrets: BTreeMap<String, Secret>,
    pub ssh: BTreeMap<String, ssh::Keys>,
    /// `--shm-size` of every step.
    pub shm_size: Option<u64>,
    pub progress: Progress,
    imported: Mutex<HashMap<Digest, Snapshot>>,
}

impl Request {
    pub fn new(machine: Arc<dyn Machine>, progress: Progress) -> Self {
        Self {
            machine,
            locals: BTreeMap::new(),
            layouts: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            shm_size: None,
            progress,
            imported: Mutex::default(),
        }
    }

    fn snapshots(&self) -> anyhow::Result<&Snapshots> {
        self.machine.snapshots()
    }

    /// A look at a result.
    pub fn tree(&self, result: &Ref) -> anyhow::Result<Arc<dyn Tree>> {
        Ok(match result {
            Ref::Snapshot(snapshot) => self.snapshots()?.tree(snapshot),
            Ref::Local(context) => context.clone(),
        })
    }

    /// The result as something that can be mounted or exported. A directory is imported once a request.
    pub fn snapshot(&self, result: &Ref, cancel: &Cancel) -> anyhow::Result<Snapshot> {
        let context = match result {
            Ref::Snapshot(snapshot) => return Ok(snapshot.clone()),
            Ref::Local(context) => context,
        };
        let identity = context.identity(cancel)?;
        let mut imported = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = imported.get(&identity) {
            return Ok(snapshot.clone());
        }
        let snapshot = file::import(self.snapshots()?, Arc::clone(context) as Arc<_>, cancel)?;
        imported.insert(identity, snapshot.clone());
        Ok(snapshot)
    }
}

/// The operations of a checked definition.
pub fn graph(request: &Arc<Request>, definition: &llb::Graph) -> anyhow::Result<solver::Graph<Ref>> {
    let nodes = definition.vertices().iter().map(|vertex| {
        let op = operation(request, vertex).with_context(|| vertex.name())?;
        Ok(solver::Node { digest: vertex.digest, name: vertex.name(), op, inputs: vertex.inputs() })
    });
    Ok(solver::Graph::new(nodes.collect::<anyhow::Result<_>>()?)?)
}

fn operation(request: &Arc<Request>, vertex: &llb::Vertex) -> anyhow::Result<Arc<dyn solver::Op<Ref>>> {
    if let Some(name) = llb::caps::unknown(&vertex.meta.caps) {
        bail!("it needs the capability {name}, which this version does not have");
    }
    if let Some(filter) = vertex.op.constraints.iter().flat_map(|constraints| &constraints.filter).next() {
        bail!("it needs a worker with {filter}, and the only one here is this process");
    }
    let request = request.clone();
    Ok(match &vertex.op.op {
        Some(pb::op::Op::Source(op)) => source::operation(request, vertex, op)?,
        Some(pb::op::Op::Exec(op)) => Arc::new(exec::ExecOp::new(request, vertex, op)),
        Some(pb::op::Op::File(op)) => Arc::new(file_op::FileOp::new(request, vertex, op)),
        Some(pb::op::Op::Merge(op)) => Arc::new(merge::Merge::new(request, vertex, op)),
        Some(pb::op::Op::Diff(op)) => Arc::new(merge::Diff::new(request, vertex, op)),
        Some(pb::op::Op::Build(_)) => bail!("a build inside a definition (BuildOp) is not supported"),
        None => bail!("an operation of no known kind"),
    })
}

/// What becomes of an operation's records: `--no-cache` builds anew what processes and copies make.
fn policy(vertex: &llb::Vertex) -> solver::Policy {
    if vertex.meta.ignore_cache { solver::Policy::Fresh } else { solver::Policy::Shared }
}

/// An input by its number in the op; -1 is the empty file system.
fn input<T>(inputs: &[T], index: i64) -> Option<&T> {
    usize::try_from(index).ok().and_then(|index| inputs.get(index))
}

/// Keeps results across processes as the records of their snapshots.
pub struct SnapshotResults(pub Arc<dyn Machine>);

impl solver::Results<Ref> for SnapshotResults {
    fn save(&self, result: &Ref) -> anyhow::Result<String> {
        match result {
            Ref::Snapshot(snapshot) => Ok(self.0.snapshots()?.save(snapshot)),
            Ref::Local(_) => bail!("a directory that is read in place cannot be kept"),
        }
    }

    fn load(&self, id: &str) -> anyhow::Result<Option<Ref>> {
        Ok(self.0.snapshots()?.load(id)?.map(Ref::Snapshot))
    }
}
