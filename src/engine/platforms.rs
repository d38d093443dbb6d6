//! What becomes of a build for several platforms: one index over an image each, or a folder each.

use std::path::Path;

use anyhow::Context;

use super::exports::{Built, suffix};
use super::{BuiltImage, Export, LayerOptions, SolveRequest};
use crate::base::{Platform, Reference};
use crate::export;
use crate::image::{Dialect, Image, MultiImage};
use crate::layer::Compression;
use crate::snapshot::Tree;

/// Finished builds of one Dockerfile, by platform.
pub struct Family<'a>(pub Vec<(Platform, Built<'a>)>);

/// A kind of output that has room for one platform only.
#[derive(Debug, thiserror::Error)]
#[error("a docker archive holds an image for one platform, and this build is for several")]
pub struct OnePlatform;

impl OnePlatform {
    /// Told before anything is built.
    pub fn check(exports: &[Export]) -> Result<(), Self> {
        match exports.iter().any(|export| matches!(export, Export::Docker { .. })) {
            true => Err(Self),
            false => Ok(()),
        }
    }
}

impl Family<'_> {
    /// The image that came out of an export, if it makes images.
    pub fn export(&self, export: &Export, request: &SolveRequest) -> anyhow::Result<Option<BuiltImage>> {
        match export {
            Export::Image { names, push, options } => {
                let compression = if *push { Compression::Gzip } else { Compression::Uncompressed };
                let image = self.to_store(names, &options.or_compression(compression), request)?;
                if *push {
                    for name in names {
                        self.push(&image, name, request)?;
                    }
                }
                Ok(Some(self.built(&image, names, true)))
            }
            Export::Oci { names, dest, tar, options } => {
                let what = format!("exporting to oci image format{}", suffix(dest));
                request.progress.step(&what, |_| {
                    let image = self.image(&options.or_compression(Compression::Gzip))?;
                    let state = self.first()?.state;
                    export::multi(&image, names, state.blobs()?.as_ref(), dest, *tar, &request.cancel)?;
                    Ok(Some(self.built(&image, names, false)))
                })
            }
            Export::Docker { .. } => Err(OnePlatform.into()),
            Export::Tar { dest } => {
                let folders: Vec<String> = self.0.iter().map(|(platform, _)| folder(platform)).collect();
                let trees =
                    folders.iter().zip(&self.0).map(|(folder, (_, built))| Ok((Path::new(folder), built.tree()?)));
                let trees = trees.collect::<anyhow::Result<Vec<(&Path, std::sync::Arc<dyn Tree>)>>>()?;
                let epoch = &self.first()?.epoch;
                request.progress.step(&format!("exporting to tar{}", suffix(dest)), |_| {
                    export::tar(&trees, dest, epoch, &request.cancel)
                })?;
                Ok(None)
            }
            Export::Local { dest } => {
                for (platform, built) in &self.0 {
                    built.to_directory(&dest.join(folder(platform)))?;
                }
                Ok(None)
            }
        }
    }

    fn first(&self) -> anyhow::Result<&Built<'_>> {
        self.0.first().map(|(_, built)| built).context("a build for no platform")
    }

    fn built(&self, image: &MultiImage, names: &[Reference], stored: bool) -> BuiltImage {
        BuiltImage {
            config: image.index_descriptor.digest,
            manifest: stored.then(|| image.index_descriptor.clone()),
            platform: self.0.first().map_or_else(Platform::host, |(platform, _)| platform.clone()),
            names: names.to_vec(),
        }
    }

    fn image(&self, options: &LayerOptions) -> anyhow::Result<MultiImage> {
        let image = |(platform, built): &(Platform, Built<'_>)| {
            built.image(options).with_context(|| format!("make the image for {platform}"))
        };
        let images: Vec<Image> = self.0.iter().map(image).collect::<anyhow::Result<_>>()?;
        let dialect = if options.oci_media_types == Some(false) { Dialect::Docker } else { Dialect::Oci };
        let blobs = self.first()?.state.blobs()?;
        Ok(MultiImage::write(blobs.as_ref(), images, dialect, Default::default())?)
    }

    fn to_store(
        &self,
        names: &[Reference],
        options: &LayerOptions,
        request: &SolveRequest,
    ) -> anyhow::Result<MultiImage> {
        request.progress.step("exporting to image", |step| {
            let image = self.image(options)?;
            let images = self.first()?.state.images();
            if names.is_empty() {
                images.add(&image.index_descriptor)?;
            }
            for name in names {
                images
                    .tag(&image.index_descriptor, name)
                    .with_context(|| format!("name the image {}", name.familiar()))?;
                step.log(crate::base::progress::Stream::Stderr, format!("naming to {name}\n"));
            }
            for ((_, built), image) in self.0.iter().zip(&image.images) {
                built.adopt(image, options)?;
            }
            Ok(image)
        })
    }

    fn push(&self, image: &MultiImage, name: &Reference, request: &SolveRequest) -> anyhow::Result<()> {
        let state = self.first()?.state;
        request.progress.step(&format!("pushing {name}"), |step| {
            let blobs = state.images().blobs();
            state
                .registry()?
                .push(&image.index_descriptor, blobs.as_ref(), name, &[], step, &request.cancel)
                .with_context(|| format!("push {}", name.familiar()))
        })?;
        Ok(())
    }
}

/// The folder of a platform's files: `linux_arm64`.
fn folder(platform: &Platform) -> String {
    platform.to_string().replace('/', "_")
}
