//! Blobs in memory: for tests, and for the few small documents of a request that never reach a disk.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{BlobRead, BlobStore, BlobWrite, Error, Result, Verified, verify};
use crate::base::Digest;

type Blobs = BTreeMap<Digest, Arc<[u8]>>;

/// Blobs in memory. Cloning shares them.
#[derive(Clone, Default)]
pub struct MemoryBlobs(Arc<Mutex<Blobs>>);

impl MemoryBlobs {
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts bytes under a digest that may not be theirs, for tests of what reading then says.
    #[cfg(test)]
    pub fn put(&self, digest: Digest, bytes: &[u8]) {
        self.blobs().insert(digest, bytes.into());
    }

    // Every change is one map operation, so a panic elsewhere leaves the map whole.
    fn blobs(&self) -> MutexGuard<'_, Blobs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobStore for MemoryBlobs {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        Ok(self.blobs().get(digest).map(|bytes| bytes.len() as u64))
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn BlobRead>> {
        let bytes = self.blobs().get(digest).cloned().ok_or(Error::Missing { digest: *digest })?;
        let size = bytes.len() as u64;
        Ok(Box::new(Verified::new(Cursor::new(bytes), *digest, size)))
    }

    fn create(&self) -> Result<Box<dyn BlobWrite>> {
        Ok(Box::new(Writer { store: self.clone(), bytes: Vec::new() }))
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        self.blobs().remove(digest);
        Ok(())
    }

    fn list(&self) -> Result<Vec<Digest>> {
        Ok(self.blobs().keys().copied().collect())
    }
}

struct Writer {
    store: MemoryBlobs,
    bytes: Vec<u8>,
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWrite for Writer {
    fn complete(self: Box<Self>) -> Result<(Digest, u64)> {
        let (digest, size) = (Digest::of(&self.bytes), self.bytes.len() as u64);
        self.store.blobs().insert(digest, self.bytes.into());
        Ok((digest, size))
    }

    fn complete_verified_as(self: Box<Self>, digest: &Digest, size: Option<u64>) -> Result<()> {
        verify(digest, size, &Digest::of(&self.bytes), self.bytes.len() as u64)?;
        self.complete().map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_suite() {
        super::super::suite::run(&MemoryBlobs::new(), MemoryBlobs::put);
    }
}
