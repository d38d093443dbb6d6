//! File actions as an operation: copied files count by their content, what is built on by its identity.

use std::sync::Arc;

use super::{Ref, Request, file};
use crate::base::{Cancel, Digest};
use crate::llb::{self, pb};
use crate::solver::{CacheMap, Op, Policy};

pub struct FileOp {
    request: Arc<Request>,
    op: pb::FileOp,
    inputs: usize,
    policy: Policy,
}

impl FileOp {
    pub fn new(request: Arc<Request>, vertex: &llb::Vertex, op: &pb::FileOp) -> Self {
        Self { request, op: op.clone(), inputs: vertex.op.inputs.len(), policy: super::policy(vertex) }
    }
}

impl Op<Ref> for FileOp {
    fn cache_map(&self, _: &Cancel) -> anyhow::Result<CacheMap> {
        Ok(CacheMap {
            digest: file::digest(&self.op),
            inputs: file::input_keys(&self.op, self.inputs),
            policy: self.policy,
        })
    }

    fn content(&self, input: usize, result: &Ref, cancel: &Cancel) -> anyhow::Result<Digest> {
        file::content(&self.op, input, self.request.tree(result)?.as_ref(), cancel)
    }

    fn exec(&self, inputs: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let inputs = inputs
            .iter()
            .map(|input| {
                let snapshot = match input {
                    Ref::Snapshot(snapshot) => Some(snapshot.clone()),
                    Ref::Local(_) => None,
                };
                Ok(file::Input { tree: self.request.tree(input)?, snapshot })
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let results = file::exec(self.request.snapshots()?, &self.op, &inputs, cancel)?;
        Ok(results.into_iter().map(Ref::Snapshot).collect())
    }
}
