//! Builds on an existing BuildKit. What is to be built is read and planned here, as for the local engine; the
//! definition is solved there; the image comes back into the store, where every export begins.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};

use super::failure;
use super::local::{Job, LocalEngine, Solved};
use super::{Engine, Plan, SharedCaches, SolveOutcome, SolveRequest, State};
use crate::base::progress::Event;
use crate::base::{Digest, Progress, Reference, VertexDigest};
use crate::export::{self, Dest, LayerOptions};
use crate::image::config::History;
use crate::image::{self, Descriptor, Image, ImageConfig};
use crate::llb::{self, pb};
use crate::ops::ssh::Agent;
use crate::ops::tail::Tail;
use crate::ops::{Machine, Ref, Request};
use crate::remote::{self, Address, Client, Offered, Shared};
use crate::snapshot::Snapshot;
use crate::store;

/// An engine elsewhere, for one state folder here.
pub struct RemoteEngine {
    local: LocalEngine,
    address: Address,
    tls: Option<PathBuf>,
}

impl RemoteEngine {
    /// `tls` is a folder with `ca.pem`, and `cert.pem` and `key.pem` where the engine asks for them.
    pub fn new(state: Arc<State>, address: Address, tls: Option<PathBuf>) -> Self {
        Self { local: LocalEngine::new(state), address, tls }
    }

    fn state(&self) -> &Arc<State> {
        self.local.state()
    }

