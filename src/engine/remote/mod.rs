//! Builds on an existing BuildKit. What is to be built is read and planned here, as for the local engine, unless a
//! frontend of the engine's is to do that; it is solved there; the image comes back into the store, where every export
//! begins.

mod caches;
mod locals;
pub mod reach;
mod watch;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::exports::Inline;
use super::local::{Job, LocalEngine, Site, Solved, Work};
use super::shared::{CachePlace, INLINE, SharedCaches, StepCache};
use super::{Engine, Export, SolveOutcome, SolveRequest, State};
use crate::base::{Digest, Platform, Reference, VertexDigest};
use crate::export::{self, Dest, LayerOptions};
use crate::image::config::History;
use crate::image::{self, Descriptor, Image, ImageConfig};
use crate::llb::{self, pb};
use crate::ops::ssh::Agent;
use crate::ops::{Machine, Ref, Request};
use crate::remote::{self, Address, Client, Shared, Store, Stores, stores};
use crate::snapshot::Snapshot;
use crate::store;
use watch::Watch;

/// An engine elsewhere, for one state folder here.
pub struct RemoteEngine {
    local: LocalEngine,
    address: Address,
}

impl RemoteEngine {
    pub fn new(state: Arc<State>, address: Address) -> Self {
        Self { local: LocalEngine::new(state), address }
    }

    fn state(&self) -> &Arc<State> {
        self.local.state()
    }

    fn job(&self, there: &There<'_>, asked: &Request, job: Job, caches: &SharedCaches) -> anyhow::Result<Solved> {
        let request = there.request;
        let redates = request.exports.iter().filter_map(Export::options).any(|options| options.rewrite_timestamp);
        if redates && job.config.is_none() && job.epoch.source_date().is_some() {
            bail!(
                "rewrite-timestamp=true is not supported by an engine elsewhere ({}) for what was not planned here: \
                 nothing tells which layers are the base's, and keep their times",
                self.address
            );
        }
        let mut offered = BTreeSet::new();
        let Some((work, graph)) = self.sendable(there, job.work, &mut offered)? else {
            let result = Ref::Snapshot(Snapshot::scratch());
            return Ok(Solved { result, config: job.config, inline: None, elsewhere: true });
        };
        let tmp = Machine::tmp(self.state().as_ref())?;
        let archive = tmp.path().join("image.tar");
        let wanted = (!request.exports.is_empty()).then_some(archive.as_path());
        let order = Order { work: as_asked(&work), graphs: std::slice::from_ref(&graph), offered };
        self.have_solved(there, asked, order, caches, wanted)?;
        if wanted.is_none() {
            let result = Ref::Snapshot(Snapshot::scratch());
            return Ok(Solved { result, config: job.config, inline: None, elsewhere: true });
        }
        let mut image = self.arrived(&archive, tmp.path())?;
        let inline = image.config.extra.remove(INLINE).map(Inline::Made);
        let config = match (job.config, work) {
            (Some(config), _) => dated(config, image.config.history),
            (None, Work::Definition(_)) => {
                dated(export::default_config(image.config.platform.clone()), image.config.history)
            }
            // As the frontend made it.
            (None, Work::Frontend { .. }) => image.config,
        };
        let result = Ref::Snapshot(Snapshot::image(&image.layers));
        Ok(Solved { result, config: Some(config), inline, elsewhere: true })
    }

    /// What was built for several platforms, once more and all at once, for the caches that have room for one result:
    /// nothing is made again but they.
    fn leave(
        &self,
        there: &There<'_>,
        asked: &Request,
        built: Vec<(Platform, Work)>,
        caches: &SharedCaches,
    ) -> anyhow::Result<()> {
        let mut offered = BTreeSet::new();
        let (mut works, mut graphs) = (Vec::new(), Vec::new());
        for (platform, work) in built {
            let Some((work, graph)) = self.sendable(there, met(work), &mut offered)? else { continue };
            works.push((platform, work));
            graphs.push(graph);
        }
        let several = works.iter().map(|(platform, work)| (platform.clone(), as_asked(work))).collect();
        let order = Order { work: remote::Work::Several(several), graphs: &graphs, offered };
        self.have_solved(there, asked, order, caches, None)
    }

