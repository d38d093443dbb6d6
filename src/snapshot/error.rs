//! What can go wrong with a snapshot, by the name of the thing it went wrong with.

use std::io;
use std::path::{Path, PathBuf};

use super::stack::DeltaId;
use crate::base::Digest;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("snapshot delta {id} is gone; it was removed while in use")]
    MissingDelta { id: DeltaId },
    #[error("layer {digest} cannot be unpacked: {cause:#}")]
    Layer { digest: Digest, cause: anyhow::Error },
    #[error("snapshot record {text:?} is malformed: {cause}")]
    Record { text: String, cause: String },
    #[error("snapshot has {len} layers, there is none at index {index}")]
    NoSuchLayer { index: usize, len: usize },
    #[error("snapshots in {path} are in use by another dockless")]
    Busy { path: PathBuf },
    #[error(transparent)]
    Blob(#[from] crate::store::Error),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Adds the path to an I/O error.
pub(super) trait At<T> {
    fn at(self, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, path: &Path) -> Result<T> {
        self.map_err(|source| Error::Io { path: path.to_owned(), source: source.into() })
    }
}
