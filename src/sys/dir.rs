//! Directories by descriptor: listing, and removal that follows nothing and holds few descriptors open.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::quiet;

/// How many nested directories [`remove`] holds open. What lies deeper is first moved up, so that a tree of any
/// depth can be removed with the usual limit of 1024 descriptors, shared with all else that runs.
const OPEN_DEPTH: usize = 64;

/// How a directory is opened to list what is in it.
pub const READ: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Opens a directory that is directly in another, for reading. A symlink in its place is an error.
pub fn open(dir: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(dir, name, READ, Mode::empty())?)
}

/// The names in a directory, in the order the file system has them, and their types as far as it tells.
pub fn list(dir: impl AsFd) -> io::Result<Vec<(OsString, FileType)>> {
    let mut found = Vec::new();
    // Opened anew: the descriptor given may be O_PATH, and its offset is shared with its other holders.
    let mut entries = Dir::new(quiet::open(dir, ".", READ)?)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((OsString::from_vec(name.to_vec()), entry.file_type()));
        }
    }
    Ok(found)
}

/// The names in a directory, sorted bytewise.
pub fn names(dir: impl AsFd) -> io::Result<Vec<OsString>> {
    let mut names: Vec<_> = list(dir)?.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// Removes a name with all below it; a symlink itself, never what it names. Ok when nothing is there.
pub fn remove(dir: impl AsFd, name: &OsStr) -> io::Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    let top = open_for_removal(dir, name)?;
    let mut moved = 0;
    loop {
        let before = moved;
        clear(top.as_fd(), top.as_fd(), 1, &mut moved)?;
        match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // What was moved up is listed in the next round.
            Err(Errno::NOTEMPTY) if moved > before => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes everything in a directory, and leaves it.
pub fn clear_dir(dir: impl AsFd) -> io::Result<()> {
    for (name, _) in list(&dir)? {
        remove(&dir, &name)?;
    }
    Ok(())
}

fn clear(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, moved: &mut u64) -> io::Result<()> {
    for (name, kind) in list(dir)? {
        if kind != FileType::Directory {
            match unlink_owned(dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if depth >= OPEN_DEPTH {
            *moved += 1;
            move_up(dir, &name, top, moved)?;
            continue;
        }
        clear(open_for_removal(dir, &name)?.as_fd(), top, depth + 1, moved)?;
        match unlink_owned(dir, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn move_up(dir: BorrowedFd<'_>, name: &OsStr, top: BorrowedFd<'_>, moved: &mut u64) -> io::Result<()> {
    loop {
        let to = format!(".dockless-removed-{moved}");
        // NOREPLACE: the tree may hold that name already, and an empty directory would be replaced unseen.
        match rustix::fs::renameat_with(dir, name, top, &to, rustix::fs::RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => *moved += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// An ordinary user's build can leave directories that their owner may not change: the owner gives the right back.
fn unlink_owned(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> Result<(), Errno> {
    match rustix::fs::unlinkat(dir, name, flags) {
        Err(Errno::ACCESS) => {
            rustix::fs::fchmod(dir, Mode::RWXU)?;
            rustix::fs::unlinkat(dir, name, flags)
        }
        result => result,
    }
}

fn open_for_removal(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    match open(dir, name) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            rustix::fs::chmodat(dir, name, Mode::RWXU, AtFlags::empty())?;
            open(dir, name)
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn removes_a_tree_deeper_than_descriptors_allow() {
        let tmp = tempfile::tempdir().unwrap();
        let root: OwnedFd = fs::File::open(tmp.path()).unwrap().into();
        let mut at = rustix::fs::openat(&root, ".", READ, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open(&at, "d".as_ref()).unwrap();
        }
        drop(at);
        remove(&root, "d".as_ref()).unwrap();
        assert!(names(&root).unwrap().is_empty());
    }

    #[test]
    fn removes_a_symlink_and_not_what_it_names() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("keep/x")).unwrap();
        fs::create_dir(tmp.path().join("gone")).unwrap();
        std::os::unix::fs::symlink("../keep", tmp.path().join("gone/link")).unwrap();
        let root: OwnedFd = fs::File::open(tmp.path()).unwrap().into();
        remove(&root, "gone".as_ref()).unwrap();
        remove(&root, "gone".as_ref()).unwrap();
        assert_eq!(names(&root).unwrap(), ["keep"]);
        assert!(tmp.path().join("keep/x").exists());
    }

    #[test]
    fn removes_what_its_owner_locked() {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        fs::write(tmp.path().join("a/b/f"), "").unwrap();
        for dir in ["a/b", "a"] {
            fs::set_permissions(tmp.path().join(dir), PermissionsExt::from_mode(0o000)).unwrap();
        }
        let root: OwnedFd = fs::File::open(tmp.path()).unwrap().into();
        remove(&root, "a".as_ref()).unwrap();
        assert!(names(&root).unwrap().is_empty());
    }
}
