//! Images from a blob store to a registry: what it has is not sent, what a neighbour repository has is mounted,
//! the rest goes up in one piece or in chunks; manifests last, the name at the very end.

use std::collections::BTreeSet;
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RANGE};
use reqwest::{Body, Method, Response, StatusCode};
use url::Url;

use super::Registry;
use super::config::Place;
use super::error::{Error, Result};
use super::manifest::name_of;
use super::pull::in_parallel;
use super::transport::{Call, Transport, lock};
use super::watch::Watch;
use crate::base::progress::{Counter, Step};
use crate::base::{Cancel, Digest, Reference};
use crate::image::{Descriptor, Index, Manifest, media_type};
use crate::store::{self, BlobStore, read_document};

/// How much is read at once; some of these are on their way at any time.
const PIECE: usize = 256 * 1024;
const PIECES_AHEAD: usize = 4;
/// When a registry refuses a whole layer as too large (413, mostly a proxy's limit), pieces of this size are tried.
const SMALL_CHUNK: u64 = 16 * 1024 * 1024;

/// What has to go up, children before parents.
#[derive(Default)]
struct Contents {
    documents: Vec<(Descriptor, Vec<u8>)>,
    blobs: Vec<Descriptor>,
    seen: BTreeSet<Digest>,
}

impl Registry {
    /// Pushes a manifest or an index with all that it names, then the name itself. Blobs that the registry has in
    /// one of the `mount` repositories are mounted from there instead of sent.
    pub fn push(
        &self,
        root: &Descriptor,
        blobs: &dyn BlobStore,
        to: &Reference,
        mount: &[Reference],
        step: &Step,
        cancel: &Cancel,
    ) -> Result<Descriptor> {
        let mut contents = Contents::default();
        contents.collect(root, blobs)?;
        // Never to a mirror.
        let place = super::config::origin(to.registry());
        let mut neighbours: Vec<&Reference> = mount
            .iter()
            .filter(|from| from.registry() == to.registry() && from.repository() != to.repository())
            .collect();
        neighbours.dedup_by_key(|from| from.repository());
        let mut scopes = vec![format!("repository:{}:pull,push", to.repository())];
        scopes.extend(neighbours.iter().map(|from| format!("repository:{}:pull", from.repository())));
        let pusher = Pusher {
            transport: &self.0,
            chunk: self.1.upload_chunk,
            place: &place,
            to,
            blobs,
            scopes: &scopes,
            neighbours: &neighbours,
        };
        in_parallel(&contents.blobs, self.1.uploads, cancel, |descriptor, watch| pusher.blob(descriptor, step, watch))?;
        let watch = Watch::new(cancel);
        for (descriptor, bytes) in &contents.documents {
            let name = if descriptor.digest == root.digest { name_of(to) } else { descriptor.digest.to_string() };
            pusher.document(descriptor, bytes, &name, watch)?;
        }
        Ok(root.clone())
    }
}

impl Contents {
    fn collect(&mut self, descriptor: &Descriptor, blobs: &dyn BlobStore) -> Result<()> {
        if !self.seen.insert(descriptor.digest) {
            return Ok(());
        }
        let bytes = read_document(blobs, &descriptor.digest)?;
        let malformed = |error: serde_json::Error| Error::Invalid {
            registry: "image store".to_owned(),
            what: format!("manifest {}", descriptor.digest),
            reason: error.to_string(),
        };
        if media_type::is_index(&descriptor.media_type) {
            let index: Index = serde_json::from_slice(&bytes).map_err(malformed)?;
            for child in &index.manifests {
                self.collect(child, blobs)?;
            }
        } else {
            let manifest: Manifest = serde_json::from_slice(&bytes).map_err(malformed)?;
            for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
                if self.seen.insert(blob.digest) {
                    self.blobs.push(blob.clone());
                }
            }
        }
        self.documents.push((descriptor.clone(), bytes));
        Ok(())
    }
}

struct Pusher<'a> {
    transport: &'a Transport,
    chunk: Option<u64>,
    place: &'a Place,
    to: &'a Reference,
    blobs: &'a dyn BlobStore,
    scopes: &'a [String],
    neighbours: &'a [&'a Reference],
}

/// How a blob's upload began.
enum Session {
    /// The registry took the blob from a neighbour repository.
    Mounted,
    At(Url, HeaderMap),
}

