//! How many extended attributes a name in a directory has, by the one call that takes a directory and a name
//! (Linux 6.13). All others lead through a path in /proc, which costs more than all else that is asked of a small file.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// The same on every architecture; no library names it yet.
const LISTXATTRAT: libc::c_long = 465;

/// Whether a name has no extended attributes at all; false as well where this kernel, or a sandbox, does not tell.
/// A symlink is not followed.
pub fn has_none(dir: BorrowedFd<'_>, name: &OsStr) -> bool {
    static UNKNOWN: AtomicBool = AtomicBool::new(false);
    if UNKNOWN.load(Ordering::Relaxed) {
        return false;
    }
    let Ok(name) = CString::new(name.as_bytes()) else { return false };
    let (flags, nothing, size) = (libc::AT_SYMLINK_NOFOLLOW, std::ptr::null_mut::<u8>(), 0usize);
    // SAFETY: the kernel reads `name` up to its NUL; it is ours and alive until the call returns. A buffer of no size
    // is not written to, and may be null.
    #[expect(unsafe_code, reason = "no library has this call yet")]
    let length = unsafe { libc::syscall(LISTXATTRAT, dir.as_raw_fd(), name.as_ptr(), flags, nothing, size) };
    if length < 0 && matches!(std::io::Error::last_os_error().raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) {
        UNKNOWN.store(true, Ordering::Relaxed);
    }
    length == 0
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;

    #[test]
    fn only_what_has_none_has_none() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = File::open(tmp.path()).unwrap();
        for name in ["bare", "marked"] {
            File::create(tmp.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("marked", tmp.path().join("link")).unwrap();
        let marked = File::open(tmp.path().join("marked")).unwrap();
        if rustix::fs::fsetxattr(&marked, "user.x", b"1", rustix::fs::XattrFlags::empty()).is_err() {
            eprintln!("skip: needs user xattrs on the temporary directory");
            return;
        }
        let none = |name: &str| has_none(dir.as_fd(), Path::new(name).as_os_str());
        assert!(!none("marked"));
        assert!(!none("missing"));
        assert_eq!(none("link"), none("bare"), "a symlink is not followed");
    }
}