    /// The work as the engine gets it, with the images that only the store here has as it finds them. None where there
    /// is nothing to do.
    fn sendable(
        &self,
        there: &There<'_>,
        work: Work,
        offered: &mut BTreeSet<Digest>,
    ) -> anyhow::Result<Option<(Work, llb::Graph)>> {
        let There { client, request, .. } = there;
        match work {
            Work::Definition(definition) => {
                let graph = llb::Graph::decode(&definition)?;
                if graph.head().is_none() {
                    return Ok(None);
                }
                let sent = self.send(client, &graph, request, offered)?;
                if sent.is_empty() {
                    return Ok(Some((Work::Definition(definition), graph)));
                }
                let rewritten =
                    llb::rewrite::sources(&definition, &graph, |vertex, _| sent.get(&vertex.digest).cloned());
                let graph = llb::Graph::decode(&rewritten)?;
                Ok(Some((Work::Definition(rewritten), graph)))
            }
            Work::Frontend { name, mut options } => {
                self.contexts(client, &mut options, request, offered)?;
                Ok(Some((Work::Frontend { name, options }, llb::Graph::default())))
            }
        }
    }

    fn have_solved(
        &self,
        there: &There<'_>,
        asked: &Request,
        order: Order<'_>,
        caches: &SharedCaches,
        archive: Option<&Path>,
    ) -> anyhow::Result<()> {
        let There { client, request, .. } = there;
        let (agents, ssh) = self.agents(asked)?;
        let caches = caches::Prepared::new(caches, &request.progress)?;
        let watch = Watch::default();
        let Order { work, graphs, offered } = order;
        let files = Machine::source_cache(self.state().as_ref(), "files");
        let solve = remote::Solve {
            work,
            shared: Shared {
                locals: asked.locals.clone(),
                behind_mtimes: locals::behind_mtimes(&asked.locals, graphs, &files, &request.cancel)?,
                secrets: asked.secrets.clone(),
                ssh,
                registry: self.state().registry()?.clone(),
                stores: self.stores(asked, offered, &caches)?,
            },
            caches: caches.entries(),
            archive,
            entitlements: request.allow.clone(),
            progress: &watch.over(&request.progress),
            cancel: &request.cancel,
        };
        let solved = client.solve(solve);
        drop(agents);
        let said = solved.map_err(|error| watch.explain(error, graphs))?;
        caches.name(&said, &request.cancel)
    }

    /// What the session serves of blobs: images that are sent along, layouts that are named, caches in folders.
    fn stores(&self, asked: &Request, offered: BTreeSet<Digest>, caches: &caches::Prepared) -> anyhow::Result<Stores> {
        let mut stores = caches.stores();
        let layouts = asked.layouts.iter().map(|(name, dir)| (stores::layout(name), Store::of_layout(dir)));
        stores.0.extend(layouts);
        if !offered.is_empty() {
            let store = Store { blobs: self.state().blobs()?, only: Some(offered), writable: false };
            stores.0.insert(Client::offers(), store);
        }
        Ok(stores)
    }

    /// Takes what was built into the store's blobs; exports name it.
    fn arrived(&self, archive: &Path, tmp: &Path) -> anyhow::Result<Image> {
        let mut opened = image::open(archive, tmp).with_context(|| format!("what {} built", self.address))?;
        let count = opened.images.len();
        let (Some((image, _)), 1) = (opened.images.pop(), count) else {
            bail!("{} sent {count} images for one build", self.address);
        };
        self.state().images().adopt(&image, opened.blobs.as_ref())?;
        Ok(image)
    }

    /// Images that this store knows by name: as for the local engine they come before the registry's, so the other
    /// side must get them from here. Returned is what stands for their sources; `offered` gains the blobs that may be
    /// asked for.
    fn send(
        &self,
        client: &Client,
        graph: &llb::Graph,
        request: &SolveRequest,
        offered: &mut BTreeSet<Digest>,
    ) -> anyhow::Result<Sent> {
        let mut sent = Sent::new();
        for vertex in graph.vertices() {
            let Some(pb::op::Op::Source(source)) = &vertex.op.op else { continue };
            let Some(name) = source.identifier.strip_prefix("docker-image://") else { continue };
            let reference: Reference = name.parse()?;
            let platform = vertex.op.platform.as_ref();
            let platform = platform.map_or_else(Platform::host, |p| Platform::new(&p.os, &p.architecture, &p.variant));
            let Some(image) = self.held(&reference, &platform)? else { continue };
            sent.insert(vertex.digest, self.offer(client, &reference, &image, request, offered)?);
        }
        Ok(sent)
    }

