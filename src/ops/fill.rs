//! Files of a tree in a plain directory: the first content of cache folders and volumes.

use std::io;
use std::path::Path;

use crate::base::Cancel;
use crate::layer::{DirTarget, Entry, Target};
use crate::snapshot::{Subtree, Tree, walk};
use crate::sys::{Kind, Root};

/// Copies what is in a directory of a tree, and the directory's own owner and mode, into an empty directory of the
/// host. What the host refuses (an owner, a device) is left as it is there. Does nothing where no directory is.
pub fn fill(tree: &dyn Tree, from: &Path, dir: &Path, cancel: &Cancel) -> anyhow::Result<()> {
    let Some(node) = tree.lookup(from)?.filter(|node| node.kind == Kind::Directory) else { return Ok(()) };
    let mut target = DirTarget::new(Root::open(dir)?, Default::default());
    target.start()?;
    walk(&Subtree { tree, dir: from.to_owned() }, cancel, &mut |entry, data| target.entry(&entry, data))?;
    let root = Entry { path: "".into(), kind: node.kind, meta: node.meta };
    target.entry(&root, &mut io::empty())?;
    target.finish()?;
    Ok(())
}
