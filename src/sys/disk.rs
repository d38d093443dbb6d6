//! What files take on disk.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that a file or folder takes on disk: blocks, not lengths, and a file with several names once. What vanishes
/// meanwhile takes nothing, and a directory that may not be read takes itself alone.
pub fn usage(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    // A list, not recursion: a tree may be deeper than the stack.
    let mut left: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let meta = match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            meta => meta?,
        };
        if meta.nlink() > 1 && !meta.is_dir() && !seen.insert((meta.dev(), meta.ino())) {
            continue;
        }
        bytes += meta.blocks() * 512;
        if meta.is_dir() {
            match fs::read_dir(&path) {
                Ok(entries) => {
                    for entry in entries {
                        left.push(entry?.path());
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(bytes)
}

/// Bytes of the whole file system that a path is on.
pub fn capacity(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_blocks.saturating_mul(system.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_a_file_with_two_names_once() {
        let dir = tempfile::tempdir().unwrap();
        let folder = usage(dir.path()).unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        // Delayed allocation gives blocks when they are written.
        fs::File::open(dir.path().join("a")).unwrap().sync_all().unwrap();
        let one = usage(dir.path()).unwrap();
        assert!(one >= folder + 100_000, "{one}");
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(usage(dir.path()).unwrap(), one);
        assert_eq!(usage(&dir.path().join("gone")).unwrap(), 0);
    }
}
