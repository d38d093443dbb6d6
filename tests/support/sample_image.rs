//! Small real images, made in a blob store.

use std::io::Write;

use dockless::base::{DiffId, Digest, Platform};
use dockless::image::{Descriptor, ImageConfig, Index, Manifest, media_type};
use dockless::store::BlobStore;

pub fn put(blobs: &dyn BlobStore, bytes: &[u8]) -> (Digest, u64) {
    let mut writer = blobs.create().unwrap();
    writer.write_all(bytes).unwrap();
    writer.complete().unwrap()
}

/// One file per layer, in plain tars.
pub fn image(blobs: &dyn BlobStore, files: &[(&str, &[u8])], platform: &Platform) -> Descriptor {
    let mut config = ImageConfig::new(platform.clone());
    config.config.env = vec!["PATH=/bin".to_owned()];
    let mut layers = Vec::new();
    for (name, bytes) in files {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes).unwrap();
        let (digest, size) = put(blobs, &tar.into_inner().unwrap());
        config.rootfs.diff_ids.push(DiffId(digest));
        layers.push(Descriptor::new(media_type::OCI_LAYER, digest, size));
    }
    let (digest, size) = put(blobs, &config.to_bytes());
    let manifest = Manifest {
        schema_version: 2,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        config: Descriptor::new(media_type::OCI_CONFIG, digest, size),
        layers,
        annotations: Default::default(),
        extra: Default::default(),
    };
    let (digest, size) = put(blobs, &manifest.to_bytes());
    Descriptor::new(media_type::OCI_MANIFEST, digest, size)
}

pub fn index(blobs: &dyn BlobStore, images: &[(Descriptor, Platform)]) -> Descriptor {
    let entries = images
        .iter()
        .map(|(descriptor, platform)| Descriptor { platform: Some(platform.clone()), ..descriptor.clone() });
    let (digest, size) = put(blobs, &Index::new(entries.collect()).to_bytes());
    Descriptor::new(media_type::OCI_INDEX, digest, size)
}
