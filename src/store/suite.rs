//! What every blob store does, whatever it keeps its blobs in.

use std::io::Read;

use super::{BlobStore, Error, copy, read_document, write_document};
use crate::base::Digest;

/// Runs the suite on an empty store; `damage` puts bytes under a digest that is not theirs.
pub fn run<S: BlobStore>(store: &S, damage: impl Fn(&S, Digest, &[u8])) {
    let (digest, bytes) = (Digest::of("hello"), b"hello");

    assert_eq!(store.size(&digest).unwrap(), None, "nothing is there at first");
    assert!(matches!(store.open(&digest).map(drop), Err(Error::Missing { .. })));
    assert_eq!(store.list().unwrap(), []);
    store.remove(&digest).expect("removing what is not there is fine");

    let mut writer = store.create().unwrap();
    writer.write_all(b"hel").unwrap();
    assert_eq!(store.size(&digest).unwrap(), None, "nothing is visible before completion");
    writer.write_all(b"lo").unwrap();
    assert_eq!(writer.complete().unwrap(), (digest, 5));
    assert_eq!(store.size(&digest).unwrap(), Some(5));
    assert_eq!(write_document(store, bytes).unwrap(), digest, "storing it again is fine");
    assert_eq!(store.list().unwrap(), [digest]);
    assert_eq!(read_document(store, &digest).unwrap(), bytes);

    let mut reader = store.open(&digest).unwrap();
    reader.read_exact(&mut [0; 2]).unwrap();
    reader.finish().expect("finish reads what is left");

    let mut writer = store.create().unwrap();
    writer.write_all(b"other").unwrap();
    let error = writer.complete_verified_as(&Digest::of("promised"), None).unwrap_err();
    assert!(matches!(error, Error::Mismatch { actual, .. } if actual == Digest::of("other")));
    let mut writer = store.create().unwrap();
    writer.write_all(b"other").unwrap();
    let error = writer.complete_verified_as(&Digest::of("other"), Some(6)).unwrap_err();
    assert!(matches!(error, Error::Size { expected: 6, actual: 5, .. }));
    assert_eq!(store.list().unwrap(), [digest], "a blob that is not what was promised is not stored");

    damage(store, digest, b"hellO");
    assert!(matches!(read_document(store, &digest), Err(Error::Mismatch { .. })), "reading verifies");
    write_document(store, bytes).unwrap();
    assert_eq!(read_document(store, &digest).unwrap(), bytes, "writing heals");

    let other = super::MemoryBlobs::new();
    copy(store, &other, &digest).unwrap();
    assert_eq!(read_document(&other, &digest).unwrap(), bytes);
    damage(store, digest, b"HELLO");
    assert!(copy(store, &super::MemoryBlobs::new(), &digest).is_err(), "copying verifies");

    store.remove(&digest).unwrap();
    assert_eq!(store.size(&digest).unwrap(), None);
}
