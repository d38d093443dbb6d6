//! Which image becomes which folder of the output, and laying all of them out: everything is made beside, in one
//! hidden folder, and renamed when all of it is complete.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::Cancel;
use crate::base::patterns::glob;
use crate::expand::{self, Archive, Artifact, Formats};
use crate::store::FileLock;

use super::collect::Found;
use super::config::{ArtifactEntry, Config, ImageEntry, Wanted};

/// One folder of the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub name: String,
    /// Which of the images found.
    pub found: usize,
    pub formats: Formats,
    /// Artifacts that are in no image: out of stages of its Dockerfile.
    pub stages: Vec<ArtifactEntry>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("dockless.yml wants {pattern:?}, but no image or archive of that name was made ({made})")]
    NothingMatches { pattern: String, made: String },
    #[error("two images would be laid out in {name}/: {first} and {second}; give one a name in dockless.yml")]
    SameName { name: String, first: String, second: String },
    #[error("image {image}: lay it out in {name}/")]
    Expand { image: String, name: String, source: anyhow::Error },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] crate::store::Error),
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
}

/// What messages call an image.
pub fn title(found: &Found) -> String {
    match found.references.first() {
        Some(reference) => reference.familiar(),
        None => found.archives.first().map_or_else(|| found.image.config_digest.short(), |p| p.display().to_string()),
    }
}

/// Decides folder and forms for every image. `dir` is where relative paths of archives begin.
pub fn plan(found: &[Found], config: &Config, defaults: &Wanted, dir: &Path) -> Result<Vec<Item>, Error> {
    let mut used = vec![false; config.images.len()];
    let mut chosen = Vec::new();
    for (index, image) in found.iter().enumerate() {
        let (entry, matching) = entry_of(image, config, dir);
        matching.into_iter().for_each(|number| used[number] = true);
        let entry = entry.map(|number| &config.images[number].1);
        if entry.is_some_and(|e| e.skip) {
            continue;
        }
        chosen.push((index, entry));
    }
    if let Some(unused) = used.iter().position(|used| !used) {
        let made: Vec<_> = found.iter().map(title).collect();
        return Err(Error::NothingMatches {
            pattern: config.images[unused].0.clone(),
            made: if made.is_empty() {
                "none was made at all".to_owned()
            } else {
                format!("made: {}", made.join(", "))
            },
        });
    }
    let names = names(found, &chosen, dir);
    let mut items: Vec<Item> = Vec::new();
    for ((index, entry), name) in chosen.into_iter().zip(names) {
        if let Some(other) = items.iter().find(|item| item.name == name) {
            return Err(Error::SameName { name, first: title(&found[other.found]), second: title(&found[index]) });
        }
        let wanted = entry.map(ImageEntry::wanted).unwrap_or_default().or(&config.defaults).or(defaults);
        let (stages, own): (Vec<_>, Vec<_>) =
            entry.map(|e| e.artifacts.clone()).unwrap_or_default().into_iter().partition(|a| a.stage.is_some());
        let artifacts = own.into_iter().map(|a| Artifact { from: a.from, to: a.to }).collect();
        items.push(Item { name, found: index, formats: formats(&wanted, artifacts), stages });
    }
    Ok(items)
}

fn formats(wanted: &Wanted, artifacts: Vec<Artifact>) -> Formats {
    Formats {
        image_tar: wanted.archive.map_or(Some(Archive::Docker), super::config::ArchiveKind::archive),
        rootfs: wanted.rootfs.unwrap_or(false),
        tgz: wanted.tgz.unwrap_or(false),
        git: wanted.git.unwrap_or(false),
        oci: wanted.oci.unwrap_or(false),
        artifacts,
        compression: wanted.compression.map(Into::into),
    }
}

/// The entry that is meant, of all that match: an exact word wins over a glob, then the first in the file.
fn entry_of(found: &Found, config: &Config, dir: &Path) -> (Option<usize>, Vec<usize>) {
    let words = words(found, dir);
    let matching = |matches: &dyn Fn(&str, &str) -> bool| -> Vec<usize> {
        let hit = |(_, (pattern, _)): &(usize, &(String, ImageEntry))| words.iter().any(|word| matches(pattern, word));
        config.images.iter().enumerate().filter(hit).map(|(number, _)| number).collect()
    };
    let exact = matching(&|pattern, word| pattern == word);
    let all = matching(&|pattern, word| pattern == word || glob::matches(pattern, word).unwrap_or(false));
    (exact.first().or(all.first()).copied(), all)
}

