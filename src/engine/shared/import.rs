//! Caches as they are found: in a registry, in the local store, in a bucket, in a folder. Documents are read at once, layers when
//! they are needed.

use std::path::PathBuf;

use anyhow::{Context, bail};
use base64::Engine as _;
use serde_json::Value;

use super::document::{Document, INLINE, Known, MEDIA_TYPE, Record};
use super::{BucketCache, CachePlace, CacheSource, Pick};
use crate::base::progress::Step;
use crate::base::{Cancel, DiffId, Reference};
use crate::engine::State;
use crate::image::{self, Descriptor, Index, LayerBlob, Manifest, media_type};
use crate::store::{self, BlobStore, DiskBlobs};

/// Manifests of one cache: an image has one for each platform.
const MANIFESTS: usize = 64;

/// A cache that was read.
pub struct Imported {
    pub origin: Origin,
    pub known: Vec<Known>,
}

/// Where its layers are.
pub enum Origin {
    Registry(Reference),
    Directory(PathBuf),
    Bucket(BucketCache),
}

impl Imported {
    pub fn read(source: &CacheSource, state: &State, step: &Step, cancel: &Cancel) -> anyhow::Result<Self> {
        let (origin, root) = match source {
            CacheSource::Registry(reference) => {
                let reference = reference.clone().or_latest();
                let root = match state.images().named(&reference)? {
                    Some(root) => root,
                    None => state.registry()?.document(&reference, state.blobs()?.as_ref(), cancel)?,
                };
                (Origin::Registry(reference), root)
            }
            CacheSource::Directory { path, pick } => (Origin::Directory(path.clone()), entry(path, pick)?),
            CacheSource::Bucket(cache) => {
                let known = vec![of_document(&cache.document(state, step, cancel)?)?];
                return Ok(Self { origin: Origin::Bucket(cache.clone()), known });
            }
        };
        let mut known = Vec::new();
        let reader = Reader { origin: &origin, state, step, cancel };
        let mut manifests = vec![root];
        let mut read = 0;
        while let Some(descriptor) = manifests.pop() {
            read += 1;
            if read > MANIFESTS {
                bail!("more than {MANIFESTS} manifests");
            }
            let bytes = reader.document(&descriptor)?;
            if media_type::is_index(&descriptor.media_type) {
                let index: Index = serde_json::from_slice(&bytes).context("index")?;
                // An index may be the cache itself: BuildKit's older form, of layers and one document.
                match index.manifests.iter().find(|entry| entry.media_type == MEDIA_TYPE) {
                    Some(document) => known.push(of_document(&reader.blob(document)?)?),
                    None => manifests
                        .extend(index.manifests.into_iter().filter(|entry| media_type::is_manifest(&entry.media_type))),
                }
                continue;
            }
            let manifest: Manifest = serde_json::from_slice(&bytes).context("manifest")?;
            let config = reader.blob(&manifest.config)?;
            if manifest.config.media_type == MEDIA_TYPE {
                known.push(of_document(&config)?);
            } else {
                known.extend(inline(&manifest, &config)?);
            }
        }
        Ok(Self { origin, known })
    }
}

fn of_document(bytes: &[u8]) -> anyhow::Result<Known> {
    let document: Document = serde_json::from_slice(bytes).context("cache config")?;
    Ok(Known::new(&document))
}

/// The cache inside of an image; none where it has none.
fn inline(manifest: &Manifest, config: &[u8]) -> anyhow::Result<Option<Known>> {
    let config: Value = serde_json::from_slice(config).context("image config")?;
    let Some(text) = config[INLINE].as_str() else { return Ok(None) };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).context(INLINE)?;
    let records: Vec<Record> = serde_json::from_slice(&bytes).context(INLINE)?;
    let diff_ids: Vec<DiffId> =
        serde_json::from_value(config["rootfs"]["diff_ids"].clone()).context("image config: diff_ids")?;
    let layers = manifest.layers.iter().cloned().zip(diff_ids);
    let layers = layers.map(|(descriptor, diff_id)| LayerBlob { descriptor, diff_id });
    Ok(Some(Known::new(&Document::of_image(records, layers))))
}

