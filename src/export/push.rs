//! Stored images to their registries.

use anyhow::Context;

use crate::base::progress::Step;
use crate::base::{Cancel, Reference};
use crate::image::{self, Descriptor, ImageStore, Uniform, media_type};
use crate::layer::Compression;
use crate::registry::Registry;

/// Neighbour repositories that a layer may be mounted from: each costs a question when it does not have it.
const NEIGHBOURS: usize = 3;

/// Pushes an image or an index under a name. Layers that are stored plain go up compressed; the name then means that
/// form here too, so that the next push finds everything there. Returns what the registry has.
pub fn push(
    images: &ImageStore,
    registry: &Registry,
    root: &Descriptor,
    to: &Reference,
    step: &Step,
    cancel: &Cancel,
) -> anyhow::Result<Descriptor> {
    let blobs = images.blobs();
    let mut root = root.clone();
    let mut neighbours = Vec::new();
    if media_type::is_manifest(&root.media_type) {
        let mut image = images.load(&root)?;
        if image.layers.iter().any(|layer| layer.compression() == Compression::Uncompressed) {
            // What every reader of registries takes for granted.
            let gzip = Uniform { compression: Some(Compression::Gzip), ..Uniform::default() };
            image = image::uniform(&image, blobs.as_ref(), blobs.as_ref(), &gzip, cancel)?;
            images.tag(&image.manifest_descriptor, to)?;
            root = image.manifest_descriptor.clone();
        }
        neighbours = sharing(images, &image, to)?;
    }
    registry
        .push(&root, blobs.as_ref(), to, &neighbours, step, cancel)
        .with_context(|| format!("push {}", to.familiar()))
}

/// Other repositories of the same registry whose images here have a layer in common with this one.
fn sharing(images: &ImageStore, image: &image::Image, to: &Reference) -> anyhow::Result<Vec<Reference>> {
    let mut found: Vec<Reference> = Vec::new();
    for stored in images.list()? {
        let names: Vec<Reference> = stored
            .references
            .into_iter()
            .filter(|name| name.registry() == to.registry() && name.repository() != to.repository())
            .filter(|name| found.iter().all(|known| known.repository() != name.repository()))
            .collect();
        if names.is_empty() || found.len() >= NEIGHBOURS {
            continue;
        }
        // An image that cannot be read is no reason not to push another.
        let Ok(other) = images.load(&stored.descriptor) else { continue };
        let shares = |digest| image.layers.iter().any(|own| own.descriptor.digest == digest);
        if other.layers.iter().any(|layer| shares(layer.descriptor.digest)) {
            found.extend(names);
        }
    }
    found.truncate(NEIGHBOURS);
    Ok(found)
}
