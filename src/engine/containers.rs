//! Containers as `docker create`, `run`, `cp` and `rm` know them: a name, a root file system on an image, and what
//! to start in it. They live in the state folder; nothing of them runs between commands.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::PathBuf;

use super::State;
use crate::base::{Cancel, Digest, Platform, Progress, Reference};
use crate::exec::{Exit, Io, Network};

/// What to create, meant. Empty lists and none mean: as the image says.
#[derive(Debug, Clone, Default)]
pub struct Create {
    pub name: Option<String>,
    pub entrypoint: Option<Vec<String>>,
    pub command: Vec<String>,
    /// `KEY=value`, over the image's.
    pub env: Vec<String>,
    pub user: Option<String>,
    pub workdir: Option<String>,
    pub hostname: Option<String>,
    pub network: Network,
    pub volumes: Vec<Volume>,
    pub extra_hosts: Vec<(String, String)>,
    pub ulimits: Vec<(String, u64, u64)>,
    pub labels: BTreeMap<String, String>,
    pub privileged: bool,
    pub read_only: bool,
    /// `-t`: the process is given `TERM`.
    pub terminal: bool,
    /// Ask for this platform's image; none: the host's.
    pub platform: Option<Platform>,
    /// Ask the registry even where the image is here (`--pull=always`).
    pub pull: bool,
}

/// One `-v`, `--mount` or `--tmpfs`.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Volume {
    /// A path of the host, absolute.
    Bind {
        source: PathBuf,
        target: String,
        read_only: bool,
    },
    /// A named volume, kept in the state folder.
    Named {
        name: String,
        target: String,
        read_only: bool,
    },
    Tmpfs {
        target: String,
        size: Option<u64>,
        mode: Option<u32>,
    },
}

/// One container at rest.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// Its config's digest.
    pub image_id: Digest,
    /// RFC 3339.
    pub created: String,
    /// `argv`.
    pub args: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// How it ended last; none before the first start.
    pub exit: Option<i32>,
}

/// Which containers are refused, and why.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such container: {0}")]
    Missing(String),
    #[error("container name {name:?} is already in use by container {id}")]
    Taken { name: String, id: String },
    #[error("container name {0:?} is not valid, expected [a-zA-Z0-9][a-zA-Z0-9_.-]*")]
    Name(String),
    #[error("container {0} is running")]
    Running(String),
}

/// Makes a container of an image, which is looked for here first and then in its registry.
pub fn create(
    _state: &State,
    _image: &Reference,
    _create: &Create,
    _progress: &Progress,
    _cancel: &Cancel,
) -> anyhow::Result<Container> {
    todo!()
}

/// Runs its process to the end. The container stays.
pub fn start(_state: &State, _container: &str, _io: Io<'_>, _cancel: &Cancel) -> anyhow::Result<Exit> {
    todo!()
}

/// By name, id or a prefix of the id that only one has.
pub fn find(_state: &State, _name: &str) -> anyhow::Result<Container> {
    todo!()
}

/// All, newest first.
pub fn list(_state: &State) -> anyhow::Result<Vec<Container>> {
    todo!()
}

/// Ok means that it is gone, its named volumes not included.
pub fn remove(_state: &State, _name: &str) -> anyhow::Result<()> {
    todo!()
}

/// Writes a path of the container as a tar, as `docker cp CONTAINER:PATH -` does: the last name is the top entry.
/// `follow` follows a symlink that the path itself names.
pub fn read_path(
    _state: &State,
    _name: &str,
    _path: &str,
    _follow: bool,
    _output: &mut dyn Write,
) -> anyhow::Result<()> {
    todo!()
}

/// Unpacks a tar into a directory of the container, as `docker cp - CONTAINER:PATH` does.
pub fn write_path(_state: &State, _name: &str, _path: &str, _tar: &mut dyn Read) -> anyhow::Result<()> {
    todo!()
}

/// Its whole file system as one flat tar, as `docker export` does.
pub fn export(_state: &State, _name: &str, _output: &mut dyn Write) -> anyhow::Result<()> {
    todo!()
}