/// The manifest of a layout that is meant.
fn entry(path: &std::path::Path, pick: &Pick) -> anyhow::Result<Descriptor> {
    let index = image::read_layout(path)?;
    let found = index.manifests.iter().find(|entry| match pick {
        Pick::Tag(tag) => image::layout_name(entry) == Some(tag),
        Pick::Digest(digest) => entry.digest == *digest,
    });
    found.cloned().with_context(|| match pick {
        Pick::Tag(tag) => format!("{} has no cache with the tag {tag}", path.display()),
        Pick::Digest(digest) => format!("{} has no cache {digest}", path.display()),
    })
}

struct Reader<'a> {
    origin: &'a Origin,
    state: &'a State,
    step: &'a Step,
    cancel: &'a Cancel,
}

impl Reader<'_> {
    fn document(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        let blobs = self.state.blobs()?;
        match self.origin {
            Origin::Directory(path) => Ok(store::read_document(&DiskBlobs::open(path), &descriptor.digest)?),
            Origin::Bucket(_) => self.blob(descriptor),
            Origin::Registry(reference) => {
                if blobs.size(&descriptor.digest)?.is_none() {
                    let reference = reference.with_digest(descriptor.digest);
                    self.state.registry()?.document(&reference, blobs.as_ref(), self.cancel)?;
                }
                Ok(store::read_document(blobs.as_ref(), &descriptor.digest)?)
            }
        }
    }

    fn blob(&self, descriptor: &Descriptor) -> anyhow::Result<Vec<u8>> {
        if descriptor.size > store::DOCUMENT_LIMIT {
            bail!("{} has {} bytes; at most {} are read", descriptor.digest, descriptor.size, store::DOCUMENT_LIMIT);
        }
        self.origin.fetch(std::slice::from_ref(descriptor), self.state, self.step, self.cancel)?;
        Ok(store::read_document(self.state.blobs()?.as_ref(), &descriptor.digest)?)
    }
}

impl Origin {
    /// Brings blobs into the local store, verified.
    pub fn fetch(&self, wanted: &[Descriptor], state: &State, step: &Step, cancel: &Cancel) -> anyhow::Result<()> {
        let blobs = state.blobs()?;
        match self {
            Self::Registry(reference) => {
                let missing = wanted.iter().filter_map(|wanted| match blobs.size(&wanted.digest) {
                    Ok(Some(_)) => None,
                    Ok(None) => Some(Ok(wanted.clone())),
                    Err(error) => Some(Err(error)),
                });
                let missing = missing.collect::<Result<Vec<_>, _>>()?;
                // Without this the registry's client would be made, and its files read, for nothing.
                if !missing.is_empty() {
                    state.registry()?.fetch(reference, &missing, blobs.as_ref(), step, cancel)?;
                }
            }
            Self::Directory(path) => {
                let from = DiskBlobs::open(path);
                for descriptor in wanted {
                    cancel.check()?;
                    store::copy(&from, blobs.as_ref(), &descriptor.digest)?;
                }
            }
            Self::Bucket(cache) => cache.fetch(wanted, state, step, cancel)?,
        }
        Ok(())
    }

    /// Whether the layers of a cache at that place are where these are.
    pub fn is_at(&self, place: &CachePlace) -> bool {
        match (self, place) {
            (Self::Registry(own), CachePlace::Registry(other)) => own.name() == other.name(),
            (Self::Directory(own), CachePlace::Directory { path, .. }) => own == path,
            (Self::Bucket(own), CachePlace::Bucket { cache, .. }) => own.shares_layers_with(cache),
            _ => false,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Directory(path) => path.display().fmt(f),
            Self::Bucket(cache) => cache.fmt(f),
        }
    }
}
