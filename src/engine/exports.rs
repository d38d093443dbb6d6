//! What becomes of a build's result: each asked-for export, from one snapshot and one config.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};

use super::shared::{INLINE, StepCache};
use super::{Dest, Export, LayerOptions, State};
use crate::base::{Cancel, Epoch, Progress, Reference};
use crate::export;
use crate::image::config::History;
use crate::image::{Image, ImageConfig};
use crate::layer::{Compression, Loss, Lost};
use crate::ops::{Ref, Request};
use crate::snapshot::{Snapshot, Tree};
use crate::store::BlobStore;

/// A finished build.
pub struct Built<'a> {
    pub state: &'a State,
    pub request: &'a Arc<Request>,
    pub result: Ref,
    /// None for a definition that no frontend made.
    pub config: Option<ImageConfig>,
    pub base: Option<ImageConfig>,
    pub epoch: Epoch,
    /// What its image is to carry of the step cache.
    pub inline: Option<Inline>,
    /// Its layers come as an engine elsewhere stored them.
    pub elsewhere: bool,
    pub progress: &'a Progress,
    pub cancel: &'a Cancel,
}

/// A cache inside of an image's config.
pub enum Inline {
    /// Of the steps that were met here.
    Of(Arc<StepCache>),
    /// As an engine elsewhere made it: it speaks of layers by their places, which stay the same.
    Made(serde_json::Value),
}

/// What an export left in the store.
pub struct Exported {
    pub image: Image,
    pub names: Vec<Reference>,
    /// It can be found in the store; an archive's image need not be.
    pub stored: bool,
}

