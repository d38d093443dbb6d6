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
    let mut selected = Vec::new();
    let mut ends = Vec::with_capacity(selectors.len());
    for selector in selectors {
        select(tree, selector, &mut selected, cancel)?;
        ends.push(selected.len());
    }
    let digests = digest_all(tree, &selected, cancel)?;
    let mut hasher = Hasher::new();
    let mut start = 0;
    for end in ends {
        hasher.field((end - start).to_le_bytes());
        for (item, digest) in selected[start..end].iter().zip(&digests[start..end]) {
            hasher.field(&item.name);
            hasher.field(digest.as_bytes());
        }
        start = end;
    }
    Ok(hasher.finish())
}

/// One selected entry.
struct Item {
    path: PathBuf,
    /// What the copy calls it: relative to what was asked for.
    name: Vec<u8>,
    node: Node,
}

fn select(tree: &dyn Tree, selector: &Selector, items: &mut Vec<Item>, cancel: &Cancel) -> anyhow::Result<()> {
    let first = items.len();
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
    for (name, root) in roots {
        let path = resolve(tree, &root, selector.follow).map_err(at(&root))?;
        let Some(node) = tree.lookup(&path).map_err(at(&path))? else {
            return Err(SelectError::NotFound { path: shown(&root) }.into());
        };
        // "dir/" means what is in it, not itself; a tree's own root directory is nobody's.
        let contents_only = selector.path.ends_with('/') || path.as_os_str().is_empty();
        let mut walk = Walk { tree, filter: &filter, items, waiting: Vec::new(), cancel };
        walk.root(path, name, node, contents_only)?;
    }
    for required in &selector.required {
        let below = format!("/{}", clean(Path::new(required)).display());
        if !items[first..].iter().any(|item| shown(&item.path).starts_with(&below)) {
            return Err(SelectError::NotFound { path: required.clone() }.into());
        }
    }
    Ok(())
}

struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

struct Walk<'a> {
    tree: &'a dyn Tree,
    filter: &'a Filter,
    items: &'a mut Vec<Item>,
    /// Directories that no pattern took yet: they count when something in them does.
    waiting: Vec<Item>,
    cancel: &'a Cancel,
}

impl Walk<'_> {
    fn root(&mut self, path: PathBuf, name: Vec<u8>, node: Node, contents_only: bool) -> anyhow::Result<()> {
        let is_dir = node.is_dir();
        if !contents_only {
            self.items.push(Item { path: path.clone(), name: name.clone(), node });
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
        self.cancel.check()?;
        for child in self.tree.read_dir(dir).map_err(at(dir))? {
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
            let Some(node) = self.tree.lookup(&path).map_err(at(&path))? else { continue };
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
                self.items.append(&mut self.waiting);
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