    fn job(&self, client: &Client, request: &SolveRequest, asked: &Request, job: Job) -> anyhow::Result<Solved> {
        if asked.shm_size.is_some() {
            bail!("--shm-size is not supported by an engine elsewhere ({})", self.address);
        }
        let graph = llb::Graph::decode(&job.definition)?;
        if graph.head().is_none() {
            return Ok(Solved { result: Ref::Snapshot(Snapshot::scratch()), config: job.config });
        }
        let (sent, digests) = self.offer(client, &graph, request)?;
        let rewritten;
        let (definition, graph) = if sent.is_empty() {
            (&job.definition, graph)
        } else {
            rewritten = llb::rewrite::sources(&job.definition, &graph, |vertex, _| sent.get(&vertex.digest).cloned());
            let graph = llb::Graph::decode(&rewritten)?;
            (&rewritten, graph)
        };
        let tmp = Machine::tmp(self.state().as_ref())?;
        let archive = tmp.path().join("image.tar");
        let (agents, ssh) = self.agents(asked)?;
        let watch = Watch::default();
        let solve = remote::Solve {
            definition,
            shared: Shared {
                locals: asked.locals.clone(),
                secrets: asked.secrets.clone(),
                ssh,
                registry: self.state().registry()?.clone(),
                images: Offered { blobs: self.state().blobs()?, digests },
            },
            archive: (!request.exports.is_empty()).then_some(archive.as_path()),
            entitlements: request.allow.clone(),
            progress: &watch.over(&request.progress),
            cancel: &request.cancel,
        };
        let solved = client.solve(solve);
        drop(agents);
        solved.map_err(|error| watch.explain(error, &graph))?;
        if request.exports.is_empty() {
            return Ok(Solved { result: Ref::Snapshot(Snapshot::scratch()), config: job.config });
        }
        let image = self.arrived(&archive, tmp.path())?;
        let platform = image.config.platform.clone();
        let config = job.config.unwrap_or_else(|| export::default_config(platform));
        let config = Some(dated(config, image.config.history));
        Ok(Solved { result: Ref::Snapshot(Snapshot::image(&image.layers)), config })
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
    /// side must get them from here. Returned are what stands for their sources, and the blobs that may be asked for.
    fn offer(
        &self,
        client: &Client,
        graph: &llb::Graph,
        request: &SolveRequest,
    ) -> anyhow::Result<(Sent, BTreeSet<Digest>)> {
        let mut sent = Sent::new();
        let mut digests = BTreeSet::new();
        for vertex in graph.vertices() {
            let Some(pb::op::Op::Source(source)) = &vertex.op.op else { continue };
            let Some(name) = source.identifier.strip_prefix("docker-image://") else { continue };
            let reference: Reference = name.parse()?;
            let Some(image) = self.held(&reference, vertex)? else { continue };
            digests.extend(image.blobs().map(|blob| blob.digest).chain([image.manifest_descriptor.digest]));
            let source = client.offer(&image.manifest_descriptor.digest, &request.cancel, |name| {
                request.progress.step(&format!("[internal] send {} to the engine", reference.familiar()), |_| {
                    let file = tempfile::NamedTempFile::new_in(self.state().tmp()?)?;
                    let (names, tmp) = ([name.parse::<Reference>()?], self.state().tmp()?);
                    let (blobs, dest) = (self.state().blobs()?, Dest::File(file.path().to_owned()));
                    let options = LayerOptions::default();
                    export::docker(&[(&image, &names)], &blobs, &dest, &options, &tmp, &request.cancel)?;
                    Ok::<_, anyhow::Error>(file)
                })
            })?;
            sent.insert(vertex.digest, source);
        }
        Ok((sent, digests))
    }

    /// The image that a source means, where it was put into this store under its name, or without one for this build.
    fn held(&self, reference: &Reference, vertex: &llb::Vertex) -> anyhow::Result<Option<Image>> {
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
        let platform = vertex.op.platform.as_ref();
        let platform = platform.map_or_else(crate::base::Platform::host, |p| {
            crate::base::Platform::new(&p.os, &p.architecture, &p.variant)
        });
        match images.load_for(&Descriptor::new("", *digest, size), &platform) {
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
        for (id, sources) in &asked.ssh {
            let option = pb::SshOpt { mode: 0o600, ..pb::SshOpt::default() };
            let dir = Machine::tmp(self.state().as_ref())?;
            let agent =
                Agent::forward(sources, &option, dir, self.state().env()).with_context(|| format!("ssh {id}"))?;
            sockets.insert(id.clone(), agent.socket().to_owned());
            agents.push(agent);
        }
        Ok((agents, sockets))
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

/// Sources by vertex, each with the capability that it needs.
type Sent = HashMap<VertexDigest, (pb::SourceOp, &'static str)>;

impl Engine for RemoteEngine {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome> {
        if let Plan::Dockerfile(plan) = &request.plan
            && plan.caches.asked_for_in(&plan.build_args) != SharedCaches::default()
        {
            bail!("--cache-from and --cache-to are not supported by an engine elsewhere ({})", self.address);
        }
        let client = request.progress.step(&format!("[internal] connect to {}", self.address), |_| {
            Client::connect(&self.address, self.tls.as_deref(), &request.cancel)
        })?;
        self.local.build(request, &|asked, job, _| self.job(&client, request, asked, job))
    }
}

/// What the events of a build tell of its failure.
#[derive(Default)]
struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// In the order in which they failed.
    failed: Vec<(VertexDigest, String, String)>,
    tails: HashMap<VertexDigest, Tail>,
}

impl Watch {
    /// Progress that is looked at on its way.
    fn over(&self, progress: &Progress) -> Progress {
        let (seen, progress) = (self.0.clone(), progress.clone());
        Progress::new(move |event| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Vertex(vertex) => {
                    if let Some(error) = &vertex.error {
                        seen.failed.push((vertex.digest, vertex.name.clone(), error.clone()));
                    }
                }
                Event::Log { vertex, stream, data } => seen.tails.entry(*vertex).or_default().add(*stream, data),
                Event::Status(_) | Event::Warning { .. } => {}
            }
            drop(seen);
            progress.send(event);
        })
    }

    /// The error as the local engine would tell it, where the events say which step it was.
    fn explain(&self, error: remote::Error, graph: &llb::Graph) -> anyhow::Error {
        if let remote::Error::Cancelled(cancelled) = error {
            return cancelled.into();
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = error.to_string();
        // What was cancelled because of it failed too, and says only that.
        let cause = seen.failed.iter().find(|(_, _, why)| said.contains(why.as_str()));
        let Some((digest, name, why)) = cause.cloned() else { return error.into() };
        let lines = seen.tails.remove(&digest).map(Tail::into_lines).unwrap_or_default();
        failure::elsewhere(digest, name, &why, lines, graph)
    }
}
