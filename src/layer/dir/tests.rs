use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;
use crate::base::Cancel;
use crate::layer::tar::tests::{file, pack};
use crate::layer::{Error, apply};
use crate::sys::Mtime;

fn me() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn member(path: &str, kind: Kind, mode: u32) -> (Entry, Vec<u8>) {
    let (uid, gid) = me();
    let mtime = Mtime { seconds: 1000 + path.len() as i64, nanos: 5 };
    (Entry { path: path.into(), kind, meta: Meta { mode, uid, gid, mtime, ..Meta::default() } }, Vec::new())
}

fn dir(path: &str) -> (Entry, Vec<u8>) {
    member(path, Kind::Directory, 0o755)
}

fn text(path: &str, content: &str) -> (Entry, Vec<u8>) {
    let (mut entry, _) = member(path, Kind::File { size: content.len() as u64 }, 0o644);
    entry.path = path.into();
    (entry, content.as_bytes().to_vec())
}

fn link(path: &str, target: &str) -> (Entry, Vec<u8>) {
    member(path, Kind::Symlink { target: target.into() }, 0o777)
}

fn hard(path: &str, target: &str) -> (Entry, Vec<u8>) {
    member(path, Kind::Hardlink { target: target.into() }, 0o644)
}

fn mark(path: &str) -> (Entry, Vec<u8>) {
    file(path, b"")
}

type Layer = Vec<(Entry, Vec<u8>)>;

struct Unpacked {
    tmp: tempfile::TempDir,
    result: anyhow::Result<Lost>,
}

/// Layers flattened into `root` of a directory that holds a file outside, too.
fn unpack(layers: &[Layer]) -> Unpacked {
    let tmp = tempfile::tempdir().unwrap();
    fs::write(tmp.path().join("outside"), "untouched").unwrap();
    fs::create_dir(tmp.path().join("root")).unwrap();
    let mut target = DirTarget::new(Root::open(&tmp.path().join("root")).unwrap(), DirOptions::default());
    let applied = layers.iter().try_for_each(|layer| {
        apply(&mut &pack(layer)[..], None, &mut target, &Cancel::new())?;
        Ok::<_, Error>(())
    });
    let result = applied.map_err(anyhow::Error::from).and_then(|()| target.finish());
    assert_eq!(fs::read(tmp.path().join("outside")).unwrap(), b"untouched");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 2, "something was made outside");
    Unpacked { tmp, result }
}

impl Unpacked {
    fn at(&self, path: &str) -> PathBuf {
        assert!(self.result.is_ok(), "{:?}", self.result);
        self.tmp.path().join("root").join(path)
    }

