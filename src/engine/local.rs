//! Builds in this process: Dockerfile to definition to graph to snapshots to exports.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;

use super::exports::Built;
use super::resolve::Resolver;
use super::{BuiltImage, DockerfilePlan, Engine, Plan, SolveOutcome, SolveRequest, State, dockerfile, failure};
use crate::base::Epoch;
use crate::frontend;
use crate::image::ImageConfig;
use crate::llb::{self, pb};
use crate::ops::{self, Ref, Request, SnapshotResults};
use crate::snapshot::Snapshot;
use crate::solver::Solver;

/// The in-process engine on one state folder.
pub struct LocalEngine {
    state: Arc<State>,
}

/// What is to be solved, whoever made it.
struct Job {
    definition: pb::Definition,
    locals: BTreeMap<String, PathBuf>,
    config: Option<ImageConfig>,
    base: Option<ImageConfig>,
    epoch: Epoch,
    shm_size: Option<u64>,
}

impl LocalEngine {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    fn dockerfile(&self, request: &SolveRequest, plan: &DockerfilePlan) -> anyhow::Result<SolveOutcome> {
        // Holds the temporary directories of the contexts until everything is exported.
        let prepared = dockerfile::prepare(&self.state, request, plan, &|definition| {
            let definition = llb::Graph::decode(&definition)?;
            let resources = Arc::new(self.resources(request));
            let result = self.solve_graph(&resources, &definition, request)?;
            resources.tree(&result)
        })?;
        let resolver = Resolver::new(&self.state, plan.pull, &request.progress, &request.cancel);
        let built = frontend::build(&prepared.input, &resolver)?;
        let job = Job {
            definition: built.definition,
            locals: prepared.locals.clone(),
            config: Some(built.config),
            base: built.base,
            epoch: built.epoch.map_or(request.epoch, |seconds| request.epoch.pinned(seconds)),
            shm_size: plan.shm_size,
        };
        let mut outcome = self.run(request, job)?;
        outcome.warnings = built.warnings.iter().map(warning).collect();
        Ok(outcome)
    }

    fn resources(&self, request: &SolveRequest) -> Request {
        let mut resources = Request::new(self.state.clone(), request.progress.clone());
        resources.secrets.clone_from(&request.secrets);
        resources.ssh.clone_from(&request.ssh);
        resources
    }

    fn run(&self, request: &SolveRequest, job: Job) -> anyhow::Result<SolveOutcome> {
        let definition = llb::Graph::decode(&job.definition)?;
        let mut resources = self.resources(request);
        resources.locals = job.locals;
        resources.shm_size = job.shm_size;
        let resources = Arc::new(resources);
        let result = self.solve_graph(&resources, &definition, request)?;
        let built = Built {
            state: &self.state,
            request: &resources,
            result,
            config: job.config,
            base: job.base,
            epoch: job.epoch,
            progress: &request.progress,
            cancel: &request.cancel,
        };
        let mut outcome = SolveOutcome::default();
        for export in &request.exports {
            let Some(exported) = built.export(export)? else { continue };
            let image = outcome.image.get_or_insert_with(|| BuiltImage {
                config: exported.image.config_digest,
                manifest: None,
                platform: exported.image.config.platform.clone(),
                names: Vec::new(),
            });
            if exported.stored {
                // What is in the store is what later commands mean.
                image.config = exported.image.config_digest;
                image.manifest = Some(exported.image.manifest_descriptor);
            }
            image.names.extend(exported.names);
        }
        Ok(outcome)
    }

    fn solve_graph(
        &self,
        resources: &Arc<Request>,
        definition: &llb::Graph,
        request: &SolveRequest,
    ) -> anyhow::Result<Ref> {
        let Some(head) = definition.head() else { return Ok(Ref::Snapshot(Snapshot::scratch())) };
        let graph = ops::graph(resources, definition)?;
        let results = Arc::new(SnapshotResults(self.state.clone()));
        let solver = Solver::new(self.state.cache().clone(), results, request.progress.clone());
        let mut solved =
            solver.solve(&graph, &[head], &request.cancel).map_err(|error| failure::of_step(error, definition))?;
        solved.pop().context("the solver gave no result")
    }
}

impl Engine for LocalEngine {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        // While it is held nobody collects blobs that have no name yet.
        let _pin = self.state.images().pin(&request.cancel)?;
        match &request.plan {
            Plan::Dockerfile(plan) => self.dockerfile(request, plan),
            Plan::Llb { definition, locals } => self.run(
                request,
                Job {
                    definition: definition.clone(),
                    locals: locals.clone(),
                    config: None,
                    base: None,
                    epoch: request.epoch,
                    shm_size: None,
                },
            ),
        }
    }
}

/// One line for a lint rule that fired, as BuildKit's clients print it.
fn warning(warning: &frontend::Warning) -> String {
    match &warning.place {
        Some(place) => format!("{}: {} (line {})", warning.rule, warning.message, place.lines.start()),
        None => format!("{}: {}", warning.rule, warning.message),
    }
}
