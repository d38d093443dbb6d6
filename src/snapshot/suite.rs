//! One suite for every way a file system state can exist: in memory, as overlay deltas, as plain directories, with
//! owners on disk and in the owner store.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::testing::{Sample, apply, dir, entry, file, hard, layer_blob, link, listing, memory, memory_over, meta};
use super::*;
use crate::base::{Cancel, DiffId, Digest};
use crate::image::{Descriptor, LayerBlob};
use crate::layer::{Compression, LayerWriter};
use crate::store::{BlobStore, MemoryBlobs};
use crate::sys::owner::Ownership;
use crate::sys::{Kind, Meta, Mtime, RootFs};

struct Case {
    name: &'static str,
    snapshots: Snapshots,
    blobs: Arc<MemoryBlobs>,
    _dir: tempfile::TempDir,
}

fn open(name: &'static str, driver: Driver, ownership: Ownership) -> Case {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Arc::new(MemoryBlobs::new());
    let snapshots = Snapshots::open_undecided(dir.path(), Arc::clone(&blobs) as Arc<_>, Some(ownership)).unwrap();
    snapshots.decide(driver);
    Case { name, snapshots, blobs, _dir: dir }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn cases() -> Vec<Case> {
    let mut cases = vec![
        open("overlay, stored owners", Driver::Overlay, Ownership::Stored),
        open("native, stored owners", Driver::Native, Ownership::Stored),
    ];
    if is_root() {
        cases.push(open("overlay", Driver::Overlay, Ownership::Real));
        cases.push(open("native", Driver::Native, Ownership::Real));
    } else {
        eprintln!("skip: real owners need root");
    }
    cases
}

fn overlay() -> Case {
    open("overlay", Driver::Overlay, if is_root() { Ownership::Real } else { Ownership::Stored })
}

fn owned(mut sample: Sample, uid: u32, gid: u32) -> Sample {
    sample.0.meta.uid = uid;
    sample.0.meta.gid = gid;
    sample
}

fn with_mode(mut sample: Sample, mode: u32) -> Sample {
    sample.0.meta.mode = mode;
    sample
}

fn write(snapshots: &Snapshots, base: &Snapshot, samples: &[Sample]) -> Snapshot {
    let mut active = snapshots.prepare(base).unwrap();
    apply(active.writer().unwrap(), samples).unwrap();
    active.commit(&Cancel::new()).unwrap()
}

/// Puts a layer of these samples into the store.
fn store_layer(blobs: &dyn BlobStore, samples: &[Sample], compression: Compression) -> LayerBlob {
    let mut writer = LayerWriter::new(Vec::new(), compression, None).unwrap();
    for (entry, content) in samples {
        let path = &entry.path;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match name.strip_prefix(".wh.") {
            Some(".wh..opq") => writer.opaque(path.parent().unwrap()).unwrap(),
            Some(name) => writer.whiteout(&path.with_file_name(name)).unwrap(),
            None => writer.append(entry, &mut content.as_bytes()).unwrap(),
        }
    }
    let written = writer.finish().unwrap();
    let mut blob = blobs.create().unwrap();
    blob.write_all(&written.out).unwrap();
    let (digest, size) = blob.complete().unwrap();
    let descriptor = Descriptor::new("application/vnd.oci.image.layer.v1.tar", digest, size);
    LayerBlob { descriptor, diff_id: written.diff_id.unwrap_or(DiffId(digest)) }
}

/// Layers over each other, and what they must come to.
fn stories() -> Vec<(&'static str, Vec<Vec<Sample>>)> {
    let base = || {
        vec![
            dir("usr"),
            dir("usr/bin"),
            dir("usr/lib"),
            link("bin", "usr/bin"),
            link("lib", "/usr/lib"),
            dir("etc"),
            owned(with_mode(file("etc/shadow", "secret"), 0o640), 0, 42),
            file("etc/a", "a"),
            dir("d"),
            dir("d/sub"),
            file("d/sub/x", "x"),
            file("d/y", "y"),
        ]
    };
    let mut stories = vec![
        ("one layer", vec![base()]),
        ("a file replaces a file", vec![base(), vec![file("etc/a", "new")]]),
        ("a file replaces a directory", vec![base(), vec![file("d", "file now")]]),
        ("a directory replaces a file", vec![base(), vec![dir("etc/a"), file("etc/a/in", "1")]]),
        ("a directory replaces a directory's file and comes back", vec![base(), vec![file("d", "f")], vec![dir("d")]]),
        ("a symlink replaces a directory", vec![base(), vec![link("d", "etc")]]),
        ("whiteouts hide files and folders", vec![base(), vec![file("etc/.wh.a", ""), file(".wh.d", "")]]),
        ("what was hidden can come back empty", vec![base(), vec![file(".wh.d", "")], vec![dir("d")]]),
        ("a whiteout and a new folder of the name", vec![base(), vec![file(".wh.d", ""), dir("d"), file("d/new", "")]]),
        ("the new folder first, then its whiteout", vec![base(), vec![dir("d"), file("d/new", ""), file(".wh.d", "")]]),
        ("an opaque folder", vec![base(), vec![dir("d"), file("d/new", "n"), file("d/.wh..wh..opq", "")]]),
        ("an opaque mark before its siblings", vec![base(), vec![file("d/.wh..wh..opq", ""), file("d/sub/new", "n")]]),
        ("parents that only lower layers have", vec![base(), vec![file("usr/lib/libx", "elf")]]),
        ("parents that nobody has", vec![base(), vec![file("opt/a/b", "1")]]),
        ("symlinked parents lead to their targets", vec![base(), vec![file("bin/sh", "sh"), file("lib/l", "l")]]),
        ("a hard link inside a layer", vec![base(), vec![file("h1", "same"), hard("d/h2", "h1")]]),
        ("a hard link to a lower file", vec![base(), vec![hard("etc/b", "etc/a")]]),
        ("a hard link through symlinked folders", vec![base(), vec![file("bin/x", "x"), hard("bin/y", "bin/x")]]),
        (
            "owners, setuid and sticky",
            vec![vec![
                owned(with_mode(file("su", "suid"), 0o4755), 0, 5),
                with_mode(dir("tmp"), 0o1777),
                owned(dir("home"), 1000, 1000),
                owned(link("home/l", "x"), 1000, 1000),
            ]],
        ),
        (
            "special files",
            vec![vec![
                (entry("null", Kind::CharDevice { major: 1, minor: 3 }, 0o666), ""),
                (entry("fifo", Kind::Fifo, 0o600), ""),
            ]],
        ),
        ("a lower folder's metadata changes", vec![base(), vec![with_mode(dir("d"), 0o700)]]),
        ("the root has metadata too", vec![base(), vec![with_mode(dir(""), 0o711), file("z", "")]]),
        ("a file of a name twice", vec![vec![file("f", "1"), file("f", "22")]]),
        (
            "a removed lower folder's child comes back",
            vec![base(), vec![file(".wh.d", "")], vec![file("d/sub/k", "k")]],
        ),
    ];
    if is_root() {
        stories.push((
            "an unreadable folder is written all the same",
            vec![vec![with_mode(dir("p"), 0), file("p/f", "1")]],
        ));
    } else {
        eprintln!("skip: an unreadable folder needs root, or the capability to read it all the same");
    }
    stories
}

#[test]
fn deltas_on_disk_mean_what_they_mean_in_memory() {
    for (story, layers) in stories() {
        let expected = layers.iter().fold(memory(&[]), |below, layer| memory_over(below, layer));
        let expected = listing(&*expected);
        for case in cases() {
            let mut snapshot = Snapshot::scratch();
            for layer in &layers {
                snapshot = write(&case.snapshots, &snapshot, layer);
            }
            assert_eq!(listing(&*case.snapshots.tree(&snapshot)), expected, "{}: {story}", case.name);
            let again = case.snapshots.load(&case.snapshots.save(&snapshot)).unwrap().unwrap();
            assert_eq!(again, snapshot);
            assert_eq!(snapshot.len(), layers.len());
        }
    }
}

#[test]
fn a_layer_made_of_a_delta_unpacks_to_the_same() {
    for (i, (story, layers)) in stories().into_iter().enumerate() {
        for case in cases() {
            let mut snapshot = Snapshot::scratch();
            for layer in &layers {
                snapshot = write(&case.snapshots, &snapshot, layer);
            }
            // How it is compressed has nothing to do with the story.
            let compression = [Compression::Uncompressed, Compression::Gzip, Compression::Zstd][i % 3];
            let expected = listing(&*case.snapshots.tree(&snapshot));
            let expected = without_root(expected);
            let spec = LayerSpec { compression, ..LayerSpec::default() };
            let make = || -> Vec<_> {
                (0..snapshot.len())
                    .map(|i| case.snapshots.layer_blob(&snapshot, i, &spec, &Cancel::new()).unwrap())
                    .collect()
            };
            let blobs = make();
            assert_eq!(blobs, make(), "the second time it is found");
            let image = Snapshot::image(&blobs);
            // Read through first, then unpacked: the same both times.
            let indexed = without_root(names(&*case.snapshots.tree(&image)));
            let _view = case.snapshots.view(&image, &Cancel::new()).unwrap();
            let unpacked = case.snapshots.tree(&image);
            assert_eq!(without_root(names(&*unpacked)), indexed, "{}: {story}", case.name);
            assert_eq!(without_root(listing(&*unpacked)), expected, "{}: {story}", case.name);
        }
    }
}

/// The root directory itself is in no layer that we make, as in BuildKit's.
fn without_root(mut lines: Vec<String>) -> Vec<String> {
    lines.remove(0);
    lines
}

/// As `listing`, without reading content.
fn names(tree: &dyn Tree) -> Vec<String> {
    fn walk(tree: &dyn Tree, path: &Path, lines: &mut Vec<String>) {
        let node = tree.lookup(path).unwrap().unwrap();
        lines.push(format!("{} {:?} {:?}", path.display(), node.kind, (node.meta.mode, node.meta.uid, node.meta.gid)));
        if node.is_dir() {
            tree.read_dir(path).unwrap().into_iter().for_each(|name| walk(tree, &path.join(name), lines));
        }
    }
    let mut lines = Vec::new();
    walk(tree, Path::new(""), &mut lines);
    lines
}

#[test]
fn copying_onto_a_base_unpacks_nothing() {
    let case = overlay();
    let base = [
        store_layer(&*case.blobs, &[dir("usr"), dir("etc"), file("etc/passwd", "app:x:7:8::/:\n")], Compression::Gzip),
        store_layer(&*case.blobs, &[dir("usr"), dir("usr/lib"), file("usr/lib/big", "big")], Compression::Zstd),
    ];
    let image = Snapshot::image(&base);
    assert_eq!(case.snapshots.layers_read(), (0, 0), "naming an image reads nothing");

    let made = write(&case.snapshots, &image, &[file("usr/lib/mine", "1")]);
    assert_eq!(case.snapshots.layers_read(), (2, 0), "both were read through, none was unpacked");
    let passwd = read_small(&*case.snapshots.tree(&made), Path::new("etc/passwd"), 1000).unwrap().unwrap();
    assert_eq!(passwd, b"app:x:7:8::/:\n");
    let names = case.snapshots.tree(&made).read_dir(Path::new("usr/lib")).unwrap();
    assert_eq!(names, ["big", "mine"]);
    let blob = case.snapshots.layer_blob(&made, 2, &LayerSpec::default(), &Cancel::new()).unwrap();
    assert!(blob.descriptor.size > 0);
    assert_eq!(case.snapshots.layers_read(), (2, 0), "looking, and making the layer, unpacked nothing");

    let other = Snapshots::open(case._dir.path(), Arc::clone(&case.blobs) as Arc<_>, Driver::Overlay).unwrap();
    let again = other.load(&case.snapshots.save(&made)).unwrap().unwrap();
    assert!(other.tree(&again).lookup(Path::new("usr/lib/big")).unwrap().is_some());
    assert_eq!(other.layers_read(), (0, 0), "another process finds the tables");

    let mut text = String::new();
    let mut data = other.tree(&again).open(Path::new("usr/lib/big")).unwrap();
    std::io::Read::read_to_string(&mut data, &mut text).unwrap();
    assert_eq!((text.as_str(), other.layers_read()), ("big", (0, 1)), "content unpacks its own layer only");
}

#[test]
fn layers_that_need_those_below_unpack_side_by_side() {
    let case = overlay();
    let layers: Vec<LayerBlob> = (0..12)
        .map(|i| {
            let (first, second) = (format!("f{i}"), format!("deep/dir/{i}"));
            let mut samples = vec![file(&first, "1"), file(&second, "2")];
            if i > 0 {
                samples.push(hard(&format!("again{i}"), &format!("f{}", i - 1)));
            }
            store_layer(&*case.blobs, &samples, Compression::Uncompressed)
        })
        .collect();
    let image = Snapshot::image(&layers);
    let _view = case.snapshots.view(&image, &Cancel::new()).unwrap();
    assert_eq!(case.snapshots.layers_read(), (0, 12), "none was read twice");
    let tree = case.snapshots.tree(&image);
    assert_eq!(tree.read_dir(Path::new("deep/dir")).unwrap().len(), 12);
    assert!(tree.lookup(Path::new("again11")).unwrap().is_some());
}

#[test]
fn a_broken_layer_is_named_and_leaves_nothing() {
    let case = overlay();
    let good = store_layer(&*case.blobs, &[dir("a")], Compression::Uncompressed);
    let mut bad = store_layer(&*case.blobs, &[dir("b")], Compression::Gzip);
    bad.diff_id = DiffId(Digest::of("other"));
    let top = store_layer(&*case.blobs, &[file("x/y", "needs what is below")], Compression::Uncompressed);
    let image = Snapshot::image(&[good, bad.clone(), top]);
    let error = case.snapshots.view(&image, &Cancel::new()).err().unwrap().to_string();
    assert!(error.starts_with(&format!("layer {} cannot be unpacked: ", bad.descriptor.digest)), "{error}");
    let deltas: Vec<_> = fs::read_dir(case._dir.path().join("deltas")).unwrap().collect();
    assert!(deltas.len() <= 1, "at most the good one");
    assert_eq!(fs::read_dir(case._dir.path().join("active")).unwrap().count(), 0);
}

/// What a step would do, in a directory that looks like the step's root.
fn step(rootfs: &RootFs, work: impl FnOnce(&Path)) {
    match rootfs {
        RootFs::Directory(root) => work(root),
        RootFs::Overlay { lower, upper, work: workdir } => {
            let target = tempfile::tempdir().unwrap();
            let lower: Vec<_> = lower.iter().map(|path| path.display().to_string()).collect();
            let options = format!(
                "lowerdir={},upperdir={},workdir={},userxattr",
                lower.join(":"),
                upper.display(),
                workdir.display()
            );
            nix::mount::mount(
                Some("overlay"),
                target.path(),
                Some("overlay"),
                nix::mount::MsFlags::empty(),
                Some(options.as_str()),
            )
            .unwrap();
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(target.path())));
            nix::mount::umount(target.path()).unwrap();
            result.unwrap();
        }
    }
}

