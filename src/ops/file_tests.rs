//! What file actions do, told as lists of files. The cases are BuildKit's behaviour, read from its sources and its tests.

use std::path::Path;
use std::sync::Arc;

use super::file::{Input, content, digest, exec, input_keys};
use crate::base::Cancel;
use crate::llb::pb;
use crate::llb::pb::file_action::Action;
use crate::snapshot::testing::{Sample, apply, dir, entry, file, hard, link, listing, memory};
use crate::snapshot::{Driver, Snapshot, Snapshots, Tree};
use crate::solver::InputKey;
use crate::store::MemoryBlobs;
use crate::sys::{Kind, Mtime};

struct Place {
    snapshots: Snapshots,
    _dir: tempfile::TempDir,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = Snapshots::open(dir.path(), Arc::new(MemoryBlobs::new()), Driver::Overlay).unwrap();
    Place { snapshots, _dir: dir }
}

impl Place {
    fn snapshot(&self, samples: &[Sample]) -> Snapshot {
        let mut active = self.snapshots.prepare(&Snapshot::scratch()).unwrap();
        apply(active.writer().unwrap(), samples).unwrap();
        active.commit(&Cancel::new()).unwrap()
    }

    fn inputs(&self, base: &[Sample], from: Arc<dyn Tree>) -> Vec<Input> {
        let base = self.snapshot(base);
        vec![Input { tree: self.snapshots.tree(&base), snapshot: Some(base) }, Input { tree: from, snapshot: None }]
    }

    fn run(&self, base: &[Sample], from: &[Sample], op: &pb::FileOp) -> anyhow::Result<Arc<dyn Tree>> {
        let outputs = exec(&self.snapshots, op, &self.inputs(base, memory(from)), &Cancel::new())?;
        Ok(self.snapshots.tree(&outputs[0]))
    }
}

fn op(actions: impl IntoIterator<Item = Action>) -> pb::FileOp {
    let actions: Vec<Action> = actions.into_iter().collect();
    let last = actions.len() - 1;
    let actions = actions.into_iter().enumerate().map(|(i, action)| pb::FileAction {
        input: if i == 0 { 0 } else { i as i64 + 1 },
        secondary_input: if matches!(action, Action::Copy(_)) { 1 } else { -1 },
        output: if i == last { 0 } else { -1 },
        action: Some(action),
    });
    pb::FileOp { actions: actions.collect() }
}

