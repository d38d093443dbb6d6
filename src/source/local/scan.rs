//! The walk over a context: which files are in it, and what stat says of them. Nothing is opened but directories.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, Stat};

use super::at;
use super::listing::{Builder, Child, Kept, Listing, Shelf};
use crate::base::patterns::{Matcher, Parents};
use crate::base::{Cancel, Digest, Hasher, spread};
use crate::sys::{Root, dir};

/// Which files are in the context.
pub struct Filter<'a> {
    pub exclude: &'a Matcher,
    pub include: &'a Matcher,
    /// None for everything.
    pub follow: Option<&'a BTreeSet<PathBuf>>,
}

/// What stat says of a file that changes when the file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    pub mode: u32,
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub rdev: u64,
}

impl Stamp {
    pub fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode,
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size as u64,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as u32),
            rdev: stat.st_rdev,
        }
    }

    /// Whether the file could change now and keep its times: clocks of file systems tick every 4 to 10 ms, some
    /// only every one or two seconds.
    pub fn is_racy(&self, now: SystemTime) -> bool {
        const TICK: i128 = 50_000_000;
        const COARSE_TICK: i128 = 2_500_000_000;
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        let changed = i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1);
        now - changed < if self.ctime.1 == 0 { COARSE_TICK } else { TICK }
    }

    /// Whether its mtime was set, and is not when it was written: a package manager's, an archive's, a fixed date. Who
    /// writes beside a file and renames it into place is done within the tolerance.
    pub fn is_dated(&self) -> bool {
        const TOLERANCE: u64 = 2;
        self.ctime.0.abs_diff(self.mtime.0) > TOLERANCE
    }

    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    pub fn hash(&self, hasher: &mut Hasher) {
        let mut bytes = [0; 60];
        let fields = [self.device, self.inode, self.size, self.mtime.0 as u64, self.ctime.0 as u64, self.rdev];
        for (slot, field) in bytes[..48].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        for (slot, field) in bytes[48..].chunks_exact_mut(4).zip([self.mode, self.mtime.1, self.ctime.1]) {
            slot.copy_from_slice(&field.to_le_bytes());
        }
        hasher.update(bytes);
    }
}

/// The files of a context, by directory.
pub struct Scan {
    dirs: HashMap<PathBuf, Kept>,
    shelf: Shelf,
    root: Stamp,
    started: SystemTime,
}

/// What was seen at a path.
pub struct Seen<'a> {
    kept: &'a Kept,
    i: usize,
    pub stamp: Stamp,
    pub linked: bool,
}

impl Seen<'_> {
    /// Whether it was asked for extended attributes, and had none.
    pub fn is_bare(&self) -> bool {
        self.kept.is_bare(self.i)
    }

    pub fn set_bare(&self) {
        self.kept.set_bare(self.i);
    }
}

impl Scan {
    /// `cache` is a directory where a large context's files may be noted; none to keep them in memory.
    pub fn of(root: &Root, filter: &Filter<'_>, cache: Option<PathBuf>, cancel: &Cancel) -> io::Result<Self> {
        let (started, shelf) = (SystemTime::now(), Shelf::new(cache));
        let found = Walk { root, filter, shelf: &shelf, cancel }.run()?;
        let root = Stamp::of(&rustix::fs::fstat(root.fd())?);
        let mut scan = Self { dirs: found.dirs.into_iter().collect(), shelf, root, started };
        scan.drop_empty(found.ways)?;
        Ok(scan)
    }

