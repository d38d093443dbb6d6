//! A result's files, as one flat tar or in a directory.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use super::Dest;
use super::out::{name_beside, write_to};
use crate::base::{Cancel, Epoch};
use crate::layer::{DirOptions, DirTarget, Lost, TarWriter, Target};
use crate::snapshot::{Tree, walk};
use crate::sys::{Kind, Mtime, Root};

/// Writes results' files as one flat tar, each below its folder; a lone one needs none. Under a pinned date every file
/// has that date, as with BuildKit.
pub fn tar(trees: &[(&Path, Arc<dyn Tree>)], dest: &Dest, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<()> {
    let pinned = pinned(epoch);
    write_to(dest, |out| {
        let mut tar = TarWriter::new(out);
        for (folder, tree) in trees {
            let below = |path: &Path| if path.as_os_str().is_empty() { folder.into() } else { folder.join(path) };
            walk(tree.as_ref(), cancel, &mut |mut entry, data| {
                // Nothing can be archived of a socket, and nothing is lost: its listener is gone.
                if entry.kind == Kind::Socket {
                    return Ok(());
                }
                entry.meta.mtime = pinned.unwrap_or(entry.meta.mtime);
                entry.path = below(&entry.path);
                if let Kind::Hardlink { target } = &mut entry.kind {
                    *target = below(target);
                }
                tar.append(&entry, &mut &mut *data).with_context(|| format!("archive {:?}", entry.path))
            })?;
        }
        tar.finish()?;
        Ok(())
    })
}

/// Writes a result's files into a directory, over what is there; all belong to the caller, as with BuildKit's client.
/// A directory that is not there yet appears complete. Says what the host refused, for a warning.
pub fn local(tree: &dyn Tree, dest: &Path, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<Lost> {
    if dest.symlink_metadata().is_ok() {
        return fill(tree, dest, epoch, cancel);
    }
    if let Some(parent) = dest.parent() {
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    let part = name_beside(dest)?;
    fs::create_dir(&part).with_context(|| format!("make {}", part.display()))?;
    let filled = fill(tree, &part, epoch, cancel).and_then(|lost| {
        fs::rename(&part, dest).with_context(|| format!("make {}", dest.display()))?;
        Ok(lost)
    });
    if filled.is_err() {
        fs::remove_dir_all(&part).with_context(|| format!("remove the unfinished {}", part.display()))?;
    }
    filled
}

fn fill(tree: &dyn Tree, dest: &Path, epoch: &Epoch, cancel: &Cancel) -> anyhow::Result<Lost> {
    let pinned = pinned(epoch);
    let root = Root::open(dest).with_context(|| format!("open {}", dest.display()))?;
    let mut target = DirTarget::new(root, DirOptions { owners: false, ..DirOptions::default() });
    target.start()?;
    walk(tree, cancel, &mut |mut entry, data| {
        entry.meta.mtime = pinned.unwrap_or(entry.meta.mtime);
        target.entry(&entry, data).with_context(|| format!("write {:?}", entry.path))
    })?;
    target.finish()
}

fn pinned(epoch: &Epoch) -> Option<Mtime> {
    epoch.source_date().map(|seconds| Mtime { seconds, nanos: 0 })
}
