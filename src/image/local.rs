//! The local image store: a standard OCI layout, so that skopeo, umoci and podman read the images as they are.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Descriptor, Image, Result};
use crate::base::{Cancel, Digest, Platform, Reference};
use crate::store::{BlobStore, DiskBlobs, FileLock};

/// Named images on disk.
pub struct ImageStore {
    dir: PathBuf,
    blobs: Arc<DiskBlobs>,
}

/// One image of the store with all its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// Of its manifest, or of an index for several platforms.
    pub descriptor: Descriptor,
    /// Sorted; empty where the image is known by its id alone.
    pub references: Vec<Reference>,
}

/// While one is held, no process collects blobs: for the time between storing blobs and naming what they make.
pub struct Pin(#[expect(dead_code, reason = "held for its drop")] FileLock);

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub blobs: usize,
    pub bytes: u64,
}

impl ImageStore {
    /// Opens the store; an empty one is made with the first image.
    pub fn open(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), blobs: Arc::new(DiskBlobs::open(dir)) }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn blobs(&self) -> Arc<dyn BlobStore> {
        self.blobs.clone()
    }

    /// Keeps blobs that have no name yet from being collected.
    pub fn pin(&self, cancel: &Cancel) -> Result<Pin> {
        let _ = cancel;
        todo!()
    }

    /// Finds an image as Docker does: by full id, by name (`latest` where no tag is given), by a prefix of its id.
    pub fn find(&self, text: &str) -> Result<Option<StoredImage>> {
        let _ = text;
        todo!()
    }

    /// Finds an image by its name alone: what a `FROM` line means.
    pub fn named(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let _ = reference;
        todo!()
    }

    /// All images, sorted by their first name; those without any name last.
    pub fn list(&self) -> Result<Vec<StoredImage>> {
        todo!()
    }

    /// Names an image. The image that had the name before keeps its other names and its id.
    pub fn tag(&self, descriptor: &Descriptor, reference: &Reference) -> Result<()> {
        let _ = (descriptor, reference);
        todo!()
    }

    /// Makes an image known by its id alone.
    pub fn add(&self, descriptor: &Descriptor) -> Result<()> {
        let _ = descriptor;
        todo!()
    }

    /// Removes one name; false where nothing had it. An image that loses its last name is removed from the list.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        let _ = reference;
        todo!()
    }

    /// Removes an image with all its names; false where it is not here.
    pub fn remove(&self, manifest: &Digest) -> Result<bool> {
        let _ = manifest;
        todo!()
    }

    /// Reads an image; of an index, the one for this host's platform.
    pub fn load(&self, descriptor: &Descriptor) -> Result<Image> {
        self.load_for(descriptor, &Platform::host())
    }

    pub fn load_for(&self, descriptor: &Descriptor, platform: &Platform) -> Result<Image> {
        Image::read(&*self.blobs, descriptor, platform)
    }

    /// Copies an image's blobs in from another store.
    pub fn adopt(&self, image: &Image, from: &dyn BlobStore) -> Result<()> {
        let _ = (image, from);
        todo!()
    }

    /// Removes blobs that no image of the list needs and that `keep` does not claim, and what killed writers left.
    /// None when a build holds a [`Pin`]: then nothing is removed.
    pub fn collect(&self, keep: &dyn Fn(&Digest) -> bool) -> Result<Option<Collected>> {
        let _ = keep;
        todo!()
    }
}
