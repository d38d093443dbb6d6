//! A root file system that survives git: `.keep` in empty folders, and beside it `rootfs.mtree` with everything that
//! git forgets. And the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, bail};

use super::ledger::Ledger;
use super::mtree::{self, is_git_s_own, last_name};
use super::tgz::below_dev;
use super::warn::{self, Tally};
use crate::layer::{DirOptions, DirTarget, Entry, Lost, Target};
use crate::sys::{Kind, Meta, Root, meta};

pub const MTREE: &str = "rootfs.mtree";
const KEEP: &str = ".keep";

/// What git stores of an entry: whether a file is executable, where a symlink leads; none for what it does not store.
pub fn stored(path: &Path, kind: &Kind, meta: &Meta) -> Option<Meta> {
    if below_dev(path) {
        return None;
    }
    let mode = match kind {
        Kind::Directory => 0o755,
        Kind::File { .. } if meta.mode & 0o100 == 0 => 0o644,
        Kind::File { .. } => 0o755,
        Kind::Symlink { .. } => meta.mode,
        _ => return None,
    };
    Some(Meta { mode, mtime: meta.mtime, ..Meta::default() })
}

/// How the disk is written: all belongs to whoever runs git.
pub const OPTIONS: DirOptions = DirOptions { owners: false, devices: false, xattrs: false };

/// Puts `.keep` into the folders that git would lose.
pub fn keep_empty_folders(ledger: &Ledger, rootfs: &Path) -> anyhow::Result<()> {
    let root = Root::open(rootfs).with_context(|| format!("open {}", rootfs.display()))?;
    let mut empty: BTreeSet<&Path> = BTreeSet::new();
    for (path, node) in ledger.entries().filter(|(path, node)| stored(path, &node.kind, &node.meta).is_some()) {
        if let Some(parent) = path.parent() {
            empty.remove(parent);
        }
        if node.kind == Kind::Directory {
            empty.insert(path);
        }
    }
    for dir in empty {
        root.create_file(&dir.join(KEEP), 0o644).with_context(|| format!("keep {dir:?}"))?;
    }
    Ok(())
}

/// What only the mtree knows, and what git itself will stumble over: a line for each.
pub fn warnings(ledger: &Ledger) -> Vec<String> {
    let mut tally = Tally::default();
    let mut files = BTreeSet::new();
    for (path, node) in ledger.entries() {
        if is_git_s_own(last_name(path)) {
            tally.note("names that mean something to git (add them with `git add -f`)", path);
        }
        if below_dev(path) {
            continue;
        }
        let Some(kept) = stored(path, &node.kind, &node.meta) else {
            tally.note("devices, fifos and sockets", path);
            continue;
        };
        if (node.meta.uid, node.meta.gid) != (0, 0) {
            tally.note("owners other than root", path);
        }
        if !matches!(node.kind, Kind::Symlink { .. }) && kept.mode != node.meta.mode {
            tally.note("modes other than 644 and 755", path);
        }
        if !node.meta.xattrs.is_empty() {
            tally.note("extended attributes", path);
        }
        if !files.insert(node.file) {
            tally.note("hard links", path);
        }
    }
    tally.lines("git does not keep")
}

/// Above this an mtree is not read: it is one line a file, and a tree of a million files needs some 200 MB.
const MTREE_LIMIT: u64 = 512 << 20;

/// The lines of the `rootfs.mtree` in a folder; none where there is no such file.
pub fn read_mtree(dir: &Path) -> anyhow::Result<Option<Vec<mtree::Line>>> {
    let path = dir.join(MTREE);
    let file = match fs::File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("open {}", path.display()))?,
    };
    let mut text = String::new();
    file.take(MTREE_LIMIT).read_to_string(&mut text).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(mtree::parse(&text).with_context(|| path.display().to_string())?))
}

/// Whether a path is a `.keep` that only this module put there: one that the image has is in its mtree.
pub fn is_placeholder(path: &Path, in_mtree: impl FnOnce(&Path) -> bool) -> bool {
    last_name(path) == KEEP && !in_mtree(path)
}

/// Gives a checked-out `rootfs/` back what git lost, from the `rootfs.mtree` beside it. Says what this host refused.
pub fn restore(dir: &Path) -> anyhow::Result<Vec<String>> {
    let Some(lines) = read_mtree(dir)? else {
        bail!("{} has no {MTREE}, which would say what to restore", dir.display());
    };
    let rootfs = dir.join("rootfs");
    let open = || Root::open(&rootfs).with_context(|| format!("open {}", rootfs.display()));
    let root = open()?;
    let mut target = DirTarget::new(open()?, DirOptions::default());
    target.start()?;
    let mut lost = Lost::default();
    let mut firsts: BTreeMap<u64, &Path> = BTreeMap::new();
    let kept_by_image: BTreeSet<&Path> =
        lines.iter().map(|line| line.path.as_path()).filter(|path| last_name(path) == KEEP).collect();
    for line in &lines {
        let mut restore = || {
            let first = line.file.and_then(|file| firsts.get(&file).copied());
            match (&line.kind, first) {
                (_, Some(first)) => {
                    let kind = Kind::Hardlink { target: first.to_owned() };
                    target.entry(&Entry { path: line.path.clone(), kind, meta: line.meta.clone() }, &mut io::empty())
                }
                (Kind::File { .. } | Kind::Symlink { .. }, None) => refresh(&root, line, &mut lost),
                (kind, None) => {
                    let entry = Entry { path: line.path.clone(), kind: kind.clone(), meta: line.meta.clone() };
                    target.entry(&entry, &mut io::empty())
                }
            }
        };
        restore().with_context(|| format!("restore rootfs/{}", line.path.display()))?;
        if let Some(file) = line.file {
            firsts.entry(file).or_insert(&line.path);
        }
        let keep = line.path.join(KEEP);
        if line.kind == Kind::Directory && !kept_by_image.contains(keep.as_path()) {
            root.remove(&keep).with_context(|| format!("remove rootfs/{}", keep.display()))?;
        }
    }
    let mut warnings = warn::lines(&lost);
    warnings.extend(warn::lines(&target.finish()?));
    Ok(warnings)
}

/// Gives a file or symlink that git brought its metadata.
fn refresh(root: &Root, line: &mtree::Line, lost: &mut Lost) -> anyhow::Result<()> {
    let (parent, name) = root.parent(&line.path)?;
    let Some(found) = meta::read(&parent, &name)? else { bail!("not there") };
    if std::mem::discriminant(&found.kind) != std::mem::discriminant(&line.kind) {
        bail!("{:?} here, {:?} in {MTREE}", found.kind, line.kind);
    }
    let refused = meta::write(&parent, &name, &line.kind, &line.meta)?;
    let count = |loss: &mut crate::layer::Loss| {
        loss.count += 1;
        loss.example.get_or_insert_with(|| line.path.clone());
    };
    if refused.owner.is_some() {
        count(&mut lost.owners);
    }
    if !refused.xattrs.is_empty() {
        count(&mut lost.xattrs);
    }
    Ok(())
}
