//! Solves build requests: in this process, or on an existing BuildKit. What stands above knows only [`Engine`].

pub mod address;
mod cache;
pub mod containers;
pub mod contexts;
mod dockerfile;
mod exports;
mod failure;
mod fan;
mod foreign;
mod local;
pub mod place;
mod platforms;
mod prune;
pub mod remote;
mod resolve;
mod rootfs;
pub mod shared;
mod state;
mod trim;
mod usage;
mod used;
pub mod volumes;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::base::{Cancel, Digest, Epoch, Platform, Progress, Reference, Secret};
pub use crate::export::{Dest, LayerOptions};
use crate::image::Descriptor;
use crate::ops::ssh::Keys;

pub use failure::{Location, StepFailed};
pub use fan::{FanOut, Run};
pub use foreign::{FrontendPlan, Reader};
pub use local::LocalEngine;
pub use place::{Place, Places};
pub use prune::{Keep, Pruned, prune};
pub use remote::RemoteEngine;
pub use shared::SharedCaches;
pub use state::{Settings, State};
pub use trim::{Limits, trim};
pub use usage::{Filter, Usage, UsageKind, du};

/// Something that can turn a request into images and files.
pub trait Engine: Send + Sync {
    fn solve(&self, request: &SolveRequest) -> anyhow::Result<SolveOutcome>;
}

/// One build, as it is meant (not as it was typed).
pub struct SolveRequest {
    pub plan: Plan,
    /// `--secret`: id to value.
    pub secrets: BTreeMap<String, Secret>,
    /// `--ssh`: id to agent socket or key files.
    pub ssh: BTreeMap<String, Keys>,
    /// What to make of the result; with none, the build only fills the cache.
    pub exports: Vec<Export>,
    pub caches: SharedCaches,
    /// `--allow`: what steps may do on an engine elsewhere (`network.host`, `security.insecure`). Here the place
    /// decides.
    pub allow: Vec<String>,
    pub epoch: Epoch,
    pub progress: Progress,
    pub cancel: Cancel,
}

/// What is to be built.
pub enum Plan {
    Dockerfile(Box<DockerfilePlan>),
    /// A definition made by any LLB client.
    Llb {
        definition: crate::llb::pb::Definition,
        given: Given,
    },
    /// What a frontend of the engine's makes, which only an engine elsewhere has.
    Frontend(Box<FrontendPlan>),
}

/// Folders that a definition or a frontend may name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// By the name of their `local://` source.
    pub locals: BTreeMap<String, PathBuf>,
    /// OCI layouts by the name of their store.
    pub layouts: BTreeMap<String, PathBuf>,
}

pub struct DockerfilePlan {
    pub context: Context,
    pub dockerfile: DockerfileSource,
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    pub platforms: Vec<Platform>,
    pub named_contexts: BTreeMap<String, String>,
    pub no_cache: NoCache,
    /// Ask the registry again even where the image is here.
    pub pull: bool,
    /// Of steps that do not say it themselves; none: what the engine gives them.
    pub network: Option<crate::exec::Network>,
    pub extra_hosts: Vec<(String, String)>,
    pub ulimits: Vec<(String, u64, u64)>,
    pub shm_size: Option<u64>,
}

impl DockerfilePlan {
    /// A plain build: nothing asked for but what the Dockerfile says.
    pub fn new(context: Context, dockerfile: DockerfileSource) -> Self {
        Self {
            context,
            dockerfile,
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            named_contexts: BTreeMap::new(),
            no_cache: NoCache::Use,
            pull: false,
            network: None,
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size: None,
        }
    }
}

/// Where the files of COPY and ADD come from.
pub enum Context {
    Directory(PathBuf),
    /// A tar read from standard input or elsewhere, already unpacked by the caller into a directory of its own.
    Unpacked(tempfile::TempDir),
    /// `docker build -` with a bare Dockerfile: no files.
    Empty,
    /// A git or http address.
    Remote(String),
}

pub enum DockerfileSource {
    /// A path, absolute, in or outside the context; none for the default, `Dockerfile` in the context.
    Path(Option<PathBuf>),
    /// Text from standard input, with the name that errors show.
    Text { name: String, text: String },
    /// An address of the file alone.
    Remote(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    #[default]
    Use,
    /// `--no-cache`
    All,
    /// `--no-cache-filter`: stages by name.
    Stages(Vec<String>),
}

/// One `-o`, `-t`, `--push` or `--load`, meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Export {
    /// Into the local image store under these names, and to their registries when `push`.
    Image { names: Vec<Reference>, push: bool, options: LayerOptions },
    /// A docker-save archive.
    Docker { names: Vec<Reference>, dest: Dest, options: LayerOptions },
    /// An OCI layout, as tar or as a directory (`tar=false`).
    Oci { names: Vec<Reference>, dest: Dest, tar: bool, options: LayerOptions },
    /// The result's files as one flat tar.
    Tar { dest: Dest },
    /// The result's files in a directory.
    Local { dest: PathBuf },
}

impl Export {
    /// How its layers are made; none for what has no layers.
    pub fn options(&self) -> Option<&LayerOptions> {
        match self {
            Self::Image { options, .. } | Self::Docker { options, .. } | Self::Oci { options, .. } => Some(options),
            Self::Tar { .. } | Self::Local { .. } => None,
        }
    }

    /// Whether it goes to standard output, where there is room for one.
    pub fn is_to_stdout(&self) -> bool {
        match self {
            Self::Docker { dest, .. } | Self::Oci { dest, .. } | Self::Tar { dest } => *dest == Dest::Stdout,
            Self::Image { .. } | Self::Local { .. } => false,
        }
    }
}

/// What came out.
#[derive(Debug, Clone, Default)]
pub struct SolveOutcome {
    /// None when the result has no image config (a foreign definition exported as files).
    pub image: Option<BuiltImage>,
    pub warnings: Vec<crate::frontend::Warning>,
    /// Which engine did it, where several might have.
    pub engine: Option<String>,
}

#[derive(Debug, Clone)]
pub struct BuiltImage {
    /// The image id: the digest of its config, or of the index where it is for several platforms.
    pub config: Digest,
    pub manifest: Option<Descriptor>,
    pub platform: Platform,
    pub names: Vec<Reference>,
}