#[test]
fn what_a_step_does_is_what_its_delta_says() {
    if !is_root() {
        eprintln!("skip: needs root to mount overlay");
        return;
    }
    let mut listings = Vec::new();
    let mut layers = Vec::new();
    for case in [open("overlay", Driver::Overlay, Ownership::Real), open("native", Driver::Native, Ownership::Real)] {
        let samples = [
            dir("d"),
            dir("d/sub"),
            file("d/sub/x", "x"),
            file("d/y", "y"),
            file("keep", "keep"),
            dir("gone"),
            file("gone/f", "1"),
            dir("again"),
            file("again/old", "1"),
            file("was-file", "1"),
            dir("was-dir"),
            file("was-dir/f", "1"),
            file("h1", "linked"),
        ];
        let base = Snapshot::image(&[store_layer(&*case.blobs, &samples, Compression::Uncompressed)]);
        let cancel = Cancel::new();
        let mut active = case.snapshots.prepare(&base).unwrap();
        let rootfs = active.rootfs(&cancel).unwrap();
        step(&rootfs, |root| {
            assert_eq!(fs::read_to_string(root.join("d/sub/x")).unwrap(), "x");
            fs::write(root.join("d/sub/x"), "changed").unwrap();
            fs::write(root.join("new"), "new").unwrap();
            fs::remove_dir_all(root.join("gone")).unwrap();
            fs::remove_dir_all(root.join("again")).unwrap();
            fs::create_dir(root.join("again")).unwrap();
            fs::write(root.join("again/new"), "2").unwrap();
            fs::remove_file(root.join("was-file")).unwrap();
            fs::create_dir(root.join("was-file")).unwrap();
            fs::remove_dir_all(root.join("was-dir")).unwrap();
            symlink("keep", root.join("was-dir")).unwrap();
            fs::hard_link(root.join("h1"), root.join("h2")).unwrap();
            fs::set_permissions(root.join("d/y"), fs::Permissions::from_mode(0o4711)).unwrap();
            std::os::unix::fs::chown(root.join("d"), Some(3), Some(4)).unwrap();
            // Touched and put back: no change at all.
            fs::set_permissions(root.join("keep"), fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(root.join("keep"), fs::Permissions::from_mode(0o644)).unwrap();
        });
        let one = active.commit(&cancel).unwrap();

        let mut active = case.snapshots.prepare(&one).unwrap();
        let rootfs = active.rootfs(&cancel).unwrap();
        step(&rootfs, |root| {
            assert_eq!(fs::metadata(root.join("d")).unwrap().uid(), 3);
            assert!(!root.join("gone").exists());
            fs::create_dir(root.join("gone")).unwrap();
            fs::remove_file(root.join("new")).unwrap();
        });
        let two = active.commit(&cancel).unwrap();
        listings.push((listing(&*case.snapshots.tree(&one)), listing(&*case.snapshots.tree(&two))));
        layers.push(layer_names(&case, &one));

        if case.snapshots.0.driver() == Driver::Native {
            let roots = fs::read_dir(case._dir.path().join("roots")).unwrap().count();
            assert_eq!(roots, 1, "the first step's directory went on to the second");
        }
    }
    assert_eq!(listings[0], listings[1], "overlay and native agree");
    assert_eq!(layers[0], layers[1], "and make the same layer");
    assert_eq!(
        layers[0],
        [
            "again",
            "again/new",
            "again/.wh.old",
            "d",
            "d/sub",
            "d/sub/x",
            "d/y",
            ".wh.gone",
            "h2",
            "h1",
            "new",
            "was-dir",
            "was-file",
        ]
    );
}

fn layer_names(case: &Case, snapshot: &Snapshot) -> Vec<String> {
    let last = snapshot.len() - 1;
    let blob = case.snapshots.layer_blob(snapshot, last, &LayerSpec::default(), &Cancel::new()).unwrap();
    let mut stored = case.blobs.open(&blob.descriptor.digest).unwrap();
    let mut names = Vec::new();
    crate::layer::tar::read(&mut stored, &mut |entry, _| {
        names.push(entry.path.display().to_string());
        Ok(())
    })
    .unwrap();
    names
}

#[test]
fn a_snapshot_stands_on_another_by_concatenation() {
    let case = overlay();
    let a = write(&case.snapshots, &Snapshot::scratch(), &[dir("d"), file("d/a", "a"), file("same", "a")]);
    let b = write(&case.snapshots, &Snapshot::scratch(), &[dir("d"), file("d/b", "b"), file("same", "b")]);
    let both = Snapshot::merge([&a, &b]);
    let tree = case.snapshots.tree(&both);
    assert_eq!(tree.read_dir(Path::new("d")).unwrap(), ["a", "b"]);
    assert_eq!(read_small(&*tree, Path::new("same"), 9).unwrap().unwrap(), b"b");
    let cancel = Cancel::new();
    assert_eq!(case.snapshots.diff(&a, &both, &cancel).unwrap(), b, "a difference that is written down already");

    let c = write(&case.snapshots, &Snapshot::scratch(), &[dir("d"), file("d/a", "a"), file("new", "n")]);
    let diff = case.snapshots.diff(&both, &c, &cancel).unwrap();
    assert_eq!(diff.len(), 1);
    let after = listing(&*case.snapshots.tree(&Snapshot::merge([&both, &diff])));
    assert_eq!(after, listing(&*case.snapshots.tree(&c)), "what was not shared was compared");
}

#[test]
fn a_delta_of_a_tall_stack_is_opened_for_what_it_has() {
    let case = overlay();
    let layers: [&[Sample]; 5] = [
        &[dir("etc"), file("etc/passwd", "root"), dir("d"), file("d/x", "1")],
        &[file("etc/group", "wheel")],
        &[file("srv", "silent")],
        &[file(".wh.d", "")],
        &[with_mode(dir(""), 0o711)],
    ];
    let snapshot = layers.iter().fold(Snapshot::scratch(), |below, layer| write(&case.snapshots, &below, layer));
    let look = |path: &str| case.snapshots.tree(&snapshot).lookup(Path::new(path)).map(|node| node.is_some());
    for (path, there) in [("etc/passwd", true), ("etc/shadow", false), ("d/x", false), ("d", false), ("srv/x", false)] {
        assert_eq!(look(path).unwrap(), there, "{path}");
    }
    let id = snapshot.deltas().nth(2).unwrap();
    fs::rename(case._dir.path().join("deltas").join(&id.0).join("fs"), case._dir.path().join("away")).unwrap();
    for (path, there) in [("etc/passwd", true), ("etc/shadow", false), ("d/x", false), ("", true)] {
        assert_eq!(look(path).unwrap(), there, "{path}");
    }
    assert!(look("srv").is_err(), "the one that has it was opened, and is not there any more");
}

#[test]
fn an_adopted_snapshot_is_found_as_an_image() {
    let case = overlay();
    let cancel = Cancel::new();
    let one = write(&case.snapshots, &Snapshot::scratch(), &[file("a", "1")]);
    let two = write(&case.snapshots, &one, &[file("b", "2")]);
    let blobs: Vec<_> =
        (0..2).map(|i| case.snapshots.layer_blob(&two, i, &LayerSpec::default(), &cancel).unwrap()).collect();
    case.snapshots.adopt(&two, &blobs).unwrap();
    let image = Snapshot::image(&blobs);
    let _view = case.snapshots.view(&image, &cancel).unwrap();
    assert_eq!(case.snapshots.layers_read(), (0, 0), "nothing had to be unpacked");
    assert_eq!(listing(&*case.snapshots.tree(&image)), listing(&*case.snapshots.tree(&two)));
}

#[test]
fn times_are_whole_seconds_and_clamped_only_when_asked() {
    let case = overlay();
    let mut late = file("late", "1");
    late.0.meta.mtime = Mtime { seconds: 2_000_000_000, nanos: 5 };
    let snapshot = write(&case.snapshots, &Snapshot::scratch(), &[file("early", "1"), late]);
    let times = |clamp_mtime| {
        let spec = LayerSpec { clamp_mtime, ..LayerSpec::default() };
        let blob = case.snapshots.layer_blob(&snapshot, 0, &spec, &Cancel::new()).unwrap();
        let mut times = Vec::new();
        let mut stored = case.blobs.open(&blob.descriptor.digest).unwrap();
        crate::layer::tar::read(&mut stored, &mut |entry, _| {
            times.push(entry.meta.mtime);
            Ok(())
        })
        .unwrap();
        times
    };
    let time = |seconds| Mtime { seconds, nanos: 0 };
    assert_eq!(times(None), [time(1_000_000_000), time(2_000_000_000)]);
    assert_eq!(times(Some(1_500_000_000)), [time(1_000_000_000), time(1_500_000_000)]);
}

/// As BuildKit's are with `rewrite-timestamp`: its file system dated them when the step came by.
#[test]
fn a_pinned_date_dates_folders_whose_names_changed() {
    let case = overlay();
    let base = [dir("gains"), dir("gains/in"), dir("keeps"), file("keeps/f", "1"), dir("loses"), file("loses/f", "1")];
    let base = write(&case.snapshots, &Snapshot::scratch(), &base);
    let changes = [file("gains/in/new", "1"), file("keeps/f", "other"), file("loses/.wh.f", "")];
    let snapshot = write(&case.snapshots, &base, &changes);
    let times = |clamp_mtime| {
        let spec = LayerSpec { clamp_mtime, ..LayerSpec::default() };
        let blob = case.snapshots.layer_blob(&snapshot, 1, &spec, &Cancel::new()).unwrap();
        let mut times = Vec::new();
        let mut stored = case.blobs.open(&blob.descriptor.digest).unwrap();
        crate::layer::tar::read(&mut stored, &mut |entry, _| {
            if entry.kind == Kind::Directory {
                times.push((entry.path.display().to_string(), entry.meta.mtime.seconds));
            }
            Ok(())
        })
        .unwrap();
        times
    };
    let expected = |gained, lost| {
        let time = 1_000_000_000;
        [("gains", time), ("gains/in", gained), ("keeps", time), ("loses", lost)].map(|(p, t)| (p.to_owned(), t))
    };
    assert_eq!(times(None), expected(1_000_000_000, 1_000_000_000));
    assert_eq!(times(Some(1_500_000_000)), expected(1_500_000_000, 1_500_000_000));
}

#[test]
fn a_layer_from_elsewhere_is_dated_and_stays_what_it_is() {
    let case = overlay();
    let mut late = file("d/late", "1");
    late.0.meta.mtime = Mtime { seconds: 2_000_000_000, nanos: 5 };
    let samples = |late| [dir("d"), late, hard("d/same", "d/late"), file("d/.wh.gone", ""), link("s", "d")];
    let there = store_layer(&*case.blobs, &samples(late.clone()), Compression::Gzip);
    let spec = LayerSpec { clamp_mtime: Some(1_500_000_000), ..LayerSpec::default() };
    let redated = case.snapshots.redated(&there, &spec, &Cancel::new()).unwrap();
    late.0.meta.mtime = Mtime { seconds: 1_500_000_000, nanos: 0 };
    assert_eq!(redated, store_layer(&*case.blobs, &samples(late), Compression::Uncompressed));
    assert_eq!(case.snapshots.redated(&there, &LayerSpec::default(), &Cancel::new()).unwrap(), there);
    let wrong = LayerBlob { diff_id: redated.diff_id, ..there };
    let error = case.snapshots.redated(&wrong, &spec, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::Layer { .. }), "{error}");
}

