//! What stat says of every file in a root file system. Whatever is done to a file, by a name of its own or another, changes
//! its inode number or its change time: two looks tell what a step did, and no file is opened for it. Where the kernel tells
//! in which directories anything happened, the second look is at these alone.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

use super::look::Look;
use crate::base::Cancel;
use crate::sys::{Limit, Watch};

/// One look.
pub(super) struct Stamps {
    pub root: Stamp,
    pub dirs: HashMap<PathBuf, Box<Listing>>,
    /// Has watched all these directories since. None where nobody can, or may be trusted to.
    pub watch: Option<Arc<Watch>>,
}

/// What is in a directory, sorted bytewise.
pub(super) type Listing = [(Arc<OsStr>, Stamp)];

#[derive(Debug, Clone, Copy)]
pub(super) struct Stamp {
    inode: u64,
    changed: (i64, u32),
    pub is_dir: bool,
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
    /// Clocks of file systems tick every 4 to 10 ms.
    pub const TICK: Duration = Duration::from_millis(20);

    /// Looks at everything in a directory; symlinks are not followed.
    pub fn of(path: &Path, cancel: &Cancel) -> io::Result<Self> {
        Look::new(path, None, fresh_watch(), cancel)?.everything()
    }

    /// Looks again, and tells what happened since: directories before what is in them.
    pub fn again(&mut self, path: &Path, cancel: &Cancel) -> io::Result<Vec<Change>> {
        let watch = self.watch.take();
        let touched = watch.as_ref().map_or(Ok(None), |watch| watch.take());
        let watch = watch.filter(|_| touched.is_ok());
        if let Ok(Some(touched)) = touched
            && let Some(changes) = self.look_in(touched, &Look::new(path, None, None, cancel)?)?
        {
            self.watch = watch;
            return Ok(changes);
        }
        let after = match watch {
            // All is watched anew.
            Some(watch) if watch.has_ended() => Look::new(path, Some(self), fresh_watch(), cancel)?.watching_all(),
            watch => Look::new(path, Some(self), watch, cancel)?,
        };
        let after = after.everything()?;
        let changes = self.changes(&after);
        *self = after;
        Ok(changes)
    }

    /// While this is held, whoever changes much in the directory is not watched for long.
    pub fn limit(&self) -> Option<Limit> {
        self.watch.as_ref().and_then(Watch::limit)
    }

    /// Trusts nobody to tell what happens from now on: the next look is at everything.
    pub fn unwatch(&mut self) {
        self.watch = None;
    }

    /// Looks at what is in these directories, and at further names of the files that changed there. None where directories
    /// are not what they were: it takes a look at everything then.
    fn look_in(&mut self, touched: BTreeSet<PathBuf>, look: &Look) -> io::Result<Option<Vec<Change>>> {
        let mut seen = BTreeMap::new();
        let mut changed = HashSet::new();
        // The stamps of these directories themselves are in those above.
        let mut todo: BTreeSet<PathBuf> = touched.iter().filter_map(|dir| dir.parent()).map(Path::to_owned).collect();
        todo.extend(touched);
        while !todo.is_empty() {
            for path in std::mem::take(&mut todo) {
                let listing = look.directory(&path)?;
                let Some(inodes) = changed_files(self.in_dir(&path), &listing) else { return Ok(None) };
                changed.extend(inodes);
                seen.insert(path, listing);
            }
            let is_changed = |(_, stamp): &(_, Stamp)| !stamp.is_dir && changed.contains(&stamp.inode);
            if !changed.is_empty() {
                let others = self.dirs.iter().filter(|(dir, _)| !seen.contains_key(*dir));
                todo.extend(others.filter(|(_, names)| names.iter().any(is_changed)).map(|(dir, _)| dir.clone()));
            }
        }
        let root = look.root()?;
        let mut changes = self.root.change(root);
        for (dir, listing) in &seen {
            compare(dir, self.in_dir(dir), listing, &mut changes);
        }
        self.root = root;
        self.dirs.extend(seen);
        Ok(Some(changes))
    }

