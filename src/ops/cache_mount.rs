//! Folders of `RUN --mount=type=cache`: they outlive the build, and steps share them as their sharing mode says.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::base::{Cancel, Digest};
use crate::layer::{DirTarget, Entry, Target};
use crate::llb::pb;
use crate::snapshot::{self, Tree};
use crate::store::FileLock;
use crate::sys::{Kind, Root};

/// A cache folder while a step uses it.
pub struct CacheMount {
    path: PathBuf,
    /// Shared or exclusive; also tells prune that the folder is in use.
    _lock: FileLock,
}

/// The file beside the folders that tells a person what they are.
pub const NAME_FILE: &str = "id";

impl CacheMount {
    /// Opens the folder of an id, or makes it as `first` has it. `target` is the id of what has none.
    pub fn open(
        folder: &Path,
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
                make(&home, &path, first)?;
            }
        }
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
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
fn make(home: &Path, path: &Path, first: Option<(&dyn Tree, &str)>) -> anyhow::Result<()> {
    let beside = tempfile::Builder::new().prefix(".new-").tempdir_in(home)?;
    let inner = beside.path().join("0");
    fs::create_dir(&inner)?;
    if let Some((tree, selector)) = first {
        let from = snapshot::resolve(tree, Path::new(selector.trim_start_matches('/')), true)?;
        let mut target = DirTarget::new(Root::open(&inner)?, Default::default());
        fill(tree, &from, Path::new(""), &mut target)
            .with_context(|| format!("copy /{} into the cache folder", from.display()))?;
        target.finish()?;
    }
    fs::rename(&inner, path).with_context(|| format!("rename to {}", path.display()))
}

/// Copies an entry and what is below it. Folders in folders are as deep as the tree's own limits let them be.
fn fill(tree: &dyn Tree, from: &Path, to: &Path, target: &mut dyn Target) -> anyhow::Result<()> {
    let Some(node) = tree.lookup(from)? else { return Ok(()) };
    let is_dir = node.kind == Kind::Directory;
    let entry = Entry { path: to.to_owned(), kind: node.kind.clone(), meta: node.meta };
    match node.kind {
        Kind::File { .. } => {
            target.entry(&entry, &mut std::io::BufReader::new(tree.open(from)?))?;
        }
        _ => target.entry(&entry, &mut std::io::empty())?,
    }
    if is_dir {
        for name in tree.read_dir(from)? {
            fill(tree, &from.join(&name), &to.join(&name), target)?;
        }
    }
    Ok(())
}
