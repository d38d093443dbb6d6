//! Content-addressed blobs: completed and verified on write, verified again on read. And the locks by which several
//! processes share one state folder.

mod disk;
pub mod lock;
mod memory;
mod overlay;
#[cfg(test)]
mod suite;

use std::io::{self, Read, Write};
use std::path::Path;

pub use disk::DiskBlobs;
pub use lock::FileLock;
pub use memory::MemoryBlobs;
pub use overlay::OverlayBlobs;

use crate::base::{Digest, digest::ParseDigestError};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("blob {digest} is not in the store")]
    Missing { digest: Digest },
    #[error("blob {expected}: content has digest {actual}")]
    Mismatch { expected: Digest, actual: Digest },
    #[error("blob {digest}: content has {actual} bytes, expected {expected}")]
    Size { digest: Digest, expected: u64, actual: u64 },
    #[error("blob {digest} has {actual} bytes, more than the {limit} that a document may have")]
    TooLarge { digest: Digest, limit: u64, actual: u64 },
    #[error("{0} is read-only")]
    ReadOnly(String),
    #[error(transparent)]
    Digest(#[from] ParseDigestError),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// For `map_err`: an error of the system with the path that it is about.
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        |source| Self::Io { path, source }
    }
}

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

/// A store by reference or shared is the store.
macro_rules! is_a_store {
    ($($outer:ty),*) => {$(
        impl<T: BlobStore + ?Sized> BlobStore for $outer {
            fn size(&self, digest: &Digest) -> Result<Option<u64>> {
                (**self).size(digest)
            }

            fn open(&self, digest: &Digest) -> Result<Box<dyn BlobRead>> {
                (**self).open(digest)
            }

            fn create(&self) -> Result<Box<dyn BlobWrite>> {
                (**self).create()
            }

            fn remove(&self, digest: &Digest) -> Result<()> {
                (**self).remove(digest)
            }

            fn list(&self) -> Result<Vec<Digest>> {
                (**self).list()
            }
        }
    )*};
}

is_a_store!(&T, std::sync::Arc<T>);

/// A blob being read. Dropping it early is fine, and proves nothing about the content.
pub trait BlobRead: Read + Send {
    /// Reads what is left and compares the digest.
    fn finish(self: Box<Self>) -> Result<()>;

    /// The rest of the blob as it is, for somebody who passes it on to one who verifies it.
    fn unverified(self: Box<Self>) -> Box<dyn Read + Send>;
}

/// A blob being written. Dropping it abandons the blob.
pub trait BlobWrite: Write + Send {
    /// Ok means that the content is stored under its digest, not that this call stored it.
    fn complete(self: Box<Self>) -> Result<(Digest, u64)>;

    /// As [`BlobWrite::complete`], and the content is what was promised; otherwise nothing is stored.
    fn complete_verified_as(self: Box<Self>, digest: &Digest, size: Option<u64>) -> Result<()>;
}

/// Manifests, indexes and configs above this are refused: registries stop at 4 MiB, and the largest real ones are
/// far below. It bounds what a hostile archive can make us hold in memory.
pub const DOCUMENT_LIMIT: u64 = 16 << 20;

/// Reads a small, verified blob (a manifest, an index, a config) into memory.
pub fn read_document(blobs: &dyn BlobStore, digest: &Digest) -> Result<Vec<u8>> {
    let actual = blobs.size(digest)?.ok_or(Error::Missing { digest: *digest })?;
    if actual > DOCUMENT_LIMIT {
        return Err(Error::TooLarge { digest: *digest, limit: DOCUMENT_LIMIT, actual });
    }
    let mut bytes = Vec::new();
    let mut blob = blobs.open(digest)?;
    blob.by_ref()
        .take(DOCUMENT_LIMIT)
        .read_to_end(&mut bytes)
        .map_err(|source| Error::Io { path: format!("blob {digest}"), source })?;
    blob.finish()?;
    Ok(bytes)
}

/// Stores bytes that are already in memory. What is there, and whole, is not written again.
pub fn write_document(blobs: &dyn BlobStore, bytes: &[u8]) -> Result<Digest> {
    let digest = Digest::of(bytes);
    if read_document(blobs, &digest).is_ok() {
        return Ok(digest);
    }
    let mut blob = blobs.create()?;
    blob.write_all(bytes).map_err(|source| Error::Io { path: "new blob".to_owned(), source })?;
    Ok(blob.complete()?.0)
}

/// Copies one blob, verified on its way; nothing is read when it is already there with the right size.
pub fn copy(from: &dyn BlobStore, into: &dyn BlobStore, digest: &Digest) -> Result<()> {
    let size = from.size(digest)?.ok_or(Error::Missing { digest: *digest })?;
    if into.size(digest)? == Some(size) {
        return Ok(());
    }
    let mut source = from.open(digest)?;
    let mut target = into.create()?;
    io::copy(&mut source, &mut target).map_err(|source| Error::Io { path: format!("blob {digest}"), source })?;
    source.finish()?;
    target.complete_verified_as(digest, Some(size))
}

/// Checks what a reader or writer saw against what was promised.
fn verify(expected: &Digest, expected_size: Option<u64>, actual: &Digest, actual_size: u64) -> Result<()> {
    match expected_size {
        Some(expected_size) if expected_size != actual_size => {
            Err(Error::Size { digest: *expected, expected: expected_size, actual: actual_size })
        }
        _ if expected != actual => Err(Error::Mismatch { expected: *expected, actual: *actual }),
        _ => Ok(()),
    }
}

/// Hashes what is read through it, and compares at the end: the [`BlobRead`] of any plain reader.
pub struct Verified<R> {
    input: R,
    expected: Digest,
    size: u64,
    seen: u64,
    hasher: crate::base::Hasher,
}

impl<R: Read> Verified<R> {
    pub fn new(input: R, expected: Digest, size: u64) -> Self {
        Self { input, expected, size, seen: 0, hasher: crate::base::Hasher::new() }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.seen += count as u64;
        Ok(count)
    }
}

impl<R: Read + Send + 'static> BlobRead for Verified<R> {
    fn finish(mut self: Box<Self>) -> Result<()> {
        let digest = self.expected;
        io::copy(&mut self, &mut io::sink()).map_err(|source| Error::Io { path: format!("blob {digest}"), source })?;
        let Self { expected, size, seen, hasher, .. } = *self;
        verify(&expected, Some(size), &hasher.finish(), seen)
    }

    fn unverified(self: Box<Self>) -> Box<dyn Read + Send> {
        Box::new(self.input)
    }
}
