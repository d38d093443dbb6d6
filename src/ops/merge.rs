//! Merge and diff: results made of other results' deltas, without looking inside.

use std::sync::Arc;

use super::{Ref, Request, input};
use crate::base::{Cancel, Digest, Hasher};
use crate::llb::{self, pb};
use crate::snapshot::Snapshot;
use crate::solver::{CacheMap, InputKey, Op, Policy};

/// Snapshots on top of one another.
pub struct Merge {
    request: Arc<Request>,
    inputs: Vec<i64>,
    edges: usize,
}

impl Merge {
    pub fn new(request: Arc<Request>, vertex: &llb::Vertex, op: &pb::MergeOp) -> Self {
        let inputs = op.inputs.iter().map(|input| input.input).collect();
        Self { request, inputs, edges: vertex.op.inputs.len() }
    }
}

impl Op<Ref> for Merge {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        Ok(by_identity("merge", &self.inputs, self.edges))
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("no input is read")
    }

    fn exec(&self, inputs: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let parts = self
            .inputs
            .iter()
            .filter_map(|&index| input(inputs, index))
            .map(|part| self.request.snapshot(part, cancel))
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(vec![Ref::Snapshot(Snapshot::merge(&parts))])
    }
}

/// What one snapshot has over another.
pub struct Diff {
    request: Arc<Request>,
    lower: i64,
    upper: i64,
    edges: usize,
}

impl Diff {
    pub fn new(request: Arc<Request>, vertex: &llb::Vertex, op: &pb::DiffOp) -> Self {
        Self {
            request,
            lower: op.lower.map_or(-1, |lower| lower.input),
            upper: op.upper.map_or(-1, |upper| upper.input),
            edges: vertex.op.inputs.len(),
        }
    }
}

impl Op<Ref> for Diff {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        Ok(by_identity("diff", &[self.lower, self.upper], self.edges))
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("no input is read")
    }

    fn exec(&self, inputs: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let side = |index| match input(inputs, index) {
            Some(result) => self.request.snapshot(result, cancel),
            None => Ok(Snapshot::scratch()),
        };
        let (lower, upper) = (side(self.lower)?, side(self.upper)?);
        let snapshots = self.request.snapshots()?;
        Ok(vec![Ref::Snapshot(snapshots.diff(&lower, &upper, cancel)?)])
    }
}

fn by_identity(kind: &str, inputs: &[i64], edges: usize) -> CacheMap {
    let mut hasher = Hasher::new();
    hasher.field(kind);
    inputs.iter().for_each(|input| hasher.field(input.to_le_bytes()));
    CacheMap { digest: hasher.finish(), inputs: vec![InputKey::Identity; edges], policy: Policy::Shared }
}
