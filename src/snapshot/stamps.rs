//! What stat says of every file in a root file system. Whatever is done to a file, by a name of its own or another, changes
//! its inode number or its change time: two looks tell what a step did, and no file is opened for it.

use std::cmp::Ordering;
use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Mode, RawDir, Stat};

use crate::base::{Cancel, spread};
use crate::sys::{Root, dir};

/// One look.
pub(super) struct Stamps {
    root: Stamp,
    dirs: HashMap<PathBuf, Box<Listing>>,
}

/// What is in a directory, sorted bytewise.
type Listing = [(Arc<OsStr>, Stamp)];

#[derive(Debug, Clone, Copy)]
struct Stamp {
    inode: u64,
    changed: (i64, u32),
    is_dir: bool,
    /// Changed so shortly before the look that a change just after it may have left the same time.
    fresh: bool,
}

/// What happened to a path between two looks.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Something happened to a directory, or it was moved: its metadata may be another.
    Dir(PathBuf),
    /// Something is there that was not, or is not as it was; no directory.
    Leaf(PathBuf),
    /// Perhaps that; its times cannot tell.
    Perhaps(PathBuf),
    /// Nothing is there, or something of another type.
    Gone(PathBuf),
}

impl Stamps {
    /// Looks at everything in a directory; symlinks are not followed. `before` is an earlier look at it: directories
    /// that are as they were then need not be listed.
    pub fn of(path: &Path, before: Option<&Self>, cancel: &Cancel) -> io::Result<Self> {
        let look = Look { root: Root::open(path)?, before, now: SystemTime::now(), cancel };
        let root = Stamp::of(&rustix::fs::fstat(look.root.fd())?, look.now);
        let as_it_was = before.is_some_and(|before| before.root.proves(root));
        let parts = spread((PathBuf::new(), as_it_was), &|job, below, found| look.list(job, below, found))?;
        Ok(Self { root, dirs: parts.into_iter().flatten().collect() })
    }

    /// What happened until the look `after`: parents before what is in them, names in order.
    pub fn changes(&self, after: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.root.is_same(after.root) || self.root.fresh {
            changes.push(Change::Dir(PathBuf::new()));
        }
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let (before, now) = (self.in_dir(&dir), after.in_dir(&dir));
            let first = todo.len();
            for (name, before, now) in side_by_side(before, now) {
                let path = dir.join(name);
                let is_other = match (before, now) {
                    (Some(before), Some(now)) => !before.is_same(now),
                    _ => true,
                };
                if let Some(before) = before
                    && now.is_none_or(|now| now.is_dir != before.is_dir)
                {
                    changes.push(Change::Gone(path.clone()));
                }
                match now {
                    Some(now) if now.is_dir => {
                        if is_other || before.is_some_and(|before| before.fresh) {
                            changes.push(Change::Dir(path.clone()));
                        }
                        todo.push(path);
                    }
                    Some(_) if is_other => changes.push(Change::Leaf(path)),
                    Some(_) if before.is_some_and(|before| before.fresh) => changes.push(Change::Perhaps(path)),
                    _ => {}
                }
            }
            todo[first..].reverse();
        }
        changes
    }

    fn in_dir(&self, dir: &Path) -> &Listing {
        self.dirs.get(dir).map_or(&[], |listing| listing)
    }
}

struct Look<'a> {
    root: Root,
    before: Option<&'a Stamps>,
    now: SystemTime,
    cancel: &'a Cancel,
}

impl Look<'_> {
    /// Looks at one directory; with whether it is known to hold the names that it held before.
    fn list(
        &self,
        (path, as_it_was): (PathBuf, bool),
        below: &mut VecDeque<(PathBuf, bool)>,
        found: &mut Vec<(PathBuf, Box<Listing>)>,
    ) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let before = self.before.map_or(&[] as &Listing, |before| before.in_dir(&path));
        let here = if path.as_os_str().is_empty() { Path::new(".") } else { &path };
        // Nobody works in here now: what was a directory a moment ago is none that leads elsewhere.
        let dir = rustix::fs::openat(self.root.fd(), here, dir::READ, Mode::empty())?;
        let names: Vec<Arc<OsStr>> = match as_it_was {
            true => before.iter().map(|(name, _)| Arc::clone(name)).collect(),
            false => names(&dir)?,
        };
        let mut listing = Vec::with_capacity(names.len());
        let mut known = before.iter();
        for name in names {
            let stamp = Stamp::of(&rustix::fs::statat(&dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?, self.now);
            if stamp.is_dir {
                let before = known.find(|(known, _)| known.as_bytes() >= name.as_bytes());
                let as_it_was = before.is_some_and(|(known, before)| *known == name && before.proves(stamp));
                below.push_back((path.join(&*name), as_it_was));
            }
            listing.push((name, stamp));
        }
        found.push((path, listing.into()));
        Ok(())
    }
}

/// The names in an open directory, sorted bytewise.
fn names(dir: &OwnedFd) -> io::Result<Vec<Arc<OsStr>>> {
    let mut buffer = [MaybeUninit::uninit(); 16 << 10];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            names.push(Arc::from(OsStr::from_bytes(name)));
        }
    }
    names.sort_unstable_by(|a: &Arc<OsStr>, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(names)
}

