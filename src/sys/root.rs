//! The one way from a path in an image or a context to a file: by descriptor, never leaving the root.
//!
//! The kernel resolves (`openat2` with `RESOLVE_IN_ROOT`); where a seccomp filter or an old kernel denies that, the
//! path is walked by hand, one name at a time, to the same result.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::dir;

/// The kernel gives up a walk that races with a rename somewhere in the system; one that loses this often is attacked.
const RACES: usize = 128;

/// As many symlinks as the kernel follows in one path (path_resolution(7)).
const HOPS: usize = 40;

/// A directory that paths are resolved in, as if it were `/`: `..` stops at it, absolute symlinks start at it.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    by_hand: bool,
}

impl Root {
    /// Opens a directory of the host by a path that dockless itself chose.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self::from_fd(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// A directory that is open already.
    pub fn from_fd(fd: OwnedFd) -> Self {
        let by_hand = !kernel_resolves(fd.as_fd());
        Self { fd, by_hand }
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()?, by_hand: self.by_hand })
    }

    /// The directory itself.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// An `O_PATH` descriptor of what is at a path. Symlinks on the way are followed inside the root; the last name
    /// only when `follow`.
    pub fn locate(&self, path: &Path, follow: bool) -> io::Result<OwnedFd> {
        self.resolve(path, if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW })
    }

    /// The directory (`O_PATH`) that holds the last name of a path, and that name. The root itself has none.
    pub fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = last_name(path)?;
        let dir = path.parent().unwrap_or(Path::new(""));
        Ok((self.resolve(dir, OFlags::PATH | OFlags::DIRECTORY)?, name.to_owned()))
    }

    /// A directory, symlinks followed, that can be read and be a [`Root`] of its own.
    pub fn open_dir(&self, path: &Path) -> io::Result<OwnedFd> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// A regular file for reading, symlinks followed. Never waits on a fifo.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        // Looked at before it is opened: opening alone makes some devices act (a watchdog starts to count).
        require_file(self.locate(path, true)?.as_fd())?;
        let fd = self.resolve(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        require_file(fd.as_fd())?;
        Ok(fd.into())
    }

    /// As [`Root::open_file`] in one call, for a path that was a regular file when somebody looked. The last name is
    /// not followed.
    pub fn open_known_file(&self, path: &Path) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(self.resolve(path, flags)?.into())
    }

    /// A new regular file; an error where anything is in its place.
    pub fn create_file(&self, path: &Path, mode: u32) -> io::Result<File> {
        let (parent, name) = self.parent(path)?;
        create_file_at(parent, &name, mode)
    }

    /// Makes a directory and those above it, mode 0755, where they are missing. Where a symlink on the way names
    /// something that is not there, that is made.
    pub fn make_dirs(&self, path: &Path) -> io::Result<()> {
        match self.resolve(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.make_missing(path.to_owned()),
            result => result.map(drop),
        }
    }

    fn make_missing(&self, mut path: PathBuf) -> io::Result<()> {
        'path: for _ in 0..HOPS {
            let mut done = PathBuf::new();
            let mut rest = path.components();
            while let Some(part) = rest.next() {
                done.push(part);
                if !matches!(part, Component::Normal(_))
                    || self.resolve(&done, OFlags::PATH | OFlags::DIRECTORY).is_ok()
                {
                    continue;
                }
                let (parent, name) = self.parent(&done)?;
                match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {}
                    Err(Errno::EXIST) => {
                        // A symlink to nowhere, a file, or another process was quicker.
                        match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
                            Ok(target) => {
                                done.pop();
                                path = done.join(OsStr::from_bytes(target.as_bytes())).join(rest.as_path());
                                continue 'path;
                            }
                            Err(_) => drop(self.resolve(&done, OFlags::PATH | OFlags::DIRECTORY)?),
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            return Ok(());
        }
        Err(Errno::LOOP.into())
    }

    /// Removes what is at a path with all below it; a symlink itself, never what it names. Ok when nothing is there.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.parent(path) {
            Ok((parent, name)) => dir::remove(parent, &name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// The names in a directory, sorted bytewise.
    pub fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        dir::names(self.resolve(path, OFlags::PATH | OFlags::DIRECTORY)?)
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        if self.by_hand {
            return self.walk(path, flags);
        }
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        for _ in 0..RACES {
            let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::XDEV | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// What `openat2` does, by hand: descriptors of the directories passed stand in for the kernel's notion of `..`.
    fn walk(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let follow_last = !flags.contains(OFlags::NOFOLLOW);
        let mut passed: Vec<OwnedFd> = Vec::new();
        let mut todo: VecDeque<OsString> = parts(path).collect();
        let mut hops = 0;
        while let Some(part) = todo.pop_front() {
            if part == ".." {
                passed.pop();
                continue;
            }
            let at = passed.last().unwrap_or(&self.fd);
            let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let found = rustix::fs::openat(at, &part, look, Mode::empty())?;
            let last = todo.is_empty();
            match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
                FileType::Symlink if !last || follow_last => {
                    hops += 1;
                    if hops > HOPS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = rustix::fs::readlinkat(&found, "", Vec::new())?.into_bytes();
                    if target.is_empty() {
                        return Err(Errno::NOENT.into());
                    }
                    if target[0] == b'/' {
                        passed.clear();
                    }
                    for part in parts(Path::new(&OsString::from_vec(target))).collect::<Vec<_>>().into_iter().rev() {
                        todo.push_front(part);
                    }
                }
                FileType::Directory => passed.push(found),
                _ if !last => return Err(Errno::NOTDIR.into()),
                _ => {
                    return Ok(rustix::fs::openat(at, &part, flags | OFlags::NOFOLLOW, Mode::empty())?);
                }
            }
        }
        let at = passed.last().unwrap_or(&self.fd);
        Ok(rustix::fs::openat(at, ".", flags, Mode::empty())?)
    }

    #[cfg(test)]
    fn walked_by_hand(mut self) -> Self {
        self.by_hand = true;
        self
    }
}

/// A new regular file directly in a directory; an error where anything is in its place.
pub fn create_file_at(dir: impl AsFd, name: &OsStr, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode))?.into())
}