    /// What was seen at a path, if not the root's; none where the context has nothing.
    pub fn find(&self, path: &Path) -> io::Result<Option<Seen<'_>>> {
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let Some(kept) = self.dirs.get(dir) else { return Ok(None) };
        let listing = self.shelf.get(kept)?;
        let Some(i) = listing.find(name) else { return Ok(None) };
        let Child { stamp, linked, .. } = listing.child(i);
        Ok(Some(Seen { kept, i, stamp, linked }))
    }

    /// Names in a directory, sorted bytewise.
    pub fn names(&self, dir: &Path) -> io::Result<Option<Vec<OsString>>> {
        let Some(kept) = self.dirs.get(dir) else { return Ok(None) };
        Ok(Some(self.shelf.get(kept)?.iter().map(|child| child.name.to_owned()).collect()))
    }

    /// A digest over all stamps. `content` is asked for files whose stamp cannot be trusted yet.
    pub fn identity(&self, content: impl Fn(&Path) -> io::Result<Digest>) -> io::Result<Digest> {
        let mut hasher = Hasher::new();
        // Of the root only its mode shows in an image; its times change with whatever is beside the context.
        hasher.update(self.root.mode.to_le_bytes());
        let mut todo = vec![PathBuf::new()];
        while let Some(dir) = todo.pop() {
            let children = self.dirs.get(&dir).map_or(Ok(Arc::default()), |kept| self.shelf.get(kept))?;
            hasher.field(dir.as_os_str().as_bytes());
            hasher.update((children.len() as u64).to_le_bytes());
            for child in children.iter() {
                hasher.field(child.name.as_bytes());
                match FileType::from_raw_mode(child.stamp.mode) {
                    // A directory's size and times tell of what is hidden in it, too; its children tell the rest.
                    FileType::Directory => {
                        hasher.update(child.stamp.mode.to_le_bytes());
                        if !child.way {
                            hasher.update(child.stamp.mtime.0.to_le_bytes());
                            hasher.update(child.stamp.mtime.1.to_le_bytes());
                        }
                        todo.push(dir.join(child.name));
                    }
                    FileType::RegularFile if child.stamp.is_racy(self.started) => {
                        child.stamp.hash(&mut hasher);
                        hasher.update(content(&dir.join(child.name))?.as_bytes());
                    }
                    _ => child.stamp.hash(&mut hasher),
                }
            }
        }
        Ok(hasher.finish())
    }

    /// A digest over the stamps of files whose mtime says nothing of when they changed; none where there are none.
    pub fn behind_mtimes(&self) -> io::Result<Option<Digest>> {
        let (mut hasher, mut any) = (Hasher::new(), false);
        let mut dirs: Vec<_> = self.dirs.iter().collect();
        dirs.sort_unstable_by_key(|(dir, _)| *dir);
        for (dir, kept) in dirs {
            let listing = self.shelf.get(kept)?;
            for child in listing.iter().filter(|child| child.stamp.is_file() && child.stamp.is_dated()) {
                hasher.field(dir.as_os_str().as_bytes());
                hasher.field(child.name.as_bytes());
                child.stamp.hash(&mut hasher);
                any = true;
            }
        }
        Ok(any.then(|| hasher.finish()))
    }

    /// Takes out directories that were entered for patterns that nothing below them matched.
    fn drop_empty(&mut self, mut ways: Vec<PathBuf>) -> io::Result<()> {
        // Deepest first, so that a way whose only content was a way goes too.
        ways.sort_unstable_by(|a, b| b.cmp(a));
        for way in ways {
            if self.dirs.get(&way).is_none_or(Kept::is_empty) {
                self.dirs.remove(&way);
                if let (Some(parent), Some(name)) = (way.parent(), way.file_name())
                    && let Some(kept) = self.dirs.get_mut(parent)
                {
                    let listing = self.shelf.get(kept)?;
                    *kept = self.shelf.put(Listing::of(listing.iter().filter(|child| child.name != name)));
                }
            }
        }
        Ok(())
    }
}

/// A directory to list, with what the matchers know of it.
struct Job {
    dir: PathBuf,
    exclude: Parents,
    include: Parents,
    followed: bool,
}

struct Walk<'a> {
    root: &'a Root,
    filter: &'a Filter<'a>,
    shelf: &'a Shelf,
    cancel: &'a Cancel,
}

#[derive(Default)]
struct Found {
    dirs: Vec<(PathBuf, Kept)>,
    /// Directories that are there only for what is below them.
    ways: Vec<PathBuf>,
}

impl Found {
    fn append(&mut self, mut other: Self) {
        self.dirs.append(&mut other.dirs);
        self.ways.append(&mut other.ways);
    }
}

