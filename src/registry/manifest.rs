//! Manifests and indexes from a registry: asked for by tag or digest, verified, the platform chosen.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use super::config::Place;
use super::error::{Error, Result};
use super::transport::{Call, Transport};
use super::watch::Watch;
use super::{Registry, Resolved};
use crate::base::{Cancel, Digest, Platform, Reference};
use crate::image::{Descriptor, Image, Index, Manifest, media_type};
use crate::store::{BlobStore, read_document};

/// The distribution spec's own limit; a longer manifest is an attack or a mistake.
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;
/// Config documents are some kilobytes; labels have made some of them a megabyte.
const CONFIG_LIMIT: u64 = 16 * 1024 * 1024;
/// Indexes inside one another.
const DEPTH: usize = 4;
/// Pages of tags, of a registry that never stops naming the next.
const TAG_PAGES: usize = 1000;

const ACCEPTED: [&str; 4] =
    [media_type::OCI_MANIFEST, media_type::OCI_INDEX, media_type::DOCKER_MANIFEST, media_type::DOCKER_MANIFEST_LIST];

const SCHEMA_1: &str = "application/vnd.docker.distribution.manifest.v1";

/// A manifest or an index, verified.
pub(super) struct Document {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// What a document is about, by the fields that tell its kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    config: Option<serde::de::IgnoredAny>,
    layers: Option<serde::de::IgnoredAny>,
    manifests: Option<serde::de::IgnoredAny>,
}

impl Registry {
    /// What a tag names now, by HEAD; none when the registry has no such manifest.
    pub fn head(&self, reference: &Reference, cancel: &Cancel) -> Result<Option<Descriptor>> {
        let watch = Watch::new(cancel);
        let result =
            self.at_places(reference, &mut |_| {}, |place, tries| self.0.head_at(place, reference, tries, watch));
        match result {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All tags of a repository, in the registry's order.
    pub fn tags(&self, reference: &Reference, cancel: &Cancel) -> Result<Vec<String>> {
        let watch = Watch::new(cancel);
        self.at_places(reference, &mut |_| {}, |place, tries| self.0.tags_at(place, reference, tries, watch))
    }

    /// Ok means that the index (where there is one), the manifest and the config are in `blobs`, verified; no layer
    /// was fetched. What was there already is not fetched again.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        blobs: &dyn BlobStore,
        cancel: &Cancel,
    ) -> Result<Resolved> {
        self.resolve_warned(reference, platform, blobs, &mut |_| {}, Watch::new(cancel))
    }

    /// Ok means that the manifest or index itself, of whatever kind of thing it is, is in `blobs`, verified.
    pub fn document(&self, reference: &Reference, blobs: &dyn BlobStore, cancel: &Cancel) -> Result<Descriptor> {
        let watch = Watch::new(cancel);
        self.at_places(reference, &mut |_| {}, |place, tries| {
            let document = self.0.document_at(place, reference, &name_of(reference), tries, watch)?;
            put(blobs, &document.bytes, &document.descriptor.digest)?;
            Ok(document.descriptor)
        })
    }

    pub(super) fn resolve_warned(
        &self,
        reference: &Reference,
        platform: &Platform,
        blobs: &dyn BlobStore,
        warn: &mut dyn FnMut(String),
        watch: Watch<'_>,
    ) -> Result<Resolved> {
        self.at_places(reference, warn, |place, tries| {
            Resolver { transport: &self.0, place, reference, blobs, tries, watch }.resolve(platform)
        })
    }

    /// Tries mirrors, then the registry. The error is the last place's: the registry's own, unless only mirrors count.
    pub(super) fn at_places<T>(
        &self,
        reference: &Reference,
        warn: &mut dyn FnMut(String),
        mut work: impl FnMut(&Place, u32) -> Result<T>,
    ) -> Result<T> {
        let mut places = self.0.hosts.places(reference.registry());
        let Some(last) = places.pop() else {
            return Err(Error::Config {
                place: format!("registries: {}", reference.registry()),
                reason: "no mirror is named, and the registry itself is excluded".to_owned(),
            });
        };
        for place in &places {
            // A mirror may be away; its time is short because somebody else has the image.
            match work(place, MIRROR_TRIES.min(self.0.patience.tries)) {
                Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
                Err(Error::Store(error)) => return Err(error.into()),
                Err(error) if error.is_not_found() => {}
                Err(error) => warn(format!("mirror {} of {}: {error}", place.host, reference.registry())),
                Ok(value) => return Ok(value),
            }
        }
        work(&last, self.0.patience.tries)
    }
}

const MIRROR_TRIES: u32 = 2;

impl Transport {
    pub(super) fn address(&self, place: &Place, reference: &Reference, tail: &str, watch: Watch<'_>) -> Result<Url> {
        let text = format!("{}{}/{tail}", place.prefix, reference.repository());
        self.base(place, watch)?.join(&text).map_err(|error| Error::Invalid {
            registry: place.host.clone(),
            what: text,
            reason: error.to_string(),
        })
    }

