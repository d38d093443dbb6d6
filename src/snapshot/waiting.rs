//! Root directories that steps have left, whole file systems that wait for a next step. The one that has most in common
//! with what is asked for is brought to it, path by path: a build that begins in its middle, a stage beside another or a
//! copied file cost what changed, not what is there.
//!
//! One directory each: `root` with its `root.owners`, and `snapshot`, which says what it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::delta::Stack;
use super::disk::DiskDelta;
use super::error::{At, Result};
use super::plan::Plan;
use super::stack::Snapshot;
use super::stamps::{Change, Stamps};
use super::store::{Snapshots, list};
use crate::base::Cancel;
use crate::sys::Root;

/// Each is as large as what it was made of: enough for stages side by side, or for bases in turn.
const MAX: usize = 4;

/// The folder that they wait in.
pub(super) const FOLDER: &str = "roots";

const FILES: [&str; 2] = ["root", "root.owners"];

/// Moves a directory that is `base`, or was made so, to `place/root`. What it looked like when it was left, where that is
/// known; none where none is near.
pub(super) fn take(
    snapshots: &Snapshots,
    base: &Snapshot,
    place: &Path,
    cancel: &Cancel,
) -> Result<Option<Option<Stamps>>> {
    let named = folder(snapshots).join(base.identity().hex());
    if claim(&named, place)? {
        // What is there under this name was left there once, by whoever made its last delta.
        return Ok(Some(known(snapshots, base, &named)));
    }
    for candidate in candidates(snapshots, base)? {
        let Candidate { path, snapshot, common } = candidate;
        let Some(plan) = Plan::new(snapshots, &snapshot, base, common).at(&path)? else { continue };
        if !claim(&path, place)? {
            // Another process was faster.
            continue;
        }
        let root = place.join("root");
        let mut known = known(snapshots, &snapshot, &path);
        let brought = plan.carry_out(snapshots, &root, cancel).and_then(|()| match &mut known {
            Some(looks) => looks.again(&root, cancel).map(drop),
            None => Ok(()),
        });
        match brought {
            Ok(()) => return Ok(Some(known)),
            Err(error) => {
                cancel.check()?;
                // Whatever is wrong with it, a copy will do.
                tracing::debug!(path = %path.display(), %error, "a root directory is not brought to another snapshot");
                clear(place)?;
            }
        }
    }
    Ok(None)
}

/// Removes a root directory that is not what it should be.
pub(super) fn clear(place: &Path) -> Result<()> {
    let here = Root::open(place).at(place)?;
    FILES.iter().try_for_each(|name| here.remove(Path::new(name))).at(place)
}

/// What a directory looked like that this process left under the name of what it is.
fn known(snapshots: &Snapshots, snapshot: &Snapshot, path: &Path) -> Option<Stamps> {
    let identity = snapshot.identity();
    let is_named = path.file_name().is_some_and(|name| name == identity.hex().as_str());
    is_named.then(|| snapshots.0.left().remove(&identity)).flatten()
}

/// Keeps `place/root` for a step on top of this snapshot, which was made in it just now.
pub(super) fn leave(snapshots: &Snapshots, made: &Snapshot, place: &Path, looks: Stamps) -> Result<()> {
    let identity = made.identity();
    let folder = keep(snapshots, made, place, &identity.hex())?;
    let mut known = snapshots.0.left();
    known.retain(|identity, _| folder.join(identity.hex()).exists());
    known.insert(identity, looks);
    Ok(())
}

/// Keeps `place/root`, which was `base` and to which this happened, as what it was; not where that would be guessing.
pub(super) fn give_back(
    snapshots: &Snapshots,
    base: &Snapshot,
    changes: &[Change],
    place: &Path,
    cancel: &Cancel,
) -> Result<()> {
    let root = place.join("root");
    let now = Stack::new(vec![Arc::new(DiskDelta::open(&root, snapshots.0.host()?).at(&root)?)]);
    let Some(plan) = Plan::to_undo(changes, &now, snapshots.tree(base)).at(&root)? else { return Ok(()) };
    plan.carry_out(snapshots, &root, cancel).at(&root)?;
    // Not under the name of what it is: there each is the only one that ever was.
    let name = place.file_name().unwrap_or_default().to_string_lossy();
    keep(snapshots, base, place, &name).map(drop)
}

fn keep(snapshots: &Snapshots, what: &Snapshot, place: &Path, name: &str) -> Result<PathBuf> {
    let left = place.join("left");
    fs::create_dir_all(&left).at(&left)?;
    let said = left.join("snapshot");
    fs::write(&said, what.record()).at(&said)?;
    transfer(place, &left)?;
    let folder = folder(snapshots);
    fs::create_dir_all(&folder).at(&folder)?;
    make_room(snapshots, &folder)?;
    let to = folder.join(name);
    fs::rename(&left, &to).at(&to)?;
    Ok(folder)
}