    /// The same for contexts of a frontend: those that are images of this store.
    fn contexts(
        &self,
        client: &Client,
        options: &mut BTreeMap<String, String>,
        request: &SolveRequest,
        offered: &mut BTreeSet<Digest>,
    ) -> anyhow::Result<()> {
        let platform = match options.get("platform") {
            Some(platform) => platform.parse()?,
            None => Platform::host(),
        };
        let contexts = options.iter_mut().filter_map(|(key, value)| Some((key.strip_prefix("context:")?, value)));
        for (count, (name, value)) in contexts.enumerate() {
            // BuildKit says its version since it knows contexts; one of before builds without a word, and without them.
            let workers = if count == 0 { client.workers(&[], &request.cancel)? } else { Vec::new() };
            if workers.iter().any(|worker| worker.version.is_none()) {
                bail!("the engine at {} is too old for its frontend to know the build context {name}", self.address);
            }
            let Some(image) = value.strip_prefix("docker-image://") else { continue };
            let reference: Reference = image.parse()?;
            let reference = match (reference.digest(), self.state().images().named(&reference.clone().or_latest())?) {
                (None, Some(named)) => reference.or_latest().with_digest(named.digest),
                _ => reference,
            };
            let Some(image) = self.held(&reference, &platform)? else { continue };
            *value = self.offer(client, &reference, &image, request, offered)?.identifier;
        }
        Ok(())
    }

    fn offer(
        &self,
        client: &Client,
        reference: &Reference,
        image: &Image,
        request: &SolveRequest,
        offered: &mut BTreeSet<Digest>,
    ) -> anyhow::Result<pb::SourceOp> {
        offered.extend(image.blobs().map(|blob| blob.digest).chain([image.manifest_descriptor.digest]));
        client.offer(&image.manifest_descriptor.digest, &request.cancel, |name| {
            request.progress.step(&format!("[internal] send {} to the engine", reference.familiar()), |_| {
                let file = tempfile::NamedTempFile::new_in(self.state().tmp()?)?;
                let (names, tmp) = ([name.parse::<Reference>()?], self.state().tmp()?);
                let (blobs, dest) = (self.state().blobs()?, Dest::File(file.path().to_owned()));
                let options = LayerOptions::default();
                export::docker(&[(image, &names)], &blobs, &dest, &options, &tmp, &request.cancel)?;
                Ok::<_, anyhow::Error>(file)
            })
        })
    }

