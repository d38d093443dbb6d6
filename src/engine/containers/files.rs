//! Files of a container at rest, in and out as tar.

use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::find_stored;
use super::run::load;
use crate::base::Cancel;
use crate::engine::State;
use crate::layer::{self, Entry, TarWriter, Target};
use crate::snapshot::{self, DeltaWriter, Subtree, Tree, walk};
use crate::sys::Kind;

/// Writes a path of the container as a tar, as `docker cp CONTAINER:PATH -` does: the last name is the top entry.
/// `follow` follows a symlink that the path itself names.
pub fn read_path(state: &State, name: &str, path: &str, follow: bool, output: &mut dyn Write) -> anyhow::Result<()> {
    let stored = find_stored(state, name)?;
    let tree = state.snapshots()?.tree(&load(state, &stored)?);
    let from = snapshot::resolve(tree.as_ref(), &inside(path), follow)?;
    let Some(node) = tree.lookup(&from)? else {
        bail!("container {} has no {path}", stored.container.name);
    };
    // What is called `/` or `a/..` has no name of its own; its files come alone, as Docker sends them.
    let top = Path::new(path).file_name().map(PathBuf::from).unwrap_or_default();
    let mut tar = TarWriter::new(output);
    let kind = node.kind.clone();
    let mut data: Box<dyn Read> = match kind {
        Kind::File { .. } => Box::new(tree.open(&from)?),
        _ => Box::new(io::empty()),
    };
    if !top.as_os_str().is_empty() {
        tar.append(&Entry { path: top.clone(), kind: kind.clone(), meta: node.meta }, &mut data)?;
    }
    if kind == Kind::Directory {
        append(&Subtree { tree: tree.as_ref(), dir: from }, &top, &mut tar)?;
    }
    tar.finish()?;
    Ok(())
}

/// Its whole file system as one flat tar, as `docker export` does.
pub fn export(state: &State, name: &str, output: &mut dyn Write) -> anyhow::Result<()> {
    let stored = find_stored(state, name)?;
    let tree = state.snapshots()?.tree(&load(state, &stored)?);
    let mut tar = TarWriter::new(output);
    append(tree.as_ref(), Path::new(""), &mut tar)?;
    tar.finish()?;
    Ok(())
}

/// Everything in a tree, under a name.
fn append<W: Write>(tree: &dyn Tree, under: &Path, tar: &mut TarWriter<W>) -> anyhow::Result<()> {
    walk(tree, &Cancel::new(), &mut |mut entry, data| {
        entry.path = under.join(&entry.path);
        if let Kind::Hardlink { target } = &mut entry.kind {
            *target = under.join(&*target);
        }
        tar.append(&entry, &mut &mut *data).with_context(|| format!("archive {}", entry.path.display()))
    })
}

/// Unpacks a tar into a directory of the container, as `docker cp - CONTAINER:PATH` does.
pub fn write_path(state: &State, name: &str, path: &str, tar: &mut dyn Read) -> anyhow::Result<()> {
    let found = find_stored(state, name)?;
    let _lock = found.lock(state)?;
    let mut stored = find_stored(state, &found.container.id)?;
    let snapshots = state.snapshots()?;
    let base = load(state, &stored)?;
    let tree = snapshots.tree(&base);
    let dir = snapshot::resolve(tree.as_ref(), &inside(path), true)?;
    if tree.lookup(&dir)?.is_none_or(|node| node.kind != Kind::Directory) {
        bail!("{path} is not a directory in container {}", stored.container.name);
    }
    let mut active = snapshots.prepare(&base)?;
    let mut writer = Below { writer: active.writer()?, dir };
    layer::tar::read(tar, &mut |entry, data| writer.entry(entry, data))?;
    drop(writer);
    stored.snapshot = snapshots.save(&active.commit(&Cancel::new())?);
    stored.write(&state.containers_dir().join(&stored.container.id))
}

/// Entries of an archive, put below a directory.
struct Below<'a> {
    writer: &'a mut DeltaWriter,
    dir: PathBuf,
}

impl Below<'_> {
    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        if entry.path.as_os_str().is_empty() {
            // `./` in the archive is the directory that is there already.
            return Ok(());
        }
        let mut entry = Entry { path: self.dir.join(&entry.path), ..entry.clone() };
        if let Kind::Hardlink { target } = &mut entry.kind {
            *target = self.dir.join(&*target);
        }
        self.writer.entry(&entry, data)
    }
}

/// A path of the container as trees name it.
fn inside(path: &str) -> PathBuf {
    PathBuf::from(path.trim_start_matches('/'))
}