/// Everything that a pattern may call an image: its names, as people and as registries write them, with and without
/// tag, and its archives by path and by file name.
fn words(found: &Found, dir: &Path) -> Vec<String> {
    let mut words = Vec::new();
    for reference in &found.references {
        words.extend([reference.familiar(), reference.familiar_name(), reference.to_string(), reference.name()]);
    }
    for path in &found.archives {
        words.push(path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned());
        words.extend(path.file_name().map(|name| name.to_string_lossy().into_owned()));
    }
    words
}

/// A folder name for each: what the file says, else the last part of the repository's path; where two would be the
/// same, the whole path; where that is the same too, with the tag.
fn names(found: &[Found], chosen: &[(usize, Option<&ImageEntry>)], dir: &Path) -> Vec<String> {
    let given: Vec<Option<String>> = chosen.iter().map(|(_, entry)| entry.and_then(|e| e.name.clone())).collect();
    let mut names = vec![None; chosen.len()];
    for detail in 0..3 {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let candidates: Vec<String> = chosen
            .iter()
            .enumerate()
            .map(|(n, (index, _))| given[n].clone().unwrap_or_else(|| candidate(&found[*index], detail, dir)))
            .collect();
        for (n, name) in candidates.iter().enumerate() {
            if names[n].is_none() {
                *counts.entry(name.clone()).or_default() += 1;
            }
        }
        for (n, name) in candidates.into_iter().enumerate() {
            let taken = names.iter().flatten().any(|other| *other == name);
            if names[n].is_none() && ((counts[&name] == 1 && !taken) || given[n].is_some() || detail == 2) {
                names[n] = Some(name);
            }
        }
    }
    names.into_iter().flatten().collect()
}

fn candidate(found: &Found, detail: usize, dir: &Path) -> String {
    let Some(reference) = found.references.first() else {
        return archive_name(found, detail, dir);
    };
    let path = reference.familiar_name();
    let name = match detail {
        0 => path.rsplit('/').next().unwrap_or(&path).to_owned(),
        1 => path.replace(['/', ':'], "-"),
        _ => reference.familiar().replace(['/', ':', '@'], "-"),
    };
    visible(name)
}

/// `sdk.tar` is `sdk`; `sdk/image.tar` is `sdk` too.
fn archive_name(found: &Found, detail: usize, dir: &Path) -> String {
    let Some(path) = found.archives.first() else { return found.image.config_digest.short() };
    let stem = |path: &Path| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let known = [".tar.gz", ".tar.zst", ".tgz", ".tzst", ".tar", ".oci", ".gz", ".zst"];
        known.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name).to_owned()
    };
    if detail > 0 {
        let relative = path.strip_prefix(dir).unwrap_or(path);
        return visible(relative.with_file_name(stem(path)).to_string_lossy().trim_matches('/').replace('/', "-"));
    }
    match stem(path).as_str() {
        "image" | "oci" => {
            visible(path.parent().map(stem).filter(|n| !n.is_empty()).unwrap_or_else(|| "image".to_owned()))
        }
        name => visible(name.to_owned()),
    }
}

fn visible(name: String) -> String {
    let name = name.trim_start_matches('.');
    if name.is_empty() { "image".to_owned() } else { name.to_owned() }
}

/// How hidden folders of what is not finished begin, and the file in them that is locked while somebody works there.
const STAGING: &str = ".dockless-";
const LOCK: &str = ".lock";

/// A folder without a lock that is younger than this may be one that is being made.
const YOUNG: Duration = Duration::from_secs(60);

