//! What takes up space in the state folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::{State, cache::entries, containers};
use crate::base::{Digest, Platform};
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
    /// A whole root file system that a step left for the next one, where none can be mounted.
    Root,
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

impl Usage {
    pub(super) fn of_blob(digest: Digest, bytes: u64) -> Self {
        let (id, description) = (digest.to_string(), String::new());
        Self { kind: UsageKind::Blob, id, description, bytes, last_used: None, in_use: false }
    }
}

/// Which things are meant; by default all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Any of these; none: all.
    pub kinds: BTreeSet<UsageKind>,
    /// How an id begins; any of these.
    pub ids: Vec<String>,
    /// Words of the description; any of these.
    pub descriptions: Vec<String>,
    pub in_use: Option<bool>,
    /// Not used within this time.
    pub unused_for: Option<Duration>,
    /// Of a kind that only other tools have.
    pub nothing: bool,
}

impl Filter {
    pub fn admits(&self, thing: &Usage, now: SystemTime) -> bool {
        let any = |given: &[String], holds: &dyn Fn(&str) -> bool| {
            given.is_empty() || given.iter().any(|text| holds(text.as_str()))
        };
        let unused =
            |limit: Duration| thing.last_used.is_none_or(|used| now.duration_since(used).unwrap_or_default() >= limit);
        !(self.nothing && self.kinds.is_empty())
            && (self.kinds.is_empty() || self.kinds.contains(&thing.kind))
            && any(&self.ids, &|id| thing.id.starts_with(id))
            && any(&self.descriptions, &|words| thing.description.contains(words))
            && self.in_use.is_none_or(|in_use| in_use == thing.in_use)
            && self.unused_for.is_none_or(unused)
    }
}

/// Everything that takes up space, sorted by kind and id.
pub fn du(state: &State) -> anyhow::Result<Vec<Usage>> {
    let mut all = images(state)?;
    all.extend(caches(state)?);
    for path in entries(&state.volumes_dir())? {
        all.extend(folder(UsageKind::Volume, &path, true)?);
    }
    all.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
    Ok(all)
}

/// What can be made again, blobs aside.
pub(super) fn caches(state: &State) -> anyhow::Result<Vec<Usage>> {
    let mut all = snapshots(state)?;
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
    for path in entries(&state.source_cache_dir())? {
        all.extend(folder(UsageKind::Source, &path, false)?);
    }
    Ok(all)
}

/// A folder as one thing, used when something in it last came or went; none for one in the making.
fn folder(kind: UsageKind, path: &Path, in_use: bool) -> anyhow::Result<Option<Usage>> {
    let id = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if id.starts_with('.') {
        return Ok(None);
    }
    let modified = |path: &Path| fs::symlink_metadata(path).and_then(|meta| meta.modified()).ok();
    let last_used = entries(path)?.iter().map(|path| modified(path)).chain([modified(path)]).max().flatten();
    Ok(Some(Usage { kind, id, description: String::new(), bytes: disk_bytes(path)?, last_used, in_use }))
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
        all.push(Usage::of_blob(digest, blobs.size(&digest)?.unwrap_or(0)));
    }
    Ok(all)
}

fn snapshots(state: &State) -> anyhow::Result<Vec<Usage>> {
    let needed = of_containers(state)?;
    let used = of_records(state)?;
    let usage = state.snapshots()?.usage()?;
    Ok(usage
        .into_iter()
        .map(|delta| Usage {
            kind: if delta.is_root { UsageKind::Root } else { UsageKind::Snapshot },
            id: delta.id.to_string(),
            description: String::new(),
            bytes: delta.bytes,
            last_used: used.get(&delta.id).copied().max(Some(delta.made)),
            in_use: needed.contains(&delta.id),
        })
        .collect())
}

/// Deltas that records lead to, and when one of these was found last. A record that is found means that its result may
/// be wanted, even where something that stands on it was wanted and there.
fn of_records(state: &State) -> anyhow::Result<BTreeMap<DeltaId, SystemTime>> {
    let mut found = BTreeMap::new();
    let snapshots = state.snapshots()?;
    for record in state.cache().list()? {
        let results = state.cache().peek(&record.key)?.map(|record| record.results).unwrap_or_default();
        for result in results {
            let Some(snapshot) = snapshots.load(&result)? else { continue };
            for delta in snapshots.unpacked(&snapshot)? {
                let used = found.entry(delta).or_insert(record.used);
                *used = record.used.max(*used);
            }
        }
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_narrow_and_alternatives_widen() {
        let now = SystemTime::now();
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let thing = Usage {
            kind: UsageKind::CacheMount,
            id: "/root/.cargo".to_owned(),
            description: "made by hand".to_owned(),
            bytes: 1,
            last_used: Some(now - hours(2)),
            in_use: false,
        };
        let text = |text: &str| vec![text.to_owned()];
        let of = |change: &dyn Fn(&mut Filter)| {
            let mut filter = Filter::default();
            change(&mut filter);
            filter.admits(&thing, now)
        };
        assert!(of(&|_| ()));
        assert!(of(&|filter| filter.kinds = [UsageKind::Source, UsageKind::CacheMount].into()));
        assert!(!of(&|filter| filter.kinds = [UsageKind::Source].into()));
        assert!(!of(&|filter| filter.nothing = true), "only kinds that are not here");
        assert!(of(&|filter| filter.ids = vec!["x".to_owned(), "/root".to_owned()]));
        assert!(!of(&|filter| (filter.ids, filter.in_use) = (text("/root"), Some(true))));
        assert!(of(&|filter| filter.descriptions = text("by hand")));
        assert!(of(&|filter| filter.unused_for = Some(hours(2))));
        assert!(!of(&|filter| filter.unused_for = Some(hours(3))));
    }
}
