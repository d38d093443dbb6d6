//! Sources as operations: images, local directories, git repositories, files from the web. Each is recognised by
//! what it is right now (a digest, a commit, a walk over stats), before anything of it is fetched.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, bail};

use super::layout::LayoutSource;
use super::ssh::{Agent, Keys};
use super::{Ref, Request, file};
use crate::base::progress::Step;
use crate::base::{Cancel, Digest, Hasher, Platform, Reference, Secret};
use crate::image::{self, Descriptor, Image};
use crate::llb::{self, pb};
use crate::snapshot::{FileData, Snapshot};
use crate::solver::{CacheMap, Op, Policy};
use crate::source::{GitRepository, GitRequest, HttpFile, HttpRequest, LocalContext, LocalOptions, http};
use crate::store;
use crate::sys::{Meta, Mtime};

/// The operation of a source, by the scheme of its identifier. What is not known here is refused, attributes
/// included: each of them changes what is fetched.
pub fn operation(request: Arc<Request>, vertex: &llb::Vertex, op: &pb::SourceOp) -> anyhow::Result<Arc<dyn Op<Ref>>> {
    let (scheme, rest) = op.identifier.split_once("://").context("a source without a scheme")?;
    let mut attrs = Attrs(op.attrs.clone());
    let step = Step::of(&request.progress, vertex.digest);
    let source: Arc<dyn Op<Ref>> = match scheme {
        "docker-image" => Arc::new(ImageSource {
            reference: rest.parse::<Reference>()?.or_latest(),
            platform: platform(vertex),
            found: OnceLock::new(),
            step,
            request,
        }),
        "local" => Arc::new(LocalSource::new(request, rest, &mut attrs)?),
        "git" => Arc::new(GitSource {
            git: git_request(&request, rest, &mut attrs)?,
            keys: attrs.take("git.mountsshsock").and_then(|id| request.ssh.get(&id).cloned()),
            commit: OnceLock::new(),
            step,
            request,
        }),
        "http" | "https" => Arc::new(HttpSource::new(request, &op.identifier, &mut attrs, step)?),
        "oci-layout" => Arc::new(LayoutSource::new(request, rest, attrs.take("oci.store"), platform(vertex))?),
        other => bail!("source {other}:// is not supported"),
    };
    attrs.finish(&op.identifier)?;
    Ok(source)
}

fn platform(vertex: &llb::Vertex) -> Platform {
    match &vertex.op.platform {
        Some(platform) => Platform::new(&platform.os, &platform.architecture, &platform.variant),
        None => Platform::host(),
    }
}

/// Attributes of a source; those that nobody took are unknown.
struct Attrs(BTreeMap<String, String>);

impl Attrs {
    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key).filter(|value| !value.is_empty())
    }

    fn flag(&mut self, key: &str) -> bool {
        self.take(key).is_some_and(|value| value == "true")
    }

    fn list(&mut self, key: &str) -> anyhow::Result<Vec<String>> {
        let Some(text) = self.take(key) else { return Ok(Vec::new()) };
        serde_json::from_str(&text).with_context(|| format!("attribute {key} is no JSON list"))
    }

    fn number(&mut self, key: &str, radix: u32) -> anyhow::Result<Option<u32>> {
        let parse = |text: String| {
            u32::from_str_radix(text.trim_start_matches("0o"), radix)
                .with_context(|| format!("attribute {key} is {text:?}, expected a number"))
        };
        self.take(key).map(parse).transpose()
    }

    fn finish(mut self, identifier: &str) -> anyhow::Result<()> {
        // How a client would send files or where it would look first; neither changes what a source is.
        for harmless in [
            "local.session",
            "local.unique",
            "local.sharedkeyhint",
            "local.differ",
            "image.resolvemode",
            "image.recordtype",
            "oci.session",
        ] {
            self.0.remove(harmless);
        }
        match self.0.first_key_value() {
            Some((key, _)) => bail!("source {identifier}: attribute {key} is not supported"),
            None => Ok(()),
        }
    }
}

