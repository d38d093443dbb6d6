//! Copies entries of a tree into a delta as they are: names, metadata and hard links.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::tree::{Node, Tree};
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::sys::Kind;

/// Copies from one tree, and remembers which files it has copied, so that further names of them become links.
pub struct Copier {
    from: Arc<dyn Tree>,
    links: HashMap<(u64, u64), PathBuf>,
}

impl Copier {
    pub fn new(from: Arc<dyn Tree>) -> Self {
        Self { from, links: HashMap::new() }
    }

    /// The tree that is copied from.
    pub fn tree(&self) -> &Arc<dyn Tree> {
        &self.from
    }

    /// Copies one file, symlink or special file; `node` is what `to` is to be. It may be made later, by
    /// [`DeltaWriter::flush`] at the latest.
    pub fn leaf(&mut self, writer: &mut DeltaWriter, from: &Path, to: &Path, node: Node) -> io::Result<()> {
        if let Some(inode) = node.inode {
            if let Some(first) = self.links.get(&inode) {
                return writer.link(first, to);
            }
            self.links.insert(inode, to.to_owned());
        }
        match node.kind {
            Kind::File { size } => {
                let (tree, from) = (Arc::clone(&self.from), from.to_owned());
                writer.file_later(to, node.meta, size, move || tree.open(&from))
            }
            kind => writer.make(to, &kind, &node.meta),
        }
    }

    /// Copies an entry with all below it.
    pub fn entry(&mut self, writer: &mut DeltaWriter, from: &Path, to: &Path, node: Node) -> io::Result<()> {
        if !node.is_dir() {
            return self.leaf(writer, from, to, node);
        }
        writer.make(to, &node.kind, &node.meta)?;
        for name in self.from.read_dir(from)? {
            let (from, to) = (from.join(&name), to.join(&name));
            if let Some(node) = self.from.lookup(&from)? {
                self.entry(writer, &from, &to, node)?;
            }
        }
        Ok(())
    }

    /// Copies the whole tree, its root directory's metadata too.
    pub fn everything(&mut self, writer: &mut DeltaWriter, cancel: &Cancel) -> io::Result<()> {
        let root = Path::new("");
        if let Some(node) = self.from.lookup(root)? {
            writer.make(root, &node.kind, &node.meta)?;
        }
        for name in self.from.read_dir(root)? {
            cancel.check().map_err(io::Error::other)?;
            let path = PathBuf::from(name);
            if let Some(node) = self.from.lookup(&path)? {
                self.entry(writer, &path, &path, node)?;
            }
        }
        writer.flush()
    }
}
