//! All of a tree in one fixed order: parents first, names sorted bytewise, later names of a file as hard links.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::tree::{Node, Tree};
use crate::base::Cancel;
use crate::layer::Entry;
use crate::sys::Kind;

/// Gives `visit` every entry but the root, with the bytes of the files.
pub fn walk(
    tree: &dyn Tree,
    cancel: &Cancel,
    visit: &mut dyn FnMut(Entry, &mut dyn BufRead) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut seen = HashMap::new();
    // Depth does not grow the stack: a tree may be nested deeper than a thread's stack allows.
    let mut open = vec![listing(tree, PathBuf::new())?];
    while let Some(names) = open.last_mut() {
        let Some(path) = names.next() else {
            open.pop();
            continue;
        };
        cancel.check()?;
        let node = tree
            .lookup(&path)
            .and_then(|node| node.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .with_context(|| format!("look at {path:?}"))?;
        let Node { kind, meta, inode } = node;
        let is_directory = kind == Kind::Directory;
        match (&kind, inode.and_then(|inode| seen.get(&inode).cloned())) {
            (Kind::File { .. }, Some(first)) => {
                let kind = Kind::Hardlink { target: first };
                visit(Entry { path: path.clone(), kind, meta }, &mut io::empty())?;
            }
            (Kind::File { .. }, None) => {
                if let Some(inode) = inode {
                    seen.insert(inode, path.clone());
                }
                let data = tree.open(&path).with_context(|| format!("open {path:?}"))?;
                visit(Entry { path: path.clone(), kind, meta }, &mut BufReader::with_capacity(64 << 10, data))?;
            }
            _ => visit(Entry { path: path.clone(), kind, meta }, &mut io::empty())?,
        }
        if is_directory {
            open.push(listing(tree, path)?);
        }
    }
    Ok(())
}

fn listing(tree: &dyn Tree, dir: PathBuf) -> anyhow::Result<impl Iterator<Item = PathBuf> + use<>> {
    let names = tree.read_dir(&dir).with_context(|| format!("list {dir:?}"))?;
    Ok(names.into_iter().map(move |name| Path::new(&dir).join(name)))
}
