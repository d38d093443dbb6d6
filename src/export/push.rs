//! Stored images to their registries.

use anyhow::Context;

use crate::base::progress::Step;
use crate::base::{Cancel, Reference};
use crate::image::{self, Descriptor, Image, ImageStore, Index, Uniform, media_type};
use crate::layer::Compression;
use crate::registry::Registry;
use crate::store;

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
    let (sent, parts) = match media_type::is_index(&root.media_type) {
        true => index(images, root, cancel)?,
        false => {
            let image = compressed(images, images.load(root)?, cancel)?;
            (image.manifest_descriptor.clone(), vec![image])
        }
    };
    if sent.digest != root.digest {
        images.tag(&sent, to)?;
    }
    let neighbours = sharing(images, &parts, to)?;
    registry
        .push(&sent, blobs.as_ref(), to, &neighbours, step, cancel)
        .with_context(|| format!("push {}", to.familiar()))
}

/// What every reader of registries takes for granted: no layer plain.
fn compressed(images: &ImageStore, image: Image, cancel: &Cancel) -> anyhow::Result<Image> {
    if image.layers.iter().all(|layer| layer.compression() != Compression::Uncompressed) {
        return Ok(image);
    }
    let gzip = Uniform { compression: Some(Compression::Gzip), ..Uniform::default() };
    let blobs = images.blobs();
    Ok(image::uniform(&image, blobs.as_ref(), blobs.as_ref(), &gzip, cancel)?)
}

/// An index with all its images compressed, and those images. What is no image (an attestation, an index inside) stays
/// as it is.
fn index(images: &ImageStore, root: &Descriptor, cancel: &Cancel) -> anyhow::Result<(Descriptor, Vec<Image>)> {
    let blobs = images.blobs();
    let document = store::read_document(blobs.as_ref(), &root.digest)?;
    let mut index: Index = serde_json::from_slice(&document).with_context(|| format!("index {}", root.digest))?;
    let (mut parts, mut changed) = (Vec::new(), false);
    for entry in index.manifests.iter_mut().filter(|entry| media_type::is_manifest(&entry.media_type)) {
        let Ok(image) = images.load(entry) else { continue };
        let image = compressed(images, image, cancel)?;
        if image.manifest_descriptor.digest != entry.digest {
            let Descriptor { media_type, digest, size, .. } = image.manifest_descriptor.clone();
            *entry = Descriptor { media_type, digest, size, ..entry.clone() };
            changed = true;
        }
        parts.push(image);
    }
    // Written by somebody else perhaps, whose bytes are its digest.
    if !changed {
        return Ok((root.clone(), parts));
    }
    let bytes = index.to_bytes();
    let digest = store::write_document(blobs.as_ref(), &bytes)?;
    Ok((Descriptor { digest, size: bytes.len() as u64, ..root.clone() }, parts))
}

/// Other repositories of the same registry whose images here have a layer in common with one of these.
fn sharing(images: &ImageStore, parts: &[Image], to: &Reference) -> anyhow::Result<Vec<Reference>> {
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
        let own = parts.iter().flat_map(|image| &image.layers);
        let shares = |digest| own.clone().any(|layer| layer.descriptor.digest == digest);
        if other.layers.iter().any(|layer| shares(layer.descriptor.digest)) {
            found.extend(names);
        }
    }
    found.truncate(NEIGHBOURS);
    Ok(found)
}
