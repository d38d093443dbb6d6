//! Builds in this process: Dockerfile to definition to graph to snapshots to exports.

use std::sync::Arc;

use anyhow::{Context, bail};

use super::dockerfile::Prepared;
use super::exports::Built;
use super::platforms::{Family, OnePlatform};
use super::resolve::Resolver;
use super::shared::{SharedCaches, StepCache};
use super::{BuiltImage, DockerfilePlan, Engine, Plan, SolveOutcome, SolveRequest, State, dockerfile, failure};
use crate::base::Epoch;
use crate::frontend::{self, Answer, Question};
use crate::image::ImageConfig;
use crate::llb::{self, pb};
use crate::ops::{self, Ref, Request};
use crate::snapshot::{Snapshot, Tree};
use crate::solver::Solver;

/// The in-process engine on one state folder.
pub struct LocalEngine {
    state: Arc<State>,
}

/// What is to be solved, whoever made it.
pub(super) struct Job {
    pub definition: pb::Definition,
    pub config: Option<ImageConfig>,
    base: Option<ImageConfig>,
    epoch: Epoch,
}

/// What came of a job.
pub(super) struct Solved {
    pub result: Ref,
    pub config: Option<ImageConfig>,
}

/// Solves a job, in this process or elsewhere.
pub(super) type Solve<'a> = dyn Fn(&Arc<Request>, Job, &Arc<StepCache>) -> anyhow::Result<Solved> + 'a;

impl LocalEngine {
    pub fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Answers a question about the request's Dockerfile; nothing is built.
    pub fn ask(&self, request: &SolveRequest, question: Question) -> anyhow::Result<Answer> {
        let Plan::Dockerfile(plan) = &request.plan else { bail!("only a Dockerfile can be asked about") };
        let _pin = self.state.images().pin(&request.cancel)?;
        let prepared = self.prepare(request, plan)?;
        let solve = |definition| self.files(request, &definition);
        let resolver = Resolver::new(&self.state, plan.pull, &request.progress, &request.cancel).fetching(&solve);
        Ok(frontend::ask(question, &prepared.input, &resolver)?)
    }

    fn prepare(&self, request: &SolveRequest, plan: &DockerfilePlan) -> anyhow::Result<Prepared> {
        dockerfile::prepare(&self.state, request, plan, &|definition| self.files(request, &definition))
    }

    /// What a definition of sources fetches.
    fn files(&self, request: &SolveRequest, definition: &pb::Definition) -> anyhow::Result<Arc<dyn Tree>> {
        let definition = llb::Graph::decode(definition)?;
        let resources = Arc::new(self.resources(request));
        let result = self.solve_graph(&resources, &definition, request, &self.own_cache(request)?)?;
        resources.tree(&result)
    }

    /// The road that every build takes: what is asked for is read and planned, its definitions are solved, and exports
    /// are made of the results.
    pub(super) fn build(&self, request: &SolveRequest, solve: &Solve<'_>) -> anyhow::Result<SolveOutcome> {
        // While it is held nobody collects blobs that have no name yet.
        let _pin = self.state.images().pin(&request.cancel)?;
        match &request.plan {
            Plan::Dockerfile(plan) => self.dockerfile(request, plan, solve),
            Plan::Llb { definition, locals } => {
                let mut resources = self.resources(request);
                resources.locals.clone_from(locals);
                let resources = Arc::new(resources);
                let job = Job { definition: definition.clone(), config: None, base: None, epoch: request.epoch };
                export(request, &self.built(request, &resources, job, &self.own_cache(request)?, solve)?)
            }
        }
    }

