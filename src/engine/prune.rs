//! Frees what can be made again: build cache, unpacked layers, cache mounts, leftovers of killed processes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::Context;

use super::cache::entries;
use super::usage::{self, Filter, Usage, UsageKind, disk_bytes, of_containers, of_images};
use super::{State, containers, state};
use crate::base::Digest;
use crate::ops::cache_mount;
use crate::snapshot::{self, DeltaId};
use crate::store::FileLock;

/// What a prune leaves alone.
#[derive(Debug, Clone, Default)]
pub struct Keep {
    /// Things used within this time.
    pub newer_than: Option<Duration>,
    /// The most recently used things, up to so many bytes.
    pub bytes: Option<u64>,
    /// Only what both of these keep, where both are given, and nothing beyond what the blobs leave of `bytes`.
    pub strict: bool,
    /// `RUN --mount=type=cache` folders.
    pub cache_mounts: bool,
    /// What named images and containers stand on, so that the next build or run has it unpacked.
    pub images: bool,
    /// All but these.
    pub filter: Filter,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Ids of what was removed, sorted.
    pub removed: Vec<String>,
    pub bytes: u64,
    /// Another process uses snapshots: all of them stayed.
    pub busy: bool,
}

/// How long a writer of a small file may take; older leftovers are nobody's.
const WRITING: Duration = Duration::from_secs(3600);

/// Removes what `keep` does not name. What a running process uses stays.
pub fn prune(state: &State, keep: &Keep) -> anyhow::Result<Pruned> {
    let now = SystemTime::now();
    let mut pruned = Pruned::default();
    state::sweep(&state.dir().join("tmp"))?;
    state.cache().sweep(WRITING)?;
    if keep.filter == Filter::default() {
        records(state, keep, now)?;
    }
    if keep.filter.kinds.is_empty() || keep.filter.kinds.contains(&UsageKind::Blob) {
        blobs(state, keep, now, &mut pruned)?;
    }
    caches(state, keep, now, &mut pruned)?;
    if takes_all(keep) {
        foreign(state, &mut pruned)?;
    }
    pruned.removed.sort();
    Ok(pruned)
}

/// Caches of processes for which owners on disk mean something else: nothing of ours stands on them.
fn foreign(state: &State, pruned: &mut Pruned) -> anyhow::Result<()> {
    let (snapshots, mounts) = (state.snapshots()?.dir().to_owned(), state.cache_mounts_dir()?);
    let is_a = |path: &Path, name: &str| path.file_name().is_some_and(|n| n.as_bytes().starts_with(name.as_bytes()));
    for path in entries(state.dir())?.into_iter().filter(|path| is_a(path, "snapshots") && *path != snapshots) {
        let Some(_unused) = FileLock::try_exclusive(&path.join("lock"))? else { continue };
        give_up(&path, pruned);
    }
    for path in entries(&state.dir().join("cache"))?.into_iter().filter(|path| is_a(path, "mounts") && *path != mounts)
    {
        let folders = cache_mount::list(&path)?;
        let locks = folders.iter().map(|folder| FileLock::try_exclusive(&folder.lock));
        if let Some(_unused) = locks.collect::<Result<Option<Vec<_>>, _>>()? {
            give_up(&path, pruned);
        }
    }
    Ok(())
}

