//! Images from files of any kind, recognised by content.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::archive::{self, ArchiveBlobs, Members, Span};
use super::layout::{self, reference_of};
use super::{Descriptor, Dialect, Error, Image, ImageConfig, Index, LayerBlob, Result};
use crate::base::{DiffId, Digest, Hasher, Platform, Reference};
use crate::layer::{self, Compression};
use crate::store::{BlobStore, DiskBlobs, MemoryBlobs, OverlayBlobs};

/// What a file or folder holds.
pub struct Opened {
    pub images: Vec<(Image, Vec<Reference>)>,
    /// Where the blobs of all of them are read from. What is written to it is kept in memory: documents only.
    pub blobs: Arc<dyn BlobStore>,
}

/// Opens a docker-archive (today's or an older form), an OCI archive, either wrapped in gzip or zstd, or an OCI layout
/// folder. `tmp` is a directory for what must be unwrapped first; nothing stays there once the result is dropped.
pub fn open(path: &Path, tmp: &Path) -> Result<Opened> {
    let name = path.display().to_string();
    if fs::metadata(path).map_err(Error::at(path))?.is_dir() {
        return open_layout(path, &name);
    }
    let mut file = File::open(path).map_err(Error::at(path))?;
    let names = beginning(&mut file);
    file.rewind().map_err(Error::at(path))?;
    let wrapped = is_wrapped(&mut file).map_err(Error::at(path))?;
    // A plain archive is soon looked through; to unwrap a large one for nothing would take long.
    if names.is_empty() || (wrapped && !names.iter().any(|name| is_of_an_image(name))) {
        return Err(Error::NotAnImage(name));
    }
    let plain = if wrapped { unwrapped(file, tmp).map_err(Error::at(path))? } else { file };
    open_archive(plain, &name)
}

/// The first names in an archive, plain or wrapped.
fn beginning(file: impl Read + Send) -> Vec<String> {
    let mut plain = Vec::new();
    if let Ok(mut input) = layer::decompress(file.take(RECOGNISED)) {
        // A compressed stream that is cut ends in an error, after what could be read.
        let _ = input.by_ref().take(RECOGNISED).read_to_end(&mut plain);
    }
    archive::first_names(&plain)
}

/// How much of a file is looked at: room for the small documents that archives begin with.
const RECOGNISED: u64 = 64 << 10;

/// Names that docker-archives and OCI archives begin with, whoever writes them and in whatever order.
fn is_of_an_image(name: &str) -> bool {
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let top = name.split('/').next().unwrap_or_default();
    let stem = top.strip_prefix("sha256:").unwrap_or(top).split('.').next().unwrap_or_default();
    matches!(name, "manifest.json" | "repositories" | layout::MARKER | layout::INDEX)
        || name == "blobs"
        || name.starts_with("blobs/sha256")
        || hex(stem)
}

fn is_wrapped(file: &mut File) -> io::Result<bool> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.rewind()?;
    Ok(compression_of(&magic) != Compression::Uncompressed)
}

/// What is inside a wrapped archive, in a file without a name.
fn unwrapped(file: File, tmp: &Path) -> io::Result<File> {
    let mut plain = tempfile::tempfile_in(tmp)?;
    io::copy(&mut layer::decompress_ahead(file)?, &mut plain)?;
    Ok(plain)
}

fn compression_of(magic: &[u8]) -> Compression {
    match magic {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
        _ => Compression::Uncompressed,
    }
}

fn open_layout(dir: &Path, name: &str) -> Result<Opened> {
    if !dir.join(layout::INDEX).is_file() {
        return Err(Error::NotAnImage(name.to_owned()));
    }
    let blobs = OverlayBlobs::new(MemoryBlobs::new(), DiskBlobs::open(dir));
    let images = of_index(&blobs, &layout::read_index(dir)?)?;
    some(Opened { images, blobs: Arc::new(blobs) }, name)
}

fn open_archive(file: File, name: &str) -> Result<Opened> {
    let members = Arc::new(Members::index(file, name)?);
    let index = members.document(layout::INDEX)?;
    let docker = members.document("manifest.json")?;
    if index.is_none() && docker.is_none() {
        if members.find("repositories").is_some() {
            return Err(Error::malformed(name, "an archive from before Docker 1.10, without manifest.json"));
        }
        return Err(Error::NotAnImage(name.to_owned()));
    }
    let json = |what: &str, source| Error::Json { what: format!("{name}: {what}"), source };
    let docker: Vec<DockerImage> = match docker {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(|source| json("manifest.json", source))?,
        None => Vec::new(),
    };
    let index: Option<Index> = match index {
        Some(bytes) => Some(serde_json::from_slice(&bytes).map_err(|source| json(layout::INDEX, source))?),
        None => None,
    };
    let documents = MemoryBlobs::new();
    let mut found = members.layout_blobs();
    let mut images = match &index {
        Some(index) => {
            of_index(&OverlayBlobs::new(&documents, ArchiveBlobs::new(Arc::clone(&members), found.clone())), index)?
        }
        None => Vec::new(),
    };
    for entry in &docker {
        let draft = Draft::read(&members, entry, &mut found)?;
        let id = Digest::of(&draft.config);
        match images.iter_mut().find(|(image, _)| image.config_digest == id) {
            Some((_, references)) => references.extend(draft.references),
            None => {
                let image = Image::write(&documents, &draft.config, draft.layers, Dialect::Oci, BTreeMap::new())?;
                images.push((image, draft.references));
            }
        }
    }
    let blobs = OverlayBlobs::new(documents, ArchiveBlobs::new(members, found));
    for (_, references) in &mut images {
        references.sort();
        references.dedup();
    }
    some(Opened { images, blobs: Arc::new(blobs) }, name)
}