fn folder(snapshots: &Snapshots) -> PathBuf {
    snapshots.0.dir.join(FOLDER)
}

/// Removes the oldest, until there is room for one more.
fn make_room(snapshots: &Snapshots, folder: &Path) -> Result<()> {
    let mut waiting = Vec::new();
    for name in list(folder)? {
        let path = folder.join(name);
        // Another process may have taken it meanwhile.
        if let Ok(meta) = fs::metadata(&path) {
            waiting.push((meta.modified().at(&path)?, path));
        }
    }
    waiting.sort();
    for (_, path) in waiting.iter().take((waiting.len() + 1).saturating_sub(MAX)) {
        let grave = snapshots.0.workplace()?;
        match fs::rename(path, grave.path().join("root")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            moved => moved.at(path)?,
        }
        grave.discard()?;
    }
    Ok(())
}

/// Whether a step can have it: only what is still there tells what it is.
pub(super) fn is_of_use(snapshots: &Snapshots, waiting: &Path) -> bool {
    snapshot_of(snapshots, waiting).is_some()
}

/// What it is; none where it was taken meanwhile, or a part of that is gone.
fn snapshot_of(snapshots: &Snapshots, waiting: &Path) -> Option<Snapshot> {
    let text = fs::read_to_string(waiting.join("snapshot")).ok()?;
    snapshots.load(&text).ok().flatten()
}

/// False when there is none, or no longer.
fn claim(waiting: &Path, place: &Path) -> Result<bool> {
    let left = place.join("left");
    match fs::rename(waiting, &left) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).at(waiting),
    }
    transfer(&left, place)?;
    fs::remove_dir_all(&left).at(&left)?;
    Ok(true)
}

/// The directory and its owner table travel together.
fn transfer(from: &Path, to: &Path) -> Result<()> {
    for name in FILES {
        match fs::rename(from.join(name), to.join(name)) {
            Err(error) if name == "root" || error.kind() != io::ErrorKind::NotFound => return Err(error).at(from),
            _ => {}
        }
    }
    Ok(())
}

struct Candidate {
    path: PathBuf,
    snapshot: Snapshot,
    /// How many deltas it has in common with what is asked for, from the bottom.
    common: usize,
}