impl Pusher<'_> {
    fn call<'c>(&'c self, method: Method, url: Url, headers: HeaderMap, what: &'c str, tries: u32) -> Call<'c> {
        let repository = self.to.repository();
        Call { method, headers, ..Call::get(self.place, url, self.scopes, repository, what, tries) }
    }

    fn document(&self, descriptor: &Descriptor, bytes: &[u8], name: &str, watch: Watch<'_>) -> Result<()> {
        let what = format!("push manifest {}:{name}", self.to.repository());
        let url = self.transport.address(self.place, self.to, &format!("manifests/{name}"), watch)?;
        let mut headers = HeaderMap::new();
        if let Ok(media_type) = HeaderValue::from_str(&descriptor.media_type) {
            headers.insert(CONTENT_TYPE, media_type);
        }
        let body = || Ok(Body::from(bytes.to_vec()));
        let mut call = self.call(Method::PUT, url, headers, &what, self.transport.patience.tries);
        call.body = Some(&body);
        let response = self.transport.send(&call, watch)?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(response, &call, watch));
        }
        match stored_as(&response) {
            Some(actual) if actual != descriptor.digest => {
                Err(Error::Mismatch { registry: self.place.host.clone(), what, expected: descriptor.digest, actual })
            }
            _ => Ok(()),
        }
    }

    fn blob(&self, descriptor: &Descriptor, step: &Step, watch: Watch<'_>) -> Result<()> {
        let digest = &descriptor.digest;
        if self.exists(digest, watch)? {
            return Ok(());
        }
        match self.blobs.size(digest)?.ok_or(store::Error::Missing { digest: *digest })? {
            actual if actual == descriptor.size => {}
            actual => return Err(store::Error::Size { digest: *digest, expected: descriptor.size, actual }.into()),
        }
        let counter = Mutex::new(step.counter(digest.to_string(), descriptor.size));
        let tries = self.transport.patience.tries.max(1);
        let mut chunk = self.chunk;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let error = match self.upload(descriptor, chunk, &counter, watch) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match &error {
                Error::Refused(refusal) if refusal.status == 413 && chunk.is_none() => chunk = Some(SMALL_CHUNK),
                // An upload session that the registry lost is begun again.
                Error::Refused(refusal)
                    if attempt < tries && matches!(refusal.status, 404 | 408 | 416 | 429 | 500..) => {}
                Error::Unreachable { .. } if attempt < tries => {}
                // Who is not let in has not looked at the bytes.
                Error::Refused(refusal) if matches!(refusal.status, 401 | 403) => return Err(error),
                // The registry hashes what it gets. When it does not like it, the fault may be ours.
                Error::Refused(_) | Error::Mismatch { .. } => return self.prove(digest).and(Err(error)),
                _ => return Err(error),
            }
            watch.sleep(self.transport.backoff(attempt))?;
        }
    }

    /// Reads a blob of the store to its end, to see that it is what its digest says.
    fn prove(&self, digest: &Digest) -> Result<()> {
        Ok(self.blobs.open(digest)?.finish()?)
    }

    fn exists(&self, digest: &Digest, watch: Watch<'_>) -> Result<bool> {
        let what = format!("look for blob {digest} in {}", self.to.repository());
        let url = self.transport.address(self.place, self.to, &format!("blobs/{digest}"), watch)?;
        let call = self.call(Method::HEAD, url, HeaderMap::new(), &what, self.transport.patience.tries);
        let response = self.transport.send(&call, watch)?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self.transport.refusal(response, &call, watch)),
            // Whatever else it says: the upload will find out.
            _ => Ok(false),
        }
    }

    fn upload(
        &self,
        descriptor: &Descriptor,
        chunk: Option<u64>,
        counter: &Mutex<Counter>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let what = format!("push blob {} to {}", descriptor.digest, self.to.repository());
        match self.begin(&descriptor.digest, &what, watch)? {
            Session::Mounted => Ok(()),
            Session::At(url, headers) => match chunk {
                Some(chunk) => self.in_chunks(descriptor, url, chunk.max(min_chunk(&headers)), &what, counter, watch),
                None => self.whole(descriptor, url, &what, counter, watch),
            },
        }
    }

    fn begin(&self, digest: &Digest, what: &str, watch: Watch<'_>) -> Result<Session> {
        let base = self.transport.address(self.place, self.to, "blobs/uploads/", watch)?;
        let mut urls: Vec<Url> = Vec::new();
        for from in self.neighbours {
            let mut url = base.clone();
            url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from.repository());
            urls.push(url);
        }
        urls.push(base);
        let last = urls.len() - 1;
        for (index, url) in urls.into_iter().enumerate() {
            let mut call = self.call(Method::POST, url.clone(), HeaderMap::new(), what, self.transport.patience.tries);
            // Some proxies refuse a POST without a length.
            call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            let response = self.transport.send(&call, watch)?;
            match response.status() {
                StatusCode::CREATED => return Ok(Session::Mounted),
                // Not mounted, but a session all the same: it is used, not left behind.
                StatusCode::ACCEPTED => {
                    return Ok(Session::At(location(&url, &response, self.place, what)?, response.headers().clone()));
                }
                _ if index < last => {}
                _ => return Err(self.transport.refusal(response, &call, watch)),
            }
        }
        Err(Error::Invalid {
            registry: self.place.host.clone(),
            what: what.to_owned(),
            reason: "no upload began".to_owned(),
        })
    }

    fn whole(
        &self,
        descriptor: &Descriptor,
        url: Url,
        what: &str,
        counter: &Mutex<Counter>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let url = closing(url, &descriptor.digest);
        let response =
            self.send_part(Method::PUT, url, descriptor, 0, descriptor.size, HeaderMap::new(), what, counter, watch)?;
        self.check_stored(&response, descriptor, what)
    }

    fn in_chunks(
        &self,
        descriptor: &Descriptor,
        mut url: Url,
        chunk: u64,
        what: &str,
        counter: &Mutex<Counter>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let tries = self.transport.patience.tries.max(1);
        let mut at = 0;
        let mut failures = 0;
        while at < descriptor.size {
            let end = descriptor.size.min(at + chunk);
            let mut headers = HeaderMap::new();
            if let Ok(range) = format!("{at}-{}", end - 1).parse() {
                headers.insert(CONTENT_RANGE, range);
            }
            let sent =
                self.send_part(Method::PATCH, url.clone(), descriptor, at, end - at, headers, what, counter, watch);
            match sent {
                Ok(response) => {
                    url = location(&url, &response, self.place, what)?;
                    at = end;
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    let resumable = matches!(&error, Error::Unreachable { .. })
                        || matches!(error.status(), Some(416 | 429 | 500..));
                    if failures >= tries || !resumable {
                        return Err(error);
                    }
                    watch.sleep(self.transport.backoff(failures))?;
                    (url, at) = self.whereabouts(&url, what, watch)?;
                    if at > descriptor.size {
                        return Err(Error::Invalid {
                            registry: self.place.host.clone(),
                            what: what.to_owned(),
                            reason: format!("has {at} bytes of {}", descriptor.size),
                        });
                    }
                }
            }
        }
        let url = closing(url, &descriptor.digest);
        let mut call = self.call(Method::PUT, url, HeaderMap::new(), what, 1);
        call.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = self.transport.send(&call, watch)?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(response, &call, watch));
        }
        self.check_stored(&response, descriptor, what)
    }

    /// Asks a session how far it is.
    fn whereabouts(&self, url: &Url, what: &str, watch: Watch<'_>) -> Result<(Url, u64)> {
        let call = self.call(Method::GET, url.clone(), HeaderMap::new(), what, self.transport.patience.tries);
        let response = self.transport.send(&call, watch)?;
        if !response.status().is_success() {
            return Err(self.transport.refusal(response, &call, watch));
        }
        // `0-99` is a hundred bytes; an empty session says `0-0`, as one of a single byte does.
        let end: u64 = response
            .headers()
            .get(RANGE)
            .and_then(|value| value.to_str().ok()?.rsplit('-').next()?.parse().ok())
            .unwrap_or(0);
        let next = location(url, &response, self.place, what).unwrap_or_else(|_| url.clone());
        Ok((next, if end == 0 { 0 } else { end + 1 }))
    }

    #[expect(clippy::too_many_arguments, reason = "a part of a blob, and where it goes")]
    fn send_part(
        &self,
        method: Method,
        url: Url,
        descriptor: &Descriptor,
        start: u64,
        length: u64,
        mut headers: HeaderMap,
        what: &str,
        counter: &Mutex<Counter>,
        watch: Watch<'_>,
    ) -> Result<Response> {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
        let sent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            let body = || {
                let (sender, receiver) = tokio::sync::mpsc::channel(PIECES_AHEAD);
                let mut feeder = Feeder { sender, counter, sent: &sent };
                // Opened here, so that a blob that is not there is this upload's error.
                let blob = self.blobs.open(&descriptor.digest)?;
                // The registry hashes what it gets: `check_stored`.
                scope.spawn(move || feeder.feed(blob.unverified(), start, length));
                Ok(Body::wrap_stream(futures_util::stream::unfold(receiver, |mut receiver| async {
                    receiver.recv().await.map(|piece| (piece, receiver))
                })))
            };
            // Once: a session that got a part of the bytes is not where it was.
            let mut call = self.call(method, url, headers, what, 1);
            call.body = Some(&body);
            call.sent = Some(&sent);
            let response = self.transport.send(&call, watch)?;
            if response.status().is_success() {
                Ok(response)
            } else {
                Err(self.transport.refusal(response, &call, watch))
            }
        })
    }

    /// A registry that names what it stored has hashed it, as the specification has it. For one that does not name it
    /// we do so.
    fn check_stored(&self, response: &Response, descriptor: &Descriptor, what: &str) -> Result<()> {
        match stored_as(response) {
            Some(actual) if actual != descriptor.digest => Err(Error::Mismatch {
                registry: self.place.host.clone(),
                what: what.to_owned(),
                expected: descriptor.digest,
                actual,
            }),
            Some(_) => Ok(()),
            None => self.prove(&descriptor.digest),
        }
    }
}

