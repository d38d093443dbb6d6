//! The local image store: a standard OCI layout, so that skopeo, umoci and podman read the images as they are.
//!
//! One entry of `index.json` is one name. Docker's id, for an image of one platform, is its config's digest; both it
//! and the manifest's digest find an image here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::layout::{self, reference_of};
use super::loaded::{Document, document_type};
use super::{Descriptor, Error, Image, Manifest, Result};
use crate::base::{Cancel, Digest, Platform, Reference};
use crate::store::{self, BlobStore, DiskBlobs, FileLock};

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
#[derive(Debug)]
pub struct Pin {
    _held: FileLock,
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Collected {
    pub blobs: usize,
    pub bytes: u64,
}

/// Fewer hex digits than these are taken for a name, never for an id.
const SHORTEST_ID: usize = 4;

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
        Ok(Pin { _held: FileLock::shared(&self.dir.join("locks/pins"), cancel)? })
    }

    /// Finds an image as Docker does: by full id, by name (`latest` where no tag is given), by the beginning of its id.
    pub fn find(&self, text: &str) -> Result<Option<StoredImage>> {
        let images = self.list()?;
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let full = format!("sha256:{hex}").parse().ok();
        if let Some(digest) = full {
            return Ok(images.into_iter().find(|image| self.ids(image).contains(&digest)));
        }
        if let Ok(reference) = text.parse::<Reference>() {
            let reference = reference.or_latest();
            if let Some(image) = images.iter().find(|image| image.answers_to(&reference)) {
                return Ok(Some(image.clone()));
            }
        }
        if hex.len() < SHORTEST_ID || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let mut found: Vec<_> =
            images.into_iter().filter(|image| self.ids(image).iter().any(|id| id.hex().starts_with(hex))).collect();
        if found.len() > 1 {
            let ids = found.iter().map(|image| image.descriptor.digest).collect();
            return Err(Error::Ambiguous { prefix: text.to_owned(), ids });
        }
        Ok(found.pop())
    }

    /// Finds an image by its name alone: what a `FROM` line means.
    pub fn named(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        let reference = reference.clone().or_latest();
        Ok(self.list()?.into_iter().find(|image| image.answers_to(&reference)).map(|image| image.descriptor))
    }

    /// All images, sorted by their first name; those without any name last.
    pub fn list(&self) -> Result<Vec<StoredImage>> {
        let mut images: BTreeMap<Digest, StoredImage> = BTreeMap::new();
        for entry in layout::read_index(&self.dir)?.manifests {
            let reference = reference_of(&entry);
            let image = images
                .entry(entry.digest)
                .or_insert_with(|| StoredImage { descriptor: layout::unnamed(entry), references: Vec::new() });
            image.references.extend(reference);
        }
        let mut images: Vec<_> = images.into_values().collect();
        for image in &mut images {
            image.references.sort();
            image.references.dedup();
        }
        images.sort_by(|a, b| {
            let key = |image: &StoredImage| (image.references.is_empty(), image.references.first().cloned());
            key(a).cmp(&key(b))
        });
        Ok(images)
    }

    /// Names an image. The image that had the name before keeps its other names and its id.
    pub fn tag(&self, descriptor: &Descriptor, reference: &Reference) -> Result<()> {
        let reference = reference.clone().or_latest();
        let named = layout::named(descriptor, &reference, &reference.familiar());
        self.change(|entries| {
            if entries.contains(&named) {
                return;
            }
            let replaced: Vec<_> =
                entries.extract_if(.., |entry| reference_of(entry).as_ref() == Some(&reference)).collect();
            // Its id alone is no longer how this one is known.
            entries.retain(|entry| entry.digest != named.digest || reference_of(entry).is_some());
            for old in replaced {
                if old.digest != named.digest && !entries.iter().any(|entry| entry.digest == old.digest) {
                    entries.push(layout::unnamed(old));
                }
            }
            entries.push(named.clone());
        })
    }

    /// Makes an image known by its id alone.
    pub fn add(&self, descriptor: &Descriptor) -> Result<()> {
        self.change(|entries| {
            if !entries.iter().any(|entry| entry.digest == descriptor.digest) {
                entries.push(layout::unnamed(descriptor.clone()));
            }
        })
    }

    /// Removes one name; false where nothing had it. An image that loses its last name is removed from the list.
    pub fn untag(&self, reference: &Reference) -> Result<bool> {
        let reference = reference.clone().or_latest();
        let mut found = false;
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| reference_of(entry).as_ref() != Some(&reference));
            found = entries.len() != before;
        })?;
        Ok(found)
    }

    /// Removes an image with all its names; false where it is not here.
    pub fn remove(&self, manifest: &Digest) -> Result<bool> {
        let mut found = false;
        self.change(|entries| {
            let before = entries.len();
            entries.retain(|entry| entry.digest != *manifest);
            found = entries.len() != before;
        })?;
        Ok(found)
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
        for descriptor in image.blobs() {
            store::copy(from, &*self.blobs, &descriptor.digest)?;
        }
        Ok(())
    }

    /// Removes blobs that no image of the list needs and that `keep` does not claim, and what killed writers left.
    /// None when a build holds a [`Pin`]: then nothing is removed.
    pub fn collect(&self, keep: &dyn Fn(&Digest) -> bool) -> Result<Option<Collected>> {
        let Some(_alone) = FileLock::try_exclusive(&self.dir.join("locks/pins"))? else {
            return Ok(None);
        };
        let mut needed = BTreeSet::new();
        for entry in layout::read_index(&self.dir)?.manifests {
            self.mark(&entry, &mut needed)?;
        }
        let mut collected = Collected { blobs: 0, bytes: self.blobs.sweep()? };
        for digest in self.blobs.list()? {
            if needed.contains(&digest) || keep(&digest) {
                continue;
            }
            collected.bytes += self.blobs.size(&digest)?.unwrap_or_default();
            collected.blobs += 1;
            self.blobs.remove(&digest)?;
        }
        Ok(Some(collected))
    }

    /// Notes all blobs below a descriptor. What is not here (another platform's image) cannot need anything.
    fn mark(&self, descriptor: &Descriptor, needed: &mut BTreeSet<Digest>) -> Result<()> {
        if !needed.insert(descriptor.digest) || self.blobs.size(&descriptor.digest)?.is_none() {
            return Ok(());
        }
        let bytes = store::read_document(&*self.blobs, &descriptor.digest)?;
        match document_type(descriptor, &bytes)? {
            Document::Index(index) => index.manifests.iter().try_for_each(|child| self.mark(child, needed)),
            Document::Manifest => {
                let manifest: Manifest = serde_json::from_slice(&bytes)
                    .map_err(|source| Error::Json { what: format!("manifest {}", descriptor.digest), source })?;
                needed.insert(manifest.config.digest);
                needed.extend(manifest.layers.iter().map(|layer| layer.digest));
                Ok(())
            }
        }
    }

    /// The digests that an image is known by: the manifest's, and the config's where the image can be read.
    fn ids(&self, image: &StoredImage) -> Vec<Digest> {
        let config = self.load(&image.descriptor).ok().map(|loaded| loaded.config_digest);
        [image.descriptor.digest].into_iter().chain(config).collect()
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<Descriptor>)) -> Result<()> {
        // Nobody holds this lock longer than one small file takes to write, so there is nothing to cancel.
        let _lock = FileLock::exclusive(&self.dir.join("locks/index"), &Cancel::new())?;
        let mut index = layout::read_index(&self.dir)?;
        let before = index.manifests.clone();
        edit(&mut index.manifests);
        // A name that says the same again costs no write.
        if index.manifests == before { Ok(()) } else { layout::write_index(&self.dir, &index) }
    }
}

