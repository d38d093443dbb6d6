//! Concourse's resource protocol for images: `check`, `in` and `out` of docker-image-resource, its fork with
//! `git_repo`, and what costs little of registry-image. Requests and answers are values; `cli` does the JSON on
//! standard input and output.

mod aliases;
mod build;
mod check;
mod get;
mod git;
mod metadata;
mod params;
mod put;
mod semver;
mod source;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::base::progress::{Step, Stream};
use crate::base::{Cancel, Env, Epoch, Progress};
use crate::engine;
use source::Source;

/// What check, in and out stand on.
pub struct World<'a> {
    pub env: &'a Env,
    /// How steps are boxed. What the request's source says of registries comes before what this says.
    pub settings: &'a engine::Settings,
    pub epoch: Epoch,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

/// `{"digest": "sha256:…"}`, with `tag` where tags are tracked by pattern or semver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    pub digest: String,
}

/// What `in` and `out` print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    pub version: Version,
    pub metadata: Vec<MetadataField>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetadataField {
    pub name: String,
    pub value: String,
}

/// The JSON that Concourse writes to standard input, for all three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<P> {
    source: Source,
    #[serde(default = "Option::default")]
    version: Option<Version>,
    #[serde(default = "Option::default")]
    params: Option<P>,
}

/// `check` has no params of its own.
#[derive(Deserialize)]
struct NoParams {}

/// Answers `check`; `request` is the JSON from standard input. Oldest first.
pub fn check(request: &str, world: &World<'_>) -> anyhow::Result<Vec<Version>> {
    let request: Request<NoParams> = parse(request)?;
    check::check(&request.source, request.version.as_ref(), world)
}

/// Answers `in`: fills the destination directory. After an error nothing of this call is there.
pub fn get(request: &str, destination: &Path, world: &World<'_>) -> anyhow::Result<Outcome> {
    let request: Request<params::Get> = parse(request)?;
    let version = request.version.context("must specify version")?;
    get::get(&request.source, &version, &request.params.unwrap_or_default(), destination, world)
}

/// Answers `out`: paths in params are relative to `sources`.
pub fn put(request: &str, sources: &Path, world: &World<'_>) -> anyhow::Result<Outcome> {
    let request: Request<params::Put> = parse(request)?;
    put::put(&request.source, &request.params.unwrap_or_default(), sources, world)
}

/// Unknown names are errors: a param that nobody reads is a wish that nobody grants.
fn parse<P: for<'de> Deserialize<'de>>(request: &str) -> anyhow::Result<Request<P>> {
    let request: Request<P> = serde_json::from_str(request).context("invalid request")?;
    request.source.check()?;
    Ok(request)
}

impl World<'_> {
    /// The state folder, with the registries as the source has them.
    fn state(&self, registry: crate::registry::Settings) -> anyhow::Result<Arc<engine::State>> {
        let settings = engine::Settings { registry, ..self.settings.clone() };
        engine::State::open(&engine::State::default_dir(self.env), self.env, settings)
    }
}

/// A line for the people who read the build's log.
fn say(step: &Step, line: impl AsRef<str>) {
    step.log(Stream::Stderr, format!("{}\n", line.as_ref()));
}

/// What the original shows of an image id: the first twelve characters, `sha256:` included.
fn shown_id(id: &crate::base::Digest) -> String {
    id.to_string().chars().take(12).collect()
}

/// Leaves out what has no value, as the original does.
fn fields(all: &[(&str, String)]) -> Vec<MetadataField> {
    let shown = all.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| MetadataField { name: (*name).to_owned(), value: value.clone() }).collect()
}
