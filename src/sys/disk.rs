//! What files take on disk.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, openat, statat};
use rustix::io::Errno;

use super::dir;

/// How long a path from one open directory may be before the next is opened. The kernel takes 4,095 bytes and a name
/// has up to 255; steps make trees that are deeper (gnulib's test of `getcwd` does).
const REACH: usize = 2048;

/// Bytes that a file or folder takes on disk: blocks, not lengths, and a file with several names once. What vanishes
/// meanwhile takes nothing, and a directory that may not be read takes itself alone.
pub fn usage(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut seen = BTreeSet::new();
    // A list, not recursion: a tree may be deeper than the stack. Beside a path, the open directory that it begins in.
    let mut left: Vec<(Option<Arc<OwnedFd>>, PathBuf)> = vec![(None, path.to_owned())];
    while let Some((base, path)) = left.pop() {
        let from = base.as_ref().map_or(CWD, |base| base.as_fd());
        let stat = match statat(from, &path, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        if stat.st_nlink > 1 && !is_dir && !seen.insert((stat.st_dev, stat.st_ino)) {
            continue;
        }
        bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        if !is_dir {
            continue;
        }
        let opened = match openat(from, &path, dir::READ, Mode::empty()) {
            Err(Errno::NOENT | Errno::ACCESS) => continue,
            opened => opened?,
        };
        let names = dir::list(&opened)?.into_iter().map(|(name, _)| name);
        if path.as_os_str().len() < REACH {
            left.extend(names.map(|name| (base.clone(), path.join(name))));
        } else {
            let base = Arc::new(opened);
            left.extend(names.map(|name| (Some(base.clone()), name.into())));
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
    use std::fs;

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

    /// Met as a prune that failed for ever ("File name too long") after a step that had left such a tree.
    #[test]
    fn counts_what_lies_deeper_than_a_path_reaches() {
        let tmp = tempfile::tempdir().unwrap();
        let mut at: OwnedFd = fs::File::open(tmp.path()).unwrap().into();
        let name = "d".repeat(200);
        for _ in 0..50 {
            rustix::fs::mkdirat(&at, &name, Mode::RWXU).unwrap();
            at = dir::open(&at, name.as_ref()).unwrap();
        }
        let folders = usage(tmp.path()).unwrap();
        let leaf = openat(&at, "leaf", rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY, Mode::RWXU).unwrap();
        rustix::io::write(&leaf, &[1; 10_000]).unwrap();
        rustix::fs::fsync(&leaf).unwrap();
        assert!(usage(tmp.path()).unwrap() >= folders + 10_000);
        dir::clear_dir(fs::File::open(tmp.path()).unwrap()).unwrap();
    }
}