impl StoredImage {
    fn answers_to(&self, reference: &Reference) -> bool {
        self.references.contains(reference)
            || reference.digest().is_some_and(|digest| {
                *digest == self.descriptor.digest && self.references.iter().any(|own| own.name() == reference.name())
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Dialect, ImageConfig};

    fn image(store: &ImageStore, author: &str) -> Image {
        let mut config = ImageConfig::new(Platform::host());
        config.author = Some(author.to_owned());
        Image::write(&*store.blobs(), &config.to_bytes(), Vec::new(), Dialect::Oci, BTreeMap::new()).unwrap()
    }

    fn reference(text: &str) -> Reference {
        text.parse().unwrap()
    }

    #[test]
    fn finds_by_name_by_id_and_by_the_beginning_of_an_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path());
        assert_eq!(store.find("x").unwrap(), None, "nothing in an empty store");
        let one = image(&store, "one");
        store.tag(&one.manifest_descriptor, &reference("acct/app:v1")).unwrap();
        store.tag(&one.manifest_descriptor, &reference("app")).unwrap();
        let id = one.config_digest;
        let manifest = one.manifest_descriptor.digest;
        for text in [
            "acct/app:v1",
            "docker.io/acct/app:v1",
            "app",
            "app:latest",
            &id.to_string(),
            &id.hex(),
            &id.short(),
            &format!("sha256:{}", id.short()),
            &manifest.to_string(),
            &format!("app@{manifest}"),
        ] {
            let found = store.find(text).unwrap().unwrap_or_else(|| panic!("{text}"));
            assert_eq!(found.descriptor.digest, manifest, "{text}");
            assert_eq!(found.references, [reference("acct/app:v1"), reference("app:latest")]);
        }
        for text in ["acct/app", "app:v2", "other", "e3b", "No Name"] {
            assert_eq!(store.find(text).unwrap(), None, "{text}");
        }
        assert_eq!(store.load(&one.manifest_descriptor).unwrap().config, one.config);
    }

