//! Builds in this process: Dockerfile to definition to graph to snapshots to exports.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::dockerfile::Prepared;
use super::exports::{Built, Inline};
use super::foreign::{self, FrontendPlan, Reader};
use super::platforms::{Family, OnePlatform};
use super::resolve::Resolver;
use super::shared::{SharedCaches, StepCache};
use super::{BuiltImage, DockerfilePlan, Engine, Given, Plan, SolveOutcome, SolveRequest, State, dockerfile, failure};
use crate::base::{Epoch, Platform};
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
    pub work: Work,
    /// Planned here.
    pub config: Option<ImageConfig>,
    base: Option<ImageConfig>,
    pub epoch: Epoch,
}

#[derive(Clone)]
pub(super) enum Work {
    Definition(pb::Definition),
    /// A frontend of the engine's makes the definition, and the config with it.
    Frontend {
        name: String,
        options: BTreeMap<String, String>,
    },
}

/// What came of a job.
pub(super) struct Solved {
    pub result: Ref,
    pub config: Option<ImageConfig>,
    pub inline: Option<Inline>,
    /// Its layers were made and stored by an engine elsewhere.
    pub elsewhere: bool,
}

/// Where the jobs of a build are solved.
pub(super) trait Site {
    /// Whether frontends beside ours are there.
    fn has_frontends(&self) -> bool;

    /// Of the caches that are asked for, those that are read and written by this process.
    fn caches(&self, asked: &SharedCaches) -> SharedCaches;

