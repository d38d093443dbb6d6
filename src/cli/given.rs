//! An image as people name it: an archive, a layout folder, or a name in the local store.

use std::sync::Arc;

use crate::base::{Platform, Reference};
use crate::image::{self, Image};
use crate::store::BlobStore;

use super::exit::usage;
use super::session::Session;

pub struct Given {
    pub image: Image,
    pub references: Vec<Reference>,
    pub blobs: Arc<dyn BlobStore>,
}

impl Given {
    /// A name in the store wins over a file of that name only where there is no such file.
    pub fn new(text: &str, platform: Option<&Platform>, session: &Session) -> anyhow::Result<Self> {
        let path = session.absolute(text);
        if !path.exists() {
            let stored = session.image(text)?;
            let store = session.images()?;
            let image = match platform {
                Some(platform) => store.load_for(&stored.descriptor, platform)?,
                None => store.load(&stored.descriptor)?,
            };
            return Ok(Self { image, references: stored.references, blobs: store.blobs() });
        }
        let mut opened = image::open(&path, &session.state()?.tmp()?)?;
        opened.images.retain(|(image, _)| platform.is_none_or(|wanted| wanted.accepts(&image.config.platform)));
        match <[_; 1]>::try_from(opened.images) {
            Ok([(image, references)]) => Ok(Self { image, references, blobs: opened.blobs }),
            Err(images) => {
                let names: Vec<_> = images.iter().flat_map(|(_, names)| names).map(Reference::familiar).collect();
                let count = images.len();
                Err(usage(format!("{text} holds {count} images ({}); load it and take one by name", names.join(", "))))
            }
        }
    }
}
