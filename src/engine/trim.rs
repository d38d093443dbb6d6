//! Keeps a state folder that goes from run to run no larger than its limits. What goes is what was used longest ago;
//! images that earlier runs named, which were laid out then, and images without a name go with the rest. Where nothing was made since
//! the last time there is nothing to look at.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use super::{Keep, Pruned, State, prune};
use crate::base::Reference;
use crate::image::StoredImage;
use crate::store::DiskBlobs;
use crate::sys::disk;

/// How long and how much a state folder keeps. None: without limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub age: Option<Duration>,
    pub bytes: Option<u64>,
}

impl Limits {
    /// What most pipelines build at least once in: two weeks.
    pub const AGE: Duration = Duration::from_secs(14 * 24 * 3600);

    /// Half of the disk.
    pub fn bytes_for(dir: &Path) -> anyhow::Result<u64> {
        Ok(disk::capacity(dir).with_context(|| format!("look at the disk of {}", dir.display()))? / 2)
    }
}

/// Even where nothing new was made, things grow old.
const AGAIN_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Notes of names that runs gave begin so.
const IMAGE: &str = "image ";

/// The file whose date is that of the last time.
const STAMP: &str = "cache/trimmed";

/// Brings the folder within its limits. `names` are those that this run gave. None where there was nothing to do.
pub fn trim(state: &State, limits: &Limits, names: &[Reference]) -> anyhow::Result<Option<Pruned>> {
    let now = SystemTime::now();
    let used = state.cache().used();
    names.iter().for_each(|name| used.note(&format!("{IMAGE}{name}"), SystemTime::UNIX_EPOCH));
    used.save();
    let stamp = state.dir().join(STAMP);
    if (limits.age.is_none() && limits.bytes.is_none()) || !is_due(state, &stamp, now)? {
        return Ok(None);
    }
    forget_images(state, limits, names, now)?;
    let keep = Keep { newer_than: limits.age, bytes: limits.bytes, strict: true, images: true, ..Keep::default() };
    let pruned = prune(state, &keep)?;
    if let Some(folder) = stamp.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    fs::write(&stamp, "").with_context(|| format!("write {}", stamp.display()))?;
    Ok(Some(pruned))
}

/// Whether something was made since the last time, or that is long ago.
fn is_due(state: &State, stamp: &Path, now: SystemTime) -> anyhow::Result<bool> {
    let date = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let Some(last) = date(stamp) else { return Ok(true) };
    // Things are made elsewhere and renamed into these folders.
    let folders = [state.snapshots()?.dir().join("deltas"), state.images().dir().join("blobs/sha256")];
    let is_old = now.duration_since(last).is_ok_and(|age| age >= AGAIN_AFTER);
    Ok(is_old || folders.iter().filter_map(|folder| date(folder)).any(|made| made > last))
}

/// Removes names that earlier runs gave and images that have none: those that are too old, and from the oldest on those
/// for which there is no room.
fn forget_images(state: &State, limits: &Limits, names: &[Reference], now: SystemTime) -> anyhow::Result<()> {
    let (images, used) = (state.images(), state.cache().used());
    let stored = images.list()?;
    let mut candidates: Vec<(SystemTime, &StoredImage, Option<Reference>)> = Vec::new();
    let mut gone = BTreeSet::new();
    for text in used.names(IMAGE) {
        let note = format!("{IMAGE}{text}");
        let Ok(name) = text.parse::<Reference>() else { continue };
        match (used.last(&note), stored.iter().find(|image| image.references.contains(&name))) {
            (Some(last), Some(image)) => candidates.push((last, image, Some(name))),
            _ => drop(gone.insert(note)),
        }
    }
    let here = DiskBlobs::open(images.dir());
    for image in stored.iter().filter(|image| image.references.is_empty()) {
        let made = fs::metadata(here.path(&image.descriptor.digest)).and_then(|meta| meta.modified());
        candidates.push((made.unwrap_or(now), image, None));
    }
    candidates.sort_by_key(|(last, image, _)| std::cmp::Reverse((*last, image.descriptor.digest)));
    let mut room = limits.bytes.unwrap_or(u64::MAX);
    let mut counted = BTreeSet::new();
    for (last, image, name) in candidates {
        let bytes = bytes(state, image, &mut counted)?;
        let is_old = limits.age.is_some_and(|age| now.duration_since(last).is_ok_and(|since| since >= age));
        let is_of_this_run = name.as_ref().is_some_and(|name| names.contains(name));
        if !is_of_this_run && (is_old || bytes > room) {
            match &name {
                Some(name) => {
                    images.untag(name)?;
                    gone.insert(format!("{IMAGE}{name}"));
                }
                None => drop(images.remove(&image.descriptor.digest)?),
            }
        }
        room = room.saturating_sub(bytes);
    }
    used.forget(&|name| gone.contains(name))
}

/// What an image has beside what was counted before.
fn bytes(state: &State, image: &StoredImage, counted: &mut BTreeSet<crate::base::Digest>) -> anyhow::Result<u64> {
    let (images, blobs) = (state.images(), state.images().blobs());
    // Another platform's, or one that has lost a blob: what cannot be read takes little.
    let Ok(loaded) = images.load(&image.descriptor) else { return Ok(0) };
    let mut bytes = 0;
    for blob in loaded.blobs().filter(|blob| counted.insert(blob.digest)) {
        bytes += blobs.size(&blob.digest)?.unwrap_or(0);
    }
    Ok(bytes)
}
