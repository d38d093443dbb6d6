//! Content-addressed blobs: completed and verified on write, verified again on read.

use std::io::{self, Read, Write};

use crate::base::{Digest, digest::ParseDigestError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("blob {digest} is not in the store")]
    Missing { digest: Digest },
    #[error("blob {expected}: content has digest {actual}")]
    Mismatch { expected: Digest, actual: Digest },
    #[error("blob {digest}: content has {actual} bytes, expected {expected}")]
    Size { digest: Digest, expected: u64, actual: u64 },
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

/// A place for blobs. All implementations pass one conformance suite.
pub trait BlobStore: Send + Sync {
    /// The blob's size in bytes; none when it is not here.
    fn size(&self, digest: &Digest) -> Result<Option<u64>>;

    /// Opens a blob that [`BlobRead::finish`] verifies.
    fn open(&self, digest: &Digest) -> Result<Box<dyn BlobRead>>;

    /// Starts a blob. Nothing is visible under its digest until the writer is completed.
    fn create(&self) -> Result<Box<dyn BlobWrite>>;

    /// Ok means that the blob is not there, not that this call removed it.
    fn remove(&self, digest: &Digest) -> Result<()>;

    fn list(&self) -> Result<Vec<Digest>>;
}

/// A blob being read. Dropping it early is fine, and proves nothing about the content.
pub trait BlobRead: Read + Send {
    /// Reads what is left and compares the digest.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// A blob being written. Dropping it abandons the blob.
pub trait BlobWrite: Write + Send {
    /// Ok means that the content is stored under its digest, not that this call stored it.
    fn complete(self: Box<Self>) -> Result<(Digest, u64)>;

    /// As [`BlobWrite::complete`], and the content is what was promised; otherwise nothing is stored.
    fn complete_verified_as(self: Box<Self>, digest: &Digest, size: Option<u64>) -> Result<()>;
}
