//! The state folder: where images, snapshots, cache records and containers of one user live. Opening it costs
//! nothing; each part is opened when it is first asked for.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;

use crate::base::{Cancel, Env};
use crate::exec::{Executor, Isolation};
use crate::image::ImageStore;
use crate::registry::Registry;
use crate::store::{BlobStore, FileLock};

/// What the user chose for the whole process.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub isolation: Isolation,
    pub registry: crate::registry::Settings,
}

/// One state folder, shared with other processes.
pub struct State {
    dir: PathBuf,
    env: Env,
    settings: Settings,
    images: ImageStore,
    registry: OnceLock<Registry>,
    tmp: OnceLock<Tmp>,
}

/// This process's own directory, with the lock that tells others that it is still in use.
struct Tmp {
    dir: tempfile::TempDir,
    _lock: FileLock,
}

impl State {
    /// Where the state is kept unless a flag says otherwise: `$DOCKLESS_STATE`, `$XDG_DATA_HOME/dockless`,
    /// `$HOME/.local/share/dockless`, `/var/tmp/dockless-UID`.
    pub fn default_dir(env: &Env) -> PathBuf {
        if let Some(dir) = env.nonempty("DOCKLESS_STATE") {
            return env.absolute(dir);
        }
        if let Some(dir) = env.nonempty("XDG_DATA_HOME") {
            return env.absolute(dir).join("dockless");
        }
        match env.home() {
            Some(home) => env.absolute(home).join(".local/share/dockless"),
            None => PathBuf::from(format!("/var/tmp/dockless-{}", env.uid())),
        }
    }

    /// Makes the folder where it is missing; reads nothing in it.
    pub fn open(dir: &Path, env: &Env, settings: Settings) -> anyhow::Result<Arc<Self>> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .with_context(|| format!("make the state folder {}", dir.display()))?;
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            env: env.clone(),
            settings,
            images: ImageStore::open(&dir.join("images")),
            registry: OnceLock::new(),
            tmp: OnceLock::new(),
        }))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The named images.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The blobs of the named images, and of layers that were made for them.
    pub fn blobs(&self) -> anyhow::Result<Arc<dyn BlobStore>> {
        Ok(self.images.blobs())
    }

    /// Probes the place when first asked.
    pub fn executor(&self) -> anyhow::Result<&Arc<dyn Executor>> {
        let _ = self.settings.isolation;
        todo!()
    }

    pub fn registry(&self) -> anyhow::Result<&Registry> {
        if let Some(registry) = self.registry.get() {
            return Ok(registry);
        }
        let registry = Registry::new(&self.env, self.settings.registry.clone())?;
        Ok(self.registry.get_or_init(|| registry))
    }

    /// A directory for this process's own short-lived files, swept by others when this process is gone.
    pub fn tmp(&self) -> anyhow::Result<PathBuf> {
        if let Some(tmp) = self.tmp.get() {
            return Ok(tmp.dir.path().to_owned());
        }
        let parent = self.dir.join("tmp");
        std::fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
        let dir = tempfile::tempdir_in(&parent).with_context(|| parent.display().to_string())?;
        let lock = FileLock::exclusive(&dir.path().join("lock"), &Cancel::new())?;
        Ok(self.tmp.get_or_init(|| Tmp { dir, _lock: lock }).dir.path().to_owned())
    }
}
