//! A container's files as an image.

use anyhow::Context;

use super::find_stored;
use super::run::load;
use crate::base::{Cancel, Epoch, Reference};
use crate::engine::State;
use crate::export::{self, LayerOptions};
use crate::image::config::{History, RunConfig};
use crate::image::{Image, ImageConfig};

/// What a container becomes.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub name: Option<Reference>,
    /// The config of the image that it was made of, with changes; none: as that has it.
    pub config: Option<RunConfig>,
    pub author: Option<String>,
    pub message: Option<String>,
}

/// The config of the image that a container was made of.
pub fn image_config(state: &State, name: &str) -> anyhow::Result<ImageConfig> {
    Ok(image_of(state, name)?.config)
}

fn image_of(state: &State, name: &str) -> anyhow::Result<Image> {
    let container = find_stored(state, name)?.container;
    let images = state.images();
    let stored = images
        .find(&container.image_id.to_string())?
        .with_context(|| format!("image {} of container {} is gone", container.image, container.name))?;
    Ok(images.load(&stored.descriptor)?)
}

/// Makes an image of a container that does not run: the layers of its own image, and one for each time it ran or was
/// copied to.
pub fn commit(state: &State, name: &str, wanted: &Commit, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<Image> {
    let found = find_stored(state, name)?;
    let _lock = found.lock(state)?;
    let stored = find_stored(state, &found.container.id)?;
    let images = state.images();
    let _pin = images.pin(cancel)?;
    let base = image_of(state, &stored.container.id)?;
    let options = LayerOptions::default();
    let layers = export::layers(state.snapshots()?, &load(state, &stored)?, &options, epoch, cancel)?;
    let mut config = base.config.clone();
    if let Some(run) = &wanted.config {
        config.config = run.clone();
    }
    config.author.clone_from(&wanted.author);
    let new_layers = layers.len().saturating_sub(base.layers.len());
    config.history.extend((0..new_layers.max(1)).map(|_| History {
        created: Some(epoch.created().to_string()),
        created_by: Some(stored.container.args.join(" ")),
        author: wanted.author.clone(),
        comment: wanted.message.clone(),
        empty_layer: new_layers == 0,
        ..History::default()
    }));
    config.created = Some(epoch.created().to_string());
    let image = export::image(layers, &config, Some(&base.config), &options, epoch, images.blobs().as_ref())?;
    export::to_store(images, &image, wanted.name.as_slice())?;
    Ok(image)
}