/// Asked once: a filter that denies it denies it for good.
fn kernel_resolves(fd: BorrowedFd<'_>) -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let answer = rustix::fs::openat2(fd, ".", flags, Mode::empty(), ResolveFlags::IN_ROOT);
        !matches!(answer, Err(Errno::NOSYS | Errno::PERM))
    })
}

fn last_name(path: &Path) -> io::Result<&OsStr> {
    path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "path has no last name"))
}

fn require_file(fd: BorrowedFd<'_>) -> io::Result<()> {
    match FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// The names of a path and its `..`; a root or a `.` in it says nothing here.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Descriptors of the directories along the path asked for last: neighbours in an archive share them, so that most
/// members cost no resolution at all.
///
/// It knows nothing of changes: whoever removes or replaces anything that is not a regular file calls
/// [`Parents::forget`].
#[derive(Debug, Default)]
pub struct Parents {
    path: PathBuf,
    /// How much of `path` each descriptor stands for.
    open: Vec<(usize, OwnedFd)>,
}

/// Deeper directories are resolved each time, so that no archive can use up the descriptors.
const PARENTS: usize = 64;

impl Parents {
    pub fn new() -> Self {
        Self::default()
    }

    /// The directory at a normalised path (`O_PATH`), and whether it was at hand already.
    pub fn get<'a>(&'a mut self, root: &'a Root, path: &Path) -> io::Result<(BorrowedFd<'a>, bool)> {
        let wanted = path.as_os_str().as_bytes();
        if wanted.is_empty() {
            return Ok((root.fd.as_fd(), true));
        }
        while let Some((len, _)) = self.open.last()
            && !is_at_or_below(wanted, &self.path.as_os_str().as_bytes()[..*len])
        {
            self.open.pop();
        }
        let known = self.open.last().map_or(0, |(len, _)| *len);
        if known == wanted.len() {
            let (_, fd) = &self.open[self.open.len() - 1];
            return Ok((fd.as_fd(), true));
        }
        let rest = &wanted[if known == 0 { 0 } else { known + 1 }..];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = match self.open.last() {
            // One name below a directory that is open: nothing to resolve, unless it is a symlink.
            Some((_, parent)) if !rest.contains(&b'/') => {
                rustix::fs::openat(parent, rest, flags | OFlags::NOFOLLOW, Mode::empty())
                    .map_err(io::Error::from)
                    .or_else(|_| root.resolve(path, flags))?
            }
            _ => root.resolve(path, flags)?,
        };
        if self.open.len() >= PARENTS {
            self.open.clear();
        }
        path.clone_into(&mut self.path);
        self.open.push((wanted.len(), fd));
        let (_, fd) = &self.open[self.open.len() - 1];
        Ok((fd.as_fd(), false))
    }

    /// Closes everything.
    pub fn forget(&mut self) {
        self.open.clear();
        self.path.clear();
    }
}

