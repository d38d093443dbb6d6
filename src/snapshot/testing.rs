//! What the tests of this module share.

use std::fs::{self, Permissions};
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::delta::{Stack, default_root};
use super::memory::{Keep, MemoryDelta};
use super::tree::Tree;
use super::writer::DeltaWriter;
use crate::base::{DiffId, Digest};
use crate::image::{Descriptor, LayerBlob};
use crate::layer::{Entry, Target};
use crate::sys::{Kind, Meta, Mtime};

/// An archive's entry with its content.
pub type Sample = (Entry, &'static str);

pub fn meta(mode: u32) -> Meta {
    Meta { mode, mtime: Mtime { seconds: 1_000_000_000, nanos: 0 }, ..Meta::default() }
}

pub fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    Entry { path: PathBuf::from(path), kind, meta: meta(mode) }
}

pub fn dir(path: &str) -> Sample {
    (entry(path, Kind::Directory, 0o755), "")
}

pub fn file(path: &str, content: &'static str) -> Sample {
    (entry(path, Kind::File { size: content.len() as u64 }, 0o644), content)
}

pub fn link(path: &str, target: &str) -> Sample {
    (entry(path, Kind::Symlink { target: target.into() }, 0o777), "")
}

pub fn hard(path: &str, target: &str) -> Sample {
    (entry(path, Kind::Hardlink { target: target.into() }, 0o644), "")
}

/// Applies samples as a layer; `.wh.` names are what they are in archives.
pub fn apply(target: &mut dyn Target, samples: &[Sample]) -> anyhow::Result<()> {
    for (entry, content) in samples {
        let name = entry.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let parent = entry.path.parent().unwrap_or(Path::new(""));
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => target.opaque(parent)?,
            Some(name) => target.whiteout(&parent.join(name))?,
            None => target.entry(entry, &mut Cursor::new(content))?,
        }
    }
    Ok(())
}

/// A tree in memory.
pub fn memory(samples: &[Sample]) -> Arc<dyn Tree> {
    memory_over(Arc::new(Stack::new(Vec::new())), samples)
}

/// A layer in memory over a tree.
pub fn memory_over(below: Arc<dyn Tree>, samples: &[Sample]) -> Arc<dyn Tree> {
    let delta = Arc::new(MemoryDelta::new(1, Keep::All));
    let mut writer = DeltaWriter::new(Arc::clone(&delta) as Arc<_>, Arc::clone(&below));
    apply(&mut writer, samples).unwrap();
    writer.finish().unwrap();
    Arc::new(Stack::over(delta, below))
}

/// Every path of a tree with what is there, for comparing.
pub fn listing(tree: &dyn Tree) -> Vec<String> {
    fn walk(tree: &dyn Tree, path: &Path, lines: &mut Vec<String>) {
        let node = tree.lookup(path).unwrap().unwrap_or_else(default_root);
        let what = match &node.kind {
            Kind::Directory => "dir".to_owned(),
            Kind::File { size } => {
                let mut text = String::new();
                std::io::Read::read_to_string(&mut tree.open(path).unwrap(), &mut text).unwrap();
                assert_eq!(text.len() as u64, *size);
                format!("file {text:?}")
            }
            other => format!("{other:?}"),
        };
        let meta = &node.meta;
        let xattrs = if meta.xattrs.is_empty() { String::new() } else { format!(" {:?}", meta.xattrs) };
        lines.push(format!("/{} {:o} {}:{}{xattrs} {what}", path.display(), meta.mode, meta.uid, meta.gid));
        if node.is_dir() {
            for name in tree.read_dir(path).unwrap() {
                walk(tree, &path.join(name), lines);
            }
        }
    }
    let mut lines = Vec::new();
    walk(tree, Path::new(""), &mut lines);
    lines
}

/// A layer that is only a name.
pub fn layer_blob(name: &str) -> LayerBlob {
    let digest = Digest::of(name);
    let descriptor = Descriptor::new("application/vnd.oci.image.layer.v1.tar", digest, name.len() as u64);
    LayerBlob { descriptor, diff_id: DiffId(digest) }
}

/// What a step may do in the directory that tests begin with: `d/sub/x`, `d/y`, and `h1` with its second name `h2`.
#[derive(Debug, Clone)]
pub enum Act {
    Write(&'static str),
    Remove(&'static str),
    Dir(&'static str),
    Link(&'static str, &'static str),
    Move(&'static str, &'static str),
    Mode(&'static str, u32),
    /// Changes a file by a name that is gone afterwards.
    WriteThrough(&'static str, &'static str),
}

impl Act {
    /// What cannot be done where things stand is not done.
    pub fn carry_out(&self, root: &Path) {
        let _ = match self {
            Self::Write(path) => fs::write(root.join(path), path),
            Self::Remove(path) => fs::remove_dir_all(root.join(path)).or_else(|_| fs::remove_file(root.join(path))),
            Self::Dir(path) => fs::create_dir(root.join(path)),
            Self::Link(path, new) => fs::hard_link(root.join(path), root.join(new)),
            Self::Move(path, new) => fs::rename(root.join(path), root.join(new)),
            Self::Mode(path, mode) => fs::set_permissions(root.join(path), Permissions::from_mode(*mode)),
            Self::WriteThrough(path, new) => fs::hard_link(root.join(path), root.join(new))
                .and_then(|()| fs::write(root.join(new), new))
                .and_then(|()| fs::remove_file(root.join(new))),
        };
    }
}

pub fn acts() -> impl Strategy<Value = Vec<Act>> {
    let path = || prop::sample::select(vec!["a", "b", "d", "d/sub", "d/sub/x", "d/y", "d/z", "h1", "h2", "a/n", "b/n"]);
    let act = prop_oneof![
        path().prop_map(Act::Write),
        path().prop_map(Act::Remove),
        path().prop_map(Act::Dir),
        (path(), path()).prop_map(|(path, new)| Act::Link(path, new)),
        (path(), path()).prop_map(|(path, new)| Act::Move(path, new)),
        (path(), prop::sample::select(vec![0o700, 0o755])).prop_map(|(path, mode)| Act::Mode(path, mode)),
        (path(), path()).prop_map(|(path, new)| Act::WriteThrough(path, new)),
    ];
    prop::collection::vec(act, 1..6)
}
