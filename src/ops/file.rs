//! The file op: copy, mkdir, mkfile, rm and symlink on snapshots, with no mount and no process, meaning what
//! BuildKit's `solver/llbsolver/file` means.

use std::sync::Arc;

use crate::base::{Cancel, Digest};
use crate::llb::pb;
use crate::snapshot::{Snapshot, Snapshots, Tree};
use crate::solver::InputKey;

/// One input of a file op.
#[derive(Clone)]
pub struct Input {
    /// What to look at.
    pub tree: Arc<dyn Tree>,
    /// What to build on, where it is a snapshot; a build context is imported when something is written on it.
    pub snapshot: Option<Snapshot>,
}

/// Carries out all actions. The results are the op's outputs, by index. An action whose input is -1 starts from
/// scratch.
pub fn exec(
    _snapshots: &Snapshots,
    _op: &pb::FileOp,
    _inputs: &[Input],
    _cancel: &Cancel,
) -> anyhow::Result<Vec<Snapshot>> {
    todo!()
}

/// How each of `inputs` inputs decides the result: those that files are only copied from, by what is copied.
pub fn input_keys(_op: &pb::FileOp, _inputs: usize) -> Vec<InputKey> {
    todo!()
}

/// The digest of the op itself for its cache key.
pub fn digest(_op: &pb::FileOp) -> Digest {
    todo!()
}

/// The checksum of everything that the op reads of an input.
pub fn content(_op: &pb::FileOp, _input: usize, _tree: &dyn Tree, _cancel: &Cancel) -> anyhow::Result<Digest> {
    todo!()
}

/// A whole tree as a snapshot of one delta: for mounting a build context into a step.
pub fn import(_snapshots: &Snapshots, _tree: &dyn Tree, _cancel: &Cancel) -> anyhow::Result<Snapshot> {
    todo!()
}