/// As the Dockerfile frontend writes COPY.
fn copy(src: &str, dest: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: src.into(),
        dest: dest.into(),
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        allow_empty_wildcard: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

fn by_id(uid: u32, gid: u32) -> Option<pb::ChownOpt> {
    let id = |id| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    Some(pb::ChownOpt { user: id(uid), group: id(gid) })
}

fn source() -> Vec<Sample> {
    vec![
        dir("d"),
        file("d/a", "a"),
        dir("d/sub"),
        file("d/sub/b.go", "b"),
        file("d/sub/c.txt", "c"),
        link("ld", "d"),
        link("lf", "d/a"),
        file("f1", "1"),
        file("f2", "2"),
        (entry("x", Kind::File { size: 1 }, 0o755), "x"),
    ]
}

/// Lines without the root and without the zero owner.
fn lines(tree: &dyn Tree) -> Vec<String> {
    listing(tree).into_iter().skip(1).map(|line| line.replace(" 0:0 ", " ")).collect()
}

#[test]
fn copies_go_where_buildkit_puts_them() {
    type Change = fn(&mut pb::FileActionCopy);
    let keep: Change = |_| {};
    let base = || vec![dir("etc"), file("etc/conf", "c"), dir("app"), link("la", "app"), file("plain", "p")];
    let cases: Vec<(&str, &str, &str, Change, &[&str])> = vec![
        ("a file to a new name", "/f1", "/new", keep, &["+/new 644 file \"1\""]),
        ("a file into a folder", "/f1", "/app/", keep, &["+/app/f1 644 file \"1\""]),
        ("a file into a folder without a slash", "/f1", "/app", keep, &["+/app/f1 644 file \"1\""]),
        ("a file over a file", "/f1", "/plain", keep, &["-/plain 644 file \"p\"", "+/plain 644 file \"1\""]),
        (
            "folders are made on the way",
            "/f1",
            "/x/y/",
            keep,
            &["+/x 755 dir", "+/x/y 755 dir", "+/x/y/f1 644 file \"1\""],
        ),
        (
            "a folder's contents",
            "/d",
            "/app",
            keep,
            &[
                "+/app/a 644 file \"a\"",
                "+/app/sub 755 dir",
                "+/app/sub/b.go 644 file \"b\"",
                "+/app/sub/c.txt 644 file \"c\"",
            ],
        ),
        (
            "a folder's contents to a new folder",
            "/d/sub",
            "/n",
            keep,
            &["+/n 755 dir", "+/n/b.go 644 file \"b\"", "+/n/c.txt 644 file \"c\""],
        ),
        (
            "the folder itself into one",
            "/d/sub",
            "/app",
            |c| c.dir_copy_contents = false,
            &["+/app/sub 755 dir", "+/app/sub/b.go 644 file \"b\"", "+/app/sub/c.txt 644 file \"c\""],
        ),
        (
            "the folder itself to a new name",
            "/d/sub",
            "/n",
            |c| c.dir_copy_contents = false,
            &["+/n 755 dir", "+/n/b.go 644 file \"b\"", "+/n/c.txt 644 file \"c\""],
        ),
        ("a symlinked destination folder is followed", "/f1", "/la/", keep, &["+/app/f1 644 file \"1\""]),
        ("a symlinked source is followed", "/lf", "/app/", keep, &["+/app/lf 644 file \"a\""]),
        (
            "a symlinked source folder is followed",
            "/ld/sub",
            "/app/",
            keep,
            &["+/app/b.go 644 file \"b\"", "+/app/c.txt 644 file \"c\""],
        ),
        (
            "a symlink stays one when not followed",
            "/lf",
            "/app/",
            |c| c.follow_symlink = false,
            &["+/app/lf 777 Symlink { target: \"d/a\" }"],
        ),
        ("a wildcard", "/f*", "/app/", keep, &["+/app/f1 644 file \"1\"", "+/app/f2 644 file \"2\""]),
        (
            "a wildcard over folders copies their contents",
            "/d*",
            "/app/",
            keep,
            &[
                "+/app/a 644 file \"a\"",
                "+/app/sub 755 dir",
                "+/app/sub/b.go 644 file \"b\"",
                "+/app/sub/c.txt 644 file \"c\"",
            ],
        ),
        ("a wildcard that matches nothing, allowed", "/none*", "/app/", keep, &[]),
        (
            "owners for all that is made",
            "/d/sub",
            "/n/m",
            |c| c.owner = by_id(7, 8),
            &[
                "+/n 755 7:8 dir",
                "+/n/m 755 7:8 dir",
                "+/n/m/b.go 644 7:8 file \"b\"",
                "+/n/m/c.txt 644 7:8 file \"c\"",
            ],
        ),
        (
            "a mode for all that is made",
            "/d/sub",
            "/n",
            |c| c.mode = 0o700,
            &["+/n 700 dir", "+/n/b.go 700 file \"b\"", "+/n/c.txt 700 file \"c\""],
        ),
        (
            "a symbolic mode spares folders that have no source",
            "/d/sub",
            "/n",
            |c| (c.mode, c.mode_str) = (0, "go=".into()),
            &["+/n 755 dir", "+/n/b.go 600 file \"b\"", "+/n/c.txt 600 file \"c\""],
        ),
        ("a symbolic mode", "/x", "/app/", |c| c.mode_str = "g-rx,o=".into(), &["+/app/x 700 file \"x\""]),
        (
            "included only",
            "/d",
            "/app",
            |c| c.include_patterns = vec!["**/*.go".into()],
            &["+/app/sub 755 dir", "+/app/sub/b.go 644 file \"b\""],
        ),
        ("excluded", "/d", "/app", |c| c.exclude_patterns = vec!["sub".into()], &["+/app/a 644 file \"a\""]),
        (
            "excluded, and one taken back",
            "/d",
            "/app",
            |c| {
                c.exclude_patterns = vec!["sub".into(), "!sub/b.go".into()];
            },
            &["+/app/a 644 file \"a\"", "+/app/sub 755 dir", "+/app/sub/b.go 644 file \"b\""],
        ),
        (
            "everything into the root",
            "/",
            "/",
            |c| c.include_patterns = vec!["f?".into()],
            &["+/f1 644 file \"1\"", "+/f2 644 file \"2\""],
        ),
        (
            "a folder in place of a file, when told to",
            "/d/sub",
            "/plain",
            |c| {
                c.always_replace_existing_dest_paths = true;
            },
            &[
                "-/plain 644 file \"p\"",
                "+/plain 755 dir",
                "+/plain/b.go 644 file \"b\"",
                "+/plain/c.txt 644 file \"c\"",
            ],
        ),
        (
            "a file in place of a folder below, when told to",
            "/d",
            "/app2",
            |c| {
                c.always_replace_existing_dest_paths = true;
            },
            &[
                "+/app2 755 dir",
                "+/app2/a 644 file \"a\"",
                "+/app2/sub 755 dir",
                "+/app2/sub/b.go 644 file \"b\"",
                "+/app2/sub/c.txt 644 file \"c\"",
            ],
        ),
        ("a folder onto a file", "/d", "/etc/conf", keep, &["!cannot copy to non-directory: /etc/conf"]),
        ("a missing source", "/none", "/app/", keep, &["!/none: not found"]),
        (
            "a missing destination folder, not to be made",
            "/f1",
            "/q/r",
            |c| c.create_dest_path = false,
            &["!/q: not found"],
        ),
        ("a missing wildcard, not allowed", "/z*", "/app/", |c| c.allow_empty_wildcard = false, &["!/z*: not found"]),
    ];
    for (why, src, dest, change, expected) in cases {
        let place = place();
        let mut action = copy(src, dest);
        change(&mut action);
        let before = lines(&*memory(&base()));
        let got: Vec<String> = match place.run(&base(), &source(), &op([Action::Copy(action)])) {
            Ok(tree) => {
                let after = lines(&*tree);
                let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("-{line}"));
                let new = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+{line}"));
                gone.chain(new).collect()
            }
            Err(error) => vec![format!("!{}", error.root_cause())],
        };
        assert_eq!(got, expected, "{why}");
    }
}