/// Removes what may be another user's: not all of it may be ours to remove.
fn give_up(path: &Path, pruned: &mut Pruned) {
    match remove(path) {
        Ok(bytes) => {
            pruned.bytes += bytes;
            pruned.removed.push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
        Err(error) => tracing::warn!("a cache made under other ids stays: {error:#}"),
    }
}

fn takes_all(keep: &Keep) -> bool {
    keep.newer_than.is_none() && keep.bytes.is_none() && keep.filter == Filter::default()
}

fn is_new(keep: &Keep, used: Option<SystemTime>, now: SystemTime) -> bool {
    keep.newer_than.is_some_and(|limit| used.is_some_and(|used| now.duration_since(used).unwrap_or_default() < limit))
}

/// Snapshots, cache mounts and sources.
fn caches(state: &State, keep: &Keep, now: SystemTime, pruned: &mut Pruned) -> anyhow::Result<()> {
    // What a container stands on cannot be made again.
    let mut needed = of_containers(state)?;
    if keep.images {
        needed.extend(of_images(state)?);
    }
    let things = usage::caches(state)?;
    let mut room = keep.bytes.unwrap_or(0);
    if keep.strict {
        for digest in state.images().blobs().list()? {
            room = room.saturating_sub(state.images().blobs().size(&digest)?.unwrap_or(0));
        }
    }
    let going = going(&things, keep, room, &needed, now);
    let is_going = |kind, id: &str| going.contains(&(kind, id.to_owned()));
    let of_snapshots = |kind: &UsageKind| matches!(kind, UsageKind::Snapshot | UsageKind::Root);
    if takes_all(keep) || going.iter().any(|(kind, _)| of_snapshots(kind)) {
        let known: BTreeMap<&str, UsageKind> =
            things.iter().filter(|thing| of_snapshots(&thing.kind)).map(|thing| (&*thing.id, thing.kind)).collect();
        // What is neither is an index of a layer that nobody unpacked.
        let is_kept = |id: &str| match known.get(id) {
            Some(kind) => !is_going(*kind, id),
            None => !takes_all(keep),
        };
        match state.snapshots()?.prune(&|id| is_kept(&id.to_string())) {
            Err(snapshot::Error::Busy { .. }) => pruned.busy = true,
            done => {
                pruned.bytes += done?.bytes;
                let gone = going.iter().filter(|(kind, _)| of_snapshots(kind));
                pruned.removed.extend(gone.map(|(_, id)| id.clone()));
            }
        }
    }
    for folder in cache_mount::list(&state.cache_mounts_dir()?)? {
        if is_going(UsageKind::CacheMount, &folder.id)
            && let Some(_unused) = FileLock::try_exclusive(&folder.lock)?
        {
            pruned.bytes += remove(&folder.path)?;
            pruned.removed.push(folder.id);
        }
    }
    for (_, id) in going.iter().filter(|(kind, _)| *kind == UsageKind::Source) {
        pruned.bytes += remove(&state.source_cache_dir().join(id))?;
    }
    Ok(())
}

/// What goes of what can be made again: the newest things are looked at first, as long as there is room for them; waiting
/// root directories last, which only copy what is elsewhere.
fn going(
    things: &[Usage],
    keep: &Keep,
    mut room: u64,
    needed: &BTreeSet<DeltaId>,
    now: SystemTime,
) -> BTreeSet<(UsageKind, String)> {
    let mut order: Vec<&Usage> = things.iter().collect();
    order.sort_by_key(|thing| (thing.kind == UsageKind::Root, std::cmp::Reverse(thing.last_used)));
    let needed: BTreeSet<String> = needed.iter().map(DeltaId::to_string).collect();
    let mut going = BTreeSet::new();
    for thing in order {
        let fits = room >= thing.bytes;
        if fits {
            room -= thing.bytes;
        }
        let young = is_new(keep, thing.last_used, now);
        let kept = match keep.strict {
            true => (fits || keep.bytes.is_none()) && (young || keep.newer_than.is_none()),
            false => fits || young,
        };
        let meant = match thing.kind {
            UsageKind::Snapshot => !needed.contains(&thing.id),
            UsageKind::CacheMount => !keep.cache_mounts,
            _ => true,
        };
        if meant && !kept && keep.filter.admits(thing, now) {
            going.insert((thing.kind, thing.id.clone()));
        }
    }
    going
}

/// A record outlives its result on purpose: what stands on the result is still recognised by it. It goes when
/// everything goes, or when nobody has used it for as long as was asked for. Several may lead to one result, such as
/// that of a checkout by the times of its files and that of any checkout by their content: a use is one of all.
fn records(state: &State, keep: &Keep, now: SystemTime) -> anyhow::Result<()> {
    let cache = state.cache();
    let mut used: HashMap<Vec<String>, SystemTime> = HashMap::new();
    let mut all = Vec::new();
    for record in cache.list()? {
        let results = cache.peek(&record.key)?.map(|record| record.results).unwrap_or_default();
        let last = used.entry(results.clone()).or_insert(record.used);
        *last = record.used.max(*last);
        all.push((record.key, results));
    }
    for (key, results) in all {
        let goes = match keep.newer_than {
            Some(_) => !is_new(keep, used.get(&results).copied(), now),
            None => takes_all(keep),
        };
        if goes {
            cache.remove(&key)?;
        }
    }
    cache.tidy()
}

fn blobs(state: &State, keep: &Keep, now: SystemTime, pruned: &mut Pruned) -> anyhow::Result<()> {
    let mut needed: BTreeSet<Digest> = BTreeSet::new();
    let mut all = containers::snapshots(state)?;
    for record in state.cache().list()? {
        let results = state.cache().peek(&record.key)?.map(|record| record.results).unwrap_or_default();
        for result in results {
            all.extend(state.snapshots()?.load(&result)?);
        }
    }
    for snapshot in all {
        needed.extend(
            (0..snapshot.len()).filter_map(|index| snapshot.image_layer(index)).map(|layer| layer.descriptor.digest),
        );
    }
    let images = state.images();
    let before: BTreeSet<Digest> = images.blobs().list()?.into_iter().collect();
    // Nobody notes when a blob was used: the records that need it are.
    let is_meant = |digest: &Digest| {
        let thing = Usage::of_blob(*digest, 0);
        keep.filter.admits(&thing, now)
    };
    if let Some(collected) = images.collect(&|digest| needed.contains(digest) || !is_meant(digest))? {
        let after: BTreeSet<Digest> = images.blobs().list()?.into_iter().collect();
        pruned.removed.extend(before.difference(&after).map(Digest::to_string));
        pruned.bytes += collected.bytes;
    }
    Ok(())
}

/// Removes a folder of ours; what it took is the answer. Files of steps may be in directories without write
/// permission, which root does not mind and an ordinary user owns.
fn remove(path: &Path) -> anyhow::Result<u64> {
    let bytes = disk_bytes(path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(0) };
    if !parent.is_dir() {
        return Ok(0);
    }
    let removed = crate::sys::Root::open(parent).and_then(|root| root.remove(Path::new(name)));
    removed.with_context(|| format!("remove {}", path.display()))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_are_new_by_their_last_use() {
        let now = SystemTime::now();
        let keep = Keep { newer_than: Some(Duration::from_secs(60)), ..Keep::default() };
        assert!(is_new(&keep, Some(now), now));
        assert!(is_new(&keep, Some(now + Duration::from_secs(5)), now), "a clock that was set back");
        assert!(!is_new(&keep, Some(now - Duration::from_secs(61)), now));
        assert!(!is_new(&keep, None, now), "never used");
        assert!(!is_new(&Keep::default(), Some(now), now));
    }

    #[test]
    fn what_only_copies_goes_before_what_is_older() {
        let now = SystemTime::now();
        let thing = |kind, id: &str, bytes, age| Usage {
            kind,
            id: id.to_owned(),
            description: String::new(),
            bytes,
            last_used: Some(now - Duration::from_secs(age)),
            in_use: false,
        };
        let things = [
            thing(UsageKind::Root, "root", 50, 1),
            thing(UsageKind::Snapshot, "new", 40, 2),
            thing(UsageKind::Snapshot, "old", 40, 3),
        ];
        let cases: [(u64, &[&str]); 4] =
            [(130, &[]), (100, &["root"]), (60, &["old", "root"]), (0, &["new", "old", "root"])];
        for (room, expected) in cases {
            let gone = going(&things, &Keep::default(), room, &BTreeSet::new(), now);
            let mut gone: Vec<_> = gone.into_iter().map(|(_, id)| id).collect();
            gone.sort();
            assert_eq!(gone, expected, "{room}");
        }
    }
}
