//! The files of an OCI layout (image-layout.md), and how names stand in its index.

use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;

use super::{Descriptor, Error, Index, Result};
use crate::base::{Cancel, Reference};
use crate::store::{DOCUMENT_LIMIT, FileLock};
use crate::sys::quiet;

/// The tag, or whatever the writer of a layout calls an image (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The full name, where containerd, BuildKit and Docker wrote the layout.
pub const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// The marker file and its content.
pub const MARKER: &str = "oci-layout";
pub const MARKER_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
/// Held while the index of a layout folder is changed, and gone afterwards.
pub const LOCK: &str = ".dockless.lock";
pub const INDEX: &str = "index.json";

/// The name that an index entry gives: the full one where there is one. A bare tag, which says nothing of the
/// repository, is no name.
pub fn reference_of(entry: &Descriptor) -> Option<Reference> {
    let full = entry.annotations.get(CONTAINERD_NAME).and_then(|name| name.parse().ok());
    full.or_else(|| {
        let name = entry.annotations.get(REF_NAME)?;
        // `latest` alone would parse as an image of that name.
        name.contains([':', '/', '@']).then(|| name.parse().ok())?
    })
    .map(Reference::or_latest)
}

/// The entry of an image under a name; `short` is what [`REF_NAME`] says.
pub fn named(descriptor: &Descriptor, reference: &Reference, short: &str) -> Descriptor {
    let mut entry = unnamed(descriptor.clone());
    entry.annotations.insert(CONTAINERD_NAME.to_owned(), reference.to_string());
    entry.annotations.insert(REF_NAME.to_owned(), short.to_owned());
    entry
}

pub fn unnamed(mut entry: Descriptor) -> Descriptor {
    entry.annotations.remove(CONTAINERD_NAME);
    entry.annotations.remove(REF_NAME);
    entry
}

/// Reads `index.json`; a directory without one is an empty layout.
pub fn read_index(dir: &Path) -> Result<Index> {
    let path = dir.join(INDEX);
    let file = match quiet::file(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::new(Vec::new())),
        Err(error) => return Err(Error::at(&path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(DOCUMENT_LIMIT).read_to_end(&mut bytes).map_err(Error::at(&path))?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Json { what: path.display().to_string(), source })
}

/// Writes `index.json` by rename, and the marker file where it is missing. The caller holds whatever lock there is.
pub fn write_index(dir: &Path, index: &Index) -> Result<()> {
    let marker = dir.join(MARKER);
    if !marker.exists() {
        write_file(&marker, MARKER_CONTENT)?;
    }
    write_file(&dir.join(INDEX), &index.to_bytes())
}

/// What an entry is called within its layout: mostly a tag.
pub fn layout_name(entry: &Descriptor) -> Option<&String> {
    entry.annotations.get(REF_NAME)
}

/// Gives a name within a layout to a manifest whose blobs are there; another that had it loses it.
pub fn name_in_layout(dir: &Path, descriptor: &Descriptor, name: &str, cancel: &Cancel) -> Result<()> {
    change_index(dir, cancel, |index| {
        index.manifests.retain(|entry| layout_name(entry).is_none_or(|other| other != name));
        let mut entry = descriptor.clone();
        entry.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        index.manifests.push(entry);
    })
}

/// Reads, changes and writes the index of a layout folder, with every other writer of ours kept out.
pub fn change_index(dir: &Path, cancel: &Cancel, change: impl FnOnce(&mut Index)) -> Result<()> {
    let lock = FileLock::exclusive(&dir.join(LOCK), cancel)?;
    let mut index = read_index(dir)?;
    change(&mut index);
    write_index(dir, &index)?;
    Ok(lock.remove()?)
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let write = || {
        let mut file = fs::File::create(&new)?;
        file.write_all(bytes)?;
        // The one file that cannot be made again: after a power cut it must not be an empty one that replaced it.
        file.sync_data()
    };
    write().map_err(Error::at(&new))?;
    fs::rename(&new, path).map_err(Error::at(path))
}
