//! Reading without a note of when. To the file system each such note is a write, which waits for whoever has it write
//! to disk at that moment: a build that finds everything it needs would stand still for another's.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::path::Arg;

/// Opens a file for reading, not followed.
pub fn open_in(dir: impl AsFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    open(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)
}

/// Opens for reading, with these flags. Only the owner and root may ask for no note; others leave one.
pub fn open(dir: impl AsFd, path: impl Arg + Copy, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::openat(&dir, path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(&dir, path, flags, Mode::empty()),
        other => other,
    }
}

/// Opens a file of ours by its path.
pub fn file(path: &Path) -> io::Result<File> {
    Ok(open(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC)?.into())
}

/// The content of a file of ours.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The same, of text.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    file(path)?.read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn no_note_is_left_of_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "text").unwrap();
        // Older than what it holds: the next reader would be noted wherever anything is (`relatime`).
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        File::options().write(true).open(&path).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
        assert_eq!(read(&path).unwrap(), b"text");
        assert_eq!(read_to_string(&path).unwrap(), "text");
        assert_eq!(path.metadata().unwrap().accessed().unwrap(), long_ago);
    }
}