/// The digest by which a registry says that it keeps what it was sent.
fn stored_as(response: &Response) -> Option<Digest> {
    response.headers().get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

type Piece = std::result::Result<Bytes, std::io::Error>;

/// Reads a blob on its own thread, a few pieces ahead of the network.
struct Feeder<'a> {
    sender: tokio::sync::mpsc::Sender<Piece>,
    counter: &'a Mutex<Counter>,
    sent: &'a AtomicU64,
}

impl Feeder<'_> {
    /// What cannot be read breaks the body, so that the registry never gets a whole upload of it.
    fn feed(&mut self, mut blob: Box<dyn Read + Send>, start: u64, length: u64) {
        if let Err(error) = std::io::copy(&mut (&mut blob).take(start), &mut std::io::sink()) {
            let _ = self.sender.blocking_send(Err(error));
            return;
        }
        let (back, spare) = std::sync::mpsc::channel();
        let mut left = length;
        while left > 0 {
            let length = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
            let bytes = spare.try_recv().unwrap_or_else(|_| vec![0; PIECE]);
            let mut piece = Buffer { bytes, length, back: back.clone() };
            if let Err(error) = blob.read_exact(&mut piece.bytes[..length]) {
                let _ = self.sender.blocking_send(Err(error));
                return;
            }
            left -= length as u64;
            if self.sender.blocking_send(Ok(Bytes::from_owner(piece))).is_err() {
                return;
            }
            self.sent.fetch_add(length as u64, Ordering::Relaxed);
            lock(self.counter).add(length as u64);
        }
    }
}

