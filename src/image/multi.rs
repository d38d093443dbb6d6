//! One image for several platforms: an index over images.

use std::collections::BTreeMap;

use super::{Descriptor, Dialect, Image, Index, Result, media_type};
use crate::store::{self, BlobStore};

/// Images for different platforms, and the index that names them.
#[derive(Debug, Clone, PartialEq)]
pub struct MultiImage {
    pub index_descriptor: Descriptor,
    pub images: Vec<Image>,
}

impl MultiImage {
    /// Writes the index over images whose blobs are stored.
    pub fn write(
        blobs: &dyn BlobStore,
        images: Vec<Image>,
        dialect: Dialect,
        annotations: BTreeMap<String, String>,
    ) -> Result<Self> {
        let mut index = Index::new(images.iter().map(|image| image.manifest_descriptor.clone()).collect());
        if dialect == Dialect::Docker {
            media_type::DOCKER_MANIFEST_LIST.clone_into(&mut index.media_type);
        } else {
            // Docker's schema knows no annotations.
            index.annotations = annotations;
        }
        let bytes = index.to_bytes();
        let digest = store::write_document(blobs, &bytes)?;
        let index_descriptor = Descriptor::new(&index.media_type, digest, bytes.len() as u64);
        Ok(Self { index_descriptor, images })
    }

    /// Every blob that it is made of, the index included.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        [&self.index_descriptor].into_iter().chain(self.images.iter().flat_map(Image::blobs))
    }
}
