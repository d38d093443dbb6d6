//! Concourse's resource protocol for images: `check`, `in` and `out` of docker-image-resource, its fork with
//! `git_repo`, and what costs little of registry-image. Requests and answers are values; `cli` does the JSON on
//! standard input and output.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::{Cancel, Env, Progress};

/// What check, in and out stand on.
pub struct World<'a> {
    pub env: &'a Env,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

/// `{"digest": "sha256:…"}`, with `tag` where tags are tracked by pattern or semver.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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

/// Answers `check`; `request` is the JSON from standard input. Oldest first.
pub fn check(_request: &str, _world: &World<'_>) -> anyhow::Result<Vec<Version>> {
    todo!()
}

/// Answers `in`: fills the destination directory.
pub fn get(_request: &str, _destination: &Path, _world: &World<'_>) -> anyhow::Result<Outcome> {
    todo!()
}

/// Answers `out`: paths in params are relative to `sources`.
pub fn put(_request: &str, _sources: &Path, _world: &World<'_>) -> anyhow::Result<Outcome> {
    todo!()
}
