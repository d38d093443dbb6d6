//! What takes up space in the state folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Context;

use super::{State, cache::entries, containers};
use crate::base::Platform;
use crate::image;
use crate::ops::cache_mount;
use crate::snapshot::{DeltaId, Snapshot};
use crate::store::{self, FileLock};
use crate::sys::disk;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum UsageKind {
    /// Blobs of a named image. What images share is counted with each.
    Image,
    /// Blobs that no name leads to.
    Blob,
    /// Files of steps and of unpacked layers.
    Snapshot,
    CacheMount,
    /// Copies of git repositories, downloads, digests of context files.
    Source,
    Volume,
}

/// One thing that takes up space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    pub kind: UsageKind,
    pub id: String,
    /// What it came from, in words; may be empty.
    pub description: String,
    pub bytes: u64,
    pub last_used: Option<SystemTime>,
    /// A name, a container or a running step needs it.
    pub in_use: bool,
}

/// Everything that takes up space, sorted by kind and id.
pub fn du(state: &State) -> anyhow::Result<Vec<Usage>> {
    let mut all = images(state)?;
    all.extend(snapshots(state)?);
    for folder in cache_mount::list(&state.cache_mounts_dir()?)? {
        all.push(Usage {
            kind: UsageKind::CacheMount,
            bytes: disk_bytes(&folder.path)?,
            in_use: FileLock::try_exclusive(&folder.lock)?.is_none(),
            id: folder.id,
            description: String::new(),
            last_used: folder.used,
        });
    }
    for (kind, dir, in_use) in
        [(UsageKind::Source, state.source_cache_dir(), false), (UsageKind::Volume, state.volumes_dir(), true)]
    {
        for path in entries(&dir)? {
            let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if id.starts_with('.') {
                continue;
            }
            let last_used = fs::symlink_metadata(&path).and_then(|meta| meta.modified()).ok();
            let bytes = disk_bytes(&path)?;
            all.push(Usage { kind, id, description: String::new(), bytes, last_used, in_use });
        }
    }
    all.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    Ok(all)
}

fn images(state: &State) -> anyhow::Result<Vec<Usage>> {
    let (images, blobs) = (state.images(), state.images().blobs());
    let mut all = Vec::new();
    let mut named = BTreeSet::new();
    for stored in images.list()? {
        let mut bytes = 0;
        let digests: Vec<_> = match images.load(&stored.descriptor) {
            Ok(image) => image.blobs().map(|blob| blob.digest).collect(),
            // Another platform's image, or a document that is gone: it takes what its own document takes.
            Err(image::Error::Platform { .. } | image::Error::Blob(store::Error::Missing { .. })) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        for digest in digests.into_iter().chain([stored.descriptor.digest]) {
            if named.insert(digest) || bytes == 0 {
                bytes += blobs.size(&digest)?.unwrap_or(0);
            }
        }
        let names: Vec<String> = stored.references.iter().map(crate::base::Reference::familiar).collect();
        all.push(Usage {
            kind: UsageKind::Image,
            id: stored.descriptor.digest.to_string(),
            description: names.join(", "),
            bytes,
            last_used: None,
            in_use: true,
        });
    }
    for digest in blobs.list()?.into_iter().filter(|digest| !named.contains(digest)) {
        all.push(Usage {
            kind: UsageKind::Blob,
            id: digest.to_string(),
            description: String::new(),
            bytes: blobs.size(&digest)?.unwrap_or(0),
            last_used: None,
            in_use: false,
        });
    }
    Ok(all)
}

fn snapshots(state: &State) -> anyhow::Result<Vec<Usage>> {
    let needed = of_containers(state)?;
    let usage = state.snapshots()?.usage()?;
    Ok(usage
        .into_iter()
        .map(|delta| Usage {
            kind: UsageKind::Snapshot,
            id: delta.id.to_string(),
            description: String::new(),
            bytes: delta.bytes,
            last_used: Some(delta.last_used),
            in_use: needed.contains(&delta.id),
        })
        .collect())
}

/// Deltas that containers stand on.
pub(super) fn of_containers(state: &State) -> anyhow::Result<BTreeSet<DeltaId>> {
    let mut needed = BTreeSet::new();
    for snapshot in containers::snapshots(state)? {
        needed.extend(state.snapshots()?.unpacked(&snapshot)?);
    }
    Ok(needed)
}

/// Deltas that named images are unpacked in.
pub(super) fn of_images(state: &State) -> anyhow::Result<BTreeSet<DeltaId>> {
    let mut needed = BTreeSet::new();
    let images = state.images();
    for stored in images.list()? {
        if let Ok(image) = images.load_for(&stored.descriptor, &Platform::host()) {
            needed.extend(state.snapshots()?.unpacked(&Snapshot::image(&image.layers))?);
        }
    }
    Ok(needed)
}

/// What a file or folder takes on disk.
pub(super) fn disk_bytes(path: &Path) -> anyhow::Result<u64> {
    disk::usage(path).with_context(|| format!("look at {}", path.display()))
}
