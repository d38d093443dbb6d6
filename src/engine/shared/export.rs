//! Caches as they are left: the records of a build, and the layers that they lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use base64::Engine as _;

use super::document::{Document, MEDIA_TYPE, Writer};
use super::{CacheMode, CachePlace, CacheTarget, StepCache};
use crate::base::progress::Step;
use crate::base::{Cancel, Digest, Epoch, Progress};
use crate::export::Layer;
use crate::image::{self, Descriptor, Dialect, LayerBlob, Manifest};
use crate::layer::Compression;
use crate::ops::Ref;
use crate::registry;
use crate::snapshot::Snapshot;
use crate::solver::Results as _;
use crate::store::{self, BlobStore, DiskBlobs};

impl StepCache {
    /// Writes a cache to its place. `results` are what was built, one for each platform.
    pub fn export(
        &self,
        target: &CacheTarget,
        results: &[Snapshot],
        epoch: &Epoch,
        progress: &Progress,
        cancel: &Cancel,
    ) -> anyhow::Result<()> {
        let name = match &target.place {
            // The image holds it already.
            CachePlace::Inline => return Ok(()),
            CachePlace::Registry(reference) => reference.familiar(),
            CachePlace::Directory { path, .. } => path.display().to_string(),
            CachePlace::Bucket { cache, .. } => cache.to_string(),
        };
        let written = progress
            .step(&format!("exporting cache to {name}"), |step| self.write(target, results, epoch, step, cancel))
            .with_context(|| format!("export the cache to {name}"));
        match written {
            Err(error) if target.ignore_error => {
                cancel.check()?;
                progress.warn(format!("{error:#}"));
                Ok(())
            }
            other => other,
        }
    }

    fn write(
        &self,
        target: &CacheTarget,
        results: &[Snapshot],
        epoch: &Epoch,
        step: &Step,
        cancel: &Cancel,
    ) -> anyhow::Result<()> {
        let content = self.content(target, results, epoch, true, cancel)?;
        match self.put(target, &content, step, cancel) {
            // The place has lost a layer that it was taken to have. It gets what can be had, and is told of no more.
            Err(error) if is_missing(&error) => {
                let content = self.content(target, results, epoch, false, cancel)?;
                self.put(target, &content, step, cancel)
            }
            done => done,
        }
    }

    /// What a cache is to hold. Layers that are nowhere but in the place that it is written to are fetched from there
    /// only where that is not `trusted` to still have them, or where they are to be stored in another way.
    fn content(
        &self,
        target: &CacheTarget,
        results: &[Snapshot],
        epoch: &Epoch,
        trusted: bool,
        cancel: &Cancel,
    ) -> anyhow::Result<Content> {
        let options = target.options.or_compression(Compression::Gzip);
        let (spec, dialect) = (options.spec(epoch), options.dialect());
        let snapshots = self.state.snapshots()?;
        let is_wanted = |snapshot: &Snapshot| {
            target.mode == CacheMode::Max || results.iter().any(|result| result.starts_with(snapshot))
        };
        let mut writer = Writer::default();
        let mut layers = Vec::new();
        let mut seen = BTreeSet::new();
        let mut made: HashMap<String, LayerBlob> = HashMap::new();
        for (key, identity, id) in self.met() {
            let imported = self.elsewhere(&id).map(|(origin, layers)| (origin, Snapshot::image(&layers)));
            let snapshot = match (snapshots.load(&id)?, imported) {
                (Some(snapshot), _) => snapshot,
                (None, Some((_, snapshot))) if !is_wanted(&snapshot) => continue,
                (None, Some((origin, snapshot))) if trusted && !spec.force && origin.is_at(&target.place) => snapshot,
                // What was pruned meanwhile, or could not be fetched, is not told of.
                (None, _) => match self.load(&id)? {
                    Some(Ref::Snapshot(snapshot)) => snapshot,
                    _ => continue,
                },
            };
            if !is_wanted(&snapshot) {
                continue;
            }
            let own = (0..snapshot.len()).zip(snapshot.deltas()).map(|(index, delta)| {
                if let Some(layer) = made.get(&delta.to_string()) {
                    return Ok(layer.clone());
                }
                let mut layer = snapshots.layer_blob(&snapshot, index, &spec, cancel)?;
                layer.descriptor.media_type = dialect.layer(layer.compression()).to_owned();
                made.insert(delta.to_string(), layer.clone());
                anyhow::Ok(layer)
            });
            let own = own.collect::<anyhow::Result<Vec<_>>>()?;
            for layer in &own {
                if seen.insert(layer.descriptor.digest) {
                    layers.push(layer.descriptor.clone());
                }
            }
            writer.add(key, identity, &own);
        }
        Ok(Content { document: writer.finish(), layers, dialect })
    }