impl Walk<'_> {
    fn run(&self) -> io::Result<Found> {
        let first =
            Job { dir: PathBuf::new(), exclude: Parents::default(), include: Parents::default(), followed: false };
        let mut found = Found::default();
        let parts = spread(first, &|job, below, found| self.list(job, below, found))?;
        parts.into_iter().for_each(|part| found.append(part));
        Ok(found)
    }

    fn list(&self, job: Job, below: &mut VecDeque<Job>, found: &mut Found) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let fd = self.root.open_dir(&job.dir).map_err(|error| at(&job.dir, error))?;
        let names = dir::names(&fd).map_err(|error| at(&job.dir, error))?;
        let mut listing = Builder::new(names.len());
        for name in names {
            let path = job.dir.join(&name);
            let Some(fate) = self.fate(&path, &job)? else { continue };
            let stat = match rustix::fs::statat(&fd, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone since it was listed.
                Err(rustix::io::Errno::NOENT) => continue,
                Err(error) => return Err(at(&path, error.into())),
            };
            let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if !fate.shown && !is_dir {
                continue;
            }
            if is_dir && (fate.shown || fate.ways) {
                if !fate.shown {
                    found.ways.push(path.clone());
                }
                below.push_back(Job {
                    dir: path,
                    exclude: fate.exclude,
                    include: fate.include,
                    followed: fate.followed,
                });
            }
            if fate.shown || fate.ways {
                listing.add(Child {
                    name: &name,
                    stamp: Stamp::of(&stat),
                    way: !fate.shown,
                    linked: !is_dir && stat.st_nlink > 1,
                });
            }
        }
        found.dirs.push((job.dir, self.shelf.put(listing.finish())));
        Ok(())
    }

    /// None where nothing at or below the path can be in the context.
    fn fate(&self, path: &Path, job: &Job) -> io::Result<Option<Fate>> {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidInput, error);
        let Filter { exclude, include, follow } = self.filter;
        let text = path.to_string_lossy();
        let (mut excluded, mut exclude_state) = (false, Parents::default());
        if !exclude.is_empty() {
            (excluded, exclude_state) = exclude.matches_below(&text, &job.exclude).map_err(invalid)?;
            if excluded && !exclude.may_take_back_below(&text) {
                return Ok(None);
            }
        }
        let (mut included, mut include_state) = (include.is_empty() && follow.is_none(), Parents::default());
        if !include.is_empty() {
            (included, include_state) = include.matches_below(&text, &job.include).map_err(invalid)?;
        }
        let followed = follow.is_some_and(|follow| job.followed || follow.contains(path));
        included |= followed;
        let leads = || {
            included
                || include
                    .patterns()
                    .iter()
                    .any(|pattern| !pattern.is_exclusion() && leads_below(pattern.text(), &text))
                || follow.is_some_and(|follow| {
                    follow.range(path.to_owned()..).next().is_some_and(|next| next.starts_with(path))
                })
        };
        let ways = leads();
        let shown = included && !excluded;
        Ok((shown || ways).then_some(Fate { shown, ways, exclude: exclude_state, include: include_state, followed }))
    }
}

struct Fate {
    shown: bool,
    /// Something below may be in the context.
    ways: bool,
    exclude: Parents,
    include: Parents,
    followed: bool,
}

/// Whether a pattern could match something below a directory that it does not match itself.
fn leads_below(pattern: &str, dir: &str) -> bool {
    let mut pattern = pattern.split('/');
    for name in dir.split('/') {
        match pattern.next() {
            None => return false,
            Some(part) if part.contains("**") => return true,
            Some(part) if crate::base::patterns::glob::matches(part, name).unwrap_or(true) => {}
            Some(_) => return false,
        }
    }
    pattern.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_on_the_way_to_a_match_are_entered() {
        let cases = [
            ("a/b/c", "a", true),
            ("a/b/c", "a/b", true),
            ("a/b/c", "a/b/c", false),
            ("a/b/c", "b", false),
            ("*/c", "x", true),
            ("*/c", "x/y", false),
            ("**/c", "x/y", true),
            ("a/**", "a", true),
            ("a/**", "b", false),
            ("a*/x", "ab", true),
        ];
        for (pattern, dir, expected) in cases {
            assert_eq!(leads_below(pattern, dir), expected, "{pattern} {dir}");
        }
    }

    #[test]
    fn a_stamp_is_racy_for_as_long_as_its_clock_may_stand_still() {
        let now = UNIX_EPOCH + std::time::Duration::from_millis(10_000);
        let stamp = |ctime| Stamp { mode: 0, device: 0, inode: 0, size: 0, mtime: (0, 0), ctime, rdev: 0 };
        let cases =
            [((9, 990_000_000), true), ((9, 900_000_000), false), ((8, 0), true), ((7, 0), false), ((99, 0), true)];
        for (ctime, racy) in cases {
            assert_eq!(stamp(ctime).is_racy(now), racy, "{ctime:?}");
        }
    }
}