/// An image, pinned by digest or looked up now.
struct ImageSource {
    request: Arc<Request>,
    reference: Reference,
    platform: Platform,
    step: Step,
    found: OnceLock<Digest>,
}

impl ImageSource {
    /// The digest of the manifest or index that the reference means.
    fn digest(&self, cancel: &Cancel) -> anyhow::Result<Digest> {
        if let Some(digest) = self.reference.digest().or_else(|| self.found.get()) {
            return Ok(*digest);
        }
        let digest = match self.request.machine.images().named(&self.reference)? {
            Some(descriptor) => descriptor.digest,
            None => {
                let blobs = self.request.machine.images().blobs();
                let registry = self.request.machine.registry()?;
                registry.resolve(&self.reference, &self.platform, blobs.as_ref(), cancel)?.root.digest
            }
        };
        Ok(*self.found.get_or_init(|| digest))
    }

    /// The image, if all of it is in the store.
    fn stored(&self, digest: Digest) -> anyhow::Result<Option<Image>> {
        let blobs = self.request.machine.images().blobs();
        let Some(size) = blobs.size(&digest)? else { return Ok(None) };
        // The type is told by the document itself.
        let image = match Image::read(blobs.as_ref(), &Descriptor::new("", digest, size), &self.platform) {
            // An index of which other platforms are here.
            Err(image::Error::Blob(store::Error::Missing { .. })) => return Ok(None),
            other => other?,
        };
        for blob in image.blobs() {
            if blobs.size(&blob.digest)?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }
}

impl Op<Ref> for ImageSource {
    fn cache_map(&self, cancel: &Cancel) -> anyhow::Result<CacheMap> {
        let digest = self.digest(cancel)?;
        let mut hasher = Hasher::new();
        hasher.field("image");
        hasher.field(digest.as_bytes());
        hasher.field(self.platform.to_string());
        Ok(CacheMap { digest: hasher.finish(), inputs: Vec::new(), policy: Policy::Shared })
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("a source has no inputs")
    }

    fn exec(&self, _: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let digest = self.digest(cancel)?;
        let image = match self.stored(digest)? {
            Some(image) => image,
            None => {
                let pinned = self.reference.with_digest(digest);
                let images = self.request.machine.images();
                let blobs = images.blobs();
                let registry = self.request.machine.registry()?;
                let pulled = registry.pull(&pinned, &self.platform, blobs.as_ref(), &self.step, cancel)?;
                // As `docker build` does where it pulls: the next build finds the name here.
                if let Some(tag) = self.reference.tag() {
                    images.tag(&pulled.root, &self.reference.with_tag(tag)?)?;
                }
                pulled.image
            }
        };
        Ok(vec![Ref::Snapshot(Snapshot::image(&image.layers))])
    }
}

/// A directory of the caller's.
struct LocalSource {
    request: Arc<Request>,
    name: String,
    options: LocalOptions,
    context: OnceLock<Arc<LocalContext>>,
}

impl LocalSource {
    fn new(request: Arc<Request>, name: &str, attrs: &mut Attrs) -> anyhow::Result<Self> {
        let options = LocalOptions {
            include: attrs.list("local.includepattern")?,
            exclude: attrs.list("local.excludepatterns")?,
            follow: attrs.list("local.followpaths")?,
            cache: Some(request.machine.source_cache("files")),
        };
        Ok(Self { request, name: name.to_owned(), options, context: OnceLock::new() })
    }