    /// What happened until the look `after`.
    fn changes(&self, after: &Self) -> Vec<Change> {
        let mut changes = self.root.change(after.root);
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let below = compare(&dir, self.in_dir(&dir), after.in_dir(&dir), &mut changes);
            todo.extend(below.into_iter().rev());
        }
        changes
    }

    /// What was in a directory; nothing where none was.
    pub fn in_dir(&self, dir: &Path) -> &Listing {
        self.dirs.get(dir).map_or(&[], |listing| listing)
    }
}

/// A user has so many of these: without one, the next look is at everything, too.
fn fresh_watch() -> Option<Arc<Watch>> {
    Watch::new().ok().map(Arc::new)
}

/// The inode numbers of files that came, went or may have changed; none where a directory came or went.
fn changed_files(before: &Listing, now: &Listing) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    for (_, before, now) in side_by_side(before, now) {
        match (before, now) {
            (Some(before), Some(now)) if before.is_same(now) && !before.fresh => {}
            (Some(before), Some(now)) if before.is_dir && now.is_dir && before.inode == now.inode => {}
            (before, now) if [before, now].iter().flatten().any(|stamp| stamp.is_dir) => return None,
            (before, now) => inodes.extend([before, now].iter().flatten().map(|stamp| stamp.inode)),
        }
    }
    Some(inodes)
}

