use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::*;

struct Place(tempfile::TempDir);

impl Place {
    /// Files by path; a trailing slash for a directory, `a->b` for a symlink.
    fn new(files: &[&str]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.0.path().join("ctx")).unwrap();
        for file in files {
            place.add(file, file);
        }
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join("ctx").join(path)
    }

    fn add(&self, path: &str, content: &str) {
        let name = path.split("->").next().unwrap();
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        match (path.strip_suffix('/'), path.split_once("->")) {
            (Some(dir), _) => fs::create_dir_all(self.at(dir)).unwrap(),
            (_, Some((link, target))) => symlink(target, self.at(link)).unwrap(),
            _ => fs::write(self.at(path), content).unwrap(),
        }
        self.age(name);
    }

    /// Long ago, as far as mtime can tell; ctime cannot be set.
    fn age(&self, path: &str) {
        let time = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, self.at(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }

    fn open(&self, include: &[&str], exclude: &[&str], follow: &[&str]) -> LocalContext {
        let own = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect();
        let cache = Some(self.0.path().join("cache"));
        let options = LocalOptions { include: own(include), exclude: own(exclude), follow: own(follow), cache };
        LocalContext::open(&self.at(""), options).unwrap()
    }

    fn identity(&self) -> Digest {
        self.open(&[], &["hidden*"], &[]).identity(&Cancel::new()).unwrap()
    }
}

fn files(context: &LocalContext) -> Vec<String> {
    fn walk(context: &LocalContext, dir: &Path, found: &mut Vec<String>) {
        for name in context.read_dir(dir).unwrap() {
            let path = dir.join(name);
            let node = context.lookup(&path).unwrap().unwrap();
            match node.kind {
                Kind::Directory => {
                    found.push(format!("{}/", path.display()));
                    walk(context, &path, found);
                }
                _ => found.push(path.display().to_string()),
            }
        }
    }
    let mut found = Vec::new();
    walk(context, Path::new(""), &mut found);
    found
}

#[test]
fn patterns_decide_what_is_in_it() {
    let place = Place::new(&[
        "Dockerfile",
        "src/main.c",
        "src/deep/x.c",
        "src/deep/y.h",
        "node_modules/a/b.js",
        "node_modules/keep/k.js",
        "empty/",
        "docs/a.md",
        "docs/README.md",
        "l->src/deep",
        "abs->/docs",
        "m->l/x.c",
        "dead->nowhere",
        "loop->loop",
    ]);
    type Case<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let cases: &[Case<'_>] = &[
        (&[], &["*"], &[], &[]),
        (
            &[],
            &["node_modules", "docs", "?", "a*", "de*", "lo*", "src/d*"],
            &[],
            &["Dockerfile", "empty/", "src/", "src/main.c"],
        ),
        (&[], &["*", "!docs/README.md"], &[], &["docs/", "docs/README.md"]),
        (&[], &["*", "!node_modules/keep"], &[], &["node_modules/", "node_modules/keep/", "node_modules/keep/k.js"]),
        (&[], &["*", "!no/such"], &[], &[]),
        (&["src/**/*.c"], &[], &[], &["src/", "src/deep/", "src/deep/x.c", "src/main.c"]),
        (&["src/deep"], &["**/*.h"], &[], &["src/", "src/deep/", "src/deep/x.c"]),
        (&["empty"], &[], &[], &["empty/"]),
        (&["emp*/x"], &[], &[], &[]),
        (&[], &[], &["l"], &["l", "src/", "src/deep/", "src/deep/x.c", "src/deep/y.h"]),
        (&[], &[], &["m"], &["l", "m", "src/", "src/deep/", "src/deep/x.c"]),
        (&[], &[], &["abs/*.md"], &["abs", "docs/", "docs/README.md", "docs/a.md"]),
        (&[], &["docs/a.md"], &["/docs"], &["docs/", "docs/README.md"]),
        (&[], &[], &["docs/**/*.md"], &["docs/", "docs/README.md", "docs/a.md"]),
        (&[], &[], &["dead", "loop", "none"], &["dead", "loop"]),
        (&[], &[], &["../../src/main.c"], &["src/", "src/main.c"]),
        (&["docs/a.md"], &[], &["src/main.c"], &["docs/", "docs/a.md", "src/", "src/main.c"]),
    ];
    for (include, exclude, follow, expected) in cases {
        let context = place.open(include, exclude, follow);
        assert_eq!(files(&context), *expected, "include {include:?} exclude {exclude:?} follow {follow:?}");
    }
    assert_eq!(files(&place.open(&[], &[], &["src", "."])).len(), 20, "a dot is everything");
    assert_eq!(files(&place.open(&[], &[], &["**/x.c"])).len(), 20, "so is any depth");
}

