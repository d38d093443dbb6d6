//! Folders of `RUN --mount=type=cache`: they outlive the build, and steps share them as their sharing mode says.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;

use crate::base::{Cancel, Digest};
use crate::llb::pb;
use crate::snapshot::{self, Snapshots, Tree};
use crate::store::FileLock;

/// A cache folder while a step uses it.
pub struct CacheMount {
    path: PathBuf,
    /// Shared or exclusive; also tells prune that the folder is in use.
    _lock: FileLock,
}

/// The file beside the folders that tells a person what they are.
const NAME_FILE: &str = "id";

impl CacheMount {
    /// Opens the folder of an id, or makes it as `first` has it. `target` is the id of what has none.
    pub fn open(
        folder: &Path,
        snapshots: &Snapshots,
        option: &pb::CacheOpt,
        target: &str,
        first: Option<(&dyn Tree, &str)>,
        cancel: &Cancel,
    ) -> anyhow::Result<Self> {
        let id = if option.id.is_empty() { target } else { &option.id };
        let home = folder.join(Digest::of(id).hex());
        fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
        let (number, lock) = match option.sharing() {
            pb::CacheSharingOpt::Shared => (0, FileLock::shared(&lock_path(&home, 0), cancel)?),
            pb::CacheSharingOpt::Locked => (0, FileLock::exclusive(&lock_path(&home, 0), cancel)?),
            pb::CacheSharingOpt::Private => first_free(&home)?,
        };
        let path = home.join(number.to_string());
        if !path.exists() {
            let _making = FileLock::exclusive(&home.join("making.lock"), cancel)?;
            if !path.exists() {
                fs::write(home.join(NAME_FILE), id).with_context(|| format!("name {}", home.display()))?;
                make(&home, &path, snapshots, first, cancel)?;
            }
        }
        // Its time is that of the folder's last use. Only the order of a later prune depends on it.
        let named = fs::File::open(home.join(NAME_FILE)).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = named {
            tracing::debug!(%error, path = %home.display(), "the folder's last use is not noted");
        }
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// One cache folder as prune and `du` see it.
pub struct CacheFolder {
    /// What the step calls it, and which of several copies it is.
    pub id: String,
    pub path: PathBuf,
    pub lock: PathBuf,
    pub used: Option<SystemTime>,
}

/// All cache folders below the place where they live, sorted.
pub fn list(folder: &Path) -> anyhow::Result<Vec<CacheFolder>> {
    let mut found = Vec::new();
    for home in names(folder)? {
        let home = folder.join(home);
        let id = fs::read_to_string(home.join(NAME_FILE)).unwrap_or_default();
        let used = fs::metadata(home.join(NAME_FILE)).and_then(|meta| meta.modified()).ok();
        for name in names(&home)? {
            let Ok(number) = name.parse() else { continue };
            let id = if number == 0 { id.clone() } else { format!("{id} ({number})") };
            found.push(CacheFolder { id, path: home.join(&name), lock: lock_path(&home, number), used });
        }
    }
    found.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(found)
}

fn names(dir: &Path) -> anyhow::Result<Vec<String>> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        listing => listing
            .and_then(|entries| entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect())
            .with_context(|| format!("read {}", dir.display())),
    }
}

fn lock_path(home: &Path, number: u32) -> PathBuf {
    home.join(format!("{number}.lock"))
}

/// The first folder that nobody uses; they are made as they are needed.
fn first_free(home: &Path) -> anyhow::Result<(u32, FileLock)> {
    for number in 0.. {
        if let Some(lock) = FileLock::try_exclusive(&lock_path(home, number))? {
            return Ok((number, lock));
        }
    }
    unreachable!("there are more numbers than processes")
}

/// Made beside its place and renamed into it, so that a folder is complete when it is there.
fn make(
    home: &Path,
    path: &Path,
    snapshots: &Snapshots,
    first: Option<(&dyn Tree, &str)>,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let beside = tempfile::Builder::new().prefix(".new-").tempdir_in(home)?;
    let inner = beside.path().join("0");
    fs::create_dir(&inner)?;
    if let Some((tree, selector)) = first {
        let from = snapshot::resolve(tree, Path::new(selector.trim_start_matches('/')), true)?;
        super::fill::fill(snapshots, tree, &from, &inner, cancel)
            .with_context(|| format!("copy /{} into the cache folder", from.display()))?;
    }
    fs::rename(&inner, path).with_context(|| format!("rename to {}", path.display()))
}
