//! Files of a tree in a plain directory that steps will use: the first content of cache folders and volumes.

use std::io;
use std::path::Path;

use crate::base::Cancel;
use crate::layer::{Entry, Target};
use crate::snapshot::{Snapshots, Subtree, Tree, walk};
use crate::sys::Kind;

/// Copies what is in a directory of a tree, and the directory's own owner and mode, into an empty directory of the
/// host, with owners kept as steps see them. Does nothing where no directory is.
pub fn fill(snapshots: &Snapshots, tree: &dyn Tree, from: &Path, dir: &Path, cancel: &Cancel) -> anyhow::Result<()> {
    let Some(node) = tree.lookup(from)?.filter(|node| node.kind == Kind::Directory) else { return Ok(()) };
    snapshots.write_plain(dir, |target| {
        walk(&Subtree { tree, dir: from.to_owned() }, cancel, &mut |entry, data| target.entry(&entry, data))?;
        let root = Entry { path: "".into(), kind: node.kind, meta: node.meta };
        target.entry(&root, &mut io::empty())
    })
}