#[test]
fn a_process_that_died_leaves_nothing_finished() {
    let case = overlay();
    let active = case._dir.path().join("active");
    // What a kill -9 leaves: a folder that nobody holds.
    fs::create_dir_all(active.join("dead/fs")).unwrap();
    fs::write(active.join("dead/fs/half"), "").unwrap();
    let alive = case.snapshots.prepare(&Snapshot::scratch()).unwrap();
    for _ in 0..500 {
        if !active.join("dead").exists() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(!active.join("dead").exists(), "swept");
    assert_eq!(fs::read_dir(&active).unwrap().count(), 1, "work that is alive stays");
    drop(alive);
    assert_eq!(fs::read_dir(&active).unwrap().count(), 0, "what is dropped goes");
}

#[test]
fn a_prune_keeps_what_it_is_told_and_waits_for_nobody() {
    let case = overlay();
    let kept = write(&case.snapshots, &Snapshot::scratch(), &[file("a", "1")]);
    let gone = write(&case.snapshots, &kept, &[file("b", "2")]);
    let text = case.snapshots.save(&gone);
    let keep: Vec<DeltaId> = kept.deltas().collect();
    let other = Snapshots::open(case._dir.path(), Arc::clone(&case.blobs) as Arc<_>, Driver::Overlay).unwrap();
    let busy = case.snapshots.prune(&|id| keep.contains(id));
    assert!(matches!(busy, Err(Error::Busy { .. })), "another process may be using any of them");
    drop(other);
    assert_eq!(case.snapshots.usage().unwrap().len(), 2);
    let pruned = case.snapshots.prune(&|id| keep.contains(id)).unwrap();
    assert_eq!(pruned.deltas, 1);
    assert!(pruned.bytes > 0);
    assert!(case.snapshots.load(&text).unwrap().is_none(), "a record does not outlive its delta");
    assert!(case.snapshots.load(&case.snapshots.save(&kept)).unwrap().is_some());
    assert_eq!(fs::read_dir(case._dir.path().join("active")).unwrap().count(), 0);
}

#[test]
fn a_record_of_an_image_needs_its_blobs() {
    let case = overlay();
    let text = case.snapshots.save(&Snapshot::image(&[layer_blob("not here")]));
    assert!(case.snapshots.load(&text).unwrap().is_none());
}

#[test]
fn file_operations_do_what_they_say() {
    for case in cases() {
        let base = write(
            &case.snapshots,
            &Snapshot::scratch(),
            &[dir("d"), file("d/a", "a"), file("d/b", "b"), link("l", "d"), file("f", "f")],
        );
        let mut active = case.snapshots.prepare(&base).unwrap();
        let writer = active.writer().unwrap();
        writer.remove(Path::new("d/a")).unwrap();
        writer.remove(Path::new("none")).unwrap();
        writer.remove(Path::new("none/below")).unwrap();
        writer.set_meta(Path::new("d/b"), &Meta { uid: 9, ..meta(0o600) }).unwrap();
        writer.set_meta(Path::new("l"), &Meta { uid: 9, ..meta(0o777) }).unwrap();
        writer.link(Path::new("f"), Path::new("d/g")).unwrap();
        for i in 0..200 {
            let open = || Ok(FileData::Stream(Box::new(&b"later"[..])));
            writer.file_later(&PathBuf::from(format!("d/later{i}")), meta(0o644), 5, open).unwrap();
        }
        writer.flush().unwrap();
        writer.remove(Path::new("d/later7")).unwrap();
        assert!(writer.make(Path::new("f/below"), &Kind::Directory, &meta(0o755)).is_err(), "a file is no folder");
        assert_eq!(writer.resolve(Path::new("l/b"), true).unwrap(), Path::new("d/b"));
        let made = active.commit(&Cancel::new()).unwrap();
        let tree = case.snapshots.tree(&made);
        assert_eq!(tree.read_dir(Path::new("d")).unwrap().len(), 2 + 199, "{}", case.name);
        let node = tree.lookup(Path::new("d/b")).unwrap().unwrap();
        assert_eq!((node.meta.uid, node.meta.mode), (9, 0o600), "{}", case.name);
        assert_eq!(tree.lookup(Path::new("l")).unwrap().unwrap().meta.uid, 9, "{}", case.name);
        let (f, g) = (tree.lookup(Path::new("f")).unwrap().unwrap(), tree.lookup(Path::new("d/g")).unwrap().unwrap());
        assert_eq!(f.inode, g.inode);
        assert!(f.inode.is_some());
    }
}

#[test]
fn a_failing_file_is_named() {
    let case = overlay();
    let mut active = case.snapshots.prepare(&Snapshot::scratch()).unwrap();
    let writer = active.writer().unwrap();
    for i in 0..100 {
        let open = move || match i {
            50 => Err(std::io::Error::other("no such luck")),
            _ => Ok(FileData::Stream(Box::new(std::io::empty()))),
        };
        if writer.file_later(&PathBuf::from(format!("f{i}")), meta(0o644), 0, open).is_err() {
            return;
        }
    }
    assert_eq!(writer.flush().unwrap_err().to_string(), "/f50: no such luck");
}
