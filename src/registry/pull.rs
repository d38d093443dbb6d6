//! Layers from a registry into a blob store: several at once, verified.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::config::Place;
use super::error::{Error, Result};
use super::manifest::pull_scope;
use super::transport::{Call, Transport, lock};
use super::watch::Watch;
use super::{Registry, Resolved};
use crate::base::progress::Step;
use crate::base::{Cancel, Platform, Reference};
use crate::image::Descriptor;
use crate::store::{self, BlobStore};

impl Registry {
    /// Ok means that manifest, config and all layers are in `blobs`, verified; what was there is not fetched again.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        blobs: &dyn BlobStore,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<Resolved> {
        let mut warn = |message| step.warn(message);
        let resolved = self.resolve_warned(reference, platform, blobs, &mut warn, Watch::new(cancel))?;
        let layers: Vec<Descriptor> = resolved.image.layers.iter().map(|layer| layer.descriptor.clone()).collect();
        self.fetch(reference, &layers, blobs, step, cancel)?;
        Ok(resolved)
    }

    /// Fetches blobs of a repository; a blob that is in the store is left alone.
    pub fn fetch(
        &self,
        reference: &Reference,
        wanted: &[Descriptor],
        blobs: &dyn BlobStore,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<()> {
        let mut missing: Vec<&Descriptor> = Vec::new();
        for descriptor in wanted {
            if missing.iter().all(|d| d.digest != descriptor.digest) && blobs.size(&descriptor.digest)?.is_none() {
                missing.push(descriptor);
            }
        }
        in_parallel(&missing, self.1.downloads, cancel, |descriptor, watch| {
            // The counter says first that it waits for nothing: a person sees all layers that run.
            let mut counter = step.counter(descriptor.digest.to_string(), descriptor.size);
            self.at_places(reference, &mut |warning| step.warn(warning), |place, tries| {
                let mut count = |bytes| counter.add(bytes);
                self.0.fetch_blob(place, reference, descriptor, blobs, tries, &mut count, watch)
            })
        })
    }
}

/// Works on all items, some at once. The first error stops the others, and is returned.
pub(super) fn in_parallel<T: Sync>(
    items: &[T],
    at_once: usize,
    cancel: &Cancel,
    work: impl Fn(&T, Watch<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let first: Mutex<Option<Error>> = Mutex::new(None);
    let worker = || {
        let watch = Watch::new(cancel).with_stop(&stop);
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(error) = watch.check().map_err(Error::from).and_then(|()| work(item, watch)) {
                // Siblings end with Cancelled because of this one; theirs come later and are not news.
                lock(&first).get_or_insert(error);
                stop.store(true, Ordering::Relaxed);
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(items.len()) {
            scope.spawn(worker);
        }
        worker();
    });
    match lock(&first).take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

impl Transport {
    /// Fetches one blob from one place. `tries` counts the failures in a row without a new byte.
    #[expect(clippy::too_many_arguments, reason = "all of them are the blob's whereabouts")]
    pub(super) fn fetch_blob(
        &self,
        place: &Place,
        reference: &Reference,
        descriptor: &Descriptor,
        blobs: &dyn BlobStore,
        tries: u32,
        count: &mut dyn FnMut(u64),
        watch: Watch<'_>,
    ) -> Result<()> {
        let Descriptor { digest, size, .. } = descriptor;
        let what = format!("blob {digest} of {}", reference.repository());
        let url = self.address(place, reference, &format!("blobs/{digest}"), watch)?;
        let scopes = [pull_scope(place, reference)];
        let call = Call::get(place, url, &scopes, reference.repository(), &what, tries);
        let mut writer = blobs.create()?;
        self.download(call, Some(*size), watch, &mut |bytes| {
            let written = writer.write_all(bytes);
            written.map_err(|source| store::Error::Io { path: format!("blob {digest}"), source })?;
            count(bytes.len() as u64);
            Ok(())
        })?;
        match writer.complete_verified_as(digest, Some(*size)) {
            Err(store::Error::Mismatch { expected, actual }) => {
                Err(Error::Mismatch { registry: place.host.clone(), what, expected, actual })
            }
            other => Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_stops_the_others() {
        let started = AtomicUsize::new(0);
        let items: Vec<u32> = (0..100).collect();
        let error = in_parallel(&items, 4, &Cancel::new(), |item, watch| {
            started.fetch_add(1, Ordering::Relaxed);
            if *item == 3 {
                return Err(Error::Config { place: "three".into(), reason: "no".into() });
            }
            Ok(watch.sleep(std::time::Duration::from_secs(10))?)
        });
        assert_eq!(error.unwrap_err().to_string(), "three: no");
        assert_eq!(started.load(Ordering::Relaxed), 4);
    }

    #[test]
    fn a_drip_of_no_items_is_fine() {
        in_parallel(&[] as &[u32], 4, &Cancel::new(), |_, _| Ok(())).unwrap();
    }
}