    fn manifest_response(
        &self,
        method: Method,
        place: &Place,
        reference: &Reference,
        name: &str,
        tries: u32,
        watch: Watch<'_>,
    ) -> Result<Response> {
        let mut headers = HeaderMap::new();
        // One header: some registries look at the first only.
        headers.insert(ACCEPT, ACCEPTED.join(", ").parse().unwrap_or(HeaderValue::from_static("*/*")));
        let what = match name.contains(':') {
            true => format!("manifest of {}@{name}", reference.repository()),
            false => format!("manifest of {}:{name}", reference.repository()),
        };
        let url = self.address(place, reference, &format!("manifests/{name}"), watch)?;
        let scopes = [pull_scope(place, reference)];
        let call = Call { method, headers, ..Call::get(place, url, &scopes, reference.repository(), &what, tries) };
        let response = self.send(&call, watch)?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(self.refusal(response, &call, watch)) }
    }

    fn head_at(&self, place: &Place, reference: &Reference, tries: u32, watch: Watch<'_>) -> Result<Descriptor> {
        let name = name_of(reference);
        match self.manifest_response(Method::HEAD, place, reference, &name, tries, watch) {
            Ok(response) => {
                if let Some(descriptor) = described(response.headers(), reference) {
                    return Ok(descriptor);
                }
            }
            // There are registries that know HEAD badly, and say 404 or 405 for what GET finds.
            Err(error) if matches!(error.status(), Some(400 | 404 | 405)) => {}
            Err(error) => return Err(error),
        }
        Ok(self.document_at(place, reference, &name, tries, watch)?.descriptor)
    }

    /// Gets and verifies a manifest or an index; `name` is a tag or a digest.
    pub(super) fn document_at(
        &self,
        place: &Place,
        reference: &Reference,
        name: &str,
        tries: u32,
        watch: Watch<'_>,
    ) -> Result<Document> {
        let what = format!("manifest of {}:{name}", reference.repository());
        let invalid = |reason: String| Error::Invalid { registry: place.host.clone(), what: what.clone(), reason };
        let mut attempt = 0;
        let (headers, bytes) = loop {
            attempt += 1;
            let response = self.manifest_response(Method::GET, place, reference, name, tries, watch)?;
            let headers = response.headers().clone();
            match self.body(response, MANIFEST_LIMIT, watch)? {
                Ok(bytes) => break (headers, bytes),
                Err(reason) if attempt >= tries || reason.starts_with("more than") => return Err(invalid(reason)),
                Err(_) => watch.sleep(self.backoff(attempt))?,
            }
        };
        let actual = Digest::of(&bytes);
        let said = headers.get("docker-content-digest").and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(expected) = name.parse().ok().or(said)
            && expected != actual
        {
            return Err(Error::Mismatch { registry: place.host.clone(), what, expected, actual });
        }
        let media_type = media_type_of(content_type(&headers), &bytes).map_err(invalid)?;
        Ok(Document { descriptor: Descriptor::new(&media_type, actual, bytes.len() as u64), bytes })
    }

    fn tags_at(&self, place: &Place, reference: &Reference, tries: u32, watch: Watch<'_>) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let what = format!("tags of {}", reference.repository());
        let invalid = |reason: String| Error::Invalid { registry: place.host.clone(), what: what.clone(), reason };
        let mut url = self.address(place, reference, "tags/list", watch)?;
        let scopes = [pull_scope(place, reference)];
        let mut tags = Vec::new();
        for _ in 0..TAG_PAGES {
            let call = Call::get(place, url.clone(), &scopes, reference.repository(), &what, tries);
            let response = self.send(&call, watch)?;
            if response.status() != StatusCode::OK {
                return Err(self.refusal(response, &call, watch));
            }
            let next = next_page(response.headers());
            let bytes = self.body(response, CONFIG_LIMIT, watch)?.map_err(&invalid)?;
            let page: Page = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
            tags.extend(page.tags.unwrap_or_default());
            let Some(next) = next else { return Ok(tags) };
            let target = url.join(&next).map_err(|error| invalid(error.to_string()))?;
            // The credentials go with this request; only the registry itself may name the next page.
            if (target.scheme(), target.host_str(), target.port()) != (url.scheme(), url.host_str(), url.port()) {
                return Err(invalid(format!("names a next page on {}", target.host_str().unwrap_or("?"))));
            }
            url = target;
        }
        Err(invalid(format!("more than {TAG_PAGES} pages")))
    }
}

