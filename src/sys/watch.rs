//! What happens in directories, told by the kernel (inotify(7)) instead of by looking at all that is in them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// Directories that are watched, each under a name.
pub struct Watch {
    /// None once it has ended.
    queue: RwLock<Option<OwnedFd>>,
    names: Mutex<HashMap<i32, PathBuf>>,
}

/// Sees to it that a watch ends when it costs more than it is worth; until this is dropped.
pub struct Limit {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Watches nothing yet. Fails where a user may have no more of these, as [`Watch::add`] does.
    pub fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        Ok(Self { queue: RwLock::new(Some(queue)), names: Mutex::default() })
    }

    /// Whether nothing is watched any longer.
    pub fn has_ended(&self) -> bool {
        self.queue().is_none()
    }

    /// Ends the watch when more has happened than is worth being told: every further change would cost its maker for
    /// nothing. None where there can be no thread to see to it.
    pub fn limit(self: &Arc<Self>) -> Option<Limit> {
        /// Whoever is done sooner has not made many.
        const PAUSE: Duration = Duration::from_millis(50);
        /// Bytes of events: some two thousand.
        const MOST: u64 = 64 << 10;
        let (stop, stopped) = mpsc::channel();
        let watch = Arc::clone(self);
        let attend = move || {
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let waiting = watch.queue().as_ref().map(rustix::io::ioctl_fionread);
                if matches!(waiting, Some(Ok(bytes)) if bytes > MOST) {
                    watch.end();
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(attend).ok()?;
        Some(Limit { stop: Some(stop), thread: Some(thread) })
    }

    fn end(&self) {
        let queue = self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(queue);
        self.names().clear();
    }

    /// Watches a directory from now on; one that is watched has this name from now on.
    pub fn add(&self, dir: &Path, name: &Path) -> io::Result<()> {
        // What is written through memory is told when the file is closed.
        let changes = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
        let names = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        let how = WatchFlags::ONLYDIR | WatchFlags::DONT_FOLLOW;
        let queue = self.queue();
        let queue = queue.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        let number = inotify::add_watch(queue, dir, changes | names | how)?;
        self.names().insert(number, name.to_owned());
        Ok(())
    }

    /// The directories in which files were made, changed or removed since this was asked last; files in no other directory
    /// were, but for further names of the same files.
    ///
    /// None where that cannot be known: it has ended; too much happened for the kernel to keep; directories were made or
    /// removed; or a name came and went, which may have been a link to a file elsewhere that was changed through it. Whether
    /// directories are where they were, whoever asks must see: they are told by the names that they had.
    pub fn take(&self) -> io::Result<Option<BTreeSet<PathBuf>>> {
        let queue = self.queue();
        let Some(queue) = &*queue else { return Ok(None) };
        let mut names = self.names();
        let mut buffer = [MaybeUninit::uninit(); 64 << 10];
        let mut events = Reader::new(queue, &mut buffer);
        let mut touched = BTreeSet::new();
        let mut came: HashSet<(i32, CString)> = HashSet::new();
        let mut known = true;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return Ok(known.then_some(touched)),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            let (number, what) = (event.wd(), event.events());
            if what.contains(ReadFlags::IGNORED) {
                names.remove(&number);
                continue;
            }
            // The rest is read all the same: it is of no use to whoever asks next.
            let is_dir = what.contains(ReadFlags::ISDIR);
            let is_lost = what.intersects(ReadFlags::QUEUE_OVERFLOW | ReadFlags::UNMOUNT);
            let is_new = is_dir && what.intersects(ReadFlags::CREATE | ReadFlags::DELETE);
            known &= !is_lost && !is_new;
            if let Some(name) = event.file_name().filter(|_| known && !is_dir) {
                let comes = what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO);
                let ends = what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_TO);
                if comes || ends {
                    let name = (number, name.to_owned());
                    known &= !(ends && came.contains(&name));
                    came.extend(comes.then_some(name));
                }
            }
            if known && let Some(dir) = names.get(&number).filter(|dir| !touched.contains(*dir)) {
                touched.insert(dir.clone());
            }
        }
    }

    fn queue(&self) -> RwLockReadGuard<'_, Option<OwnedFd>> {
        self.queue.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn names(&self) -> MutexGuard<'_, HashMap<i32, PathBuf>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been told; the watch goes on.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions, Permissions};
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn write_through_memory(path: &Path) {
        let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        let (access, null) = (libc::PROT_READ | libc::PROT_WRITE, std::ptr::null_mut());
        // SAFETY: the one byte of the file is mapped, written and unmapped, and nothing else refers to it.
        #[expect(unsafe_code, reason = "the kernel's own word for it, in a test")]
        unsafe {
            let at = libc::mmap(null, 1, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
            assert_ne!(at, libc::MAP_FAILED);
            at.cast::<u8>().write_volatile(b'1');
            assert_eq!(libc::munmap(at, 1), 0);
        }
    }

    fn add_attribute(path: &Path) {
        rustix::fs::setxattr(path, "user.test", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    }

    fn set_time(path: &Path) {
        File::open(path).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    }

    fn set_mode(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    fn set_mode_of_open(path: &Path) {
        File::open(path).unwrap().set_permissions(Permissions::from_mode(0o600)).unwrap();
    }

    /// More than the kernel keeps; the same event twice in a row is one.
    fn write_often(root: &Path) {
        let most = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
        let files = ["a/f", "b/g"].map(|name| OpenOptions::new().append(true).open(root.join(name)).unwrap());
        for number in 0..=most.trim().parse().unwrap() {
            (&files[number % 2]).write_all(b"1").unwrap();
        }
    }

    #[test]
    fn who_does_much_is_not_watched_for_long() {
        let temp = tempfile::tempdir().unwrap();
        let watch = Arc::new(Watch::new().unwrap());
        watch.add(temp.path(), Path::new("")).unwrap();
        let limit = watch.limit().unwrap();
        fs::write(temp.path().join("a"), "").unwrap();
        std::thread::sleep(Duration::from_millis(120));
        assert!(!watch.has_ended(), "little has happened");
        let started = std::time::Instant::now();
        while !watch.has_ended() {
            fs::write(temp.path().join("b"), "").unwrap();
            fs::write(temp.path().join("c"), "").unwrap();
            assert!(started.elapsed() < Duration::from_secs(30));
        }
        drop(limit);
        assert_eq!(watch.take().unwrap(), None);
        assert!(watch.add(temp.path(), Path::new("")).is_err());
    }

    #[test]
    fn what_happened_in_directories_is_told() {
        type Act = fn(&Path);
        let cases: [(&str, Act, Option<&[&str]>); 20] = [
            ("nothing", |_| (), Some(&[])),
            ("reading", |root| drop(fs::read(root.join("a/f")).unwrap()), Some(&[])),
            ("writing", |root| fs::write(root.join("a/f"), "1").unwrap(), Some(&["a"])),
            ("memory", |root| write_through_memory(&root.join("a/f")), Some(&["a"])),
            ("truncating", |root| nix::unistd::truncate(&root.join("a/f"), 0).unwrap(), Some(&["a"])),
            ("a mode", |root| set_mode(&root.join("b/g")), Some(&["b"])),
            ("a mode, by a descriptor for reading", |root| set_mode_of_open(&root.join("b/g")), Some(&["b"])),
            ("a time alone", |root| set_time(&root.join("b/g")), Some(&["b"])),
            ("an attribute", |root| add_attribute(&root.join("a/f")), Some(&["a"])),
            ("a file", |root| fs::write(root.join("b/new"), "").unwrap(), Some(&["b"])),
            ("a link", |root| fs::hard_link(root.join("a/f"), root.join("b/f")).unwrap(), Some(&["b"])),
            ("a removal", |root| fs::remove_file(root.join("a/f")).unwrap(), Some(&["a"])),
            ("a move", |root| fs::rename(root.join("a/f"), root.join("b/f")).unwrap(), Some(&["a", "b"])),
            (
                "a file in another's place",
                |root| {
                    fs::write(root.join("a/new"), "1").unwrap();
                    fs::rename(root.join("a/new"), root.join("a/f")).unwrap();
                },
                Some(&["a"]),
            ),
            ("a directory", |root| fs::create_dir(root.join("new")).unwrap(), None),
            ("a directory less", |root| fs::remove_dir(root.join("empty")).unwrap(), None),
            ("a moved directory", |root| fs::rename(root.join("b"), root.join("c")).unwrap(), Some(&[""])),
            (
                "a link that is gone",
                |root| {
                    fs::hard_link(root.join("a/f"), root.join("b/f")).unwrap();
                    fs::write(root.join("b/f"), "1").unwrap();
                    fs::remove_file(root.join("b/f")).unwrap();
                },
                None,
            ),
            (
                "a link that was moved, and is gone",
                |root| {
                    fs::hard_link(root.join("a/f"), root.join("b/f")).unwrap();
                    fs::rename(root.join("b/f"), root.join("b/h")).unwrap();
                    fs::write(root.join("b/h"), "1").unwrap();
                    fs::rename(root.join("b/g"), root.join("b/h")).unwrap();
                },
                None,
            ),
            ("more than the kernel keeps", write_often, None),
        ];
        for (what, act, expected) in cases {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path();
            let watch = Watch::new().unwrap();
            for name in ["", "a", "b", "empty"] {
                fs::create_dir_all(root.join(name)).unwrap();
                watch.add(&root.join(name), Path::new(name)).unwrap();
            }
            fs::write(root.join("a/f"), "0").unwrap();
            fs::write(root.join("b/g"), "0").unwrap();
            watch.take().unwrap();
            act(root);
            let expected = expected.map(|dirs| dirs.iter().map(PathBuf::from).collect());
            assert_eq!(watch.take().unwrap(), expected, "{what}");
            assert_eq!(watch.take().unwrap(), Some(BTreeSet::new()), "{what}, taken");
        }
    }
}
