//! What a build of a Dockerfile starts from, and what comes out of reading it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Place;
use crate::base::{Epoch, Platform, Reference};
use crate::image::config::ImageConfig;
use crate::llb::pb;

/// One Dockerfile and everything around it that decides what it means.
#[derive(Debug, Clone)]
pub struct Input {
    /// The name that errors show.
    pub name: String,
    /// As it was read, whatever its encoding.
    pub text: Vec<u8>,
    /// Name and text of the ignore file that applies to the main context.
    pub ignore: Option<(String, String)>,
    pub target: Option<String>,
    /// In the order of names. `SOURCE_DATE_EPOCH` may be among them.
    pub build_args: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// What is built for; none: the build platform, and the base image may correct it.
    pub platform: Option<Platform>,
    /// Where steps run natively.
    pub build_platform: Platform,
    /// More than one platform is built: names of steps say which one.
    pub multi_platform: bool,
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// Replaces the `context` directory: a build from a git repository or an archive at an address.
    pub main_context: Option<NamedContext>,
    /// When the `context` directory is from, where that is known: an archive's newest file.
    pub context_date: Option<i64>,
    pub no_cache: NoCache,
    /// The network of steps that do not say one themselves.
    pub network: pb::NetMode,
    pub hostname: Option<String>,
    /// Name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// Name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Bytes of /dev/shm; none: the executor's default.
    pub shm_size: Option<u64>,
    pub cgroup_parent: Option<String>,
    /// Put before the ids of cache mounts.
    pub cache_namespace: String,
    pub epoch: Epoch,
}

impl Input {
    /// A Dockerfile with nothing around it, for the host's platform.
    pub fn new(name: impl Into<String>, text: impl Into<Vec<u8>>, epoch: Epoch) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
            ignore: None,
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            build_platform: Platform::host(),
            multi_platform: false,
            named_contexts: BTreeMap::new(),
            main_context: None,
            context_date: None,
            no_cache: NoCache::default(),
            network: pb::NetMode::Unset,
            hostname: None,
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size: None,
            cgroup_parent: None,
            cache_namespace: String::new(),
            epoch,
        }
    }
}

/// `--build-context NAME=…`, resolved as far as it can be without looking inside.
#[derive(Debug, Clone, PartialEq)]
pub enum NamedContext {
    Image(Reference),
    /// A local directory under the name that its `local://` source will have, with the text of its ignore file.
    Local {
        source: String,
        ignore: Option<(String, String)>,
    },
    /// `https://…`, `git@…`, `https://….git#ref:dir`
    Url(String),
    /// An image in an OCI layout: the reference (with digest) that its `oci-layout://` source will have, the name
    /// of the store, and the image's config.
    OciLayout {
        reference: Reference,
        store: String,
        config: Box<ImageConfig>,
    },
}

/// Which steps may not come from the cache.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NoCache {
    #[default]
    Use,
    All,
    /// Stages by name.
    Stages(Vec<String>),
}

/// A planned build.
#[derive(Debug, Clone)]
pub struct Built {
    pub definition: pb::Definition,
    /// With the complete history, and no layers yet.
    pub config: ImageConfig,
    /// The base image's config, where there is a base image: tells inherited history from new.
    pub base: Option<ImageConfig>,
    /// Pinned by the build argument, the Dockerfile or the caller.
    pub epoch: Option<i64>,
    pub warnings: Vec<Warning>,
}

/// What a check of a Dockerfile found.
#[derive(Debug)]
pub struct Checked {
    pub warnings: Vec<Warning>,
    /// Why it cannot be built.
    pub error: Option<super::Error>,
    /// All of the file.
    pub place: Place,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Empty when it has none.
    pub name: String,
    pub description: String,
    /// Built when no target is named.
    pub default: bool,
    /// As it was written.
    pub base: String,
    pub platform: String,
    pub place: Place,
}

/// What a build of a target can be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outline {
    /// Of the target; empty when it has none.
    pub name: String,
    pub description: String,
    pub arguments: Vec<Parameter>,
    pub secrets: Vec<Needed>,
    pub ssh: Vec<Needed>,
    /// The Dockerfile.
    pub source: Arc<str>,
}

/// A build argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub description: String,
    /// As it is given, else its default.
    pub value: String,
    pub place: Place,
}

/// A secret or an agent that a step mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub name: String,
    /// The build fails without it.
    pub required: bool,
    pub place: Place,
}

/// A lint rule that fired.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// BuildKit's name of the rule, such as `FromAsCasing`.
    pub rule: &'static str,
    /// What the rule is about.
    pub description: &'static str,
    /// What is wrong here.
    pub message: String,
    pub url: String,
    pub place: Option<Place>,
}

impl fmt::Display for Warning {
    /// `FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.message)?;
        match &self.place {
            Some(place) => write!(f, " (line {})", place.lines.start()),
            None => Ok(()),
        }
    }
}
