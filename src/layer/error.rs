//! What can be wrong with a layer.

use std::io;
use std::path::PathBuf;

use crate::base::{DiffId, cancel::Cancelled};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stream cannot be read or decompressed.
    #[error("layer data: {0}")]
    Read(#[source] io::Error),
    /// The archive's structure is broken; `position` counts plain bytes from its start.
    #[error("tar header at byte {position}: {reason}")]
    Header { position: u64, reason: String },
    /// One member is not acceptable.
    #[error("tar entry {path:?}: {reason}")]
    Entry { path: String, reason: String },
    #[error("layer has diff ID {actual}, expected {expected}")]
    DiffId { expected: DiffId, actual: DiffId },
    /// The target refused a member.
    #[error("apply {path:?}")]
    Apply { path: PathBuf, source: anyhow::Error },
    #[error("write layer: {0}")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

pub type Result<T> = std::result::Result<T, Error>;