/// The names of both, each once.
fn side_by_side<'a>(
    mut left: &'a Listing,
    mut right: &'a Listing,
) -> impl Iterator<Item = (&'a OsStr, Option<Stamp>, Option<Stamp>)> {
    std::iter::from_fn(move || {
        let next = |side: &mut &'a Listing| {
            let ((name, stamp), rest) = side.split_first()?;
            *side = rest;
            Some((&**name, *stamp))
        };
        let order = match (left.first(), right.first()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((l, _)), Some((r, _))) => l.as_bytes().cmp(r.as_bytes()),
        };
        let l = order.is_le().then(|| next(&mut left)).flatten();
        let r = order.is_ge().then(|| next(&mut right)).flatten();
        let name = l.or(r)?.0;
        Some((name, l.map(|(_, stamp)| stamp), r.map(|(_, stamp)| stamp)))
    })
}

impl Stamp {
    fn of(stat: &Stat, now: SystemTime) -> Self {
        /// Clocks of file systems tick every 4 to 10 ms.
        const TICK: Duration = Duration::from_millis(20);
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let changed = (stat.st_ctime, stat.st_ctime_nsec as u32);
        let since = Duration::new(u64::try_from(changed.0).unwrap_or(0), changed.1);
        let fresh = now.duration_since(UNIX_EPOCH).unwrap_or_default() < since + TICK;
        Self { inode: stat.st_ino, changed, is_dir, fresh }
    }

    /// Whether this, of a directory that had the later stamp then, says that it holds the same names.
    fn proves(self, later: Self) -> bool {
        self.is_same(later) && !self.fresh
    }

    fn is_same(self, later: Self) -> bool {
        (self.inode, self.changed, self.is_dir) == (later.inode, later.changed, later.is_dir)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn look(dir: &Path) -> Stamps {
        Stamps::of(dir, None, &Cancel::new()).unwrap()
    }

    #[test]
    fn two_looks_tell_what_happened() {
        type Act = fn(&Path);
        let dir = |path: &str| Change::Dir(path.into());
        let leaf = |path: &str| Change::Leaf(path.into());
        let gone = |path: &str| Change::Gone(path.into());
        let cases: [(Act, Vec<Change>); 10] = [
            (|_| (), vec![]),
            (|root| drop(fs::read(root.join("a/f")).unwrap()), vec![]),
            (|root| fs::write(root.join("a/f"), "0").unwrap(), vec![leaf("a/f")]),
            (|root| fs::remove_file(root.join("a/f")).unwrap(), vec![dir("a"), gone("a/f")]),
            (|root| fs::write(root.join("new"), "").unwrap(), vec![dir(""), leaf("new")]),
            (|root| fs::rename(root.join("a"), root.join("c")).unwrap(), {
                vec![dir(""), gone("a"), dir("c"), leaf("c/f"), dir("c/sub"), leaf("c/sub/g")]
            }),
            (|root| fs::hard_link(root.join("a/f"), root.join("b/f")).unwrap(), {
                vec![dir("b"), leaf("a/f"), leaf("b/f")]
            }),
            (
                |root| {
                    fs::remove_dir(root.join("b")).unwrap();
                    fs::write(root.join("b"), "").unwrap();
                },
                vec![dir(""), gone("b"), leaf("b")],
            ),
            (
                |root| {
                    fs::remove_file(root.join("z")).unwrap();
                    fs::create_dir(root.join("z")).unwrap();
                    fs::write(root.join("z/in"), "").unwrap();
                },
                vec![dir(""), gone("z"), dir("z"), leaf("z/in")],
            ),
            (
                |root| {
                    fs::remove_dir_all(root.join("a")).unwrap();
                    fs::create_dir(root.join("a")).unwrap();
                },
                vec![dir(""), dir("a"), gone("a/f"), gone("a/sub")],
            ),
        ];
        let all = || [dir(""), dir("a"), dir("b"), leaf("z"), leaf("a/f"), dir("a/sub"), leaf("a/sub/g")];
        for (number, (act, expected)) in cases.into_iter().enumerate() {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path();
            for name in ["a/sub", "b"] {
                fs::create_dir_all(root.join(name)).unwrap();
            }
            for name in ["a/f", "a/sub/g", "z"] {
                fs::write(root.join(name), name).unwrap();
            }
            let fresh = look(root);
            std::thread::sleep(Duration::from_millis(30));
            let before = look(root);
            let perhaps = |change: Change| match change {
                Change::Leaf(path) => Change::Perhaps(path),
                change => change,
            };
            assert_eq!(fresh.changes(&before), all().map(perhaps), "nothing proves that");
            act(root);
            assert_eq!(before.changes(&look(root)), expected, "case {number}");
            let again = Stamps::of(root, Some(&before), &Cancel::new()).unwrap();
            assert_eq!(before.changes(&again), expected, "case {number}, by an earlier look");
        }
    }
}
