//! One build on a remote engine: the definition goes out with a session beside it, events come back, and what was
//! built arrives as an archive.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::frontend as gateway;
use serde_json::json;
use tokio::sync::mpsc;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::client::{Client, attributes, until};
use super::session::Session;
use super::stores::{self, Stores};
use super::{Address, Result, docker, grpc, status};
use crate::base::{Cancel, Digest, Platform, Progress, Secret};
use crate::llb::pb;
use crate::registry::Registry;

/// What the session hands over when it is asked, and nothing beside it.
pub struct Shared {
    /// Folders by the name of their `local://` source.
    pub locals: BTreeMap<String, PathBuf>,
    /// Of their files that may have changed and kept size and mtime, what changes with them.
    pub behind_mtimes: Option<Digest>,
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of ssh agents, by id.
    pub ssh: BTreeMap<String, PathBuf>,
    /// Whose credentials are told to an engine that asks for those of a registry.
    pub registry: Registry,
    /// Blobs of images and caches.
    pub stores: Stores,
}

/// What is to be built.
pub struct Solve<'a> {
    pub work: Work<'a>,
    pub shared: Shared,
    pub caches: Caches,
    /// Where the archive of what was built goes. Without it the build only fills the engine's cache.
    pub archive: Option<&'a Path>,
    /// What the caller lets steps do (`network.host`, `security.insecure`); the engine must allow it too.
    pub entitlements: Vec<String>,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

pub enum Work<'a> {
    /// As it would be solved here, byte for byte.
    Definition(&'a pb::Definition),
    /// A frontend of the engine's, which makes the definition itself.
    Frontend { name: &'a str, options: &'a BTreeMap<String, String> },
    /// Results for several platforms in one build, as only a frontend has them: we are that, through the gateway.
    Several(Vec<(Platform, Work<'a>)>),
}

impl Work<'_> {
    /// The words of a request: a definition, or a frontend and its options. Neither where we are the frontend.
    fn words(&self) -> (Option<pb::Definition>, String, HashMap<String, String>) {
        match self {
            Self::Definition(definition) => (Some((*definition).clone()), String::new(), HashMap::new()),
            Self::Frontend { name, options } => (None, (*name).to_owned(), (*options).clone().into_iter().collect()),
            Self::Several(_) => (None, String::new(), HashMap::new()),
        }
    }

    fn results(&self) -> &[(Platform, Self)] {
        match self {
            Self::Several(results) => results,
            Self::Definition(_) | Self::Frontend { .. } => &[],
        }
    }
}

/// Caches that the engine reads and writes itself, or through the session's stores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caches {
    pub imports: Vec<CacheEntry>,
    pub exports: Vec<CacheEntry>,
}

/// A cache in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// `registry`, `local`, `inline`
    pub kind: &'static str,
    pub attributes: BTreeMap<String, String>,
}

/// Where images without a registry are named: nothing under `.invalid` is anywhere else.
const NOWHERE: &str = "dockless.invalid";

/// The store of the images that are offered. A frontend takes the name of an image in a layout for that of its store.
const SENT: &str = "dockless.invalid/sent";

/// The header that says for which build a frontend speaks.
const BUILD: &str = "buildkit-controlapi-buildid";

/// Where a frontend says which platforms its results are for.
const PLATFORMS: &str = "refs.platforms";

/// The last events of a build that is over arrive within this.
const LAST_EVENTS: Duration = Duration::from_secs(5);

/// One that failed before anything was heard of it was hardly begun: some engines then wait for a build that never comes.
const FIRST_EVENT: Duration = Duration::from_millis(500);

/// Bytes of a session on their way.
const SESSION_BUFFER: usize = 1 << 20;

impl Client {
    /// Builds; returned is what the engine's exporters say.
    pub fn solve(&self, solve: Solve<'_>) -> Result<HashMap<String, String>> {
        let id = unique();
        let (progress, cancel) = (solve.progress, solve.cancel);
        match (&self.address, solve.archive) {
            (Address::Docker(socket), Some(archive)) => {
                let name = format!("{NOWHERE}/built:{id}");
                let exporter = Some(("moby", attributes([("name", name.clone())])));
                let built = self.runtime.block_on(until(cancel, self.run(&id, solve, exporter, None)));
                let fetched = built.and_then(|said| {
                    progress.step("exporting from the Docker daemon", |_| {
                        self.runtime.block_on(until(cancel, docker::save(&self.address, socket, &name, archive)))
                    })?;
                    Ok(said)
                });
                // The daemon keeps the layers for its next build; the name was only for us.
                let gone = self.runtime.block_on(docker::untag(&self.address, socket, &name));
                let said = fetched?;
                gone.map(|()| said)
            }
            (address, Some(archive)) => {
                // A socket is fast and a wire is not.
                let compression = if matches!(address, Address::Tcp { .. }) { "gzip" } else { "uncompressed" };
                let attrs =
                    attributes([("oci-mediatypes", "true".to_owned()), ("compression", compression.to_owned())]);
                let work = self.run(&id, solve, Some(("oci", attrs)), Some(archive.to_owned()));
                self.runtime.block_on(until(cancel, work))
            }
            (_, None) => self.runtime.block_on(until(cancel, self.run(&id, solve, None, None))),
        }
    }