    fn dockerfile(
        &self,
        request: &SolveRequest,
        plan: &DockerfilePlan,
        solve_job: &Solve<'_>,
    ) -> anyhow::Result<SolveOutcome> {
        // Holds the temporary directories of the contexts until everything is exported.
        let prepared = self.prepare(request, plan)?;
        let solve = |definition| self.files(request, &definition);
        let resolver = Resolver::new(&self.state, plan.pull, &request.progress, &request.cancel).fetching(&solve);
        let mut inputs = vec![prepared.input];
        for platform in prepared.platforms.iter().skip(1) {
            inputs.push(frontend::Input { platform: Some(platform.clone()), ..inputs[0].clone() });
        }
        if inputs.len() > 1 {
            OnePlatform::check(&request.exports)?;
        }
        // All are planned before the first step runs: a mistake that only the last platform has is told at once.
        let mut planned = Vec::with_capacity(inputs.len());
        for input in &inputs {
            planned.push(frontend::build(input, &resolver)?);
        }
        // The other platforms would only say the same again.
        let warnings = planned.first_mut().map(|first| std::mem::take(&mut first.warnings)).unwrap_or_default();
        let mut resources = self.resources(request);
        resources.locals = prepared.locals;
        resources.shm_size = plan.shm_size;
        let resources = Arc::new(resources);
        let caches = plan.caches.asked_for_in(&plan.build_args);
        let cache = Arc::new(StepCache::new(&self.state, &caches, &request.progress, &request.cancel)?);
        let mut results = Vec::with_capacity(planned.len());
        for built in planned {
            let platform = built.config.platform.clone();
            let job = Job {
                definition: built.definition,
                config: Some(built.config),
                base: built.base,
                epoch: built.epoch.map_or(request.epoch, |seconds| request.epoch.pinned(seconds)),
            };
            let mut built = self.built(request, &resources, job, &cache, solve_job)?;
            built.inline = caches.is_inline().then(|| Arc::clone(&cache));
            results.push((platform, built));
        }
        let snapshots = match caches.to.is_empty() {
            true => Vec::new(),
            false => results.iter().map(|(_, built)| built.snapshot()).collect::<anyhow::Result<_>>()?,
        };
        let mut outcome = match results.len() {
            1 => results.iter().try_fold(SolveOutcome::default(), |_, (_, built)| export(request, built))?,
            _ => export_all(request, &Family(results))?,
        };
        outcome.warnings = warnings;
        for target in &caches.to {
            cache.export(target, &snapshots, &request.epoch, &request.progress, &request.cancel)?;
        }
        Ok(outcome)
    }

    fn resources(&self, request: &SolveRequest) -> Request {
        let mut resources = Request::new(self.state.clone(), request.progress.clone());
        resources.secrets.clone_from(&request.secrets);
        resources.ssh.clone_from(&request.ssh);
        resources
    }

    /// The state folder's records and no others.
    fn own_cache(&self, request: &SolveRequest) -> anyhow::Result<Arc<StepCache>> {
        let none = SharedCaches::default();
        Ok(Arc::new(StepCache::new(&self.state, &none, &request.progress, &request.cancel)?))
    }

    fn built<'a>(
        &'a self,
        request: &'a SolveRequest,
        resources: &'a Arc<Request>,
        mut job: Job,
        cache: &Arc<StepCache>,
        solve: &Solve<'_>,
    ) -> anyhow::Result<Built<'a>> {
        let (base, epoch) = (job.base.take(), job.epoch);
        let solved = solve(resources, job, cache)?;
        Ok(Built {
            state: &self.state,
            request: resources,
            result: solved.result,
            config: solved.config,
            base,
            epoch,
            inline: None,
            progress: &request.progress,
            cancel: &request.cancel,
        })
    }

    fn solve_graph(
        &self,
        resources: &Arc<Request>,
        definition: &llb::Graph,
        request: &SolveRequest,
        cache: &Arc<StepCache>,
    ) -> anyhow::Result<Ref> {
        let Some(head) = definition.head() else { return Ok(Ref::Snapshot(Snapshot::scratch())) };
        let graph = ops::graph(resources, definition)?;
        let solver = Solver::new(cache.clone(), cache.clone(), request.progress.clone());
        let mut solved =
            solver.solve(&graph, &[head], &request.cancel).map_err(|error| failure::of_step(error, definition))?;
        solved.pop().context("the solver gave no result")
    }
}

impl Engine for LocalEngine {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        self.build(request, &|resources, job, cache| {
            let definition = llb::Graph::decode(&job.definition)?;
            Ok(Solved { result: self.solve_graph(resources, &definition, request, cache)?, config: job.config })
        })
    }
}

/// Makes of a result what the request asks for.
fn export(request: &SolveRequest, built: &Built<'_>) -> anyhow::Result<SolveOutcome> {
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

/// The same of results for several platforms.
fn export_all(request: &SolveRequest, family: &Family<'_>) -> anyhow::Result<SolveOutcome> {
    let mut outcome = SolveOutcome::default();
    for export in &request.exports {
        let Some(exported) = family.export(export, request)? else { continue };
        match &mut outcome.image {
            None => outcome.image = Some(exported),
            Some(image) => {
                image.names.extend(exported.names);
                if exported.manifest.is_some() {
                    (image.config, image.manifest) = (exported.config, exported.manifest);
                }
            }
        }
    }
    Ok(outcome)
}