fn at(name: &str) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Io { path: name.to_owned(), source }
}

fn some(opened: Opened, name: &str) -> Result<Opened> {
    if opened.images.is_empty() { Err(Error::malformed(name, "no image in it")) } else { Ok(opened) }
}

/// The images of an index. Entries that share a name are one image for several platforms; the host's is taken.
fn of_index(blobs: &dyn BlobStore, index: &Index) -> Result<Vec<(Image, Vec<Reference>)>> {
    let mut groups: BTreeMap<Option<Reference>, Vec<&Descriptor>> = BTreeMap::new();
    for entry in &index.manifests {
        groups.entry(reference_of(entry)).or_default().push(entry);
    }
    let host = Platform::host();
    let mut images: Vec<(Image, Vec<Reference>)> = Vec::new();
    let mut passed_over = None;
    for (reference, entries) in groups {
        let digests: BTreeSet<_> = entries.iter().map(|entry| entry.digest).collect();
        let several_platforms = digests.len() > 1 && entries.iter().all(|entry| entry.platform.is_some());
        let group = Index::new(entries.into_iter().cloned().collect());
        let chosen = match group.choose(&host).filter(|_| several_platforms) {
            Some(one) => vec![one],
            None => group.manifests.iter().collect(),
        };
        for entry in chosen {
            let image = match Image::read(blobs, &layout::unnamed(entry.clone()), &host) {
                Ok(image) => image,
                // Signatures and attestations lie beside images and are none.
                Err(error @ (Error::LayerType { .. } | Error::MediaType { .. })) => {
                    passed_over = Some(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let digest = image.manifest_descriptor.digest;
            match images.iter_mut().find(|(known, _)| known.manifest_descriptor.digest == digest) {
                Some((_, references)) => references.extend(reference.clone()),
                None => images.push((image, reference.iter().cloned().collect())),
            }
        }
    }
    match passed_over {
        Some(error) if images.is_empty() => Err(error),
        _ => Ok(images),
    }
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// A docker-archive's image before its manifest is made.
struct Draft {
    config: Vec<u8>,
    layers: Vec<LayerBlob>,
    references: Vec<Reference>,
}

impl Draft {
    fn read(members: &Members, entry: &DockerImage, found: &mut BTreeMap<Digest, Span>) -> Result<Self> {
        let missing =
            |what: &str| Error::malformed(&members.name, format!("manifest.json names {what:?}, which is not there"));
        let config = members.document(&entry.config)?.ok_or_else(|| missing(&entry.config))?;
        let parsed = ImageConfig::parse(&config)
            .map_err(|source| Error::Json { what: format!("{}: {}", members.name, entry.config), source })?;
        let names = entry.layers.as_deref().unwrap_or_default();
        let diff_ids = parsed.rootfs.diff_ids;
        if names.len() != diff_ids.len() {
            return Err(Error::LayerCount {
                manifest: Digest::of(&config),
                layers: names.len(),
                diff_ids: diff_ids.len(),
            });
        }
        let layers = names
            .iter()
            .zip(diff_ids)
            .map(|(name, diff_id)| {
                let span = members.find(name).ok_or_else(|| missing(name))?;
                let (layer, digest) = layer(members, name, span, diff_id)?;
                found.insert(digest, span);
                Ok(layer)
            })
            .collect::<Result<_>>()?;
        let tags = entry.repo_tags.as_deref().unwrap_or_default();
        // Some writers put names here that are none; the image is still an image.
        let references = tags.iter().filter_map(|tag| tag.parse().ok()).map(Reference::or_latest).collect();
        Ok(Self { config, layers, references })
    }
}

/// A layer by what its bytes are. A plain one needs no reading: its digest is its diff ID, and is verified with it.
fn layer(members: &Members, name: &str, span: Span, diff_id: DiffId) -> Result<(LayerBlob, Digest)> {
    let name = format!("{}: {name}", members.name);
    let mut magic = Vec::new();
    members.reader(span).take(4).read_to_end(&mut magic).map_err(at(&name))?;
    let compression = compression_of(&magic);
    let digest = if compression == Compression::Uncompressed {
        diff_id.0
    } else {
        let mut hasher = Hasher::new();
        io::copy(&mut members.reader(span), &mut hasher).map_err(at(&name))?;
        hasher.finish()
    };
    let descriptor = Descriptor::new(Dialect::Oci.layer(compression), digest, span.size);
    Ok((LayerBlob { descriptor, diff_id }, digest))
}
