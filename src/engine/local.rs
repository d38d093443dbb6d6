//! Builds in this process: Dockerfile to definition to graph to snapshots to exports.

use std::sync::Arc;

use super::{Engine, SolveOutcome, SolveRequest, State};

/// The in-process engine on one state folder.
pub struct LocalEngine {
    state: Arc<State>,
}

impl LocalEngine {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }
}

impl Engine for LocalEngine {
    fn solve(&self, _request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        todo!()
    }
}
