//! Followed paths: each with wildcards expanded, symlinks on the way and what they lead to, all inside the context.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::FileType;

use crate::base::patterns::glob;
use crate::sys::{Root, root};

/// Over all paths together: symlinks can multiply what has to be looked at.
const MAX_STEPS: usize = 100_000;

/// The paths that are in the context with all below them; none for everything.
pub fn follow(root: &Root, paths: &[String]) -> io::Result<Option<BTreeSet<PathBuf>>> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut found = BTreeSet::new();
    let mut seen = BTreeSet::new();
    // What is resolved already, and what is still to be walked from there.
    let mut todo: VecDeque<(PathBuf, PathBuf)> = paths.iter().map(|path| (PathBuf::new(), path.into())).collect();
    for _ in 0..MAX_STEPS {
        let Some((at, rest)) = todo.pop_front() else { return Ok(Some(found)) };
        let mut parts = rest.components();
        let (at, name) = match parts.next() {
            // The whole context.
            None if at.as_os_str().is_empty() => return Ok(None),
            None => {
                found.insert(at);
                continue;
            }
            Some(Component::ParentDir) => {
                let up = at.parent().unwrap_or(Path::new("")).to_owned();
                todo.push_back((up, parts.as_path().to_owned()));
                continue;
            }
            // Any depth: all from here on may be meant.
            Some(Component::Normal(name)) if name.as_bytes().windows(2).any(|two| two == b"**") => {
                if at.as_os_str().is_empty() {
                    return Ok(None);
                }
                found.insert(at);
                continue;
            }
            Some(Component::Normal(name)) => (at, name),
            Some(_) => {
                todo.push_back((at, parts.as_path().to_owned()));
                continue;
            }
        };
        let rest = parts.as_path();
        let names = match name.to_str() {
            Some(pattern) if pattern.contains(['*', '?', '[', '\\']) => match root.read_dir(&at) {
                Ok(names) => names
                    .into_iter()
                    .filter(|name| glob::matches(pattern, &name.to_string_lossy()).unwrap_or(false))
                    .collect(),
                Err(_) => Vec::new(),
            },
            _ => vec![name.to_owned()],
        };
        for name in names {
            let path = at.join(&name);
            let Ok(fd) = root.locate(&path, false) else { continue };
            if root::file_type(&fd)? != FileType::Symlink {
                todo.push_back((path, rest.to_owned()));
                continue;
            }
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())?;
            let target = Path::new(std::ffi::OsStr::from_bytes(target.as_bytes())).join(rest);
            let from = if target.has_root() { PathBuf::new() } else { at.clone() };
            found.insert(path);
            if seen.insert((from.clone(), target.clone())) {
                todo.push_back((from, target));
            }
        }
    }
    Err(io::Error::other("too many symlinks and wildcards in the paths of the context"))
}
