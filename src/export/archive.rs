//! Images as archives and layout folders, their layers first made as asked.

use std::path::Path;

use anyhow::{Context, bail};

use super::out::write_to;
use super::{Dest, LayerOptions};
use crate::base::{Cancel, Reference};
use crate::image::{self, Dialect, Image, MultiImage, Named, Uniform};
use crate::store::{BlobStore, DiskBlobs, OverlayBlobs};

/// Writes a docker-save archive. Its layers are all compressed alike, because readers judge by the first one; zstd only
/// where it was asked for, because many cannot read it. `tmp` is a folder for layers that must be compressed anew.
pub fn docker(
    images: &[Named<'_>],
    blobs: &dyn BlobStore,
    dest: &Dest,
    options: &LayerOptions,
    tmp: &Path,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let wanted = |image: &Image| Uniform {
        compression: options.compression.or_else(|| image.readable_compression()),
        ..of(options)
    };
    converted(images, blobs, &wanted, tmp, cancel, |images, blobs| {
        write_to(dest, |out| Ok(image::docker_archive(images, blobs, out, cancel)?))
    })
}

/// Writes an OCI archive. Layers stay as they are unless the options force them.
pub fn oci(
    images: &[Named<'_>],
    blobs: &dyn BlobStore,
    dest: &Dest,
    options: &LayerOptions,
    tmp: &Path,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    converted(images, blobs, &|_| of(options), tmp, cancel, |images, blobs| {
        write_to(dest, |out| Ok(image::oci_archive(images, blobs, out, cancel)?))
    })
}

/// Writes an OCI layout directory, or adds to one.
pub fn oci_dir(
    images: &[Named<'_>],
    blobs: &dyn BlobStore,
    dest: &Path,
    options: &LayerOptions,
    tmp: &Path,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    converted(images, blobs, &|_| of(options), tmp, cancel, |images, blobs| {
        image::oci_layout(images, blobs, dest, cancel).with_context(|| format!("write {}", dest.display()))
    })
}

/// Writes an image for several platforms as an OCI layout: its tar, or with `tar` unset a directory.
pub fn multi(
    image: &MultiImage,
    names: &[Reference],
    blobs: &dyn BlobStore,
    dest: &Dest,
    tar: bool,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    match (tar, dest) {
        (true, _) => write_to(dest, |out| Ok(image::multi_archive(image, names, blobs, out, cancel)?)),
        (false, Dest::File(dir)) => {
            image::multi_layout(image, names, blobs, dir, cancel).with_context(|| format!("write {}", dir.display()))
        }
        (false, Dest::Stdout) => bail!("an OCI layout that is a directory cannot go to standard output"),
    }
}

fn of(options: &LayerOptions) -> Uniform {
    Uniform {
        compression: options.compression.filter(|_| options.force),
        level: options.level,
        dialect: options.oci_media_types.map(|oci| if oci { Dialect::Oci } else { Dialect::Docker }),
    }
}

/// Runs `write` on the images as they are wanted; what had to be made for that is gone afterwards.
fn converted(
    images: &[Named<'_>],
    blobs: &dyn BlobStore,
    wanted: &dyn Fn(&Image) -> Uniform,
    tmp: &Path,
    cancel: &Cancel,
    write: impl FnOnce(&[Named<'_>], &dyn BlobStore) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir_in(tmp).with_context(|| format!("make a folder in {}", tmp.display()))?;
    let made = DiskBlobs::open(scratch.path());
    let ready: Vec<(Image, &[Reference])> = images
        .iter()
        .map(|(image, names)| {
            let wanted = wanted(image);
            if wanted == Uniform::default() {
                return Ok(((*image).clone(), *names));
            }
            let image = image::uniform(image, blobs, &made, &wanted, cancel)
                .with_context(|| format!("convert image {}", image.config_digest.short()))?;
            Ok((image, *names))
        })
        .collect::<anyhow::Result<_>>()?;
    let named: Vec<Named<'_>> = ready.iter().map(|(image, names)| (image, *names)).collect();
    write(&named, &OverlayBlobs::new(&made, blobs))?;
    scratch.close().context("remove converted layers")
}