    /// Solves jobs, one for each platform. `caches` are those that were asked for, `steps` what this process knows of its
    /// own.
    fn solve(
        &self,
        resources: &Arc<Request>,
        jobs: Vec<Job>,
        caches: &SharedCaches,
        steps: &Arc<StepCache>,
    ) -> anyhow::Result<Vec<Solved>>;
}

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

    /// The road that every build takes: what is asked for is read and planned, its jobs are solved, and exports
    /// are made of the results.
    pub(super) fn build(&self, request: &SolveRequest, site: &dyn Site) -> anyhow::Result<SolveOutcome> {
        // While it is held nobody collects blobs that have no name yet.
        let _pin = self.state.images().pin(&request.cancel)?;
        match &request.plan {
            Plan::Dockerfile(plan) => self.dockerfile(request, plan, site),
            Plan::Llb { definition, given } => {
                let work = Work::Definition(definition.clone());
                let job = Job { work, config: None, base: None, epoch: request.epoch };
                self.jobs(request, self.given(request, given), vec![job], &request.caches, site)
            }
            Plan::Frontend(plan) => self.frontend(request, plan, site),
        }
    }

    fn dockerfile(
        &self,
        request: &SolveRequest,
        plan: &DockerfilePlan,
        site: &dyn Site,
    ) -> anyhow::Result<SolveOutcome> {
        // Holds the temporary directories of the contexts until everything is exported.
        let mut prepared = self.prepare(request, plan)?;
        if site.has_frontends()
            && (Reader::of(self.state.env())? == Reader::Engine || frontend::is_foreign(&prepared.input))
        {
            let plan = foreign::of_dockerfile(plan, &mut prepared, self.state.as_ref())?;
            return self.frontend(request, &plan, site);
        }
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
        let job = |built: frontend::Built| Job {
            work: Work::Definition(built.definition),
            config: Some(built.config),
            base: built.base,
            epoch: built.epoch.map_or(request.epoch, |seconds| request.epoch.pinned(seconds)),
        };
        let caches = request.caches.asked_for_in(&plan.build_args);
        let jobs = planned.into_iter().map(job).collect();
        let outcome = self.jobs(request, resources, jobs, &caches, site)?;
        Ok(SolveOutcome { warnings, ..outcome })
    }

    /// Each platform is a build of its own, as it is with our frontend.
    fn frontend(&self, request: &SolveRequest, plan: &FrontendPlan, site: &dyn Site) -> anyhow::Result<SolveOutcome> {
        if !site.has_frontends() {
            bail!("frontend {} is not part of dockless; a BuildKit may have it (--engine)", plan.name);
        }
        if plan.platforms.len() > 1 {
            OnePlatform::check(&request.exports)?;
        }
        let job = |options| Job {
            work: Work::Frontend { name: plan.name.clone(), options },
            config: None,
            base: None,
            epoch: request.epoch,
        };
        let jobs = plan.by_platform().map(job).collect();
        let caches = request.caches.asked_for_in(&plan.build_args());
        self.jobs(request, self.given(request, &plan.given), jobs, &caches, site)
    }

    /// Solves what is planned, and makes of the results what is asked for.
    fn jobs(
        &self,
        request: &SolveRequest,
        resources: Request,
        jobs: Vec<Job>,
        caches: &SharedCaches,
        site: &dyn Site,
    ) -> anyhow::Result<SolveOutcome> {
        let resources = Arc::new(resources);
        let ours = site.caches(caches);
        let steps = Arc::new(StepCache::new(&self.state, &ours, &request.progress, &request.cancel)?);
        let planned: Vec<_> = jobs.iter().map(|job| (job.base.clone(), job.epoch)).collect();
        let solved = site.solve(&resources, jobs, caches, &steps)?;
        let results = planned.into_iter().zip(solved).map(|((base, epoch), solved)| Built {
            state: &self.state,
            request: &resources,
            result: solved.result,
            config: solved.config,
            base,
            epoch,
            inline: solved.inline,
            elsewhere: solved.elsewhere,
            progress: &request.progress,
            cancel: &request.cancel,
        });
        let results: Vec<_> = results.collect();
        let snapshots = match ours.to.is_empty() {
            true => Vec::new(),
            false => results.iter().map(Built::snapshot).collect::<anyhow::Result<_>>()?,
        };
        let outcome = match results.len() {
            1 => results.iter().try_fold(SolveOutcome::default(), |_, built| export(request, built))?,
            _ => {
                let platform = |built: &Built<'_>| {
                    built.config.as_ref().map_or_else(Platform::host, |config| config.platform.clone())
                };
                export_all(request, &Family(results.into_iter().map(|built| (platform(&built), built)).collect()))?
            }
        };
        for target in &ours.to {
            steps.export(target, &snapshots, &request.epoch, &request.progress, &request.cancel)?;
        }
        Ok(outcome)
    }

    fn given(&self, request: &SolveRequest, given: &Given) -> Request {
        let mut resources = self.resources(request);
        resources.locals.clone_from(&given.locals);
        resources.layouts.clone_from(&given.layouts);
        resources
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
        if Reader::of(self.state.env())? == Reader::Engine {
            bail!("{}={} needs an engine elsewhere (--engine)", foreign::VARIABLE, Reader::Engine);
        }
        self.build(request, &Here { engine: self, request })
    }
}

/// This process.
struct Here<'a> {
    engine: &'a LocalEngine,
    request: &'a SolveRequest,
}

impl Site for Here<'_> {
    fn has_frontends(&self) -> bool {
        false
    }

    fn caches(&self, asked: &SharedCaches) -> SharedCaches {
        asked.clone()
    }

    fn solve(
        &self,
        resources: &Arc<Request>,
        jobs: Vec<Job>,
        caches: &SharedCaches,
        steps: &Arc<StepCache>,
    ) -> anyhow::Result<Vec<Solved>> {
        let solve = |job: Job| {
            let Work::Definition(definition) = &job.work else { bail!("no frontend can be run here") };
            let definition = llb::Graph::decode(definition)?;
            let result = self.engine.solve_graph(resources, &definition, self.request, steps)?;
            let inline = caches.is_inline().then(|| Inline::Of(Arc::clone(steps)));
            Ok(Solved { result, config: job.config, inline, elsewhere: false })
        };
        jobs.into_iter().map(solve).collect()
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