struct Resolver<'a> {
    transport: &'a Transport,
    place: &'a Place,
    reference: &'a Reference,
    blobs: &'a dyn BlobStore,
    tries: u32,
    watch: Watch<'a>,
}

impl Resolver<'_> {
    fn resolve(&self, platform: &Platform) -> Result<Resolved> {
        let root = match self.reference.digest() {
            Some(digest) => self.document(digest, None)?,
            // By HEAD first: it does not count against a rate limit, and mostly the digest is known.
            None => {
                let head = self.transport.head_at(self.place, self.reference, self.tries, self.watch)?;
                self.document(&head.digest, Some(&head))?
            }
        };
        let reference = self.reference.with_digest(root.descriptor.digest);
        let root_descriptor = root.descriptor.clone();
        let mut document = root;
        for _ in 0..DEPTH {
            if media_type::is_manifest(&document.descriptor.media_type) {
                let manifest: Manifest = self.parse(&document)?;
                self.config(&manifest.config)?;
                let image = Image::read(self.blobs, &document.descriptor, platform)?;
                return Ok(Resolved { reference, root: root_descriptor, image });
            }
            let index: Index = self.parse(&document)?;
            let chosen = index.choose(platform).ok_or_else(|| no_platform(self.reference, platform, &index))?;
            let platform = chosen.platform.clone();
            document = self.document(&chosen.digest, Some(chosen))?;
            document.descriptor.platform = platform;
        }
        Err(self.invalid(&format!("more than {DEPTH} indexes inside one another")))
    }

    /// From the store, else from the registry into the store.
    fn document(&self, digest: &Digest, known: Option<&Descriptor>) -> Result<Document> {
        if self.blobs.size(digest)?.is_some_and(|size| size <= MANIFEST_LIMIT)
            && let Ok(bytes) = read_document(self.blobs, digest)
        {
            let stated = known.map(|known| known.media_type.as_str());
            let media_type = media_type_of(stated, &bytes).map_err(|reason| self.invalid(&reason))?;
            return Ok(Document { descriptor: Descriptor::new(&media_type, *digest, bytes.len() as u64), bytes });
        }
        let name = digest.to_string();
        let document = self.transport.document_at(self.place, self.reference, &name, self.tries, self.watch)?;
        put(self.blobs, &document.bytes, digest)?;
        Ok(document)
    }

    fn config(&self, config: &Descriptor) -> Result<()> {
        if self.blobs.size(&config.digest)? == Some(config.size) {
            return Ok(());
        }
        if config.size > CONFIG_LIMIT {
            return Err(self.invalid(&format!("its config has {} bytes; at most {CONFIG_LIMIT} are read", config.size)));
        }
        let mut nothing = |_| {};
        self.transport.fetch_blob(self.place, self.reference, config, self.blobs, self.tries, &mut nothing, self.watch)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, document: &Document) -> Result<T> {
        serde_json::from_slice(&document.bytes).map_err(|error| self.invalid(&error.to_string()))
    }

    fn invalid(&self, reason: &str) -> Error {
        Error::Invalid {
            registry: self.place.host.clone(),
            what: format!("manifest of {}", self.reference.familiar()),
            reason: reason.to_owned(),
        }
    }
}

pub(super) fn put(blobs: &dyn BlobStore, bytes: &[u8], digest: &Digest) -> Result<()> {
    let mut writer = blobs.create()?;
    std::io::Write::write_all(&mut writer, bytes)
        .map_err(|source| crate::store::Error::Io { path: format!("blob {digest}"), source })?;
    writer.complete_verified_as(digest, Some(bytes.len() as u64))?;
    Ok(())
}

fn no_platform(reference: &Reference, wanted: &Platform, index: &Index) -> Error {
    let mut available: Vec<String> = index
        .manifests
        .iter()
        .filter_map(|d| d.platform.as_ref())
        .filter(|p| p.os != "unknown")
        .map(ToString::to_string)
        .collect();
    available.dedup();
    Error::NoPlatform {
        image: reference.familiar(),
        wanted: Box::new(wanted.clone()),
        available: if available.is_empty() { "none that says its platform".to_owned() } else { available.join(", ") },
    }
}

