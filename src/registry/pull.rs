//! Layers from a registry into a blob store: several at once, resumed where they broke, verified.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::header::{CONTENT_RANGE, HeaderMap, RANGE};
use reqwest::{Method, StatusCode};

use super::config::Place;
use super::error::{Error, Result};
use super::manifest::pull_scope;
use super::transport::{Call, Transport, lock};
use super::watch::{Pace, Watch};
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
        let invalid = |reason: String| Error::Invalid { registry: place.host.clone(), what: what.clone(), reason };
        let disk = |source| store::Error::Io { path: format!("blob {digest}"), source };
        let mut writer = blobs.create()?;
        let mut at = 0;
        let mut failures = 0;
        loop {
            let mut headers = HeaderMap::new();
            if at > 0
                && let Ok(range) = format!("bytes={at}-").parse()
            {
                headers.insert(RANGE, range);
            }
            let call = Call {
                method: Method::GET,
                place,
                url: url.clone(),
                headers,
                scopes: &[pull_scope(place, reference)],
                repository: reference.repository(),
                what: &what,
                body: None,
                sent: None,
                authorise: true,
                tries: tries.saturating_sub(failures),
            };
            let mut response = self.send(&call, watch)?;
            // Bytes that come again because the registry knows no ranges.
            let mut skip = match response.status() {
                StatusCode::OK => at,
                StatusCode::PARTIAL_CONTENT if at > 0 && range_start(response.headers()) == Some(at) => 0,
                StatusCode::PARTIAL_CONTENT => {
                    return Err(invalid("answers another range than was asked for".to_owned()));
                }
                _ => return Err(self.refusal(response, &call, watch)),
            };
            let mut pace = Pace::new();
            let before = at;
            let broken = loop {
                match self.chunk(&mut response, &mut pace, watch)? {
                    Ok(Some(bytes)) => {
                        let again = skip.min(bytes.len() as u64) as usize;
                        skip -= again as u64;
                        let bytes = &bytes[again..];
                        at += bytes.len() as u64;
                        if at > *size {
                            return Err(invalid(format!("is longer than the {size} bytes of its descriptor")));
                        }
                        writer.write_all(bytes).map_err(disk)?;
                        count(bytes.len() as u64);
                    }
                    Ok(None) if at == *size => break None,
                    Ok(None) => break Some(format!("ended after {at} of {size} bytes")),
                    Err(reason) => break Some(reason),
                }
            };
            let Some(reason) = broken else { break };
            failures = if at > before { 1 } else { failures + 1 };
            if failures >= tries {
                return Err(Error::Unreachable { registry: place.host.clone(), what, cause: reason });
            }
            watch.sleep(self.backoff(failures))?;
        }
        match writer.complete_verified_as(digest, Some(*size)) {
            Err(store::Error::Mismatch { expected, actual }) => {
                Err(Error::Mismatch { registry: place.host.clone(), what, expected, actual })
            }
            other => Ok(other?),
        }
    }
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
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