/// What happened in a directory; the directories that are in it now.
fn compare(dir: &Path, before: &Listing, now: &Listing, changes: &mut Vec<Change>) -> Vec<PathBuf> {
    let mut below = Vec::new();
    for (name, before, now) in side_by_side(before, now) {
        let path = || dir.join(name);
        if let Some(before) = before
            && now.is_none_or(|now| now.is_dir != before.is_dir)
        {
            changes.push(Change::Gone(path()));
        }
        let Some(now) = now else { continue };
        let is_other = before.is_none_or(|before| !before.is_same(now));
        let is_fresh = before.is_some_and(|before| before.fresh);
        match now.is_dir {
            true if is_other || is_fresh => changes.push(Change::Dir(path())),
            false if is_other => changes.push(Change::Leaf(path())),
            false if is_fresh => changes.push(Change::Perhaps(path())),
            _ => {}
        }
        below.extend(now.is_dir.then(path));
    }
    below
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
    pub fn of(stat: &Stat, now: SystemTime) -> Self {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let changed = (stat.st_ctime, stat.st_ctime_nsec as u32);
        let since = Duration::new(u64::try_from(changed.0).unwrap_or(0), changed.1);
        let fresh = now.duration_since(UNIX_EPOCH).unwrap_or_default() < since + Stamps::TICK;
        Self { inode: stat.st_ino, changed, is_dir, fresh }
    }

    /// What happened to a root directory until it had this stamp.
    fn change(self, now: Self) -> Vec<Change> {
        let is_other = !self.is_same(now) || self.fresh;
        is_other.then(|| Change::Dir(PathBuf::new())).into_iter().collect()
    }

    /// Whether this, of a directory that had the later stamp then, says that it holds the same names.
    pub fn proves(self, later: Self) -> bool {
        self.is_same(later) && !self.fresh
    }

    fn is_same(self, later: Self) -> bool {
        (self.inode, self.changed, self.is_dir) == (later.inode, later.changed, later.is_dir)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::super::testing::{Act, acts};
    use super::*;

    fn look(dir: &Path) -> Stamps {
        Stamps::of(dir, &Cancel::new()).unwrap()
    }

    fn again(looks: &mut Stamps, dir: &Path) -> Vec<Change> {
        looks.again(dir, &Cancel::new()).unwrap()
    }

    /// Directories and files, and a look at them before anybody can tell their times from those of what happens next.
    fn fresh_tree(dirs: &[&str], files: &[&str]) -> (tempfile::TempDir, Stamps) {
        loop {
            let started = std::time::Instant::now();
            let temp = tempfile::tempdir().unwrap();
            dirs.iter().for_each(|name| fs::create_dir_all(temp.path().join(name)).unwrap());
            files.iter().for_each(|name| fs::write(temp.path().join(name), name).unwrap());
            let looks = look(temp.path());
            // A busy machine may take longer.
            if started.elapsed() < Duration::from_millis(10) {
                return (temp, looks);
            }
        }
    }

    /// Times of a moment ago prove something by now.
    fn wait() {
        std::thread::sleep(Duration::from_millis(30));
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
            let (temp, mut fresh) = fresh_tree(&["a/sub", "b"], &["a/f", "a/sub/g", "z"]);
            let root = temp.path();
            fresh.unwatch();
            wait();
            let (mut watched, mut unwatched) = (look(root), look(root));
            unwatched.unwatch();
            let perhaps = |change: Change| match change {
                Change::Leaf(path) => Change::Perhaps(path),
                change => change,
            };
            assert_eq!(again(&mut fresh, root), all().map(perhaps), "nothing proves that");
            act(root);
            assert_eq!(again(&mut unwatched, root), expected, "case {number}");
            assert_eq!(sorted(again(&mut watched, root)), sorted(expected), "case {number}, watched");
            assert!([again(&mut unwatched, root), again(&mut watched, root)].iter().all(|again| is_nothing(again)));
        }
    }

    #[test]
    fn what_is_watched_need_not_be_looked_at() {
        let (temp, _) = fresh_tree(&["a/b"], &["a/b/f", "g"]);
        let root = temp.path();
        wait();
        let mut looks = look(root);
        assert!(looks.watch.is_some());
        let there = looks.dirs[Path::new("a/b")].as_ptr();
        fs::write(root.join("g"), "1").unwrap();
        assert!(again(&mut looks, root).contains(&Change::Leaf("g".into())));
        assert_eq!(looks.dirs[Path::new("a/b")].as_ptr(), there);
        fs::write(root.join("a/b/f"), "1").unwrap();
        assert!(again(&mut looks, root).contains(&Change::Leaf("a/b/f".into())));
        fs::create_dir(root.join("a/new")).unwrap();
        again(&mut looks, root);
        wait();
        fs::write(root.join("a/new/f"), "0").unwrap();
        assert_eq!(again(&mut looks, root).last(), Some(&Change::Leaf("a/new/f".into())), "is watched as well");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn watched_or_not_the_same_is_found(steps in prop::collection::vec(acts(), 1..4)) {
            let temp = tempfile::tempdir().unwrap();
            let root = temp.path();
            let first = [Act::Dir("d"), Act::Dir("d/sub"), Act::Write("d/sub/x"), Act::Write("d/y"), Act::Write("h1")];
            first.iter().chain([&Act::Link("h1", "h2")]).for_each(|act| act.carry_out(root));
            wait();
            let (mut watched, mut unwatched) = (look(root), look(root));
            unwatched.unwatch();
            for step in steps {
                step.iter().for_each(|act| act.carry_out(root));
                wait();
                let (told, found) = (again(&mut watched, root), again(&mut unwatched, root));
                prop_assert!(watched.watch.is_some());
                prop_assert_eq!(sorted(told), sorted(found));
            }
        }
    }

    /// By path; at one path, what went before what came.
    fn sorted(mut changes: Vec<Change>) -> Vec<Change> {
        changes.sort_by_key(|change| match change {
            Change::Gone(path) => (path.clone(), 0),
            Change::Dir(path) | Change::Leaf(path) | Change::Perhaps(path) => (path.clone(), 1),
        });
        changes
    }

    /// Nothing but what was too fresh to be told.
    fn is_nothing(changes: &[Change]) -> bool {
        changes.iter().all(|change| matches!(change, Change::Dir(_) | Change::Perhaps(_)))
    }
}
