//! The layers of an image, unpacked one over the other into one root directory: what nobody has unpacked yet is then
//! written once where nothing can be mounted, not once for each layer and once more for the step.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{At, Result};
use super::memory::is_of_users;
use super::stack::ImageLayer;
use super::store::Snapshots;
use super::unpack::{self, NewTable};
use super::writer::DeltaWriter;
use crate::base::Cancel;
use crate::layer::{Entry, Made, Target};
use crate::sys::Kind;

/// Lays out layers, the lowest first, in an empty directory. Each gets its table of contents on the way: it is what steps'
/// changes are told by.
pub(super) fn lay_out(
    snapshots: &Snapshots,
    layers: &[Arc<ImageLayer>],
    root: DeltaWriter,
    cancel: &Cancel,
) -> Result<DeltaWriter> {
    let mut target = Flat { root, made: Made::default(), table: None };
    for layer in layers {
        target.table = NewTable::unless_there(snapshots, layer);
        unpack::apply(snapshots, layer, &mut target, cancel)?;
        if let Some(table) = target.table.take() {
            table.save(snapshots)?;
        }
        snapshots.0.count_unpacked();
    }
    target.root.finish().at(&snapshots.0.dir)?;
    Ok(target.root)
}

/// A directory with no whiteouts in it: they are carried out.
struct Flat {
    root: DeltaWriter,
    /// By the layer that is being applied.
    made: Made,
    table: Option<NewTable>,
}

impl Flat {
    /// Removes what lower layers have in a directory.
    fn clear(&mut self, dir: &Path) -> io::Result<()> {
        let mut todo = vec![dir.to_owned()];
        while let Some(dir) = todo.pop() {
            for name in self.root.tree().read_dir(&dir)? {
                let path = dir.join(name);
                match self.made.contains(&path) {
                    false => self.root.remove(&path)?,
                    true if self.root.is_dir(&path)? => todo.push(path),
                    true => {}
                }
            }
        }
        Ok(())
    }

    fn hide(&mut self, path: &Path) -> io::Result<()> {
        let parent = self.root.resolve(path.parent().unwrap_or(Path::new("")), true)?;
        let path = parent.join(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        match self.made.contains(&path) {
            true if self.root.is_dir(&path)? => return self.clear(&path),
            true => return Ok(()),
            false => self.root.remove(&path)?,
        }
        self.enter(&parent)
    }

    fn hide_all(&mut self, dir: &Path) -> io::Result<()> {
        let dir = self.root.resolve(dir, true)?;
        self.enter(&dir)?;
        if self.root.is_dir(&dir)? { self.clear(&dir) } else { Ok(()) }
    }

    /// A layer that says something of a directory has it.
    fn enter(&mut self, dir: &Path) -> io::Result<()> {
        if self.root.is_dir(dir)? {
            self.made.add(dir);
        }
        Ok(())
    }
}

fn named(path: &Path) -> impl FnOnce(io::Error) -> anyhow::Error + '_ {
    move |error| anyhow::Error::new(error).context(format!("/{}", path.display()))
}