    /// Every path with what it is.
    fn tree(&self) -> Vec<String> {
        fn walk(dir: &Path, base: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(base).unwrap().display().to_string();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                if kind.is_dir() {
                    found.push(format!("{name}/"));
                    walk(&path, base, found);
                } else if kind.is_symlink() {
                    found.push(format!("{name}->{}", fs::read_link(&path).unwrap().display()));
                } else if kind.is_fifo() {
                    found.push(format!("{name}|"));
                } else {
                    found.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.at(""), &self.at(""), &mut found);
        found.sort();
        found
    }
}

#[test]
fn layers_are_flattened_by_the_spec() {
    type Case = (&'static str, Vec<Layer>, &'static [&'static str]);
    let cases: Vec<Case> = vec![
        ("a file over a file", vec![vec![text("f", "1")], vec![text("f", "22")]], &["f=22"]),
        ("the last of two of one name", vec![vec![text("f", "1"), text("f", "2")]], &["f=2"]),
        ("a file over a directory", vec![vec![dir("d"), text("d/x", "")], vec![text("d", "f")]], &["d=f"]),
        ("a directory over a file", vec![vec![text("d", "f")], vec![dir("d"), text("d/x", "")]], &["d/", "d/x="]),
        (
            "a directory over a directory keeps what is in it",
            vec![vec![dir("d"), text("d/x", "")], vec![dir("d")]],
            &["d/", "d/x="],
        ),
        (
            "a directory over a symlink to one",
            vec![vec![dir("d"), link("l", "d")], vec![dir("l"), text("l/x", "")]],
            &["d/", "l/", "l/x="],
        ),
        (
            "a file through a symlink",
            vec![vec![dir("d"), link("l", "/d")], vec![text("l/x", "")]],
            &["d/", "d/x=", "l->/d"],
        ),
        ("missing parents", vec![vec![text("a/b/f", "")]], &["a/", "a/b/", "a/b/f="]),
        (
            "parents through a symlink to nothing",
            vec![vec![link("l", "no/where")], vec![text("l/f", "")]],
            &["l->no/where", "no/", "no/where/", "no/where/f="],
        ),
        ("a whiteout of a file", vec![vec![text("f", ""), text("g", "")], vec![mark(".wh.f")]], &["g="]),
        ("a whiteout of a tree", vec![vec![dir("d"), text("d/x", "")], vec![mark(".wh.d")]], &[]),
        (
            "a whiteout of a symlink spares what it names",
            vec![vec![dir("d"), link("l", "d")], vec![mark(".wh.l")]],
            &["d/"],
        ),
        ("a whiteout of nothing", vec![vec![mark("no/.wh.f"), mark(".wh.g")]], &[]),
        ("a whiteout under a file", vec![vec![text("f", "")], vec![mark("f/.wh.x")]], &["f="]),
        (
            "a whiteout before its name in the same layer",
            vec![vec![text("f", "1")], vec![mark(".wh.f"), text("f", "2")]],
            &["f=2"],
        ),
        (
            "a whiteout after its name in the same layer",
            vec![vec![text("f", "1")], vec![text("f", "2"), mark(".wh.f")]],
            &["f=2"],
        ),
        (
            "a whiteout after its directory hides the lower content",
            vec![vec![dir("d"), text("d/old", "")], vec![dir("d"), text("d/new", ""), mark(".wh.d")]],
            &["d/", "d/new="],
        ),
        (
            "opaque before its siblings",
            vec![vec![dir("d"), text("d/old", "")], vec![dir("d"), mark("d/.wh..wh..opq"), text("d/new", "")]],
            &["d/", "d/new="],
        ),
        (
            "opaque after its siblings",
            vec![vec![dir("d"), text("d/old", "")], vec![dir("d"), text("d/new", ""), mark("d/.wh..wh..opq")]],
            &["d/", "d/new="],
        ),
        (
            "opaque reaches into folders that both have",
            vec![
                vec![dir("d"), dir("d/e"), text("d/e/old", "")],
                vec![dir("d"), dir("d/e"), text("d/e/new", ""), mark("d/.wh..wh..opq")],
            ],
            &["d/", "d/e/", "d/e/new="],
        ),
        (
            "opaque spares the parents of what this layer made",
            vec![vec![dir("d"), dir("d/e"), text("d/e/old", "")], vec![text("d/e/new", ""), mark("d/.wh..wh..opq")]],
            &["d/", "d/e/", "d/e/new="],
        ),
        ("opaque of the root", vec![vec![text("old", "")], vec![mark(".wh..wh..opq"), text("new", "")]], &["new="]),
        ("opaque of nothing", vec![vec![mark("no/.wh..wh..opq")]], &[]),
        (
            "a bare prefix is a name",
            vec![vec![dir("d"), text("d/x", ""), text("d/.wh.", "")]],
            &["d/", "d/.wh.=", "d/x="],
        ),
        ("bookkeeping of aufs", vec![vec![mark(".wh..wh.plnk"), mark(".wh..wh.aufs")]], &[]),
        ("a hard link", vec![vec![text("f", "1"), hard("d/g", "f")]], &["d/", "d/g=1", "f=1"]),
        ("a hard link to a lower layer", vec![vec![text("f", "1")], vec![hard("g", "f")]], &["f=1", "g=1"]),
        (
            "a hard link over a directory",
            vec![vec![text("f", "1"), dir("g"), text("g/x", "")], vec![hard("g", "f")]],
            &["f=1", "g=1"],
        ),
        ("a hard link to itself", vec![vec![text("f", "1"), hard("f", "f")]], &["f=1"]),
        (
            "a hard link to a symlink is the symlink",
            vec![vec![link("l", "/nowhere"), hard("m", "l")]],
            &["l->/nowhere", "m->/nowhere"],
        ),
        ("a fifo", vec![vec![member("p", Kind::Fifo, 0o600)], vec![member("p", Kind::Fifo, 0o644)]], &["p|"]),
        (
            "symlinks that leave, untouched as text",
            vec![vec![link("l", "../../outside"), link("m", "/outside")]],
            &["l->../../outside", "m->/outside"],
        ),
    ];
    for (name, layers, expected) in cases {
        let unpacked = unpack(&layers);
        assert!(unpacked.result.is_ok(), "{name}: {:?}", unpacked.result);
        assert_eq!(unpacked.tree(), expected, "{name}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_the_path() {
    let cases: Vec<(&str, Vec<Layer>, &str)> = vec![
        ("a file below a file", vec![vec![text("f", ""), text("f/x", "")]], "apply \"f/x\": Not a directory"),
        ("a loop of symlinks", vec![vec![link("l", "l"), text("l/x", "")]], "apply \"l/x\": "),
        (
            "a hard link to nothing",
            vec![vec![hard("g", "no/f")]],
            "apply \"g\": hard link to no/f, which is not in the image",
        ),
        (
            "a hard link to a directory",
            vec![vec![dir("d"), hard("g", "d")]],
            "apply \"g\": hard link to d: Operation not permitted",
        ),
        (
            "a whiteout of the parent",
            vec![vec![dir("d"), mark("d/.wh...")]],
            "apply \"d/.wh...\": a whiteout of `.` or `..`",
        ),
        (
            "a whiteout of the folder itself",
            vec![vec![dir("d"), mark("d/.wh..")]],
            "apply \"d/.wh..\": a whiteout of `.` or `..`",
        ),
        ("a name too long", vec![vec![text(&"n".repeat(300), "")]], "apply "),
    ];
    for (name, layers, expected) in cases {
        let unpacked = unpack(&layers);
        let error = format!("{:#}", unpacked.result.as_ref().err().unwrap_or_else(|| panic!("{name}: accepted")));
        assert!(error.starts_with(expected), "{name}: {error}");
    }
}

#[test]
fn symlinks_of_an_archive_do_not_lead_out() {
    let up = "../".repeat(20);
    for target in [format!("{up}outside"), "/outside".to_owned(), up.clone(), "/proc/self/cwd".to_owned()] {
        let unpacked =
            unpack(&[vec![link("l", &target), text("l/outside", "evil"), text("l2", "")], vec![text("l", "evil")]]);
        drop(unpacked.result);
    }
    let unpacked =
        unpack(&[vec![link("l", "/"), link("l/m", "../outside"), text("l/m/x", "")], vec![hard("l/h", "m/x")]]);
    assert!(unpacked.tree().contains(&"outside/x=".to_owned()), "{:?}", unpacked.tree());
}

#[test]
fn metadata_is_exact_and_directories_get_their_times_back() {
    let mut with_xattr = text("d/x", "1");
    with_xattr.0.meta.xattrs.insert("user.note".into(), b"a\0b".to_vec());
    let unpacked = unpack(&[
        vec![
            dir(""),
            dir("d"),
            with_xattr,
            member("d/suid", Kind::File { size: 0 }, 0o4755),
            member("t", Kind::Directory, 0o1777),
            member("locked", Kind::Directory, 0o555),
            text("locked/f", "in"),
            member("secret", Kind::File { size: 0 }, 0),
            link("l", "d"),
            text("implied/f", ""),
        ],
        vec![text("d/y", ""), mark("d/.wh.x"), text("locked/g", "in")],
    ]);
    let stat = |path: &str| fs::symlink_metadata(unpacked.at(path)).unwrap();
    for (path, mode) in
        [("d", 0o755), ("d/suid", 0o4755), ("t", 0o1777), ("locked", 0o555), ("secret", 0), ("d/y", 0o644)]
    {
        assert_eq!(stat(path).permissions().mode() & 0o7777, mode, "{path}");
    }
    for path in ["", "d", "d/y", "t", "locked", "locked/g", "l"] {
        assert_eq!((stat(path).mtime(), stat(path).mtime_nsec()), (1000 + path.len() as i64, 5), "{path}");
    }
    assert_eq!(stat("implied").mtime(), 0, "a folder that no layer names");
    assert_eq!(unpacked.result.as_ref().unwrap().owners.count, 0);
}

#[test]
fn attributes_of_a_directory_are_those_of_its_last_entry() {
    let (mut first, mut second) = (dir("d"), dir("d"));
    first.0.meta.xattrs.insert("user.old".into(), b"1".to_vec());
    second.0.meta.xattrs.insert("user.new".into(), b"2".to_vec());
    let unpacked = unpack(&[vec![first], vec![second]]);
    let found = meta::read_fd(File::open(unpacked.at("d")).unwrap()).unwrap();
    if unpacked.result.as_ref().unwrap().xattrs.count > 0 {
        eprintln!("skip: needs user xattrs on the temporary directory");
        return;
    }
    assert_eq!(found.meta.xattrs.into_keys().collect::<Vec<_>>(), ["user.new"]);
}

#[test]
fn large_zeros_become_holes() {
    let mut content = vec![0; 3 << 20];
    content[1 << 20] = 1;
    let (entry, _) = member("f", Kind::File { size: content.len() as u64 }, 0o644);
    let unpacked = unpack(&[vec![(entry, content.clone())]]);
    assert!(fs::read(unpacked.at("f")).unwrap() == content);
    assert!(fs::metadata(unpacked.at("f")).unwrap().blocks() * 512 < 2 << 20);
}

#[test]
fn owners_and_devices_are_given_where_allowed_and_counted_where_not() {
    let mut owned = text("f", "");
    (owned.0.meta.uid, owned.0.meta.gid) = (12345, 54321);
    let mut second = owned.clone();
    second.0.path = "g".into();
    let null = member("null", Kind::CharDevice { major: 1, minor: 3 }, 0o666);
    let unpacked = unpack(&[vec![owned, second, null.clone()]]);
    let lost = unpacked.result.as_ref().unwrap().clone();
    let stat = fs::metadata(unpacked.at("f")).unwrap();
    if me().0 == 0 && lost.owners.count == 0 {
        assert_eq!((stat.uid(), stat.gid()), (12345, 54321));
    } else {
        assert_eq!(lost.owners, Loss { count: 2, example: Some("f".into()) });
    }
    if lost.devices.count == 0 {
        assert!(fs::metadata(unpacked.at("null")).unwrap().file_type().is_char_device());
    }

    let tmp = tempfile::tempdir().unwrap();
    let options = DirOptions { owners: false, devices: false, xattrs: false };
    let mut target = DirTarget::new(Root::open(tmp.path()).unwrap(), options);
    let mut other = text("f", "");
    (other.0.meta.uid, other.0.meta.gid) = (12345, 54321);
    apply(&mut &pack(&[other, null])[..], None, &mut target, &Cancel::new()).unwrap();
    let lost = target.finish().unwrap();
    assert_eq!(fs::metadata(tmp.path().join("f")).unwrap().uid(), me().0);
    assert_eq!(lost.devices, Loss { count: 1, example: Some("null".into()) });
}

#[test]
fn a_wrong_diff_id_and_a_cancelled_apply_are_errors() {
    let tmp = tempfile::tempdir().unwrap();
    let mut target = DirTarget::new(Root::open(tmp.path()).unwrap(), DirOptions::default());
    let layer = pack(&[text("f", "x")]);
    let wrong = crate::base::DiffId(crate::base::Digest::of("other"));
    let error = apply(&mut &layer[..], Some(&wrong), &mut target, &Cancel::new()).unwrap_err();
    assert!(matches!(error, Error::DiffId { expected, .. } if expected == wrong));
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(matches!(apply(&mut &layer[..], None, &mut target, &cancel).unwrap_err(), Error::Cancelled(_)));
}

#[test]
fn small_files_are_whole_however_many_there_are() {
    let content = |n: usize| format!("{n} ").repeat(n * 7 % 3000);
    let mut first = vec![dir("d")];
    for n in 0..300 {
        let (mut entry, bytes) = text(&format!("d/{n}"), &content(n));
        entry.meta.mode = [0o644, 0o4711, 0o600][n % 3];
        first.push((entry, bytes));
    }
    // While they are still being written, or just after.
    first.push(hard("d/link", "d/299"));
    let second = vec![text("d/297", "new"), mark("d/.wh.298")];
    let unpacked = unpack(&[first, second]);
    unpacked.result.unwrap();
    let root = unpacked.tmp.path().join("root");
    for n in 0..297 {
        let path = root.join(format!("d/{n}"));
        assert_eq!(fs::read_to_string(&path).unwrap(), content(n));
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.mtime_nsec()), ([0o644, 0o4711, 0o600][n % 3], 5), "{n}");
    }
    assert_eq!(fs::read_to_string(root.join("d/297")).unwrap(), "new");
    assert!(!root.join("d/298").exists());
    assert_eq!(fs::read_to_string(root.join("d/link")).unwrap(), content(299));
}

#[test]
fn a_small_file_that_cannot_be_written_is_named() {
    let tmp = tempfile::NamedTempFile::new().unwrap();
    let mut later = Later::default();
    let mut add = |file: File, path: &str| {
        later.add(file, path.as_ref(), &Meta::default(), Known { owner: true, mode: true }, &mut &b"bytes"[..])
    };
    add(File::open(tmp.path()).unwrap(), "a/b").unwrap();
    let error = (0..1000)
        .find_map(|_| add(tempfile::tempfile().unwrap(), "other").err())
        .expect("a thread that gave up is noticed");
    assert_eq!(error.to_string(), "write \"a/b\"");
}
