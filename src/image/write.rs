//! Images into archives and layout folders. The same images and names give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use super::layout;
use super::{Descriptor, Error, Image, Index, MultiImage, Result};
use crate::base::{Cancel, Digest, Reference};
use crate::layer::{Entry, TarWriter};
use crate::store::{self, BlobStore, DiskBlobs};
use crate::sys::{Kind, Meta};

/// An image with the names that it is to be written under.
pub type Named<'a> = (&'a Image, &'a [Reference]);

/// Writes what `docker save` writes today: an OCI layout with a `manifest.json` beside, so that both kinds of reader
/// are served.
pub fn docker_archive(images: &[Named<'_>], blobs: &dyn BlobStore, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    archive(&items(images), blobs, Some(&docker_manifest(images)), out, cancel)
}

/// Writes an OCI layout as tar.
pub fn oci_archive(images: &[Named<'_>], blobs: &dyn BlobStore, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    archive(&items(images), blobs, None, out, cancel)
}

/// Writes an image for several platforms as an OCI layout's tar.
pub fn multi_archive(
    image: &MultiImage,
    names: &[Reference],
    blobs: &dyn BlobStore,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<()> {
    archive(&[Item::of_multi(image, names)], blobs, None, out, cancel)
}

/// Writes an OCI layout into a directory; into one that is a layout already, the images are added, and their names
/// are taken from the images that had them.
pub fn oci_layout(images: &[Named<'_>], blobs: &dyn BlobStore, dir: &Path, cancel: &Cancel) -> Result<()> {
    into_layout(&items(images), blobs, dir, cancel)
}

/// Writes an image for several platforms into a layout's directory, as [`oci_layout`] does it.
pub fn multi_layout(
    image: &MultiImage,
    names: &[Reference],
    blobs: &dyn BlobStore,
    dir: &Path,
    cancel: &Cancel,
) -> Result<()> {
    into_layout(&[Item::of_multi(image, names)], blobs, dir, cancel)
}

/// What a layout lists under some names: a manifest or an index, and all that it is made of.
struct Item<'a> {
    root: &'a Descriptor,
    blobs: Vec<&'a Descriptor>,
    names: &'a [Reference],
}

impl<'a> Item<'a> {
    fn of_multi(image: &'a MultiImage, names: &'a [Reference]) -> Self {
        Self { root: &image.index_descriptor, blobs: image.blobs().collect(), names }
    }
}

fn items<'a>(images: &[Named<'a>]) -> Vec<Item<'a>> {
    let item =
        |(image, names): &Named<'a>| Item { root: &image.manifest_descriptor, blobs: image.blobs().collect(), names };
    images.iter().map(item).collect()
}