/// What has anything in common, most first.
fn candidates(snapshots: &Snapshots, base: &Snapshot) -> Result<Vec<Candidate>> {
    let folder = folder(snapshots);
    let mut candidates = Vec::new();
    for name in list(&folder)? {
        let path = folder.join(name);
        let Some(snapshot) = snapshot_of(snapshots, &path) else { continue };
        let common = snapshot.deltas.iter().zip(base.deltas.iter()).take_while(|(ours, theirs)| ours == theirs).count();
        if common > 0 {
            candidates.push(Candidate { path, snapshot, common });
        }
    }
    candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.common), candidate.snapshot.len()));
    Ok(candidates)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::Read as _;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::super::testing::{acts, apply, dir, file, hard, link};
    use super::super::tree::Tree;
    use super::*;
    use crate::snapshot::Driver;
    use crate::store::MemoryBlobs;
    use crate::sys::RootFs;
    use crate::sys::owner::Ownership;

    struct Case {
        dir: tempfile::TempDir,
        snapshots: Snapshots,
    }

    fn case(ownership: Ownership) -> Case {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Arc::new(MemoryBlobs::new());
        let snapshots = Snapshots::open_undecided(dir.path(), blobs, Some(ownership)).unwrap();
        snapshots.decide(Driver::Native);
        Case { dir, snapshots }
    }

    fn ownership() -> Ownership {
        if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Stored }
    }

    impl Case {
        fn waiting(&self) -> usize {
            fs::read_dir(self.dir.path().join("roots")).map_or(0, Iterator::count)
        }

        /// A snapshot that a step makes.
        fn step(&self, base: &Snapshot, act: impl FnOnce(&Path)) -> Snapshot {
            let mut active = self.snapshots.prepare(base).unwrap();
            let RootFs::Directory(root) = active.rootfs(&Cancel::new()).unwrap() else { panic!("an overlay") };
            act(&root);
            active.commit(&Cancel::new()).unwrap()
        }

        /// A step that fails.
        fn fail(&self, base: &Snapshot, act: impl FnOnce(&Path)) {
            let mut active = self.snapshots.prepare(base).unwrap();
            let RootFs::Directory(root) = active.rootfs(&Cancel::new()).unwrap() else { panic!("an overlay") };
            act(&root);
        }

        /// One that file operations make.
        fn copy(&self, base: &Snapshot, samples: &[super::super::testing::Sample]) -> Snapshot {
            let mut active = self.snapshots.prepare(base).unwrap();
            apply(active.writer().unwrap(), samples).unwrap();
            active.commit(&Cancel::new()).unwrap()
        }

        /// The directory in which a step on this would work, for its inode numbers, and what it holds.
        fn root(&self, snapshot: &Snapshot) -> (u64, Vec<String>) {
            let mut inode = 0;
            let mut found = Vec::new();
            let mut active = self.snapshots.prepare(snapshot).unwrap();
            if let RootFs::Directory(root) = active.rootfs(&Cancel::new()).unwrap() {
                inode = fs::metadata(&root).unwrap().ino();
                let delta = DiskDelta::open(&root, self.snapshots.0.host().unwrap()).unwrap();
                found = everything(&Stack::new(vec![Arc::new(delta)]));
            }
            // It goes back to those that wait, with nothing done to it.
            active.commit(&Cancel::new()).unwrap();
            (inode, found)
        }
    }

    /// All that a layer would hold, with times and which names are one file's.
    fn everything(tree: &dyn Tree) -> Vec<String> {
        let (mut lines, mut first) = (Vec::new(), HashMap::new());
        let mut todo = vec![PathBuf::new()];
        while let Some(path) = todo.pop() {
            let Some(mut node) = tree.lookup(&path).unwrap() else { continue };
            let mut text = String::new();
            if node.is_dir() {
                todo.extend(tree.read_dir(&path).unwrap().into_iter().rev().map(|name| path.join(name)));
            } else if matches!(node.kind, crate::sys::Kind::File { .. }) {
                tree.open(&path).unwrap().read_to_string(&mut text).unwrap();
            }
            if path.as_os_str().is_empty() {
                // No layer says when the root was made.
                node.meta.mtime = crate::sys::Mtime::default();
            }
            let same = node.inode.map(|inode| first.entry(inode).or_insert_with(|| path.clone()).clone());
            lines.push(format!("{path:?} {:?} {:?} {text:?} {same:?}", node.kind, node.meta));
        }
        lines
    }

    fn base(case: &Case) -> Snapshot {
        case.copy(
            &Snapshot::scratch(),
            &[
                dir("d"),
                dir("d/sub"),
                file("d/sub/x", "x"),
                file("d/y", "y"),
                file("keep", "keep"),
                link("l", "keep"),
                file("h1", "linked"),
                hard("h2", "h1"),
            ],
        )
    }

    #[test]
    fn where_a_step_has_all_privileges_nothing_is_watched() {
        for (all_privileges, watched) in [(false, true), (true, false)] {
            let case = case(ownership());
            let mut active = case.snapshots.prepare(&base(&case)).unwrap();
            let RootFs::Directory(root) = active.rootfs(&Cancel::new()).unwrap() else { panic!("an overlay") };
            if all_privileges {
                active.unconfined();
            }
            fs::write(root.join("keep"), "changed").unwrap();
            let made = active.commit(&Cancel::new()).unwrap();
            let left = case.snapshots.0.left().remove(&made.identity()).unwrap();
            assert_eq!(left.watch.is_some(), watched, "what a mount of the step's own hides is told to nobody");
        }
    }

    #[test]
    fn a_root_is_brought_to_what_is_asked_for() {
        for case in [case(ownership()), case(Ownership::Stored)] {
            let base = base(&case);
            let (first, _) = case.root(&base);
            assert_eq!(case.waiting(), 1);
            let one = case.step(&base, |root| {
                fs::write(root.join("d/sub/x"), "changed").unwrap();
                fs::remove_file(root.join("d/y")).unwrap();
                fs::create_dir(root.join("new")).unwrap();
                fs::write(root.join("new/in"), "1").unwrap();
                fs::remove_file(root.join("l")).unwrap();
                symlink("elsewhere", root.join("l")).unwrap();
                fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o700)).unwrap();
            });
            let other = case.copy(&base, &[file("d/.wh..wh..opq", ""), file("d/own", "own"), file(".wh.keep", "")]);
            let both = case.copy(&one, &[file("new/more", "2"), hard("new/again", "new/more")]);
            for snapshot in [&base, &one, &other, &both, &base, &other, &one] {
                let (inode, found) = case.root(snapshot);
                assert_eq!(found, everything(&*case.snapshots.tree(snapshot)));
                assert_eq!((inode, case.waiting()), (first, 1), "one directory serves all");
            }
            let layer = case.step(&both, |_| ()).deltas[both.len()..].to_vec();
            let tree = case.snapshots.tree(&Snapshot { deltas: layer.into() });
            assert_eq!(everything(&*tree).len(), 1, "and none of that is taken for a step's work");
        }
    }

    #[test]
    fn a_step_that_fails_is_undone() {
        for case in [case(ownership()), case(Ownership::Stored)] {
            let base = base(&case);
            let (first, _) = case.root(&base);
            case.fail(&base, |root| {
                fs::rename(root.join("d"), root.join("moved")).unwrap();
                fs::create_dir(root.join("d")).unwrap();
                fs::write(root.join("d/sub"), "a file now").unwrap();
                fs::remove_file(root.join("l")).unwrap();
                fs::create_dir_all(root.join("l/deep")).unwrap();
                fs::write(root.join("l/deep/in"), "").unwrap();
                fs::write(root.join("keep"), "other").unwrap();
            });
            std::thread::sleep(std::time::Duration::from_millis(30));
            case.fail(&base, |root| fs::write(root.join("d/sub/x"), "in a directory that stays as it is").unwrap());
            let (inode, found) = case.root(&base);
            assert_eq!(found, everything(&*case.snapshots.tree(&base)));
            assert_eq!((inode, case.waiting()), (first, 1), "the same directory");
            assert_eq!(fs::read_dir(case.dir.path().join("active")).unwrap().count(), 0);
        }
    }

    #[test]
    fn who_is_told_to_stop_does_not_tidy_up() {
        let case = case(ownership());
        let (base, cancel) = (base(&case), Cancel::new());
        let mut active = case.snapshots.prepare(&base).unwrap();
        active.rootfs(&cancel).unwrap();
        cancel.cancel();
        drop(active);
        assert_eq!(case.waiting(), 0);
        assert_eq!(fs::read_dir(case.dir.path().join("active")).unwrap().count(), 0);
    }

    #[test]
    fn a_file_whose_other_names_were_left_alone_is_not_guessed_at() {
        let case = case(ownership());
        let base = base(&case);
        let broken = case.copy(&base, &[file("h1", "alone")]);
        let (first, _) = case.root(&broken);
        let (second, found) = case.root(&base);
        assert_eq!(found, everything(&*case.snapshots.tree(&base)), "h1 and h2 are one");
        assert!(first != second && case.waiting() == 2);
    }

    #[test]
    fn what_cannot_be_brought_to_it_is_left_for_a_copy() {
        let case = case(ownership());
        let base = base(&case);
        case.step(&base, |_| ());
        let waiting = fs::read_dir(case.dir.path().join("roots")).unwrap().next().unwrap().unwrap().path();
        fs::remove_dir_all(waiting.join("root")).unwrap();
        fs::write(waiting.join("root"), "no directory").unwrap();
        let (_, found) = case.root(&base);
        assert_eq!(found, everything(&*case.snapshots.tree(&base)));
        assert_eq!(case.waiting(), 1);
    }

    #[test]
    fn only_so_many_wait() {
        let case = case(ownership());
        for number in 0..MAX + 3 {
            // Nothing in common: each needs a directory of its own.
            let bottom = case.copy(&Snapshot::scratch(), &[file("f", "1")]);
            case.step(&bottom, |_| ());
            assert_eq!(case.waiting(), MAX.min(number + 1));
        }
        assert_eq!(fs::read_dir(case.dir.path().join("active")).unwrap().count(), 0);
    }

    #[test]
    fn a_prune_takes_what_nobody_keeps_or_can_use() {
        let case = case(ownership());
        let base = base(&case);
        let gone = case.copy(&base, &[file("more", "")]);
        case.root(&gone);
        let roots = || case.snapshots.usage().unwrap().into_iter().filter(|usage| usage.is_root).collect::<Vec<_>>();
        let waiting = roots();
        assert!(matches!(&waiting[..], [root] if root.bytes > 0), "one waits");
        case.snapshots.prune(&|_| true).unwrap();
        assert_eq!(roots(), waiting);
        case.snapshots.prune(&|id| *id != gone.deltas().last().unwrap()).unwrap();
        assert_eq!(roots(), [], "nobody can say what it is");
        case.root(&base);
        let kept: Vec<_> = base.deltas().collect();
        case.snapshots.prune(&|id| kept.contains(id)).unwrap();
        assert_eq!((roots(), case.waiting()), (Vec::new(), 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn whatever_steps_did_any_root_becomes_any_other(
            steps in prop::collection::vec((any::<prop::sample::Index>(), acts(), any::<bool>()), 1..8),
            looks in prop::collection::vec(any::<prop::sample::Index>(), 1..6),
        ) {
            let case = case(Ownership::Stored);
            let mut all = vec![base(&case)];
            for (on, acts, fails) in steps {
                let work = |root: &Path| acts.iter().for_each(|one| one.carry_out(root));
                match fails {
                    true => case.fail(on.get(&all), work),
                    false => all.push(case.step(on.get(&all), work)),
                }
            }
            for look in looks {
                let snapshot = look.get(&all);
                prop_assert_eq!(case.root(snapshot).1, everything(&*case.snapshots.tree(snapshot)));
            }
        }
    }
}