/// Removes what killed tasks left in an output folder.
fn sweep(output: &Path) -> Result<(), Error> {
    let at = |source| Error::Io { path: output.to_owned(), source };
    for entry in fs::read_dir(output).map_err(at)? {
        let entry = entry.map_err(at)?;
        let meta = entry.metadata().map_err(at)?;
        if !entry.file_name().as_encoded_bytes().starts_with(STAGING.as_bytes()) || !meta.is_dir() {
            continue;
        }
        let lock = entry.path().join(LOCK);
        let young = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_none_or(|age| age < YOUNG);
        let abandoned = if lock.exists() { FileLock::try_exclusive(&lock)?.is_some() } else { !young };
        if abandoned {
            fs::remove_dir_all(entry.path()).map_err(at)?;
        }
    }
    Ok(())
}

/// Lays out all items below `output`, or none. `stages` fills an item's folder with the artifacts of its stages;
/// `done` hears of each item that is ready and of what could not be kept.
pub fn lay_out(
    items: &[Item],
    found: &[Found],
    output: &Path,
    stages: &(dyn Fn(&Item, &Path) -> anyhow::Result<()> + Sync),
    done: &(dyn Fn(&Item, &[String]) + Sync),
    cancel: &Cancel,
) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    fs::create_dir_all(output).map_err(at(output))?;
    sweep(output)?;
    // Beside the results, on their file system: the last step can be a rename.
    let staging = tempfile::Builder::new().prefix(STAGING).tempdir_in(output).map_err(at(output))?;
    let _in_use = FileLock::exclusive(&staging.path().join(LOCK), cancel)?;
    let one = |item: &Item| -> Result<(), Error> {
        let image = &found[item.found];
        let wrong = |source| Error::Expand { image: title(image), name: item.name.clone(), source };
        let folder = staging.path().join(&item.name);
        let expanded = expand::expand(&image.image, &image.references, &*image.blobs, &item.formats, &folder, cancel)
            .map_err(wrong)?;
        if !item.stages.is_empty() {
            stages(item, &folder).map_err(wrong)?;
        }
        done(item, &expanded.warnings);
        Ok(())
    };
    in_parallel(items, &one)?;
    cancel.check()?;
    for item in items {
        publish(&staging.path().join(&item.name), &output.join(&item.name))?;
    }
    // A failed cleanup is a failure: what stays would be uploaded with the output.
    let path = staging.path().to_owned();
    staging.close().map_err(at(&path))
}

/// Does all, two at a time: each overlaps the reading of its layers with hashing on threads of its own.
fn in_parallel(items: &[Item], work: &(dyn Fn(&Item) -> Result<(), Error> + Sync)) -> Result<(), Error> {
    const AT_ONCE: usize = 2;
    let next = std::sync::atomic::AtomicUsize::new(0);
    let first_error = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(error) = work(item) {
                        let mut first = first_error.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                        first.get_or_insert(error);
                        // The others need not start.
                        next.store(items.len(), std::sync::atomic::Ordering::Relaxed);
                    }
                }
            });
        }
    });
    first_error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Puts a finished folder in its place. Where a folder of that name is already, only what has the same name in it is
