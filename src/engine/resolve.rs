//! What the frontend asks of base images: looked for in the local store first, then in the registry.

use std::collections::HashMap;
use std::io::BufReader;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use super::State;
use crate::base::{Cancel, Platform, Progress, Reference};
use crate::frontend::{ImageConfigs, ResolvedImage};
use crate::layer;
use crate::llb::pb;
use crate::snapshot::{FileData, Tree, walk};
use crate::sys::Kind;

/// One build's answers: an image that is asked for twice is the same image, even when its tag moves meanwhile.
pub struct Resolver<'a> {
    state: &'a State,
    /// Ask the registry again even where the image is here.
    pull: bool,
    progress: &'a Progress,
    cancel: &'a Cancel,
    solve: Option<&'a Solve<'a>>,
    answers: Mutex<HashMap<(Reference, Platform), ResolvedImage>>,
}

/// Gives the files of a definition.
pub type Solve<'a> = dyn Fn(pb::Definition) -> anyhow::Result<Arc<dyn Tree>> + Sync + 'a;

impl<'a> Resolver<'a> {
    pub fn new(state: &'a State, pull: bool, progress: &'a Progress, cancel: &'a Cancel) -> Self {
        Self { state, pull, progress, cancel, solve: None, answers: Mutex::default() }
    }

    /// With a way to look at what other sources fetch.
    pub fn fetching(self, solve: &'a Solve<'a>) -> Self {
        Self { solve: Some(solve), ..self }
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

    fn source_date(&self, source: &pb::Definition) -> anyhow::Result<Option<i64>> {
        let Some(solve) = self.solve else { return Ok(None) };
        let tree = solve(source.clone())?;
        let mut newest = None;
        let mut files = Vec::new();
        walk(tree.as_ref(), self.cancel, &mut |entry, _| {
            if let Kind::File { .. } = entry.kind {
                newest = newest.max(Some(entry.meta.mtime.seconds));
                files.push(entry.path);
            }
            Ok(())
        })?;
        match (&files[..], newest) {
            // What a server gives no date is from the beginning of time; an archive knows more.
            ([file], Some(0)) => Ok(newest_in_archive(tree.open(file)?)),
            _ => Ok(newest),
        }
    }
}

/// The time of the newest file; none where it is no archive.
fn newest_in_archive(archive: FileData) -> Option<i64> {
    let mut plain = layer::decompress_any(BufReader::new(archive)).ok()?;
    let mut newest = None;
    layer::tar::read(&mut plain, &mut |entry, _| {
        if let Kind::File { .. } = entry.kind {
            newest = newest.max(Some(entry.meta.mtime.seconds));
        }
        Ok(())
    })
    .ok()?;
    newest
}
