//! Content checksums: what a copy would see of a tree, as one digest, whatever the mtimes say.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::select::{SelectError, at, expand, has_wildcards, shown, written};
use crate::base::patterns::{Matcher, Parents};
use crate::base::{Cancel, Digest, Hasher};
use crate::snapshot::{Node, Tree, clean, resolve};
use crate::sys::Kind;

/// Which part of a tree counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Selector {
    /// Relative or absolute; the whole tree when empty.
    pub path: String,
    /// `path` may have wildcards.
    pub wildcard: bool,
    /// Wildcards that match nothing are no error.
    pub allow_empty: bool,
    /// Follow a symlink that is the path's last name.
    pub follow: bool,
    pub include: Vec<String>,
    pub exclude: Vec<String>,
    /// Something must be selected below each of these.
    pub required: Vec<String>,
}

/// The checksum of a selection: names, types, modes, owners, link targets, xattrs and bytes; no times. A path that is
/// not there is [`SelectError::NotFound`].
pub fn checksum(tree: &dyn Tree, selectors: &[Selector], cancel: &Cancel) -> anyhow::Result<Digest> {
    let mut sum = Sum { tree, cancel, hasher: Hasher::new(), items: Vec::new(), count: 0 };
    for selector in selectors {
        select(selector, &mut sum)?;
        sum.end()?;
    }
    Ok(sum.hasher.finish())
}

/// A checksum in the making: of what is selected, only a part is held at a time.
struct Sum<'a> {
    tree: &'a dyn Tree,
    cancel: &'a Cancel,
    hasher: Hasher,
    items: Vec<Item>,
    count: u64,
}

impl Sum<'_> {
    fn add(&mut self, item: Item) -> anyhow::Result<()> {
        /// Enough for all cores, and a megabyte or two.
        const PART: usize = 4096;
        self.items.push(item);
        if self.items.len() < PART { Ok(()) } else { self.flush() }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let digests = digest_all(self.tree, &self.items, self.cancel)?;
        for (item, digest) in self.items.iter().zip(digests) {
            self.hasher.field(&item.name);
            self.hasher.field(digest.as_bytes());
        }
        self.count += self.items.len() as u64;
        self.items.clear();
        Ok(())
    }

    /// Ends what one selector took. Its count comes last: read backwards, the fields tell which is what.
    fn end(&mut self) -> anyhow::Result<()> {
        self.flush()?;
        self.hasher.field(std::mem::take(&mut self.count).to_le_bytes());
        Ok(())
    }
}

/// One selected entry.
struct Item {
    path: PathBuf,
    /// What the copy calls it: relative to what was asked for.
    name: Vec<u8>,
    node: Node,
}

fn select(selector: &Selector, sum: &mut Sum<'_>) -> anyhow::Result<()> {
    let tree = sum.tree;
    let roots = if selector.wildcard && has_wildcards(&selector.path) {
        let roots = expand(tree, &selector.path, selector.follow)?;
        if roots.is_empty() && !selector.allow_empty {
            return Err(SelectError::NotFound { path: written(&selector.path) }.into());
        }
        roots.into_iter().map(|root| (root.file_name().unwrap_or_default().as_bytes().to_vec(), root)).collect()
    } else {
        vec![(Vec::new(), clean(Path::new(&selector.path)))]
    };
    let filter = Filter {
        include: (!selector.include.is_empty()).then(|| Matcher::new(&selector.include)).transpose()?,
        exclude: (!selector.exclude.is_empty()).then(|| Matcher::new(&selector.exclude)).transpose()?,
    };
    let below = |path: &String| (path.clone(), format!("/{}", clean(Path::new(path)).display()));
    let mut required: Vec<(String, String)> = selector.required.iter().map(below).collect();
    for (name, root) in roots {
        let path = resolve(tree, &root, selector.follow).map_err(at(&root))?;
        let Some(node) = tree.lookup(&path).map_err(at(&path))? else {
            return Err(SelectError::NotFound { path: shown(&root) }.into());
        };
        // "dir/" means what is in it, not itself; a tree's own root directory is nobody's.
        let contents_only = selector.path.ends_with('/') || path.as_os_str().is_empty();
        let mut walk = Walk { filter: &filter, sum, required: &mut required, waiting: Vec::new() };
        walk.root(path, name, node, contents_only)?;
    }
    match required.into_iter().next() {
        Some((path, _)) => Err(SelectError::NotFound { path }.into()),
        None => Ok(()),
    }
}

struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

struct Walk<'a, 't> {
    filter: &'a Filter,
    sum: &'a mut Sum<'t>,
    /// Of what must be there: what was not met yet, as written and as a path.
    required: &'a mut Vec<(String, String)>,
    /// Directories that no pattern took yet: they count when something in them does.
    waiting: Vec<Item>,
}

impl Walk<'_, '_> {
    fn take(&mut self, item: Item) -> anyhow::Result<()> {
        if !self.required.is_empty() {
            let path = shown(&item.path);
            self.required.retain(|(_, below)| !path.starts_with(below.as_str()));
        }
        self.sum.add(item)
    }

    fn root(&mut self, path: PathBuf, name: Vec<u8>, node: Node, contents_only: bool) -> anyhow::Result<()> {
        let is_dir = node.is_dir();
        if !contents_only {
            self.take(Item { path: path.clone(), name: name.clone(), node })?;
        }
        if is_dir {
            self.dir(&path, &name, Path::new(""), &Parents::default(), &Parents::default())?;
        }
        Ok(())
    }

    fn dir(
        &mut self,
        dir: &Path,
        name: &[u8],
        inside: &Path,
        included: &Parents,
        excluded: &Parents,
    ) -> anyhow::Result<()> {
        self.sum.cancel.check()?;
        let tree = self.sum.tree;
        for child in tree.read_dir(dir).map_err(at(dir))? {
            let path = dir.join(&child);
            let inside = inside.join(&child);
            let text = inside.to_string_lossy();
            let (include, included) = match &self.filter.include {
                Some(matcher) => matcher.matches_below(&text, included)?,
                None => (true, Parents::default()),
            };
            let (exclude, excluded) = match &self.filter.exclude {
                Some(matcher) => matcher.matches_below(&text, excluded)?,
                None => (false, Parents::default()),
            };
            let take = include && !exclude;
            if exclude && !self.filter.exclude.as_ref().is_some_and(Matcher::has_exclusions) {
                continue;
            }
            let Some(node) = tree.lookup(&path).map_err(at(&path))? else { continue };
            let is_dir = node.is_dir();
            if !take && !is_dir {
                continue;
            }
            let mut name = name.to_vec();
            name.push(b'/');
            name.extend_from_slice(child.as_bytes());
            let waiting = self.waiting.len();
            self.waiting.push(Item { path: path.clone(), name: name.clone(), node });
            if take {
                let mut taken = std::mem::take(&mut self.waiting);
                taken.drain(..).try_for_each(|item| self.take(item))?;
                self.waiting = taken;
            }
            if is_dir {
                self.dir(&path, &name, &inside, &included, &excluded)?;
            }
            self.waiting.truncate(waiting);
        }
        Ok(())
    }
}

/// Digests of all items, on all cores: reading is waiting, hashing is work.
fn digest_all(tree: &dyn Tree, items: &[Item], cancel: &Cancel) -> anyhow::Result<Vec<Digest>> {
    /// How many items a thread takes at once.
    const HANDFUL: usize = 16;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len() / HANDFUL + 1);
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<Digest>)>> = Mutex::default();
    let work = || -> anyhow::Result<()> {
        loop {
            cancel.check()?;
            let start = next.fetch_add(HANDFUL, Ordering::Relaxed);
            let Some(handful) = items.get(start..items.len().min(start + HANDFUL)).filter(|h| !h.is_empty()) else {
                return Ok(());
            };
            let digests = handful.iter().map(|item| digest(tree, item)).collect::<Result<Vec<_>, _>>()?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((start, digests));
        }
    };
    if threads == 1 {
        work()?;
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that reads files panicked")))
            })
        })?;
    }
    let mut done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    done.sort_unstable_by_key(|(start, _)| *start);
    Ok(done.into_iter().flat_map(|(_, digests)| digests).collect())
}