impl Built<'_> {
    pub fn export(&self, export: &Export) -> anyhow::Result<Option<Exported>> {
        match export {
            Export::Image { names, push, options } => self.to_store(names, *push, options).map(Some),
            Export::Docker { names, dest, options } => {
                let what = format!("exporting to docker image format{}", suffix(dest));
                let image = self.archived(&what, options, true, |image, blobs, tmp| {
                    export::docker(&[(image, names)], blobs, dest, options, tmp, self.cancel)
                })?;
                Ok(Some(Exported { image, names: names.clone(), stored: false }))
            }
            Export::Oci { names, dest, tar, options } => {
                let what = format!("exporting to oci image format{}", suffix(dest));
                let image = self.archived(&what, options, false, |image, blobs, tmp| match (tar, dest) {
                    (true, _) => export::oci(&[(image, names)], blobs, dest, options, tmp, self.cancel),
                    (false, Dest::File(dir)) => {
                        export::oci_dir(&[(image, names)], blobs, dir, options, tmp, self.cancel)
                    }
                    (false, Dest::Stdout) => bail!("an OCI layout that is a directory cannot go to standard output"),
                })?;
                Ok(Some(Exported { image, names: names.clone(), stored: false }))
            }
            Export::Tar { dest } => {
                let trees = [(Path::new(""), self.tree()?)];
                self.progress.step(&format!("exporting to tar{}", suffix(dest)), |_| {
                    export::tar(&trees, dest, &self.epoch, self.cancel)
                })?;
                Ok(None)
            }
            Export::Local { dest } => {
                self.to_directory(dest)?;
                Ok(None)
            }
        }
    }

    pub fn to_directory(&self, dest: &Path) -> anyhow::Result<()> {
        let tree = self.tree()?;
        let lost = self.progress.step(&format!("exporting to client directory {}", dest.display()), |_| {
            export::local(tree.as_ref(), dest, &self.epoch, self.cancel)
        })?;
        warnings(&lost).for_each(|warning| self.progress.warn(warning));
        Ok(())
    }

    pub fn tree(&self) -> anyhow::Result<Arc<dyn Tree>> {
        self.request.tree(&self.result)
    }

    fn to_store(&self, names: &[Reference], push: bool, options: &LayerOptions) -> anyhow::Result<Exported> {
        let mut options = options.clone();
        if push && options.compression.is_none() {
            // A registry's readers take gzip for granted; what stays here need not be compressed at all.
            options.compression = Some(Compression::Gzip);
        }
        let images = self.state.images();
        let image = self.progress.step("exporting to image", |step| {
            let image = self.image(&options)?;
            export::to_store(images, &image, names)?;
            self.adopt(&image, &options)?;
            for name in names {
                step.log(crate::base::progress::Stream::Stderr, format!("naming to {name}\n"));
            }
            Ok::<_, anyhow::Error>(image)
        })?;
        if push {
            for name in names {
                self.progress.step(&format!("pushing {name}"), |step| {
                    let blobs = images.blobs();
                    self.state
                        .registry()?
                        .push(&image.manifest_descriptor, blobs.as_ref(), name, &[], step, self.cancel)
                        .with_context(|| format!("push {}", name.familiar()))
                })?;
            }
        }
        Ok(Exported { image, names: names.to_vec(), stored: true })
    }

    /// Layers are made in the store, compressed, where the next export of the same result finds them. Inherited ones
    /// stay as they came unless all must be alike.
    fn archived(
        &self,
        what: &str,
        options: &LayerOptions,
        alike: bool,
        write: impl FnOnce(&Image, &dyn BlobStore, &Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Image> {
        self.progress.step(what, |_| {
            let options = options.or_compression(Compression::Gzip);
            let mut image = self.image(&options)?;
            if alike && image.is_mixed() {
                image = self.image(&LayerOptions { force: true, ..options })?;
            }
            write(&image, self.state.blobs()?.as_ref(), &self.state.tmp()?)?;
            Ok(image)
        })
    }

    pub fn snapshot(&self) -> anyhow::Result<Snapshot> {
        self.request.snapshot(&self.result, self.cancel)
    }

    pub fn image(&self, options: &LayerOptions) -> anyhow::Result<Image> {
        let snapshots = self.state.snapshots()?;
        let mut snapshot = self.snapshot()?;
        let mut config = match &self.config {
            Some(config) => config.clone(),
            None => export::default_config(crate::base::Platform::host()),
        };
        if options.squash {
            snapshot = self.squashed(&snapshot, &mut config)?;
        }
        let mut layers = export::layers(snapshots, &snapshot, options, &self.epoch, self.cancel)?;
        if self.elsewhere {
            self.store_as_asked(&mut layers, &snapshot, options)?;
        }
        // A base image's own is of no use to readers of this one.
        config.extra.remove(INLINE);
        match &self.inline {
            Some(Inline::Of(steps)) => {
                config.extra.insert(INLINE.to_owned(), steps.inline(&snapshot, &layers)?.into());
            }
            Some(Inline::Made(cache)) => drop(config.extra.insert(INLINE.to_owned(), cache.clone())),
            None => {}
        }
        let blobs = self.state.blobs()?;
        export::image(layers, &config, self.base.as_ref(), options, &self.epoch, blobs.as_ref())
    }

    /// The result with one layer on its base, and a history that says so.
    fn squashed(&self, snapshot: &Snapshot, config: &mut ImageConfig) -> anyhow::Result<Snapshot> {
        if self.inline.is_some() {
            bail!("a squashed image cannot carry a cache, which speaks of layers of steps (BUILDKIT_INLINE_CACHE)");
        }
        let snapshots = self.state.snapshots()?;
        let (layers, lines) = self.base.as_ref().map_or((0, 0), |it| (it.rootfs.diff_ids.len(), it.history.len()));
        let squashed = snapshots.squash(snapshot, layers, self.cancel)?;
        if squashed == *snapshot {
            return Ok(squashed);
        }
        config.history.iter_mut().skip(lines).for_each(|line| line.empty_layer = true);
        // Not that of the squashing: a step that was found keeps its time, and with it the image its digest.
        let created = (layers..snapshot.len()).rev().find_map(|index| snapshots.created(snapshot, index));
        config.history.push(History {
            created: created.and_then(|time| jiff::Timestamp::try_from(time).ok()).map(|time| time.to_string()),
            comment: Some(format!("squashed from {} layers", snapshot.len() - layers)),
            ..History::default()
        });
        Ok(squashed)
    }

    /// What is asked of new layers holds for those that an engine elsewhere made, too. The base's stay as they are, but
    /// for plain ones: a Docker daemon hands out all layers plain, however they were stored.
    fn store_as_asked(
        &self,
        layers: &mut [export::Layer],
        snapshot: &Snapshot,
        options: &LayerOptions,
    ) -> anyhow::Result<()> {
        let spec = LayerOptions { force: true, ..options.clone() }.spec(&self.epoch);
        let base = self.base.as_ref().map(|base| base.rootfs.diff_ids.as_slice()).unwrap_or_default();
        let snapshots = self.state.snapshots()?;
        for (index, layer) in layers.iter_mut().enumerate() {
            let inherited = base.contains(&layer.blob.diff_id);
            if spec.clamp_mtime.is_some() && !inherited {
                layer.blob = snapshots.redated(&layer.blob, &spec, self.cancel)?;
                continue;
            }
            let plain = layer.blob.compression() == Compression::Uncompressed;
            if options.compression.is_some() && (plain || !inherited) {
                layer.blob = snapshots.layer_blob(snapshot, index, &spec, self.cancel)?;
            }
        }
        Ok(())
    }

    /// Times that were clamped are not those on disk.
    fn result_is_plain(&self, options: &LayerOptions) -> bool {
        !(options.rewrite_timestamp && self.epoch.source_date().is_some())
    }

    /// A later `FROM` of this image finds its layers unpacked.
    pub fn adopt(&self, image: &Image, options: &LayerOptions) -> anyhow::Result<()> {
        if !self.result_is_plain(options) || options.squash {
            return Ok(());
        }
        Ok(self.state.snapshots()?.adopt(&self.snapshot()?, &image.layers)?)
    }
}

pub fn suffix(dest: &Dest) -> String {
    match dest {
        Dest::File(path) => format!(" {}", path.display()),
        Dest::Stdout => String::new(),
    }
}

/// What the host would not take, in one line for each class.
fn warnings(lost: &Lost) -> impl Iterator<Item = String> {
    [("owner", &lost.owners), ("device", &lost.devices), ("extended attribute", &lost.xattrs)]
        .into_iter()
        .filter(|(_, loss)| loss.count > 0)
        .map(|(what, Loss { count, example })| {
            let example = example.as_ref().map(|path| format!(", /{} for one", path.display())).unwrap_or_default();
            format!("{count} files could not be given their {what}{example}")
        })
}