/// Descriptors of the directories that were used last, for several threads at once: files come in families, a few at a
/// time. As [`Parents`], it knows nothing of changes.
#[derive(Debug, Default)]
pub struct LastDirs(Mutex<Vec<(PathBuf, Arc<OwnedFd>)>>);

impl LastDirs {
    /// How many directories are kept open.
    const OPEN: usize = 8;

    /// The directory at a path, opened where it is not at hand.
    pub fn get(&self, path: &Path, open: impl FnOnce() -> io::Result<OwnedFd>) -> io::Result<Arc<OwnedFd>> {
        let mut last = self.lock();
        if let Some(i) = last.iter().position(|(known, _)| known == path) {
            last[..=i].rotate_right(1);
            return Ok(Arc::clone(&last[0].1));
        }
        drop(last);
        let fd = Arc::new(open()?);
        let mut last = self.lock();
        last.truncate(Self::OPEN - 1);
        last.insert(0, (path.to_owned(), Arc::clone(&fd)));
        Ok(fd)
    }

    /// Closes everything that nobody uses.
    pub fn forget(&self) {
        self.lock().clear();
    }

    // Every change leaves a list of open directories.
    fn lock(&self) -> MutexGuard<'_, Vec<(PathBuf, Arc<OwnedFd>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_at_or_below(path: &[u8], dir: &[u8]) -> bool {
    path.starts_with(dir) && (path.len() == dir.len() || path[dir.len()] == b'/')
}

/// The type of what a descriptor stands for.
pub fn file_type(fd: impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))
}