#[test]
fn hidden_files_are_not_there_and_say_why() {
    let place = Place::new(&["a/secret.key", "a/open"]);
    let context = place.open(&[], &["**/*.key"], &[]);
    assert_eq!(context.lookup(Path::new("a/secret.key")).unwrap(), None);
    assert!(context.open(Path::new("a/secret.key")).is_err());
    assert!(context.open(Path::new("a")).is_err());
    assert!(context.read_dir(Path::new("a/open")).is_err());
    assert_eq!(context.hidden_by(Path::new("a/secret.key")).as_deref(), Some("**/*.key"));
    assert_eq!(context.hidden_by(Path::new("a/none.key")), None, "it is not on the host either");
    assert_eq!(context.hidden_by(Path::new("a/open")), None);
}

#[test]
fn the_host_s_owners_stay_behind_and_the_rest_is_exact() {
    let place = Place::new(&["f"]);
    fs::hard_link(place.at("f"), place.at("g")).unwrap();
    fs::set_permissions(place.at("f"), PermissionsExt::from_mode(0o4751)).unwrap();
    let context = place.open(&[], &[], &[]);
    let node = context.lookup(Path::new("f")).unwrap().unwrap();
    assert_eq!((node.meta.uid, node.meta.gid, node.meta.mode), (0, 0, 0o4751));
    assert_eq!((node.meta.mtime.seconds, node.meta.mtime.nanos), (1_000_000, 5));
    assert_eq!(node.inode, context.lookup(Path::new("g")).unwrap().unwrap().inode);
    assert!(matches!(context.lookup(Path::new("")).unwrap().unwrap().kind, Kind::Directory));
    let mut content = String::new();
    io::Read::read_to_string(&mut Tree::open(&context, Path::new("f")).unwrap(), &mut content).unwrap();
    assert_eq!(content, "f");
}

#[test]
fn identity_changes_with_every_change_and_with_nothing_else() {
    let place = Place::new(&["a/f", "a/g", "hidden", "l->a/f"]);
    std::thread::sleep(Duration::from_millis(80));
    let mut last = place.identity();
    assert_eq!(place.identity(), last, "nothing happened");
    place.add("hidden2", "x");
    place.add("hidden", "other");
    assert_eq!(place.identity(), last, "only hidden files changed");
    let changes: &[(&str, &dyn Fn())] = &[
        ("content of the same size and mtime", &|| place.add("a/f", "b/f")),
        ("a new file", &|| place.add("a/h", "")),
        ("a mode", &|| fs::set_permissions(place.at("a/h"), PermissionsExt::from_mode(0o600)).unwrap()),
        ("a directory's mode", &|| fs::set_permissions(place.at("a"), PermissionsExt::from_mode(0o700)).unwrap()),
        ("an mtime alone", &|| File::open(place.at("a/g")).unwrap().set_modified(SystemTime::now()).unwrap()),
        ("a rename", &|| fs::rename(place.at("a/h"), place.at("a/i")).unwrap()),
        ("an empty directory", &|| place.add("e/", "")),
        ("a symlink's target", &|| {
            fs::remove_file(place.at("l")).unwrap();
            place.add("l->a/g", "");
        }),
        ("a removal", &|| fs::remove_file(place.at("a/i")).unwrap()),
    ];
    for (name, change) in changes {
        change();
        let now = place.identity();
        assert_ne!(now, last, "{name}");
        last = now;
    }
}