/// A piece that goes back to its feeder once it is sent. Fresh memory for each would cost more than the reading.
struct Buffer {
    bytes: Vec<u8>,
    length: usize,
    back: std::sync::mpsc::Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Nobody waits for it after the last piece.
        let _ = self.back.send(std::mem::take(&mut self.bytes));
    }
}

fn location(url: &Url, response: &Response, place: &Place, what: &str) -> Result<Url> {
    let target =
        response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).and_then(|to| url.join(to).ok());
    target.ok_or_else(|| Error::Invalid {
        registry: place.host.clone(),
        what: what.to_owned(),
        reason: format!("answered {} without a valid Location", response.status().as_u16()),
    })
}

/// The address that ends an upload. What the registry put into the query stays as it is, byte for byte.
fn closing(mut url: Url, digest: &Digest) -> Url {
    let query = match url.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={digest}"),
        _ => format!("digest={digest}"),
    };
    url.set_query(Some(&query));
    url
}

fn min_chunk(headers: &HeaderMap) -> u64 {
    headers.get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closing_address_keeps_the_registrys_query() {
        let digest = Digest::of("x");
        for (url, expected) in [
            ("http://h/v2/u/1", format!("http://h/v2/u/1?digest={digest}")),
            ("http://h/v2/u/1?_state=a%2Bb==", format!("http://h/v2/u/1?_state=a%2Bb==&digest={digest}")),
        ] {
            assert_eq!(closing(Url::parse(url).unwrap(), &digest).as_str(), expected);
        }
    }
}