/// Tag or digest, as it stands in the address; the digest where both are.
pub(super) fn name_of(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, Some(tag)) => tag.to_owned(),
        (None, None) => "latest".to_owned(),
    }
}

pub(super) fn pull_scope(place: &Place, reference: &Reference) -> String {
    format!("repository:{}{}:pull", place.prefix, reference.repository())
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

/// What HEAD tells, when it tells all.
fn described(headers: &HeaderMap, reference: &Reference) -> Option<Descriptor> {
    let digest: Digest = headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()?;
    if reference.digest().is_some_and(|asked| *asked != digest) {
        return None;
    }
    let media_type = content_type(headers)?;
    let size = headers.get(reqwest::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
    ACCEPTED.contains(&media_type).then(|| Descriptor::new(media_type, digest, size))
}

/// The type of a document. Header and document must not say different things: a document that one tool reads as
/// a manifest and another as an index shows each of them another image.
fn media_type_of(header: Option<&str>, bytes: &[u8]) -> std::result::Result<String, String> {
    let header = header.unwrap_or("");
    if header.starts_with(SCHEMA_1) {
        return Err("is of Docker's schema 1, which no registry should serve any more; push the image again".to_owned());
    }
    let shape: Shape = match serde_json::from_slice(bytes) {
        Ok(shape) => shape,
        Err(_) if !header.is_empty() => return Err(format!("is of type {header:?}, not an image manifest")),
        Err(error) => return Err(error.to_string()),
    };
    if shape.schema_version == 1 {
        return Err("is of Docker's schema 1, which no registry should serve any more; push the image again".to_owned());
    }
    let is_manifest = shape.config.is_some() && shape.layers.is_some();
    let media_type = match (shape.media_type.as_str(), is_manifest, shape.manifests.is_some()) {
        (_, true, true) => return Err("is manifest and index at once".to_owned()),
        (_, false, false) => return Err("is neither an image manifest nor an index".to_owned()),
        ("", true, false) if ACCEPTED.contains(&header) => header,
        ("", false, true) if ACCEPTED.contains(&header) => header,
        ("", true, false) => media_type::OCI_MANIFEST,
        ("", false, true) => media_type::OCI_INDEX,
        (own, _, _) => own,
    };
    if ACCEPTED.contains(&header) && header != media_type {
        return Err(format!("is sent as {header} and says that it is {media_type}"));
    }
    let fits = if is_manifest { media_type::is_manifest(media_type) } else { media_type::is_index(media_type) };
    if fits { Ok(media_type.to_owned()) } else { Err(format!("is of type {media_type:?}, which its content is not")) }
}

/// `Link: </v2/a/b/tags/list?n=..&last=..>; rel="next"`
fn next_page(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(reqwest::header::LINK)?.to_str().ok()?;
    let (address, rest) = value.trim().strip_prefix('<')?.split_once('>')?;
    rest.contains("next").then(|| address.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_documents_type_is_what_header_and_content_agree_on() {
        let manifest = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let docker = r#"{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[]}"#;
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let cases: [(Option<&str>, &str, std::result::Result<&str, &str>); 11] = [
            (Some(media_type::OCI_MANIFEST), manifest, Ok(media_type::OCI_MANIFEST)),
            (Some(media_type::DOCKER_MANIFEST), manifest, Ok(media_type::DOCKER_MANIFEST)),
            (Some("application/json"), docker, Ok(media_type::DOCKER_MANIFEST)),
            (None, index, Ok(media_type::OCI_INDEX)),
            (Some("text/html"), manifest, Ok(media_type::OCI_MANIFEST)),
            (Some(media_type::OCI_MANIFEST), docker, Err("says that it is")),
            (Some(media_type::OCI_MANIFEST), index, Err("which its content is not")),
            (Some("text/html"), "<html>", Err("is of type \"text/html\", not an image manifest")),
            (Some("application/vnd.docker.distribution.manifest.v1+prettyjws"), "{}", Err("schema 1")),
            (None, r#"{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}"#, Err("manifest and index at once")),
            (None, "{}", Err("neither")),
        ];
        for (header, text, expected) in cases {
            let actual = media_type_of(header, text.as_bytes());
            match expected {
                Ok(expected) => assert_eq!(actual.as_deref(), Ok(expected), "{header:?} {text}"),
                Err(expected) => {
                    assert!(actual.as_ref().is_err_and(|e| e.contains(expected)), "{header:?} {text} {actual:?}")
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_document_makes_it_fall_over(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = media_type_of(None, &bytes);
        }
    }
}