fn digest(tree: &dyn Tree, item: &Item) -> Result<Digest, SelectError> {
    let Node { kind, meta, .. } = &item.node;
    let mut hasher = Hasher::new();
    let numbers = |hasher: &mut Hasher, letter: &str, numbers: &[u64]| {
        hasher.field(letter);
        numbers.iter().for_each(|number| hasher.field(number.to_le_bytes()));
    };
    match kind {
        Kind::Directory => numbers(&mut hasher, "d", &[]),
        Kind::File { size } => {
            numbers(&mut hasher, "f", &[*size]);
            if *size > 0 {
                hasher.field(tree.digest(&item.path).map_err(at(&item.path))?.as_bytes());
            }
        }
        Kind::Symlink { target } => {
            hasher.field("l");
            hasher.field(target.as_os_str().as_bytes());
        }
        Kind::Hardlink { target } => {
            hasher.field("h");
            hasher.field(target.as_os_str().as_bytes());
        }
        Kind::CharDevice { major, minor } => numbers(&mut hasher, "c", &[(*major).into(), (*minor).into()]),
        Kind::BlockDevice { major, minor } => numbers(&mut hasher, "b", &[(*major).into(), (*minor).into()]),
        Kind::Fifo => numbers(&mut hasher, "p", &[]),
        Kind::Socket => numbers(&mut hasher, "s", &[]),
    }
    numbers(&mut hasher, "m", &[meta.mode.into(), meta.uid.into(), meta.gid.into()]);
    for (name, value) in &meta.xattrs {
        hasher.field(name.as_bytes());
        hasher.field(value);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::{Sample, dir, file, link, memory};
    use crate::sys::Mtime;

    fn sum(samples: &[Sample], selector: &Selector) -> String {
        match checksum(&*memory(samples), std::slice::from_ref(selector), &Cancel::new()) {
            Ok(digest) => digest.to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn of(path: &str) -> Selector {
        Selector { path: path.into(), ..Selector::default() }
    }

    fn base() -> Vec<Sample> {
        vec![
            dir("d"),
            file("d/a", "1"),
            file("d/b.log", "2"),
            dir("d/e"),
            file("d/e/f", "3"),
            link("l", "d"),
            file("x", ""),
        ]
    }

    #[test]
    fn what_is_selected_counts_and_nothing_else() {
        let mut touched = base();
        touched[1].0.meta.mtime = Mtime { seconds: 5, nanos: 5 };
        let mut chmod = base();
        chmod[1].0.meta.mode = 0o600;
        let mut other = base();
        other[6] = file("x", "changed");
        let mut log = base();
        log[2] = file("d/b.log", "changed");
        let whole = Selector::default();
        let no_log = Selector { exclude: vec!["**/*.log".into()], ..of("d") };
        let only_f = Selector { include: vec!["**/f".into()], ..of("d") };
        for (a, b, selector, same, why) in [
            (base(), touched, &whole, true, "times do not count"),
            (base(), chmod.clone(), &whole, false, "modes do"),
            (base(), chmod, &only_f, true, "not of what no pattern takes"),
            (base(), other.clone(), &of("d"), true, "nothing beside the path counts"),
            (base(), other, &whole, false, "everything does in a whole tree"),
            (base(), log.clone(), &no_log, true, "what is excluded does not count"),
            (base(), log, &of("d"), false, "what is not does"),
        ] {
            assert_eq!(sum(&a, selector) == sum(&b, selector), same, "{why}");
        }
        let moved: Vec<Sample> = vec![dir("other"), file("other/a", "1")];
        let here: Vec<Sample> = vec![dir("d"), file("d/a", "1")];
        assert_eq!(sum(&here, &of("d/a")), sum(&moved, &of("other/a")), "where it was does not count");
        assert_eq!(sum(&here, &of("d")), sum(&moved, &of("other")));
        let wild = |path: &str| Selector { wildcard: true, ..of(path) };
        assert_ne!(sum(&here, &wild("?")), sum(&moved, &wild("oth*")), "the names that a wildcard found do");
    }

    #[test]
    fn symlinks_are_followed_only_when_asked() {
        let follow = Selector { follow: true, ..of("l") };
        assert_eq!(sum(&base(), &follow), sum(&base(), &of("d")));
        assert_ne!(sum(&base(), &of("l")), sum(&base(), &of("d")));
        assert_eq!(sum(&base(), &of("l/a")), sum(&base(), &of("d/a")), "folders always are");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let wild = Selector { wildcard: true, ..of("d/*.none") };
        assert_eq!(sum(&base(), &of("none")), "/none: not found");
        assert_eq!(sum(&base(), &wild), "/d/*.none: not found");
        assert!(sum(&base(), &Selector { allow_empty: true, ..wild }).starts_with("sha256:"));
        let required = Selector { include: vec!["a".into()], required: vec!["/d/zz".into()], ..of("d") };
        assert_eq!(sum(&base(), &required), "/d/zz: not found");
    }
}