#[test]
fn a_file_cannot_take_a_folders_place_unless_told() {
    let base = [dir("app"), dir("app/a"), file("app/a/old", "")];
    let place = place();
    let error = place.run(&base, &source(), &op([Action::Copy(copy("/d", "/app"))])).err().unwrap();
    assert_eq!(error.root_cause().to_string(), "cannot replace to directory /app/a with file");
    let told = pb::FileActionCopy { always_replace_existing_dest_paths: true, ..copy("/d", "/app") };
    let tree = place.run(&base, &source(), &op([Action::Copy(told)])).unwrap();
    assert!(lines(&*tree).contains(&"/app/a 644 file \"a\"".to_owned()));
}

#[test]
fn times_are_the_sources_unless_given() {
    let place = place();
    let time = |tree: &dyn Tree, path: &str| tree.lookup(Path::new(path)).unwrap().unwrap().meta.mtime;
    let from_source = Mtime { seconds: 1_000_000_000, nanos: 0 };
    let tree = place.run(&[], &source(), &op([Action::Copy(copy("/d", "/new/app"))])).unwrap();
    assert_eq!(time(&*tree, "new/app/a"), from_source);
    assert_eq!(time(&*tree, "new/app/sub"), from_source);
    assert!(time(&*tree, "new").seconds > 1_600_000_000, "a folder that nobody copied is new");
    let pinned = pb::FileActionCopy { timestamp: 5_000_000_007, ..copy("/d", "/new/app") };
    let tree = place.run(&[], &source(), &op([Action::Copy(pinned)])).unwrap();
    for path in ["new", "new/app", "new/app/a", "new/app/sub/b.go"] {
        assert_eq!(time(&*tree, path), Mtime { seconds: 5, nanos: 7 }, "{path}");
    }
    let base = [dir("app"), dir("app/keep")];
    let tree = place.run(&base, &source(), &op([Action::Copy(copy("/f1", "/app/keep/"))])).unwrap();
    assert_eq!(time(&*tree, "app/keep"), from_source, "a folder keeps its time: two builds give the same layer");
}

#[test]
fn hard_links_stay_links_and_specials_what_they_are() {
    let place = place();
    let from = [
        dir("d"),
        file("d/one", "same"),
        hard("d/two", "d/one"),
        (entry("d/pipe", Kind::Fifo, 0o600), ""),
        (entry("d/sock", Kind::Socket, 0o600), ""),
    ];
    let tree = place.run(&[], &from, &op([Action::Copy(copy("/d", "/e"))])).unwrap();
    let inode = |path: &str| tree.lookup(Path::new(path)).unwrap().unwrap().inode;
    assert!(inode("e/one").is_some());
    assert_eq!(inode("e/one"), inode("e/two"));
    assert!(lines(&*tree).contains(&"/e/pipe 600 Fifo".to_owned()));
    assert!(lines(&*tree).contains(&"/e/sock 600 file \"\"".to_owned()), "a socket's stub is an empty file");
}