    /// The image that a source means, where it was put into this store under its name, or without one for this build.
    fn held(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<Option<Image>> {
        let images = self.state().images();
        let Some(digest) = reference.digest() else { return Ok(None) };
        let known = match reference.tag() {
            Some(tag) => images.named(&reference.with_tag(tag)?)?.is_some_and(|named| named.digest == *digest),
            None => false,
        };
        if !known && !super::contexts::is_unnamed(reference) {
            return Ok(None);
        }
        let blobs = images.blobs();
        let Some(size) = blobs.size(digest)? else { return Ok(None) };
        match images.load_for(&Descriptor::new("", *digest, size), platform) {
            Ok(image) => {
                let all = image.blobs().map(|blob| blobs.size(&blob.digest)).collect::<Result<Vec<_>, _>>()?;
                Ok(all.iter().all(Option::is_some).then_some(image))
            }
            // Of an index only other platforms are here: the registry has this one.
            Err(image::Error::Platform { .. } | image::Error::Blob(store::Error::Missing { .. })) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sockets for the session, and what keeps them open.
    fn agents(&self, asked: &Request) -> anyhow::Result<(Vec<Agent>, BTreeMap<String, PathBuf>)> {
        let mut agents = Vec::new();
        let mut sockets = BTreeMap::new();
        for (id, keys) in &asked.ssh {
            let option = pb::SshOpt { mode: 0o600, ..pb::SshOpt::default() };
            let dir = Machine::tmp(self.state().as_ref())?;
            let agent = Agent::forward(keys, &option, dir, self.state().env()).with_context(|| format!("ssh {id}"))?;
            sockets.insert(id.clone(), agent.socket().to_owned());
            agents.push(agent);
        }
        Ok((agents, sockets))
    }
}

/// What goes to the engine.
struct Order<'a> {
    work: remote::Work<'a>,
    /// One for each result; empty where a frontend makes it.
    graphs: &'a [llb::Graph],
    /// Blobs of images that are sent along.
    offered: BTreeSet<Digest>,
}

fn platform(job: &Job) -> anyhow::Result<Platform> {
    match (&job.config, &job.work) {
        (Some(config), _) => Ok(config.platform.clone()),
        (None, Work::Frontend { options, .. }) if options.contains_key("platform") => Ok(options["platform"].parse()?),
        (None, _) => Ok(Platform::host()),
    }
}

fn as_asked(work: &Work) -> remote::Work<'_> {
    match work {
        Work::Definition(definition) => remote::Work::Definition(definition),
        Work::Frontend { name, options } => remote::Work::Frontend { name, options },
    }
}

/// Work that was just done: its steps are to be met, whatever was said of running them again.
fn met(work: Work) -> Work {
    match work {
        Work::Definition(mut definition) => {
            definition.metadata.values_mut().for_each(|meta| meta.ignore_cache = false);
            Work::Definition(definition)
        }
        Work::Frontend { name, mut options } => {
            options.remove("no-cache");
            Work::Frontend { name, options }
        }
    }
}

/// The config that was planned here, with the times at which its layers were made there.
fn dated(mut config: ImageConfig, made: Vec<History>) -> ImageConfig {
    let mut made = made.into_iter().filter(|line| !line.empty_layer);
    for line in config.history.iter_mut().filter(|line| !line.empty_layer) {
        let created = made.next().and_then(|made| made.created);
        line.created = line.created.take().or(created);
    }
    // Layers that no line tells of: a definition that no frontend made.
    config.history.extend(made);
    config
}

/// Sources by vertex.
type Sent = HashMap<VertexDigest, pb::SourceOp>;

impl Engine for RemoteEngine {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        let client = request.progress.step(&format!("[internal] connect to {}", self.address), |_| {
            reach::connect(&self.address, self.state().env(), &request.cancel)
        })?;
        self.local.build(request, &There { engine: self, client: &client, request })
    }
}

/// An engine that answers.
struct There<'a> {
    engine: &'a RemoteEngine,
    client: &'a Client,
    request: &'a SolveRequest,
}

impl Site for There<'_> {
    fn has_frontends(&self) -> bool {
        true
    }

    /// The engine reads and writes them all.
    fn caches(&self, _: &SharedCaches) -> SharedCaches {
        SharedCaches::default()
    }

    fn solve(
        &self,
        resources: &Arc<Request>,
        jobs: Vec<Job>,
        caches: &SharedCaches,
        _: &Arc<StepCache>,
    ) -> anyhow::Result<Vec<Solved>> {
        let (inline, others): (Vec<_>, Vec<_>) =
            caches.to.iter().cloned().partition(|target| target.place == CachePlace::Inline);
        if jobs.len() == 1 || others.is_empty() {
            return jobs.into_iter().map(|job| self.engine.job(self, resources, job, caches)).collect();
        }
        // Each is a build of its own, and would replace the cache of the one before.
        let built = jobs.iter().map(|job| Ok((platform(job)?, job.work.clone()))).collect::<anyhow::Result<_>>()?;
        let within = SharedCaches { from: caches.from.clone(), to: inline };
        let solved = jobs.into_iter().map(|job| self.engine.job(self, resources, job, &within));
        let solved = solved.collect::<anyhow::Result<_>>()?;
        let from = caches.from.clone();
        self.engine.leave(self, resources, built, &SharedCaches { from, to: others })?;
        Ok(solved)
    }
}
