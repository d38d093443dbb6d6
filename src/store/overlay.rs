//! Two stores seen as one: what is read-only below, what is new above.

use super::{BlobRead, BlobStore, BlobWrite, Result};
use crate::base::Digest;

/// Reads from both stores, the upper one first; writes to the upper one and leaves the lower one as it is.
#[derive(Debug, Clone)]
pub struct OverlayBlobs<U, L> {
    upper: U,
    lower: L,
}

impl<U: BlobStore, L: BlobStore> OverlayBlobs<U, L> {
    pub fn new(upper: U, lower: L) -> Self {
        Self { upper, lower }
    }
}

impl<U: BlobStore, L: BlobStore> BlobStore for OverlayBlobs<U, L> {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        match self.upper.size(digest)? {
            None => self.lower.size(digest),
            found => Ok(found),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn BlobRead>> {
        match self.upper.size(digest)? {
            None => self.lower.open(digest),
            Some(_) => self.upper.open(digest),
        }
    }

    fn create(&self) -> Result<Box<dyn BlobWrite>> {
        self.upper.create()
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        self.upper.remove(digest)
    }

    fn list(&self) -> Result<Vec<Digest>> {
        let mut all = self.upper.list()?;
        all.extend(self.lower.list()?);
        all.sort();
        all.dedup();
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{MemoryBlobs, read_document, write_document};
    use super::*;

    #[test]
    fn passes_the_suite_over_an_empty_store() {
        let upper = MemoryBlobs::new();
        let store = OverlayBlobs::new(upper.clone(), MemoryBlobs::new());
        super::super::suite::run(&store, |_, digest, bytes| upper.put(digest, bytes));
    }

    #[test]
    fn reads_both_and_writes_above() {
        let (upper, lower) = (MemoryBlobs::new(), MemoryBlobs::new());
        let below = write_document(&lower, b"below").unwrap();
        let store = OverlayBlobs::new(upper.clone(), &lower);
        let above = write_document(&store, b"above").unwrap();
        assert_eq!(read_document(&store, &below).unwrap(), b"below");
        assert_eq!(upper.list().unwrap(), [above]);
        assert_eq!(lower.list().unwrap(), [below]);
        assert_eq!(store.list().unwrap().len(), 2);
    }
}