    /// The source by which the engine gets an image that only this machine has. Docker's is given the image now,
    /// unless it has it from before: `archive` makes a docker-archive that names it as said. Others fetch what they
    /// lack through the session.
    pub fn offer(
        &self,
        manifest: &Digest,
        cancel: &Cancel,
        archive: impl FnOnce(&str) -> anyhow::Result<tempfile::NamedTempFile>,
    ) -> anyhow::Result<pb::SourceOp> {
        let source = |identifier, key: &str, value: &str| pb::SourceOp {
            identifier,
            attrs: BTreeMap::from([(key.to_owned(), value.to_owned())]),
        };
        let Address::Docker(socket) = &self.address else {
            let identifier = format!("oci-layout://{SENT}@{manifest}");
            return Ok(source(identifier, "oci.store", SENT));
        };
        let name = format!("{SENT}:{}", manifest.hex());
        if !self.runtime.block_on(until(cancel, docker::has(&self.address, socket, &name)))? {
            let archive = archive(&name)?;
            self.runtime.block_on(until(cancel, docker::load(&self.address, socket, archive.path())))?;
        }
        let identifier = format!("docker-image://{name}");
        Ok(source(identifier, "image.resolvemode", "local"))
    }

    async fn run(
        &self,
        id: &str,
        solve: Solve<'_>,
        exporter: Option<(&str, HashMap<String, String>)>,
        receive: Option<PathBuf>,
    ) -> Result<HashMap<String, String>> {
        let expected = receive.is_some();
        let session = Session::new(solve.shared, receive);
        let keeper = session.clone();
        let (ours, theirs) = tokio::io::duplex(SESSION_BUFFER);
        let (sender, receiver) = mpsc::channel(1);
        let call = self.channel.both("/moby.buildkit.v1.Control/Session", headed(receiver, id, &session)?);
        let incoming = match call.await {
            Ok(incoming) => incoming,
            Err(status) => return Err(self.failed("open a session", status).await),
        };
        let carried =
            grpc::carry::<proto::BytesMessage>(ours, incoming, sender, |m| m.data, |data| proto::BytesMessage { data });
        // Both end with the session's stream, and that with this function at the latest.
        let carrying = Aborted(tokio::spawn(carried));
        let serving = Aborted(tokio::spawn(async move {
            if let Err(error) = grpc::serve(theirs, move |call| session.clone().answer(call)).await {
                tracing::debug!(%error, "the session ended");
            }
        }));

        let (kind, attrs) = exporter.unwrap_or_default();
        let exporters = match kind {
            "" => Vec::new(),
            kind => vec![proto::Exporter { r#type: kind.to_owned(), attrs: attrs.clone() }],
        };
        let (definition, frontend, options) = solve.work.words();
        let question = proto::SolveRequest {
            r#ref: id.to_owned(),
            definition,
            frontend,
            frontend_attrs: options,
            cache: Some(solve.caches.into()),
            session: id.to_owned(),
            // Servers of before 2024 read these two and would build with no output at all.
            exporter_deprecated: kind.to_owned(),
            exporter_attrs_deprecated: attrs,
            exporters,
            entitlements: solve.entitlements,
            ..proto::SolveRequest::default()
        };
        let solving =
            self.channel.unary::<_, proto::SolveResponse>("/moby.buildkit.v1.Control/Solve", Request::new(question));
        let heard = Cell::new(false);
        let watching = self.watch(id, solve.progress, &heard);
        let results = solve.work.results();
        let giving = self.give(id, results);
        tokio::pin!(solving, watching, giving);
        let (mut watched, mut given) = (false, results.is_empty());
        let solved = loop {
            tokio::select! {
                solved = &mut solving => break solved,
                () = &mut watching, if !watched => watched = true,
                result = &mut giving, if !given => match result {
                    Ok(()) => given = true,
                    // The engine would wait for us.
                    Err(status) => break Err(status),
                },
            }
        };
        let patience = if solved.is_err() && !heard.get() { FIRST_EVENT } else { LAST_EVENTS };
        if !watched && tokio::time::timeout(patience, &mut watching).await.is_err() {
            tracing::debug!("the last events of the build did not come");
        }
        drop((carrying, serving));
        let solved = match solved {
            Ok(solved) => solved,
            Err(status) => return Err(self.failed("build", status).await),
        };
        if expected && !keeper.received() {
            let status = Status::data_loss("the build was done, and its image did not arrive");
            return Err(self.failed("build", status).await);
        }
        Ok(solved.exporter_response)
    }

    /// As the frontend of a build: has each result made, and hands all of them over.
    async fn give(&self, id: &str, results: &[(Platform, Work<'_>)]) -> std::result::Result<(), Status> {
        let of_build = |metadata: &mut tonic::metadata::MetadataMap| {
            if let Ok(id) = MetadataValue::try_from(id) {
                metadata.insert(BUILD, id);
            }
        };
        let mut refs = HashMap::new();
        for (platform, work) in results {
            let (definition, frontend, frontend_opt) = work.words();
            let mut question = Request::new(gateway::SolveRequest {
                definition,
                frontend,
                frontend_opt,
                allow_result_return: true,
                allow_result_array_ref: true,
                ..gateway::SolveRequest::default()
            });
            of_build(question.metadata_mut());
            let path = "/moby.buildkit.v1.frontend.LLBBridge/Solve";
            let answer: gateway::SolveResponse = self.channel.unary(path, question).await?;
            match answer.result.and_then(|result| result.result) {
                Some(gateway::result::Result::Ref(made)) => drop(refs.insert(platform.to_string(), made)),
                Some(gateway::result::Result::Refs(made)) => refs.extend(made.refs),
                _ => return Err(Status::data_loss(format!("nothing came of the build for {platform}"))),
            }
        }
        let result = gateway::result::Result::Refs(gateway::RefMap { refs });
        let metadata = HashMap::from([(PLATFORMS.to_owned(), platforms(results).to_string().into_bytes())]);
        let result = gateway::Result { result: Some(result), metadata, ..gateway::Result::default() };
        let mut question = Request::new(gateway::ReturnRequest { result: Some(result), error: None });
        of_build(question.metadata_mut());
        let path = "/moby.buildkit.v1.frontend.LLBBridge/Return";
        self.channel.unary::<_, gateway::ReturnResponse>(path, question).await.map(drop)
    }

    /// The id under which the session serves the blobs of images that are offered.
    pub fn offers() -> String {
        stores::layout(SENT)
    }

    /// Passes the build's events on until it is over.
    async fn watch(&self, id: &str, progress: &Progress, heard: &Cell<bool>) {
        let question = Request::new(proto::StatusRequest { r#ref: id.to_owned() });
        let call = self.channel.answers::<_, proto::StatusResponse>("/moby.buildkit.v1.Control/Status", question);
        let mut events = match call.await {
            Ok(events) => events,
            Err(error) => return tracing::debug!(%error, "the build has no events"),
        };
        loop {
            match events.message().await {
                Ok(Some(event)) => {
                    heard.set(true);
                    status::events(event).for_each(|event| progress.send(event));
                }
                Ok(None) => return,
                // The call that builds fails for the same reason and says so.
                Err(error) => return tracing::debug!(%error, "events of the build ended"),
            }
        }
    }
}

fn platforms(results: &[(Platform, Work<'_>)]) -> serde_json::Value {
    let platform = |(platform, _): &(Platform, Work<'_>)| {
        let Platform { os, arch, variant } = platform;
        json!({"ID": platform.to_string(), "Platform": {"os": os, "architecture": arch, "variant": variant}})
    };
    json!({"Platforms": results.iter().map(platform).collect::<Vec<_>>()})
}

impl From<Caches> for proto::CacheOptions {
    fn from(caches: Caches) -> Self {
        let entries = |entries: Vec<CacheEntry>| {
            let entry = |entry: CacheEntry| proto::CacheOptionsEntry {
                r#type: entry.kind.to_owned(),
                attrs: entry.attributes.into_iter().collect(),
            };
            entries.into_iter().map(entry).collect()
        };
        Self { exports: entries(caches.exports), imports: entries(caches.imports), ..Self::default() }
    }
}

/// A task that ends with this.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A session's call says who we are and which of our methods there are.
fn headed<T>(receiver: mpsc::Receiver<T>, id: &str, session: &Session) -> Result<Request<mpsc::Receiver<T>>> {
    let mut request = Request::new(receiver);
    let mut set = |key: &'static str, value: String| {
        if let Ok(value) = MetadataValue::try_from(value) {
            request.metadata_mut().append(key, value);
        }
    };
    set("x-docker-expose-session-uuid", id.to_owned());
    set("x-docker-expose-session-name", "dockless".to_owned());
    set("x-docker-expose-session-sharedkey", session.shared_key());
    for method in Session::METHODS {
        set("x-docker-expose-session-grpc-method", (*method).to_owned());
    }
    Ok(request)
}

/// A name that no other build has.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let parts = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), SystemTime::now());
    // Processes in containers share numbers, so the address of something of ours joins in.
    let here = std::ptr::from_ref(&parts) as usize;
    Digest::of(format!("{parts:?} {here}")).hex()[..25].to_owned()
}
