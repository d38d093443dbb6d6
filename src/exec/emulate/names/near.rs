//! Directories of a step's root that have been found before. The calls of a build name files in few directories; for those
//! only the last name is left to look at.
//!
//! What is known holds until a directory or a link goes away or gets another name, anywhere in the root: all of that comes by
//! the supervisor, which then [forgets](Near::forget) everything. What is only made, or written to, changes nothing.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::exec::emulate::files::Place;

/// Each is an open descriptor.
const MOST: usize = 200;

/// An open directory, and its path in the root, without links.
pub struct Directory {
    pub file: OwnedFd,
    path: Vec<u8>,
}

impl Directory {
    pub fn new(file: OwnedFd, path: Vec<u8>) -> Self {
        Self { file, path }
    }

    /// The place of a name in it.
    pub fn at(&self, name: &OsStr) -> io::Result<Place> {
        Ok(Place { directory: self.file.try_clone()?, name: name.as_bytes().to_vec() })
    }

    /// The path of a name in it.
    pub fn join(&self, name: &[u8]) -> Vec<u8> {
        let mut whole = if self.path == b"/" { Vec::with_capacity(name.len() + 1) } else { self.path.clone() };
        whole.push(b'/');
        whole.extend(name);
        whole
    }
}

/// By the paths that lead there, as they were written.
#[derive(Default)]
pub struct Near(RwLock<Known>);

#[derive(Default)]
struct Known {
    directories: HashMap<Vec<u8>, Arc<Directory>>,
    /// How often everything was forgotten.
    forgotten: u64,
}

impl Near {
    pub fn get(&self, path: &[u8]) -> Option<Arc<Directory>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).directories.get(path).cloned()
    }

    /// Has `find` look for a directory, and keeps it, unless what was found may be true no more.
    pub fn find<E>(
        &self,
        path: &[u8],
        find: impl FnOnce() -> Result<Option<Directory>, E>,
    ) -> Result<Option<Arc<Directory>>, E> {
        let before = self.0.read().unwrap_or_else(PoisonError::into_inner).forgotten;
        let Some(found) = find()?.map(Arc::new) else { return Ok(None) };
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.forgotten == before {
            if known.directories.len() >= MOST {
                known.directories.clear();
            }
            known.directories.insert(path.to_vec(), Arc::clone(&found));
        }
        Ok(Some(found))
    }

    /// To be called when a directory or a link has gone away or been moved, before its caller hears of it.
    pub fn forget(&self) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.forgotten += 1;
        known.directories.clear();
    }
}

/// A path's directory, none where it has none, and its last name, if that is the name of what is meant.
pub fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, name) = match text.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (&text[..1], &text[1..]),
        Some(slash) => text.split_at(slash + 1),
        None => (&text[..0], text),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((head, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str) -> Directory {
        Directory::new(std::fs::File::open("/").unwrap().into(), path.into())
    }

    #[test]
    fn the_last_name_is_what_is_meant() {
        for (text, expected) in [
            ("/a/b", Some(("/a/", "b"))),
            ("/a", Some(("/", "a"))),
            ("a", Some(("", "a"))),
            ("a/b", Some(("a/", "b"))),
            ("/a/../b", Some(("/a/../", "b"))),
            ("/a/", None),
            ("/a/..", None),
            ("/", None),
            (".", None),
        ] {
            let expected = expected.map(|(head, name)| (head.as_bytes(), name.as_bytes()));
            assert_eq!(split(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(directory("/").join(b"a"), b"/a");
        assert_eq!(directory("/a").join(b"b"), b"/a/b");
    }

    #[test]
    fn what_was_found_while_everything_was_forgotten_is_not_kept() {
        let near = Near::default();
        let find = || Ok::<_, ()>(Some(directory("/a")));
        assert!(near.find(b"/a", find).unwrap().is_some() && near.get(b"/a").is_some());
        near.forget();
        assert!(near.get(b"/a").is_none());
        let found = near.find(b"/a", || {
            near.forget();
            find()
        });
        assert!(found.unwrap().is_some() && near.get(b"/a").is_none());
    }

    #[test]
    fn no_more_are_kept_open_than_a_process_may() {
        let near = Near::default();
        for number in 0..2 * MOST {
            near.find(format!("/{number}").as_bytes(), || Ok::<_, ()>(Some(directory("/")))).unwrap();
        }
        assert!((1..=MOST).contains(&near.0.read().unwrap().directories.len()));
    }
}
