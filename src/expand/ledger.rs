//! What an image's files are, whatever the disk they are unpacked to can keep: kinds, owners, modes, times, attributes,
//! by path. It follows the same layers with the same rules, so an ordinary user's archive tells of the right owners.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::BufRead;
use std::ops::Bound;
use std::path::{Component, Path, PathBuf};

use anyhow::bail;

use crate::layer::{Entry, Target};
use crate::sys::{Kind, Meta};

/// All files of a stack of layers. Parents come before what is in them.
#[derive(Debug, Clone)]
pub struct Ledger {
    nodes: BTreeMap<PathBuf, Node>,
    layer: u32,
    files: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Never a hard link: all names of a file say the same.
    pub kind: Kind,
    pub meta: Meta,
    /// Equal for the names of one file; unique where there is one name, and for all that is no file.
    pub file: u64,
    layer: u32,
}

/// Symlinks followed on one path, as many as Linux follows.
const LINK_LIMIT: usize = 40;

impl Default for Ledger {
    fn default() -> Self {
        let mut ledger = Self { nodes: BTreeMap::new(), layer: 0, files: 0 };
        ledger.put(PathBuf::new(), Kind::Directory, implied());
        ledger
    }
}

/// The metadata of a directory that no layer tells of.
fn implied() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

impl Ledger {
    /// Every entry in order; the root is the empty path.
    pub fn entries(&self) -> impl Iterator<Item = (&Path, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_path(), node))
    }

    pub fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// A path and everything below it, in order.
    pub fn subtree<'a>(&'a self, top: &'a Path) -> impl Iterator<Item = (&'a Path, &'a Node)> {
        let from = (Bound::Included(top), Bound::Unbounded);
        self.nodes
            .range::<Path, _>(from)
            .map(|(p, n)| (p.as_path(), n))
            .take_while(move |(path, _)| path.starts_with(top))
    }

    /// Whether anything is in a directory.
    pub fn is_empty_dir(&self, dir: &Path) -> bool {
        self.subtree(dir).nth(1).is_none()
    }

    /// The path that a process with this image for its root would reach: `..` stops at the root, absolute links start
    /// there. What does not exist stays as it is.
    pub fn resolve(&self, path: &Path, follow_last: bool) -> anyhow::Result<PathBuf> {
        let mut rest = names(path);
        let mut done = PathBuf::new();
        let mut links = 0;
        while let Some(name) = rest.pop() {
            if name == ".." {
                done.pop();
                continue;
            }
            done.push(&name);
            if rest.is_empty() && !follow_last {
                break;
            }
            if let Some(Node { kind: Kind::Symlink { target }, .. }) = self.nodes.get(&done) {
                links += 1;
                if links > LINK_LIMIT {
                    bail!("more than {LINK_LIMIT} symlinks on the way to {path:?}");
                }
                done.pop();
                if target.is_absolute() {
                    done.clear();
                }
                rest.extend(names(target));
            }
        }
        Ok(done)
    }

    /// Where an entry of a layer ends up: symlinked parents are followed, the last name is not.
    pub fn place(&self, path: &Path) -> anyhow::Result<PathBuf> {
        self.resolve(path, false)
    }

    fn put(&mut self, path: PathBuf, kind: Kind, meta: Meta) {
        self.files += 1;
        let node = Node { kind, meta, file: self.files, layer: self.layer };
        self.nodes.insert(path, node);
    }

    fn remove_below(&mut self, top: &Path) {
        let paths: Vec<PathBuf> = self.subtree(top).skip(1).map(|(path, _)| path.to_owned()).collect();
        paths.iter().for_each(|path| drop(self.nodes.remove(path)));
    }

    /// Removes what lower layers have at and below a path, and keeps what leads to something of this layer.
    fn hide(&mut self, top: &Path, with_top: bool) {
        let paths: Vec<PathBuf> = self.subtree(top).map(|(path, _)| path.to_owned()).collect();
        for path in paths.iter().rev() {
            let is_lower = self.nodes.get(path).is_some_and(|node| node.layer != self.layer);
            if is_lower && (with_top || path != top) && self.is_empty_dir(path) {
                self.nodes.remove(path);
            }
        }
    }

    fn make_parents(&mut self, path: &Path) {
        let missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|dir| self.nodes.get(*dir).is_none_or(|node| node.kind != Kind::Directory))
            .collect();
        for dir in missing.into_iter().rev() {
            self.put(dir.to_owned(), Kind::Directory, implied());
        }
    }
}

/// Names of a path, last first: what is still to be walked.
fn names(path: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = path
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect();
    names.reverse();
    names
}