    fn context(&self) -> anyhow::Result<&Arc<LocalContext>> {
        if let Some(context) = self.context.get() {
            return Ok(context);
        }
        let dir = self
            .request
            .locals
            .get(&self.name)
            .with_context(|| format!("no local directory {:?} was given", self.name))?;
        let context =
            LocalContext::open(dir, self.options.clone()).with_context(|| format!("open {}", dir.display()))?;
        Ok(self.context.get_or_init(|| Arc::new(context)))
    }
}

impl Op<Ref> for LocalSource {
    fn cache_map(&self, cancel: &Cancel) -> anyhow::Result<CacheMap> {
        let mut hasher = Hasher::new();
        hasher.field("local");
        hasher.field(self.context()?.identity(cancel)?.as_bytes());
        Ok(CacheMap { digest: hasher.finish(), inputs: Vec::new(), policy: Policy::Transient })
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("a source has no inputs")
    }

    fn exec(&self, _: &[Ref], _: &Cancel) -> anyhow::Result<Vec<Ref>> {
        Ok(vec![Ref::Local(self.context()?.clone())])
    }
}

fn git_request(request: &Request, rest: &str, attrs: &mut Attrs) -> anyhow::Result<GitRequest> {
    let (address, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let secret = |id: Option<String>| id.and_then(|id| request.secrets.get(&id).cloned());
    Ok(GitRequest {
        remote: attrs.take("git.fullurl").unwrap_or_else(|| format!("https://{address}")),
        reference: given(reference),
        subdir: given(subdir),
        keep_git_dir: attrs.flag("git.keepgitdir"),
        submodules: !attrs.flag("git.skipsubmodules"),
        commit_dates: match attrs.take("git.mtime").as_deref() {
            None | Some("checkout") => false,
            Some("commit") => true,
            Some(other) => bail!("git.mtime is {other:?}, neither checkout nor commit"),
        },
        checksum: attrs.take("git.checksum"),
        auth_token: secret(attrs.take("git.authtokensecret")),
        auth_header: secret(attrs.take("git.authheadersecret")),
        known_hosts: attrs.take("git.knownsshhosts"),
        ssh_socket: None,
    })
}

/// A commit of a git repository.
struct GitSource {
    request: Arc<Request>,
    git: GitRequest,
    keys: Option<Keys>,
    commit: OnceLock<String>,
    step: Step,
}

impl GitSource {
    fn repository(&self) -> anyhow::Result<GitRepository> {
        let machine = &self.request.machine;
        Ok(GitRepository::open(&machine.source_cache("git"), machine.env())?)
    }

    /// What git is told, and the agent that is started where its keys are files.
    fn with_keys(&self) -> anyhow::Result<(GitRequest, Option<Agent>)> {
        let mut git = self.git.clone();
        let Some(keys) = &self.keys else { return Ok((git, None)) };
        if let Some(socket) = keys.socket() {
            git.ssh_socket = Some(socket.to_owned());
            return Ok((git, None));
        }
        let (machine, option) = (&self.request.machine, pb::SshOpt { mode: 0o600, ..pb::SshOpt::default() });
        let agent = Agent::forward(keys, &option, machine.tmp()?, machine.env())?;
        git.ssh_socket = Some(agent.socket().to_owned());
        Ok((git, Some(agent)))
    }

    fn commit(&self, cancel: &Cancel) -> anyhow::Result<&str> {
        if let Some(commit) = self.commit.get() {
            return Ok(commit);
        }
        let (git, _agent) = self.with_keys()?;
        let commit = self.repository()?.resolve(&git, cancel)?;
        Ok(self.commit.get_or_init(|| commit))
    }
}

impl Op<Ref> for GitSource {
    fn cache_map(&self, cancel: &Cancel) -> anyhow::Result<CacheMap> {
        let mut hasher = Hasher::new();
        hasher.field("git");
        hasher.field(&self.git.remote);
        hasher.field(self.commit(cancel)?);
        hasher.field(self.git.subdir.as_deref().unwrap_or(""));
        // The repository's own folder tells which ref was asked for.
        let kept = if self.git.keep_git_dir { self.git.reference.as_deref().unwrap_or("HEAD") } else { "" };
        hasher.field(kept);
        hasher.field([u8::from(self.git.submodules)]);
        if self.git.commit_dates {
            hasher.field("commit dates");
        }
        Ok(CacheMap { digest: hasher.finish(), inputs: Vec::new(), policy: Policy::Shared })
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("a source has no inputs")
    }

    fn exec(&self, _: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let dir = self.request.machine.tmp()?;
        let commit = self.commit(cancel)?;
        let (git, _agent) = self.with_keys()?;
        self.repository()?.checkout(&git, commit, dir.path(), &self.step, cancel)?;
        let files = LocalContext::open(dir.path(), LocalOptions::default())?;
        Ok(vec![Ref::Snapshot(file::import(self.request.snapshots()?, Arc::new(files), cancel)?)])
    }
}

/// One file from the web.
struct HttpSource {
    request: Arc<Request>,
    http: HttpRequest,
    meta: Meta,
    step: Step,
    fetched: OnceLock<HttpFile>,
}

impl HttpSource {
    fn new(request: Arc<Request>, url: &str, attrs: &mut Attrs, step: Step) -> anyhow::Result<Self> {
        let mut headers = Vec::new();
        if let Some(secret) = attrs.take("http.authheadersecret").and_then(|id| request.secrets.get(&id).cloned()) {
            headers.push(("Authorization".to_owned(), secret));
        }
        let named: Vec<String> = attrs.0.keys().filter(|key| key.starts_with("http.header.")).cloned().collect();
        for key in named {
            let value = attrs.take(&key).unwrap_or_default();
            headers.push((key["http.header.".len()..].to_owned(), Secret::from(value)));
        }
        let checksum = attrs.take("http.checksum").map(|text| text.parse()).transpose()?;
        let http = HttpRequest { url: url.to_owned(), checksum, filename: attrs.take("http.filename"), headers };
        let meta = Meta {
            mode: attrs.number("http.perm", 8)?.unwrap_or(0o600),
            uid: attrs.number("http.uid", 10)?.unwrap_or(0),
            gid: attrs.number("http.gid", 10)?.unwrap_or(0),
            ..Meta::default()
        };
        Ok(Self { request, http, meta, step, fetched: OnceLock::new() })
    }

    fn fetched(&self, cancel: &Cancel) -> anyhow::Result<&HttpFile> {
        if let Some(file) = self.fetched.get() {
            return Ok(file);
        }
        let machine = &self.request.machine;
        let file = http::fetch(&self.http, &machine.source_cache("http"), machine.env(), &self.step, cancel)?;
        Ok(self.fetched.get_or_init(|| file))
    }
}

impl Op<Ref> for HttpSource {
    fn cache_map(&self, cancel: &Cancel) -> anyhow::Result<CacheMap> {
        let file = self.fetched(cancel)?;
        let mut hasher = Hasher::new();
        hasher.field("http");
        hasher.field(file.digest.as_bytes());
        hasher.field(&file.filename);
        hasher.field(file.modified.unwrap_or(0).to_le_bytes());
        hasher.field(format!("{:o} {}:{}", self.meta.mode, self.meta.uid, self.meta.gid));
        Ok(CacheMap { digest: hasher.finish(), inputs: Vec::new(), policy: Policy::Shared })
    }

    fn content(&self, _: usize, _: &Ref, _: &Cancel) -> anyhow::Result<Digest> {
        unreachable!("a source has no inputs")
    }

    fn exec(&self, _: &[Ref], cancel: &Cancel) -> anyhow::Result<Vec<Ref>> {
        let file = self.fetched(cancel)?;
        let data = std::fs::File::open(&file.path).with_context(|| format!("open {}", file.path.display()))?;
        let mut active = self.request.snapshots()?.prepare(&Snapshot::scratch())?;
        let meta = Meta { mtime: Mtime { seconds: file.modified.unwrap_or(0), nanos: 0 }, ..self.meta.clone() };
        let size = data.metadata()?.len();
        active.writer()?.file(Path::new(&file.filename), &meta, size, FileData::File(data))?;
        Ok(vec![Ref::Snapshot(active.commit(cancel)?)])
    }
}
