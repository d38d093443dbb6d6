//! Caches as they are left: the records of a build, and the layers that they lead to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::Context;
use base64::Engine as _;

use super::document::{Document, MEDIA_TYPE, Writer};
use super::{CacheMode, CachePlace, CacheTarget, StepCache};
use crate::base::progress::Step;
use crate::base::{Cancel, Digest, Epoch, Progress};
use crate::export::Layer;
use crate::image::{self, Descriptor, LayerBlob, Manifest, media_type};
use crate::layer::Compression;
use crate::ops::Ref;
use crate::snapshot::{LayerSpec, Snapshot};
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
        let options = target.options.or_compression(Compression::Gzip);
        let spec = LayerSpec {
            compression: options.compression.unwrap_or_default(),
            level: options.level,
            force: options.force,
            clamp_mtime: epoch.source_date().filter(|_| options.rewrite_timestamp),
        };
        let snapshots = self.state.snapshots()?;
        let blobs = self.state.blobs()?;
        let mut writer = Writer::default();
        let mut descriptors = Vec::new();
        let mut seen = BTreeSet::new();
        let mut made: HashMap<String, LayerBlob> = HashMap::new();
        for (key, identity, id) in self.met() {
            // What was pruned meanwhile, or could not be fetched, is not told of.
            let Some(Ref::Snapshot(snapshot)) = self.load(&id)? else { continue };
            if target.mode == CacheMode::Min && !results.iter().any(|result| result.starts_with(&snapshot)) {
                continue;
            }
            let layers = (0..snapshot.len()).zip(snapshot.deltas()).map(|(index, delta)| {
                if let Some(layer) = made.get(&delta.to_string()) {
                    return Ok(layer.clone());
                }
                let mut layer = snapshots.layer_blob(&snapshot, index, &spec, cancel)?;
                if options.oci_media_types != Some(false) {
                    layer.descriptor.media_type = media_type::Dialect::Oci.layer(layer.compression()).to_owned();
                }
                made.insert(delta.to_string(), layer.clone());
                anyhow::Ok(layer)
            });
            let layers = layers.collect::<anyhow::Result<Vec<_>>>()?;
            for layer in &layers {
                if seen.insert(layer.descriptor.digest) {
                    descriptors.push(layer.descriptor.clone());
                }
            }
            writer.add(key, identity, &layers, true);
        }
        let manifest = manifest(&writer.finish(), descriptors, blobs.as_ref())?;
        match &target.place {
            CachePlace::Inline => {}
            CachePlace::Registry(reference) => {
                let reference = reference.clone().or_latest();
                self.state.registry()?.push(&manifest.0, blobs.as_ref(), &reference, &[], step, cancel)?;
            }
            CachePlace::Directory { path, tag } => {
                let into = DiskBlobs::open(path);
                let Manifest { config, layers, .. } = &manifest.1;
                for descriptor in layers.iter().chain([config, &manifest.0]) {
                    cancel.check()?;
                    store::copy(blobs.as_ref(), &into, &descriptor.digest)?;
                }
                into.tidy()?;
                image::name_in_layout(path, &manifest.0, tag, cancel)?;
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
                writer.add(key, identity, &layers[..snapshot.len()], false);
            }
        }
        Ok(base64::engine::general_purpose::STANDARD.encode(serde_json::to_vec(&writer.finish())?))
    }
}

/// Stores the document and a manifest over it and its layers, as BuildKit does with `image-manifest=true`.
fn manifest(
    document: &Document,
    layers: Vec<Descriptor>,
    blobs: &dyn BlobStore,
) -> anyhow::Result<(Descriptor, Manifest)> {
    let put = |media_type: &str, bytes: &[u8]| -> anyhow::Result<Descriptor> {
        let digest: Digest = store::write_document(blobs, bytes)?;
        Ok(Descriptor::new(media_type, digest, bytes.len() as u64))
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: put(MEDIA_TYPE, &serde_json::to_vec(document)?)?,
        layers,
        annotations: BTreeMap::new(),
        extra: serde_json::Map::new(),
    };
    Ok((put(media_type::OCI_MANIFEST, &manifest.to_bytes())?, manifest))
}