fn into_layout(images: &[Item<'_>], blobs: &dyn BlobStore, dir: &Path, cancel: &Cancel) -> Result<()> {
    let disk = DiskBlobs::open(dir);
    for descriptor in all_blobs(images) {
        cancel.check()?;
        store::copy(blobs, &disk, &descriptor.digest)?;
    }
    disk.tidy()?;
    layout::change_index(dir, cancel, |index| {
        for entry in entries(images) {
            let same = |other: &Descriptor| match layout::reference_of(&entry) {
                Some(name) => layout::reference_of(other).as_ref() == Some(&name),
                None => other.digest == entry.digest && layout::reference_of(other).is_none(),
            };
            index.manifests.retain(|other| !same(other));
            index.manifests.push(entry);
        }
    })
}

/// The archive's index entries: one for each name, as containerd writes them; one for an image without any.
fn entries(images: &[Item<'_>]) -> Vec<Descriptor> {
    let mut entries = Vec::new();
    for Item { root, names, .. } in images {
        if names.is_empty() {
            entries.push(layout::unnamed((*root).clone()));
        }
        for name in *names {
            entries.push(layout::named(root, name, name.tag().unwrap_or_default()));
        }
    }
    entries
}

fn all_blobs(images: &[Item<'_>]) -> Vec<Descriptor> {
    let mut seen = BTreeSet::new();
    let all = images.iter().flat_map(|item| &item.blobs);
    all.filter(|descriptor| seen.insert(descriptor.digest)).map(|descriptor| (*descriptor).clone()).collect()
}

fn docker_manifest(images: &[Named<'_>]) -> Vec<u8> {
    // One entry an image, whatever the number of its names: what registry-image's put insists on.
    let mut entries: BTreeMap<Digest, (usize, serde_json::Value)> = BTreeMap::new();
    for (position, (image, names)) in images.iter().enumerate() {
        let tags: Vec<String> =
            names.iter().filter(|name| name.tag().is_some()).map(|name| untouched_by_digest(name).familiar()).collect();
        entries.entry(image.manifest_descriptor.digest).or_insert_with(|| {
            let layers: Vec<String> = image.layers.iter().map(|layer| blob_path(&layer.descriptor.digest)).collect();
            let entry = json!({
                "Config": blob_path(&image.config_digest),
                "RepoTags": if tags.is_empty() { serde_json::Value::Null } else { tags.into() },
                "Layers": layers,
            });
            (position, entry)
        });
    }
    let mut entries: Vec<_> = entries.into_values().collect();
    entries.sort_by_key(|(position, _)| *position);
    serde_json::Value::from(entries.into_iter().map(|(_, entry)| entry).collect::<Vec<_>>()).to_string().into_bytes()
}

/// `RepoTags` knows no digests.
fn untouched_by_digest(name: &Reference) -> Reference {
    name.tag().and_then(|tag| name.with_tag(tag).ok()).unwrap_or_else(|| name.clone())
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn archive(
    images: &[Item<'_>],
    blobs: &dyn BlobStore,
    docker: Option<&[u8]>,
    out: &mut dyn Write,
    cancel: &Cancel,
) -> Result<()> {
    let mut archive = Archive { tar: TarWriter::new(out), cancel };
    // Small documents first: who reads the archive as a stream knows what comes.
    archive.file(layout::MARKER, layout::MARKER_CONTENT.len() as u64, &mut &*layout::MARKER_CONTENT)?;
    let index = Index::new(entries(images)).to_bytes();
    archive.file(layout::INDEX, index.len() as u64, &mut index.as_slice())?;
    if let Some(docker) = docker {
        archive.file("manifest.json", docker.len() as u64, &mut &*docker)?;
    }
    archive.directory("blobs")?;
    archive.directory("blobs/sha256")?;
    let mut descriptors = all_blobs(images);
    // Documents before layers, for the same reason.
    descriptors.sort_by_key(|descriptor| super::media_type::compression(&descriptor.media_type).is_some());
    for descriptor in descriptors {
        let mut blob = blobs.open(&descriptor.digest)?;
        archive.file(&blob_path(&descriptor.digest), descriptor.size, &mut blob)?;
        // The digest is known only now; the archive is not in place before that.
        blob.finish()?;
    }
    archive.tar.finish().map_err(write_error)?.flush().map_err(write_error)
}

fn write_error(source: io::Error) -> Error {
    Error::Io { path: "write archive".to_owned(), source }
}

struct Archive<'a, W: Write> {
    tar: TarWriter<W>,
    cancel: &'a Cancel,
}

impl<W: Write> Archive<'_, W> {
    fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, Kind::Directory, 0o755, &mut io::empty())
    }

    fn file(&mut self, name: &str, size: u64, data: &mut dyn Read) -> Result<()> {
        self.entry(name, Kind::File { size }, 0o644, data)
    }

    fn entry(&mut self, name: &str, kind: Kind, mode: u32, data: &mut dyn Read) -> Result<()> {
        self.cancel.check()?;
        let entry = Entry { path: PathBuf::from(name), kind, meta: Meta { mode, ..Meta::default() } };
        self.tar.append(&entry, &mut Cancellable { data, cancel: self.cancel }).map_err(|source| {
            if self.cancel.is_cancelled() {
                Error::Cancelled(crate::base::cancel::Cancelled)
            } else {
                write_error(source)
            }
        })
    }
}

/// Ends a long copy soon after a Ctrl-C.
struct Cancellable<'a> {
    data: &'a mut dyn Read,
    cancel: &'a Cancel,
}

impl Read for Cancellable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.cancel.check().map_err(io::Error::other)?;
        self.data.read(buffer)
    }
}
