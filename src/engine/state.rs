//! The state folder: where images, snapshots, cache records and containers of one user live. Opening it costs
//! nothing; each part is opened when it is first asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::Env;
use crate::exec::{Executor, Isolation};
use crate::registry::Registry;
use crate::store::BlobStore;

/// What the user chose for the whole process.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub isolation: Isolation,
    pub registry: crate::registry::Settings,
}

/// One state folder, shared with other processes.
pub struct State {}

impl State {
    /// Where the state is kept unless a flag says otherwise: `$DOCKLESS_STATE`, `$XDG_DATA_HOME/dockless`,
    /// `$HOME/.local/share/dockless`, `/var/tmp/dockless-UID`.
    pub fn default_dir(_env: &Env) -> PathBuf {
        todo!()
    }

    /// Makes the folder where it is missing; reads nothing in it.
    pub fn open(_dir: &Path, _env: &Env, _settings: Settings) -> anyhow::Result<Arc<Self>> {
        todo!()
    }

    pub fn dir(&self) -> &Path {
        todo!()
    }

    /// The blobs of the named images, and of layers that were made for them.
    pub fn blobs(&self) -> anyhow::Result<Arc<dyn BlobStore>> {
        todo!()
    }

    /// Probes the place when first asked.
    pub fn executor(&self) -> anyhow::Result<&Arc<dyn Executor>> {
        todo!()
    }

    pub fn registry(&self) -> anyhow::Result<&Registry> {
        todo!()
    }

    /// A directory for this process's own short-lived files, swept by others when this process is gone.
    pub fn tmp(&self) -> anyhow::Result<PathBuf> {
        todo!()
    }
}
