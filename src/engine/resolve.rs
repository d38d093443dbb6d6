//! What the frontend asks of base images: looked for in the local store first, then in the registry.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::Context;

use super::State;
use crate::base::{Cancel, Platform, Progress, Reference};
use crate::frontend::{ImageConfigs, ResolvedImage};

/// One build's answers: an image that is asked for twice is the same image, even when its tag moves meanwhile.
pub struct Resolver<'a> {
    state: &'a State,
    /// Ask the registry again even where the image is here.
    pull: bool,
    progress: &'a Progress,
    cancel: &'a Cancel,
    answers: Mutex<HashMap<(Reference, Platform), ResolvedImage>>,
}

impl<'a> Resolver<'a> {
    pub fn new(state: &'a State, pull: bool, progress: &'a Progress, cancel: &'a Cancel) -> Self {
        Self { state, pull, progress, cancel, answers: Mutex::default() }
    }

    fn local(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<Option<ResolvedImage>> {
        let images = self.state.images();
        let descriptor = match reference.digest() {
            Some(digest) => {
                let Some(size) = images.blobs().size(digest)? else { return Ok(None) };
                crate::image::Descriptor::new("", *digest, size)
            }
            None => match images.named(reference)? {
                Some(descriptor) => descriptor,
                None => return Ok(None),
            },
        };
        match images.load_for(&descriptor, platform) {
            Ok(image) => {
                Ok(Some(ResolvedImage { reference: reference.with_digest(descriptor.digest), config: image.config }))
            }
            // An index whose other platforms were pulled, or a store that lost a blob: the registry may have it.
            Err(
                crate::image::Error::Platform { .. } | crate::image::Error::Blob(crate::store::Error::Missing { .. }),
            ) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("image {}", reference.familiar())),
        }
    }
}

impl ImageConfigs for Resolver<'_> {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage> {
        let reference = reference.clone().or_latest();
        let key = (reference.clone(), platform.clone());
        let known = self.answers.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known {
            return Ok(known);
        }
        // What is pinned cannot have changed at the registry.
        let look_here = !self.pull || reference.digest().is_some();
        let local = if look_here { self.local(&reference, platform)? } else { None };
        let answer = match local {
            Some(answer) => answer,
            None => self.progress.step(&format!("[internal] load metadata for {reference}"), |_| {
                let blobs = self.state.blobs()?;
                let resolved = self.state.registry()?.resolve(&reference, platform, blobs.as_ref(), self.cancel)?;
                Ok::<_, anyhow::Error>(ResolvedImage { reference: resolved.reference, config: resolved.image.config })
            })?,
        };
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).insert(key, answer.clone());
        Ok(answer)
    }
}
