//! Looking at a file system state without mounting it.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use crate::base::{Digest, Hasher};
use crate::sys::{Kind, Meta};

/// One file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub kind: Kind,
    pub meta: Meta,
    /// Equal for two names of one file in one tree; none where the tree cannot say, or the file has one name.
    pub inode: Option<(u64, u64)>,
}

impl Node {
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// A read-only look at a file system state, mounted or not: a stack of deltas, a layer's index, a build context.
///
/// Paths are relative and normalised, and name the entry itself: no symlink in them is followed. What follows
/// symlinks does so by asking again, so that every tree gives the same answer.
pub trait Tree: Send + Sync {
    /// The entry at a path; the empty path is the root directory. None where nothing is.
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>>;

    /// Names in a directory, sorted bytewise.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// The bytes of a regular file.
    fn open(&self, path: &Path) -> io::Result<FileData>;

    /// The digest of a regular file's bytes. A tree that remembers digests answers without reading.
    fn digest(&self, path: &Path) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        io::copy(&mut self.open(path)?, &mut hasher)?;
        Ok(hasher.finish())
    }
}

/// A file's content: a descriptor where there is one (so that it can be cloned or copied in the kernel), else a stream.
pub enum FileData {
    File(std::fs::File),
    Stream(Box<dyn Read + Send>),
}

impl Read for FileData {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.read(buffer),
            Self::Stream(stream) => stream.read(buffer),
        }
    }
}

/// What Linux allows in one path walk (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// Makes a path relative and free of `.` and `..` by its text alone; `..` stops at the root.
pub fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Resolves the symlinks in a path, as a process with this tree for its root would: `..` stops at the root,
/// absolute targets start there. The last name is followed only when asked. Names that do not exist stay as they
/// are, so the answer may name nothing.
pub fn resolve(tree: &dyn Tree, path: &Path, follow_last: bool) -> io::Result<PathBuf> {
    let mut left: VecDeque<OsString> = names(path).collect();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = left.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        done.push(&name);
        if left.is_empty() && !follow_last {
            break;
        }
        let Some(Node { kind: Kind::Symlink { target }, .. }) = tree.lookup(&done)? else { continue };
        links += 1;
        if links > MAX_SYMLINKS {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        if target.is_absolute() {
            done.clear();
        } else {
            done.pop();
        }
        for name in names(&target).collect::<Vec<_>>().into_iter().rev() {
            left.push_front(name);
        }
    }
    Ok(done)
}

fn names(path: &Path) -> impl Iterator<Item = OsString> + '_ {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    })
}

/// The content of a small file (`/etc/passwd`), symlinks followed; none where no regular file is, an error when it
/// is longer than the limit.
pub fn read_small(tree: &dyn Tree, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let path = resolve(tree, path, true)?;
    match tree.lookup(&path)? {
        Some(Node { kind: Kind::File { .. }, .. }) => {}
        _ => return Ok(None),
    }
    let mut bytes = Vec::new();
    tree.open(&path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("{} is longer than {limit} bytes", path.display()),
        ));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::{dir, file, link, memory};

    #[test]
    fn symlinks_resolve_inside_the_tree() {
        let tree = memory(&[
            dir("usr"),
            dir("usr/lib"),
            link("lib", "usr/lib"),
            link("abs", "/usr"),
            link("out", "../../../usr/lib/x"),
            link("loop", "loop"),
            file("usr/lib/x", "1"),
        ]);
        let cases = [
            ("lib/x", true, Some("usr/lib/x"), "a symlinked folder is walked through"),
            ("/abs/lib/x", true, Some("usr/lib/x"), "an absolute target starts at the tree's root"),
            ("out", true, Some("usr/lib/x"), ".. stops at the root"),
            ("out", false, Some("out"), "the last name is not followed unless asked"),
            ("lib/../x", true, Some("usr/x"), ".. after a symlink leaves its target, as in the kernel"),
            ("none/../lib/y", true, Some("usr/lib/y"), "names that do not exist stay"),
            ("../../etc", true, Some("etc"), ".. at the start stays inside"),
            ("loop", true, None, "a loop ends"),
        ];
        for (path, follow, expected, why) in cases {
            let got = resolve(&*tree, Path::new(path), follow).ok();
            assert_eq!(got.as_deref(), expected.map(Path::new), "{why}");
        }
    }

    #[test]
    fn a_small_file_is_read_through_symlinks_and_bounded() {
        let tree = memory(&[dir("etc"), file("etc/passwd", "root:x:0:0\n"), link("p", "/etc/passwd")]);
        assert_eq!(read_small(&*tree, Path::new("p"), 100).unwrap().unwrap(), b"root:x:0:0\n");
        assert_eq!(read_small(&*tree, Path::new("none"), 100).unwrap(), None);
        assert_eq!(read_small(&*tree, Path::new("etc"), 100).unwrap(), None);
        assert_eq!(read_small(&*tree, Path::new("p"), 3).unwrap_err().to_string(), "etc/passwd is longer than 3 bytes");
    }
}