/// The type of what a name in a directory is, a symlink not followed; none where nothing is.
pub fn file_type_at(dir: impl AsFd, name: &OsStr) -> io::Result<Option<FileType>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn inode(fd: impl AsFd) -> u64 {
        rustix::fs::fstat(fd).unwrap().st_ino
    }

    fn inode_of(path: &Path) -> u64 {
        use std::os::unix::fs::MetadataExt;
        fs::symlink_metadata(path).unwrap().ino()
    }

    /// Outside the root lies `out/secret`; inside, every way of pointing at it.
    fn playground() -> (tempfile::TempDir, [Root; 2]) {
        let tmp = tempfile::tempdir().unwrap();
        let at = |p: &str| tmp.path().join(p);
        fs::create_dir_all(at("out")).unwrap();
        fs::write(at("out/secret"), "host").unwrap();
        fs::create_dir_all(at("root/a/b")).unwrap();
        fs::create_dir_all(at("root/out")).unwrap();
        fs::write(at("root/out/secret"), "image").unwrap();
        fs::write(at("root/a/f"), "f").unwrap();
        symlink("/out", at("root/abs")).unwrap();
        symlink("../../../../out", at("root/a/up")).unwrap();
        symlink("loop", at("root/loop")).unwrap();
        symlink("b/../f", at("root/a/rel")).unwrap();
        symlink("/proc/self/root", at("root/magic")).unwrap();
        symlink("missing/deep", at("root/dangling")).unwrap();
        let roots = [Root::open(&at("root")).unwrap(), Root::open(&at("root")).unwrap().walked_by_hand()];
        (tmp, roots)
    }

    #[test]
    fn every_path_stays_inside_by_the_kernel_and_by_hand() {
        let (tmp, roots) = playground();
        let cases = [
            ("", true, Ok("root")),
            ("/", true, Ok("root")),
            ("../..", true, Ok("root")),
            ("a/../../../out/secret", true, Ok("root/out/secret")),
            ("/out/secret", true, Ok("root/out/secret")),
            ("abs/secret", true, Ok("root/out/secret")),
            ("abs", true, Ok("root/out")),
            ("abs", false, Ok("root/abs")),
            ("a/up/secret", true, Ok("root/out/secret")),
            ("a/rel", true, Ok("root/a/f")),
            ("a/rel", false, Ok("root/a/rel")),
            ("a/f/x", true, Err(Errno::NOTDIR)),
            ("a/f/..", true, Err(Errno::NOTDIR)),
            ("loop", true, Err(Errno::LOOP)),
            ("loop", false, Ok("root/loop")),
            ("dangling", true, Err(Errno::NOENT)),
            ("magic/etc", true, Err(Errno::NOENT)),
            ("nothing", true, Err(Errno::NOENT)),
        ];
        for (path, follow, expected) in cases {
            for root in &roots {
                let found = root.locate(Path::new(path), follow).map(inode);
                match expected {
                    Ok(same) => assert_eq!(found.unwrap(), inode_of(&tmp.path().join(same)), "{path:?} {root:?}"),
                    Err(errno) => {
                        assert_eq!(found.unwrap_err().raw_os_error(), Some(errno.raw_os_error()), "{path:?} {root:?}");
                    }
                }
            }
        }
        assert_eq!(fs::read(tmp.path().join("out/secret")).unwrap(), b"host");
    }

    #[test]
    fn only_regular_files_are_opened_and_a_fifo_does_not_block() {
        let (tmp, roots) = playground();
        rustix::fs::mkfifoat(rustix::fs::CWD, tmp.path().join("root/fifo"), Mode::RWXU).unwrap();
        for root in &roots {
            assert_eq!(io::read_to_string(root.open_file(Path::new("abs/secret")).unwrap()).unwrap(), "image");
            assert!(root.open_file(Path::new("fifo")).is_err());
            assert!(root.open_file(Path::new("a")).is_err());
        }
    }

    #[test]
    fn directories_are_made_where_symlinks_point() {
        for hand in [0, 1] {
            let (tmp, roots) = playground();
            let root = &roots[hand];
            root.make_dirs(Path::new("abs/x/y")).unwrap();
            root.make_dirs(Path::new("dangling/z")).unwrap();
            root.make_dirs(Path::new("../../esc")).unwrap();
            root.make_dirs(Path::new("")).unwrap();
            for made in ["root/out/x/y", "root/missing/deep/z", "root/esc"] {
                assert!(tmp.path().join(made).is_dir(), "{made}");
            }
            assert!(!tmp.path().join("out/x").exists());
            assert!(root.make_dirs(Path::new("a/f/x")).is_err());
            assert!(root.make_dirs(Path::new("loop/x")).is_err());
        }
    }

    #[test]
    fn creates_and_removes_by_the_name_itself() {
        let (tmp, roots) = playground();
        for root in &roots {
            assert!(root.create_file(Path::new("abs"), 0o644).is_err(), "a symlink is in the place");
            assert!(root.create_file(Path::new(".."), 0o644).is_err());
            root.create_file(Path::new("abs/new"), 0o644).unwrap();
            assert!(tmp.path().join("root/out/new").exists());
            root.remove(Path::new("abs/new")).unwrap();
            root.remove(Path::new("abs/new")).unwrap();
            root.remove(Path::new("no/such")).unwrap();
            assert_eq!(root.read_dir(Path::new("abs")).unwrap(), ["secret"]);
        }
    }

    #[test]
    fn parents_follow_symlinks_and_forget_when_told() {
        let (tmp, [root, _]) = playground();
        let mut parents = Parents::new();
        let ask =
            |parents: &mut Parents, path: &str| parents.get(&root, Path::new(path)).map(|(fd, hit)| (inode(fd), hit));
        let of = |path: &str| inode_of(&tmp.path().join("root").join(path));
        assert_eq!(ask(&mut parents, "a").unwrap(), (of("a"), false));
        assert_eq!(ask(&mut parents, "a").unwrap(), (of("a"), true));
        assert_eq!(ask(&mut parents, "a/b").unwrap(), (of("a/b"), false));
        assert_eq!(ask(&mut parents, "a").unwrap(), (of("a"), true));
        assert_eq!(ask(&mut parents, "a/up").unwrap(), (of("out"), false));
        assert_eq!(ask(&mut parents, "ab").map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        assert_eq!(ask(&mut parents, "abs").unwrap(), (of("out"), false));
        fs::remove_file(tmp.path().join("root/abs")).unwrap();
        fs::create_dir(tmp.path().join("root/abs")).unwrap();
        parents.forget();
        assert_eq!(ask(&mut parents, "abs").unwrap(), (of("abs"), false));
    }
}