impl Target for Ledger {
    fn start(&mut self) -> anyhow::Result<()> {
        self.layer += 1;
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, _: &mut dyn BufRead) -> anyhow::Result<()> {
        let path = self.place(&entry.path)?;
        let existing = self.nodes.get(&path).map(|node| node.kind == Kind::Directory);
        if existing == Some(true) && entry.kind == Kind::Directory {
            if let Some(node) = self.nodes.get_mut(&path) {
                node.meta = entry.meta.clone();
                node.layer = self.layer;
            }
            return Ok(());
        }
        if path.as_os_str().is_empty() {
            bail!("the root is a {:?}", entry.kind);
        }
        self.make_parents(&path);
        if existing == Some(true) {
            self.remove_below(&path);
        }
        let Kind::Hardlink { target } = &entry.kind else {
            self.put(path, entry.kind.clone(), entry.meta.clone());
            return Ok(());
        };
        let target = self.place(target)?;
        let Some(node) = self.nodes.get(&target).filter(|node| node.kind != Kind::Directory) else {
            bail!("hard link to {target:?}, which is no file");
        };
        let node = Node { layer: self.layer, ..node.clone() };
        self.nodes.insert(path, node);
        Ok(())
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = self.place(path)?;
        self.hide(&path, true);
        Ok(())
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        let dir = self.resolve(dir, true)?;
        self.hide(&dir, false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(ledger: &mut Ledger, path: &str, kind: Kind) -> anyhow::Result<()> {
        ledger.entry(&Entry { path: path.into(), kind, meta: implied() }, &mut std::io::empty())
    }

    fn file() -> Kind {
        Kind::File { size: 1 }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink { target: target.into() }
    }

    fn paths(ledger: &Ledger) -> Vec<&str> {
        ledger.entries().filter_map(|(path, _)| path.to_str()).collect()
    }

    #[test]
    fn parents_come_first_and_a_folder_s_files_stay_together() {
        let mut ledger = Ledger::default();
        for path in ["a.b/c", "a/b", "a-b"] {
            apply(&mut ledger, path, file()).unwrap();
        }
        assert_eq!(paths(&ledger), ["", "a", "a/b", "a-b", "a.b", "a.b/c"]);
    }

    #[test]
    fn symlinked_parents_are_followed_inside_the_root() {
        let mut ledger = Ledger::default();
        apply(&mut ledger, "usr/lib", Kind::Directory).unwrap();
        apply(&mut ledger, "lib", link("usr/lib")).unwrap();
        apply(&mut ledger, "abs", link("/usr/../../usr/lib")).unwrap();
        ledger.start().unwrap();
        apply(&mut ledger, "lib/x", file()).unwrap();
        apply(&mut ledger, "abs/y", file()).unwrap();
        assert_eq!(paths(&ledger), ["", "abs", "lib", "usr", "usr/lib", "usr/lib/x", "usr/lib/y"]);
        apply(&mut ledger, "loop", link("loop")).unwrap();
        assert!(apply(&mut ledger, "loop/x", file()).is_err());
        apply(&mut ledger, "lib", Kind::Directory).unwrap();
        assert_eq!(ledger.get(Path::new("lib")).unwrap().kind, Kind::Directory, "an entry replaces a symlink");
    }

    #[test]
    fn whiteouts_spare_what_the_same_layer_made() {
        let mut ledger = Ledger::default();
        for path in ["d/old", "d/sub/old", "gone/x", "e/old"] {
            apply(&mut ledger, path, file()).unwrap();
        }
        ledger.start().unwrap();
        apply(&mut ledger, "d/sub/new", file()).unwrap();
        ledger.opaque(Path::new("d")).unwrap();
        ledger.whiteout(Path::new("gone")).unwrap();
        ledger.whiteout(Path::new("never/was")).unwrap();
        apply(&mut ledger, "e/new", file()).unwrap();
        ledger.whiteout(Path::new("e")).unwrap();
        assert_eq!(paths(&ledger), ["", "d", "d/sub", "d/sub/new", "e", "e/new"]);
    }

    #[test]
    fn names_of_one_file_are_told_apart_from_copies() {
        let mut ledger = Ledger::default();
        apply(&mut ledger, "a", file()).unwrap();
        apply(&mut ledger, "b", Kind::Hardlink { target: "a".into() }).unwrap();
        apply(&mut ledger, "c", file()).unwrap();
        let of = |path: &str| ledger.get(Path::new(path)).unwrap().file;
        assert_eq!(of("a"), of("b"));
        assert_ne!(of("a"), of("c"));
        ledger.whiteout(Path::new("a")).unwrap();
        assert!(apply(&mut ledger, "x", Kind::Hardlink { target: "nowhere".into() }).is_err());
    }
}