#[test]
fn actions_go_on_from_each_other_in_one_delta() {
    let place = place();
    let mkdir = |path: &str, make_parents| {
        let path = path.to_owned();
        Action::Mkdir(pb::FileActionMkDir { path, mode: 0o750, make_parents, owner: None, timestamp: -1 })
    };
    let mkfile = |path: &str, data: &str| {
        Action::Mkfile(pb::FileActionMkFile {
            path: path.into(),
            mode: 0o600,
            data: data.into(),
            owner: by_id(3, 4),
            timestamp: 0,
        })
    };
    let rm = |path: &str, allow_not_found| {
        Action::Rm(pb::FileActionRm { path: path.into(), allow_not_found, allow_wildcard: true })
    };
    let symlink = Action::Symlink(pb::FileActionSymlink {
        oldpath: "../b".into(),
        newpath: "/a/l".into(),
        owner: None,
        timestamp: -1,
    });
    let base = [dir("old"), file("old/1.o", ""), file("old/2.o", ""), file("old/keep", ""), file("conf", "old")];
    let all = op([
        mkdir("/a/b/c", true),
        mkdir("/a", false),
        symlink,
        mkfile("/a/l", "made through the link"),
        mkfile("/conf", "new"),
        rm("/old/*.o", false),
        rm("/none", true),
    ]);
    let inputs = place.inputs(&base, memory(&[]));
    let outputs = exec(&place.snapshots, &all, &inputs, &Cancel::new()).unwrap();
    assert_eq!(outputs[0].len(), 2, "one delta for the whole op");
    assert_eq!(
        lines(&*place.snapshots.tree(&outputs[0])),
        [
            "/a 750 dir",
            "/a/b 750 dir",
            "/a/b/c 750 dir",
            "/a/l 777 Symlink { target: \"../b\" }",
            "/b 600 3:4 file \"made through the link\"",
            "/conf 644 3:4 file \"new\"",
            "/old 755 dir",
            "/old/keep 644 file \"\"",
        ]
    );
    for (action, message) in [
        (rm("/none", false), "/none: not found"),
        (mkdir("/x/y", false), "/x/y: entity not found"),
        (mkfile("/old", ""), "/old is there and is no file"),
        (rm("/", false), "the root directory cannot be removed"),
    ] {
        let error = exec(&place.snapshots, &op([action]), &inputs, &Cancel::new()).err().unwrap();
        assert_eq!(error.root_cause().to_string().replace("/x/y: ", ""), message.replace("/x/y: ", ""));
    }
}

#[test]
fn a_result_that_is_used_twice_is_two_snapshots() {
    let place = place();
    let mkfile = |path: &str| {
        let mkfile = pb::FileActionMkFile { path: path.into(), mode: 0o644, timestamp: 0, ..Default::default() };
        Some(Action::Mkfile(mkfile))
    };
    let action = |input, secondary_input, output, action| pb::FileAction { input, secondary_input, output, action };
    let actions = vec![
        action(-1, -1, 0, mkfile("/a")),
        action(0, -1, 1, mkfile("/b")),
        action(0, 1, 2, Some(Action::Copy(copy("/b", "/c")))),
    ];
    let outputs = exec(&place.snapshots, &pb::FileOp { actions }, &[], &Cancel::new()).unwrap();
    let names: Vec<Vec<_>> =
        outputs.iter().map(|output| place.snapshots.tree(output).read_dir(Path::new("")).unwrap()).collect();
    assert_eq!(names, [vec!["a"], vec!["a", "b"], vec!["a", "c"]]);
    for (actions, message) in [
        (vec![action(0, -1, 0, mkfile("/a"))], "action 0 of a file op has input 0, which is none"),
        (
            vec![action(1, -1, 0, mkfile("/a")), action(0, -1, -1, mkfile("/b"))],
            "action 0 of a file op stands on itself",
        ),
        (vec![action(-1, -1, 1, mkfile("/a"))], "a file op's outputs are not numbered from 0 on"),
        (vec![action(-1, -1, 0, None)], "a file op has an action of an unknown kind"),
    ] {
        let error = exec(&place.snapshots, &pb::FileOp { actions }, &[], &Cancel::new()).err().unwrap();
        assert_eq!(error.root_cause().to_string(), message);
    }
}