    fn put(&self, target: &CacheTarget, content: &Content, step: &Step, cancel: &Cancel) -> anyhow::Result<()> {
        let blobs = self.state.blobs()?;
        match &target.place {
            CachePlace::Inline => {}
            CachePlace::Registry(reference) => {
                let (root, _) = content.manifest(blobs.as_ref())?;
                let reference = reference.clone().or_latest();
                self.state.registry()?.push(&root, blobs.as_ref(), &reference, &[], step, cancel)?;
            }
            CachePlace::Directory { path, tag } => {
                let into = DiskBlobs::open(path);
                let (root, manifest) = content.manifest(blobs.as_ref())?;
                for descriptor in manifest.layers.iter().chain([&manifest.config, &root]) {
                    cancel.check()?;
                    if into.size(&descriptor.digest)? != Some(descriptor.size) {
                        store::copy(blobs.as_ref(), &into, &descriptor.digest)?;
                    }
                }
                into.tidy()?;
                image::name_in_layout(path, &root, tag, cancel)?;
            }
            CachePlace::Bucket { cache, refresh, at_once } => {
                let Content { document, layers, .. } = content;
                cache.write(document, layers, *refresh, *at_once, &self.state, step, cancel)?;
            }
        }
        Ok(())
    }

    /// The cache that goes into an image's config: of the steps whose layers it has.
    pub fn inline(&self, result: &Snapshot, layers: &[Layer]) -> anyhow::Result<String> {
        let layers: Vec<LayerBlob> = layers.iter().map(|layer| layer.blob.clone()).collect();
        let mut writer = Writer::default();
        let snapshots = self.state.snapshots()?;
        for (key, identity, id) in self.met() {
            let Some(snapshot) = snapshots.load(&id)? else { continue };
            if result.starts_with(&snapshot) {
                // Each is the lower part of the result, so that places in the document are places in the image.
                writer.add(key, identity, &layers[..snapshot.len()]);
            }
        }
        Ok(base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&writer.finish().records)?))
    }
}

/// What a cache holds.
struct Content {
    document: Document,
    layers: Vec<Descriptor>,
    dialect: Dialect,
}

impl Content {
    /// Stores the document and a manifest over it and its layers, as BuildKit does with `image-manifest=true`.
    fn manifest(&self, blobs: &dyn BlobStore) -> anyhow::Result<(Descriptor, Manifest)> {
        let put = |media_type: &str, bytes: &[u8]| -> anyhow::Result<Descriptor> {
            let digest: Digest = store::write_document(blobs, bytes)?;
            Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
        };
        let media_type = self.dialect.manifest();
        let manifest = Manifest {
            schema_version: 2,
            media_type: media_type.to_owned(),
            config: put(MEDIA_TYPE, &serde_json::to_vec(&self.document)?)?,
            layers: self.layers.clone(),
            annotations: BTreeMap::new(),
            extra: serde_json::Map::new(),
        };
        Ok((put(media_type, &manifest.to_bytes())?, manifest))
    }
}

/// Whether a blob that was needed is not here.
fn is_missing(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let of_store = cause.downcast_ref::<store::Error>();
        // A transparent error hides what it holds from the chain.
        let of_store = of_store.or_else(|| match cause.downcast_ref::<registry::Error>() {
            Some(registry::Error::Store(error)) => Some(error),
            _ => None,
        });
        matches!(of_store, Some(store::Error::Missing { .. }))
    })
}