/// replaced: the rest may be the build's own.
fn publish(finished: &Path, place: &Path) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return fs::rename(finished, place).map_err(at(place));
        }
        Err(error) => return Err(at(place)(error)),
        Ok(meta) if !meta.is_dir() => {
            return Err(at(place)(io::Error::from(io::ErrorKind::NotADirectory)));
        }
        Ok(_) => {}
    }
    let mut names = fs::read_dir(finished)
        .and_then(|entries| entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>())
        .map_err(at(finished))?;
    names.sort();
    // What was there moves into the hidden folder, and goes with it.
    let old = finished.with_extension("replaced");
    for name in names {
        let target = place.join(&name);
        if fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_dir()) {
            fs::create_dir_all(&old).map_err(at(&old))?;
            fs::rename(&target, old.join(&name)).map_err(at(&target))?;
        }
        fs::rename(finished.join(&name), &target).map_err(at(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, Platform, Reference};
    use crate::image::{Image, ImageConfig, Manifest};
    use crate::store::MemoryBlobs;
    use std::sync::Arc;

    fn found(references: &[&str], archives: &[&str]) -> Found {
        let digest = Digest::of(format!("{references:?}{archives:?}"));
        let descriptor = crate::image::Descriptor::new("", digest, 0);
        Found {
            image: Image {
                manifest_descriptor: descriptor.clone(),
                manifest: Manifest {
                    schema_version: 2,
                    media_type: String::new(),
                    config: descriptor,
                    layers: Vec::new(),
                    annotations: BTreeMap::new(),
                    extra: serde_json::Map::new(),
                },
                config: ImageConfig::new(Platform::host()),
                config_digest: digest,
                layers: Vec::new(),
            },
            references: references.iter().map(|r| r.parse::<Reference>().unwrap().or_latest()).collect(),
            archives: archives.iter().map(PathBuf::from).collect(),
            blobs: Arc::new(MemoryBlobs::default()),
        }
    }

    fn planned(found: &[Found], yaml: &str) -> Result<Vec<Item>, String> {
        let config = super::super::config::parse("dockless.yml", yaml).unwrap();
        plan(found, &config, &Wanted::default(), Path::new("/w")).map_err(|e| e.to_string())
    }

    #[test]
    fn folders_are_called_by_the_least_that_tells_them_apart() {
        let cases: [(&[Found], &[&str]); 4] = [
            (&[found(&["acct/app:1"], &[]), found(&["x"], &[])], &["app", "x"]),
            (&[found(&["a/app"], &[]), found(&["b/app"], &[])], &["a-app", "b-app"]),
            (&[found(&["a/app:1"], &[]), found(&["a/app:2"], &[])], &["a-app-1", "a-app-2"]),
            (
                &[
                    found(&[], &["/w/release/sdk.tar.gz"]),
                    found(&[], &["/w/release/tool/image.tar"]),
                    found(&[], &["/w/out/lay.oci"]),
                ],
                &["sdk", "tool", "lay"],
            ),
        ];
        for (images, expected) in cases {
            let names: Vec<_> = planned(images, "").unwrap().into_iter().map(|i| i.name).collect();
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn the_file_chooses_by_name_glob_or_archive() {
        let images = [found(&["acct/app:1"], &[]), found(&["acct/base:1"], &[]), found(&[], &["/w/release/sdk.tar"])];
        let items = planned(
            &images,
            "images:\n  acct/*: {skip: true}\n  acct/app:1:\n    name: main\n    rootfs: true\n    artifacts:\n\
             \x20   - from: /a\n    - {from: /b, stage: build}\n  release/sdk.tar: {archive: none}\n",
        )
        .unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].name, "main");
        assert!(items[0].formats.rootfs);
        assert_eq!(items[0].formats.artifacts.len(), 1);
        assert_eq!(items[0].stages.len(), 1);
        assert_eq!(items[1].name, "sdk");
        assert_eq!(items[1].formats.image_tar, None);
        assert_eq!(
            planned(&images, "images:\n  acct/ap: {}\n").unwrap_err(),
            "dockless.yml wants \"acct/ap\", but no image or archive of that name was made (made: acct/app:1, \
             acct/base:1, /w/release/sdk.tar)"
        );
        assert_eq!(
            planned(&images, "images:\n  acct/app: {name: x}\n  acct/base: {name: x}\n").unwrap_err(),
            "two images would be laid out in x/: acct/app:1 and acct/base:1; give one a name in dockless.yml"
        );
    }

    #[test]
    fn publishing_keeps_what_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(".new/app/image.tar", "new");
        write(".new/app/rootfs/a", "new");
        write("app/image.tar", "old");
        write("app/rootfs/stale", "old");
        write("app/mine", "kept");
        publish(&dir.path().join(".new/app"), &dir.path().join("app")).unwrap();
        let text = |path: &str| fs::read_to_string(dir.path().join(path)).ok();
        assert_eq!(text("app/image.tar").as_deref(), Some("new"));
        assert_eq!(text("app/rootfs/a").as_deref(), Some("new"));
        assert_eq!(text("app/rootfs/stale"), None);
        assert_eq!(text("app/mine").as_deref(), Some("kept"));
    }

    #[test]
    fn what_a_killed_task_left_is_swept_and_a_running_one_is_not_disturbed() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".dockless-dead", ".dockless-busy", ".dockless-new", ".other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join(".dockless-dead").join(LOCK), "").unwrap();
        let _busy = FileLock::try_exclusive(&dir.path().join(".dockless-busy").join(LOCK)).unwrap();
        sweep(dir.path()).unwrap();
        let mut left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".dockless-busy", ".dockless-new", ".other"]);
    }
}