    #[test]
    fn a_moved_name_leaves_the_old_image_known_by_its_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path());
        let (one, two) = (image(&store, "one"), image(&store, "two"));
        store.tag(&one.manifest_descriptor, &reference("app")).unwrap();
        store.tag(&two.manifest_descriptor, &reference("app")).unwrap();
        let list = store.list().unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].descriptor.digest, two.manifest_descriptor.digest);
        assert_eq!(list[1].references, []);
        store.tag(&one.manifest_descriptor, &reference("old")).unwrap();
        assert!(store.list().unwrap().iter().all(|image| image.references.len() == 1));

        assert!(store.untag(&reference("app:latest")).unwrap());
        assert!(!store.untag(&reference("app")).unwrap(), "gone already");
        assert_eq!(store.list().unwrap().len(), 1);
        assert!(store.remove(&one.manifest_descriptor.digest).unwrap());
        assert_eq!(store.list().unwrap(), []);
    }

    #[test]
    fn collection_spares_what_is_named_kept_or_pinned() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path());
        let (one, two) = (image(&store, "one"), image(&store, "two"));
        store.tag(&one.manifest_descriptor, &reference("app")).unwrap();
        let loose = store::write_document(&*store.blobs(), b"loose").unwrap();
        let kept = store::write_document(&*store.blobs(), b"kept").unwrap();

        let pin = store.pin(&Cancel::new()).unwrap();
        assert_eq!(store.collect(&|_| false).unwrap(), None);
        drop(pin);
        let collected = store.collect(&|digest| *digest == kept).unwrap().unwrap();
        assert_eq!(collected.blobs, 3, "two's manifest and config, and the loose one");
        let left = store.blobs().list().unwrap();
        assert!(!left.contains(&loose) && left.contains(&kept));
        assert!(store.load(&one.manifest_descriptor).is_ok());
        assert!(store.load(&two.manifest_descriptor).is_err());
    }

    #[test]
    fn many_writers_lose_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(dir.path());
        let one = image(&store, "one");
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (store, one) = (ImageStore::open(dir.path()), &one);
                scope.spawn(move || {
                    for m in 0..8 {
                        store.tag(&one.manifest_descriptor, &reference(&format!("app:{n}.{m}"))).unwrap();
                    }
                });
            }
        });
        assert_eq!(store.list().unwrap()[0].references.len(), 64);
    }
}