#[test]
fn an_archive_is_unpacked_when_asked() {
    let mut tar = crate::layer::TarWriter::new(Vec::new());
    let samples = [
        dir("in"),
        file("in/f", "data"),
        hard("in/h", "in/f"),
        link("out", "/in"),
        file("out/through", "t"),
        file(".wh.literal", "no whiteout here"),
    ];
    for (entry, content) in &samples {
        tar.append(entry, &mut content.as_bytes()).unwrap();
    }
    let plain: &'static [u8] = tar.finish().unwrap().leak();
    let mut encoder = crate::layer::Encoder::new(Vec::new(), crate::layer::Compression::Gzip, None).unwrap();
    std::io::Write::write_all(&mut encoder, plain).unwrap();
    let packed = encoder.finish().unwrap();
    let context = tempfile::tempdir().unwrap();
    let place = place();
    let mut active = place.snapshots.prepare(&Snapshot::scratch()).unwrap();
    let writer = active.writer().unwrap();
    for (name, bytes) in
        [("a.tar", plain.to_vec()), ("a.tgz", packed.clone()), ("cut.tgz", packed[..packed.len() / 2].to_vec())]
    {
        let data = crate::snapshot::FileData::Stream(Box::new(std::io::Cursor::new(bytes.clone())));
        writer.file(Path::new(name), &crate::snapshot::testing::meta(0o644), bytes.len() as u64, data).unwrap();
    }
    writer
        .file(
            Path::new("text.tar"),
            &crate::snapshot::testing::meta(0o644),
            4,
            crate::snapshot::FileData::Stream(Box::new(&b"text"[..])),
        )
        .unwrap();
    let from = active.commit(&Cancel::new()).unwrap();
    let unpack = |src: &str| pb::FileActionCopy {
        attempt_unpack_docker_compatibility: true,
        owner: by_id(5, 5),
        ..copy(src, "/opt/x/")
    };
    for name in ["/a.tar", "/a.tgz"] {
        let inputs = place.inputs(&[], place.snapshots.tree(&from));
        let outputs = exec(&place.snapshots, &op([Action::Copy(unpack(name))]), &inputs, &Cancel::new()).unwrap();
        assert_eq!(
            lines(&*place.snapshots.tree(&outputs[0])),
            [
                "/opt 755 5:5 dir",
                "/opt/x 755 5:5 dir",
                "/opt/x/.wh.literal 644 5:5 file \"no whiteout here\"",
                "/opt/x/in 755 5:5 dir",
                "/opt/x/in/f 644 5:5 file \"data\"",
                "/opt/x/in/h 644 5:5 file \"data\"",
                "/opt/x/in/through 644 5:5 file \"t\"",
                "/opt/x/out 777 5:5 Symlink { target: \"/in\" }",
            ]
        );
    }
    let inputs = place.inputs(&[], place.snapshots.tree(&from));
    let run = |src: &str| exec(&place.snapshots, &op([Action::Copy(unpack(src))]), &inputs, &Cancel::new());
    let text = run("/text.tar").unwrap();
    assert!(lines(&*place.snapshots.tree(&text[0])).contains(&"/opt/x/text.tar 644 5:5 file \"text\"".to_owned()));
    assert!(run("/cut.tgz").is_err(), "a broken archive is an error, not a file");
    drop(context);
}

#[test]
fn sources_count_by_content_and_bases_by_identity() {
    let op = op([Action::Copy(copy("/d", "/app"))]);
    assert_eq!(input_keys(&op, 2), [InputKey::Identity, InputKey::Content]);
    let sum = |samples: &[Sample]| content(&op, 1, &*memory(samples), &Cancel::new()).unwrap();
    let mut other = source();
    other[1] = file("d/a", "changed");
    assert_ne!(sum(&source()), sum(&other));
    other[1] = file("d/a", "a");
    other[7] = file("f1", "changed");
    assert_eq!(sum(&source()), sum(&other), "what is not copied does not count");

    let from = |src: &str, dest: &str| self::op([Action::Copy(copy(src, dest))]);
    assert_eq!(digest(&from("/one/f", "/x")), digest(&from("/two/f", "/x")), "where it was does not count");
    assert_ne!(digest(&from("/f", "/x")), digest(&from("/f", "/y")));
    assert_ne!(digest(&from("/f", "/x/")), digest(&from("/g", "/x/")), "its name may be the new name");
}
