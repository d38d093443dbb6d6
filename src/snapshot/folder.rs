//! Where finished deltas lie, and what is remembered of them: most deltas of a tall stack change something in one folder
//! or two, and need not be opened for what is in the others.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::delta::{Delta, Name};
use super::disk::DiskDelta;

/// A finished delta on disk.
pub(super) struct Folder {
    pub path: PathBuf,
    /// What is in its root directory, once somebody has looked.
    pub top: OnceLock<Top>,
}

impl Folder {
    pub fn new(path: PathBuf) -> Self {
        Self { path, top: OnceLock::new() }
    }
}

/// The names in a delta's root directory: of a path that begins with none of them it says nothing.
pub(super) enum Top {
    Names(HashSet<OsString>),
    /// It says something of every path, or there are too many to remember.
    Any,
}

impl Top {
    /// More than images have in `/`.
    const MAX: usize = 256;

    pub fn of(delta: &DiskDelta) -> io::Result<Self> {
        let root = Path::new("");
        if delta.find(root)?.alone {
            return Ok(Self::Any);
        }
        let names = delta.names(root)?;
        if names.len() > Self::MAX {
            return Ok(Self::Any);
        }
        Ok(Self::Names(names.into_iter().map(|(Name::Entry(name) | Name::Whiteout(name))| name).collect()))
    }

    /// Whether the delta may say something of a path.
    pub fn may_have(&self, path: &Path) -> bool {
        match (self, path.iter().next()) {
            (Self::Names(names), Some(first)) => names.contains(first),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_looked_for_by_its_first_name() {
        let names = Top::Names(["etc", "usr"].map(OsString::from).into());
        let cases =
            [("etc", true), ("etc/passwd", true), ("us", false), ("usr2/bin", false), ("var/etc", false), ("", true)];
        for (path, expected) in cases {
            assert_eq!(names.may_have(Path::new(path)), expected, "{path}");
            assert!(Top::Any.may_have(Path::new(path)), "{path}");
        }
    }
}
