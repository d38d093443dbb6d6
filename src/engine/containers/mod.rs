//! Containers as `docker create`, `run`, `cp` and `rm` know them: a name, a root file system on an image, and what
//! to start in it. They live in the state folder. One that runs is attended to by a process of ours, which holds its lock.

mod commit;
mod files;
mod record;
mod run;
mod stop;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, bail};

use super::resolve::Resolver;
use super::{State, cache::entries};
use crate::base::{Cancel, Digest, Platform, Progress, Reference};
use crate::exec::Network;
use crate::frontend::ImageConfigs;
use crate::image::{Descriptor, Image};
use crate::snapshot::Snapshot;
use crate::store::FileLock;

pub use commit::{Commit, commit, image_config};
pub use files::{export, read_path, write_path};
pub use run::start;
pub use stop::stop;

use record::{RunAs, Stored};

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

/// One container.
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
    #[error("container name {0:?} is not valid, expected [a-zA-Z0-9][a-zA-Z0-9_.-]+")]
    Name(String),
    #[error("container {0} is running")]
    Running(String),
}

/// Makes a container of an image, which is looked for here first and then in its registry.
pub fn create(
    state: &State,
    image: &Reference,
    create: &Create,
    progress: &Progress,
    cancel: &Cancel,
) -> anyhow::Result<Container> {
    let _pin = state.images().pin(cancel)?;
    let base = base_image(state, image, create, progress, cancel)?;
    let run = RunAs::of(&base.config, create).with_context(|| format!("image {}", image.familiar()))?;
    let id = new_id(&base.config_digest);
    let name = match &create.name {
        Some(name) => name.trim_start_matches('/').to_owned(),
        None => id[..12].to_owned(),
    };
    if !is_name(&name) {
        return Err(Error::Name(name).into());
    }
    let home = state.containers_dir();
    fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
    // Two containers of one name would be found by chance; the lock is held for two small files.
    let _naming = FileLock::exclusive(&home.join("naming.lock"), cancel)?;
    if let Some(taken) = list(state)?.into_iter().find(|container| container.name == name) {
        return Err(Error::Taken { name, id: taken.id }.into());
    }
    let stored = Stored {
        snapshot: state.snapshots()?.save(&Snapshot::image(&base.layers)),
        run,
        container: Container {
            id,
            name,
            image: image.familiar(),
            image_id: base.config_digest,
            created: jiff::Timestamp::now().to_string(),
            args: Vec::new(),
            labels: base.config.config.labels.clone().into_iter().chain(create.labels.clone()).collect(),
            exit: None,
        },
    };
    Ok(stored.add(&home)?.container)
}

fn base_image(
    state: &State,
    image: &Reference,
    create: &Create,
    progress: &Progress,
    cancel: &Cancel,
) -> anyhow::Result<Image> {
    let platform = create.platform.clone().unwrap_or_else(Platform::host);
    let resolved = Resolver::new(state, create.pull, progress, cancel).resolve(image, &platform)?;
    let Some(digest) = resolved.reference.digest() else { bail!("image {} has no digest", image.familiar()) };
    let images = state.images();
    let blobs = images.blobs();
    let size = blobs.size(digest)?.unwrap_or(0);
    let found = images.load_for(&Descriptor::new("", *digest, size), &platform)?;
    let mut missing = false;
    for blob in found.blobs() {
        missing |= blobs.size(&blob.digest)?.is_none();
    }
    if !missing {
        return Ok(found);
    }
    let pulled = progress.step(&format!("pull {}", image.familiar()), |step| {
        state
            .registry()?
            .pull(&resolved.reference, &platform, blobs.as_ref(), step, cancel)
            .map_err(anyhow::Error::from)
    })?;
    let named = image.clone().or_latest();
    if let (Some(tag), None) = (named.tag(), named.digest()) {
        images.tag(&pulled.root, &named.with_tag(tag)?)?;
    }
    Ok(pulled.image)
}

fn new_id(image: &Digest) -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let unique = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), jiff::Timestamp::now());
    Digest::of(format!("{image} {unique:?}")).hex()
}

/// Docker's rule.
fn is_name(name: &str) -> bool {
    name.len() > 1
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// By name, id or a prefix of the id that only one has.
pub fn find(state: &State, name: &str) -> anyhow::Result<Container> {
    Ok(find_stored(state, name)?.container)
}

fn find_stored(state: &State, name: &str) -> anyhow::Result<Stored> {
    let all = stored(state)?;
    let wanted = name.trim_start_matches('/');
    if let Some(exact) = all.iter().position(|stored| stored.container.name == wanted || stored.container.id == wanted)
    {
        return all.into_iter().nth(exact).context("it was just there");
    }
    let is_prefix = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
    let mut matching = all.into_iter().filter(|stored| is_prefix && stored.container.id.starts_with(wanted));
    match (matching.next(), matching.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(Error::Missing(name.to_owned()).into()),
    }
}

/// All, newest first.
pub fn list(state: &State) -> anyhow::Result<Vec<Container>> {
    Ok(stored(state)?.into_iter().map(|stored| stored.container).collect())
}

/// Whether its process runs, or its files are being changed.
pub fn is_running(state: &State, container: &Container) -> anyhow::Result<bool> {
    let lock = state.containers_dir().join(&container.id).join("lock");
    // A container that was removed meanwhile must not get a folder by being looked at.
    Ok(lock.exists() && FileLock::try_exclusive(&lock)?.is_none())
}

fn stored(state: &State) -> anyhow::Result<Vec<Stored>> {
    let mut all = Vec::new();
    for dir in entries(&state.containers_dir())? {
        all.extend(Stored::read(&dir)?);
    }
    all.sort_by(|a, b| b.container.created.cmp(&a.container.created).then_with(|| a.container.id.cmp(&b.container.id)));
    Ok(all)
}

/// What containers stand on: prune must leave it.
pub(super) fn snapshots(state: &State) -> anyhow::Result<Vec<Snapshot>> {
    let mut found = Vec::new();
    for stored in stored(state)? {
        found.extend(state.snapshots()?.load(&stored.snapshot)?);
    }
    Ok(found)
}

/// Ok means that it is gone, its named volumes not included.
pub fn remove(state: &State, name: &str) -> anyhow::Result<()> {
    let stored = find_stored(state, name)?;
    let _lock = stored.lock(state)?;
    let dir = state.containers_dir().join(&stored.container.id);
    // Out of sight first: a half-removed folder must not be found.
    let gone = dir.with_extension("gone");
    fs::rename(&dir, &gone).with_context(|| format!("remove {}", dir.display()))?;
    fs::remove_dir_all(&gone).with_context(|| format!("remove {}", gone.display()))
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names_are_dockers() {
        for good in ["ab", "a-b_c.d", "0a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "a", "-a", "a/b", "a b", ".a"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