#[test]
fn a_change_within_one_tick_of_the_clock_is_seen() {
    // As git has it ("racy git"): same size, same inode, and for all we know the same times.
    let place = Place::new(&["f"]);
    fs::write(place.at("f"), "1").unwrap();
    let first = place.identity();
    fs::write(place.at("f"), "2").unwrap();
    assert_ne!(place.identity(), first);
}

#[test]
fn digests_are_remembered_until_the_stat_changes() {
    let place = Place::new(&["f"]);
    std::thread::sleep(Duration::from_millis(80));
    assert_eq!(place.open(&[], &[], &[]).file_digest(Path::new("f")).unwrap(), Digest::of("f"));
    let cache = || fs::read_dir(place.0.path().join("cache")).unwrap().next().unwrap().unwrap().path();
    let saved = fs::read(cache()).unwrap();
    assert_eq!(saved.len(), 16 + 68);

    // What is remembered is used: here it is a lie of ours.
    let mut lie = saved.clone();
    let other = Digest::of("other");
    lie[16 + 32..16 + 64].copy_from_slice(other.as_bytes());
    let check = crc32fast::hash(&lie[16..16 + 64]).to_le_bytes();
    lie[16 + 64..].copy_from_slice(&check);
    fs::write(cache(), &lie).unwrap();
    assert_eq!(place.open(&[], &[], &[]).file_digest(Path::new("f")).unwrap(), other);

    // A damaged record, a torn one and another format are not.
    for broken in [&saved[..40], &[&lie[..80], &b"xxxx"[..]].concat(), b"something else"] {
        fs::write(cache(), broken).unwrap();
        assert_eq!(place.open(&[], &[], &[]).file_digest(Path::new("f")).unwrap(), Digest::of("f"));
    }
    assert_eq!(fs::read(cache()).unwrap(), saved, "started over");

    fs::write(place.at("f"), "g").unwrap();
    place.age("f");
    assert_eq!(place.open(&[], &[], &[]).file_digest(Path::new("f")).unwrap(), Digest::of("g"));
    assert!(fs::metadata(place.at("f")).unwrap().size() == 1);
}

#[test]
fn a_large_tree_is_walked_by_several_and_comes_out_sorted() {
    let place = Place::new(&[]);
    for dir in 0..40 {
        fs::create_dir_all(place.at(&format!("d{dir}/sub"))).unwrap();
        for file in 0..10 {
            fs::write(place.at(&format!("d{dir}/sub/f{file}")), "").unwrap();
        }
    }
    let found = files(&place.open(&[], &["d7"], &[]));
    assert_eq!(found.len(), 39 * 12);
    let cancel = Cancel::new();
    cancel.cancel();
    assert!(place.open(&[], &[], &[]).identity(&cancel).is_err());
}

#[test]
fn files_that_could_change_behind_their_times_are_told_of() {
    let place = Place::new(&[]);
    fs::create_dir(place.at("d")).unwrap();
    fs::write(place.at("d/written"), "1").unwrap();
    fs::write(place.at("hidden"), "1").unwrap();
    place.age("hidden");
    let told = || place.open(&[], &["hidden*"], &[]).behind_mtimes(&Cancel::new()).unwrap();
    assert_eq!(told(), None, "a file's own time, and one that is not in it");
    place.add("d/dated", "one");
    let before = told();
    assert!(before.is_some());
    fs::write(place.at("d/written"), "2").unwrap();
    assert_eq!(told(), before, "its mtime tells");
    // Longer than a clock's tick.
    std::thread::sleep(Duration::from_millis(20));
    place.add("d/dated", "two");
    assert_ne!(told(), before);
}