impl Target for Flat {
    fn start(&mut self) -> anyhow::Result<()> {
        self.made.clear();
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let path: PathBuf = self.root.land(&entry.path).map_err(named(&entry.path))?;
        let mut made = path.as_path();
        if let Kind::Hardlink { target } = &entry.kind {
            // As well as a file that it gives a further name. One that is to have the name that it has stays what it was.
            let target = self.root.resolve(target, false).map_err(named(target))?;
            match target == path {
                true => made = path.parent().unwrap_or(Path::new("")),
                false => self.made.add(&target),
            }
        }
        self.made.add(made);
        let Some(table) = &mut self.table else { return self.root.entry(entry, data) };
        match entry.kind {
            // The little that a table wants to know the content of.
            Kind::File { size } if is_of_users(&path, size) => {
                let mut content = Vec::new();
                data.take(size).read_to_end(&mut content).map_err(named(&entry.path))?;
                table.writer.entry(entry, &mut &*content)?;
                self.root.entry(entry, &mut &*content)
            }
            _ => {
                table.writer.entry(entry, &mut io::empty())?;
                self.root.entry(entry, data)
            }
        }
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        if let Some(table) = &mut self.table {
            table.writer.whiteout(path)?;
        }
        self.hide(path).map_err(named(path))
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        if let Some(table) = &mut self.table {
            table.writer.opaque(dir)?;
        }
        self.hide_all(dir).map_err(named(dir))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::delta::Stack;
    use super::super::disk::DiskDelta;
    use super::super::stack::Snapshot;
    use super::super::testing::{Sample, apply, dir, file, hard, link, listing, store_layer};
    use super::*;
    use crate::layer::Compression;
    use crate::snapshot::Driver;
    use crate::store::MemoryBlobs;
    use crate::sys::RootFs;
    use crate::sys::owner::Ownership;

    fn open(blobs: &Arc<MemoryBlobs>, stored: bool) -> (tempfile::TempDir, Snapshots) {
        let dir = tempfile::tempdir().unwrap();
        let real = !stored && rustix::process::geteuid().is_root();
        let owners = if real { Ownership::Real } else { Ownership::Stored };
        let snapshots = Snapshots::open_undecided(dir.path(), Arc::clone(blobs) as Arc<_>, Some(owners)).unwrap();
        snapshots.decide(Driver::Native);
        (dir, snapshots)
    }

    fn root(snapshots: &Snapshots, snapshot: &Snapshot) -> Vec<String> {
        let mut active = snapshots.prepare(snapshot).unwrap();
        let RootFs::Directory(root) = active.rootfs(&Cancel::new()).unwrap() else { panic!("an overlay") };
        listing(&Stack::new(vec![Arc::new(DiskDelta::open(&root, snapshots.0.host().unwrap()).unwrap())]))
    }

    fn base() -> Vec<Sample> {
        vec![
            dir("d"),
            dir("d/s"),
            file("d/s/x", "x"),
            file("d/y", "y"),
            file("etc/passwd", "app:x:7:7::/:\n"),
            link("l", "d"),
        ]
    }

    #[test]
    fn an_image_is_unpacked_once_and_read_once() {
        let blobs = Arc::default();
        let (temp, snapshots) = open(&blobs, false);
        let image = Snapshot::image(&[
            store_layer(&*blobs, &base(), Compression::Gzip),
            store_layer(&*blobs, &[file("l/.wh.y", ""), file("d/z", "z")], Compression::Gzip),
        ]);
        let found = root(&snapshots, &image);
        assert_eq!(snapshots.layers_read(), (0, 2));
        let tree = snapshots.tree(&image);
        assert!(tree.lookup(Path::new("d/z")).unwrap().is_some() && tree.lookup(Path::new("d/y")).unwrap().is_none());
        let mut users = String::new();
        tree.open(Path::new("etc/passwd")).unwrap().read_to_string(&mut users).unwrap();
        assert_eq!(
            (users.as_str(), snapshots.layers_read()),
            ("app:x:7:7::/:\n", (0, 2)),
            "tables were made on the way"
        );
        assert!(!temp.path().join("deltas").read_dir().unwrap().any(|_| true), "and that is all there is");
        assert_eq!(listing(&*snapshots.tree(&image)), found, "who wants to read it all has it unpacked");
        assert_eq!(snapshots.layers_read(), (0, 4));
    }

    fn samples() -> impl Strategy<Value = Vec<Sample>> {
        let path = || {
            prop::sample::select(vec!["a", "b", "d", "d/s", "d/s/x", "d/y", "d/z", "l", "l/y", "l/n", "a/n", "b/n/m"])
        };
        let white =
            prop::sample::select(vec![".wh.a", ".wh.d", "d/.wh.s", "d/s/.wh.x", "d/.wh.y", "l/.wh.y", "a/.wh.n"]);
        let opaque =
            prop::sample::select(vec!["d/.wh..wh..opq", "d/s/.wh..wh..opq", "a/.wh..wh..opq", "l/.wh..wh..opq"]);
        let sample = prop_oneof![
            path().prop_map(dir),
            (path(), prop::sample::select(vec!["1", "22"])).prop_map(|(path, content)| file(path, content)),
            (path(), prop::sample::select(vec!["d", "a", "/d/s"])).prop_map(|(path, target)| link(path, target)),
            (path(), path()).prop_map(|(path, target)| hard(path, target)),
            white.prop_map(|path| file(path, "")),
            opaque.prop_map(|path| file(path, "")),
        ];
        prop::collection::vec(sample, 0..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn layers_in_a_root_come_to_what_they_come_to_apart(
            layers in prop::collection::vec(samples(), 1..4),
            on_top in samples(),
            stored in any::<bool>(),
        ) {
            let blobs = Arc::default();
            let (_apart, apart) = open(&blobs, stored);
            let layers: Vec<_> = [base()].iter().chain(&layers).map(|it| store_layer(&*blobs, it, Compression::Uncompressed)).collect();
            let image = Snapshot::image(&layers);
            // Archives with links to nothing and the like are no images.
            prop_assume!(unpack::ensure(&apart, &image, &Cancel::new()).is_ok());
            let (_temp, snapshots) = open(&blobs, stored);
            prop_assert_eq!(root(&snapshots, &image), root(&apart, &image));
            let mut active = snapshots.prepare(&image).unwrap();
            prop_assume!(apply(active.writer().unwrap(), &on_top).is_ok());
            let more = active.commit(&Cancel::new()).unwrap();
            prop_assert_eq!(root(&snapshots, &more), listing(&*snapshots.tree(&more)));
        }
    }
}
