//! Definitions of other LLB clients, solved in this process: those that the `buildkit-llb` crate made, as
//! `tests/llb/recorder` wrote them down, and some of our own builder with what that crate cannot say.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dockless::base::{Platform, Progress, Reference, Secret};
use dockless::engine::{Dest, Engine as _, Export, Given, LocalEngine, Plan};
use dockless::frontend::{self, ImageConfigs, Input, ResolvedImage};
use dockless::llb::build::{Builder, Draft, Output};
use dockless::llb::{self, pb, source};
use pb::file_action::Action;
use prost::Message as _;

use crate::fixture::{World, epoch, listing, request};

fn recorded(case: &str) -> (PathBuf, pb::Definition) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llb").join(case);
    let bytes = fs::read(dir.join("definition.pb")).unwrap();
    (dir, pb::Definition::decode(bytes.as_slice()).unwrap())
}

/// The files of what a definition makes.
fn solved(world: &World, definition: pb::Definition) -> anyhow::Result<BTreeMap<String, String>> {
    let dest = world.dir.path().join("solved.tar");
    let mut request = request(Progress::none());
    let locals = BTreeMap::from([("context".to_owned(), world.context())]);
    request.plan = Plan::Llb { definition, given: Given { locals, ..Given::default() } };
    request.secrets.insert("s".to_owned(), Secret::from("hush"));
    request.exports = vec![Export::Tar { dest: Dest::File(dest.clone()) }];
    LocalEngine::new(world.reopen()).solve(&request)?;
    Ok(listing(&dest))
}

#[test]
fn recorded_definitions_are_read() {
    for case in ["run", "files", "sources", "go-files", "go-exec"] {
        let (dir, definition) = recorded(case);
        let graph = llb::Graph::decode(&definition).unwrap();
        assert_eq!(llb::print::text(&graph), fs::read_to_string(dir.join("graph.txt")).unwrap(), "{case}");
    }
}

#[test]
fn recorded_definitions_are_built() {
    let Some(world) = World::with_busybox() else { return };
    world.write("a.txt", "from-a\n");
    world.write("b.txt", "b");
    world.write("c.md", "c");
    std::os::unix::fs::symlink("a.txt", world.context().join("link")).unwrap();
    let names = |files: BTreeMap<String, String>| files.into_keys().filter(|name| !name.is_empty()).collect::<Vec<_>>();
    let run = solved(&world, recorded("run").1).unwrap();
    assert!(run["base/added"].ends_with("hi\n") && run["copied"].ends_with("from-a\n"), "{run:?}");
    assert_eq!(names(run), ["base", "base/added", "base/below", "copied"]);
    let files = solved(&world, recorded("files").1).unwrap();
    assert!(files["a/b/made"].ends_with("content") && files["followed"].ends_with("from-a\n"), "{files:?}");
    assert_eq!(names(files), ["a", "a/b", "a/b/made", "followed", "texts", "texts/a.txt", "texts/b.txt"]);
}

/// What a buildkitd of the same version made of them, but for times.
#[test]
fn definitions_of_go_s_client_of_today_are_built() {
    let Some(world) = World::with_busybox() else { return };
    for name in ["a.txt", "b.txt", "c.txt", "d/x", "e/y"] {
        world.write(name, name);
    }
    let files = solved(&world, recorded("go-files").1).unwrap();
    let expected = [
        ("a", "711 3:4 /"),
        ("a/b", "711 3:4 /"),
        ("a/f", "640 5:6 data"),
        ("a/l", "777 0:0 -> f"),
        ("ctx", "755 9:8 /"),
        ("ctx/a.txt", "644 9:8 a.txt"),
        ("ctx/c.txt", "644 9:8 c.txt"),
        ("ctx/d", "755 9:8 /"),
        ("ctx/d/x", "644 9:8 d/x"),
        ("w", "755 0:0 /"),
        ("w/a.txt", "600 0:0 a.txt"),
        ("w/b.txt", "600 0:0 b.txt"),
        ("w/c.txt", "600 0:0 c.txt"),
    ];
    let found: Vec<_> = files.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect();
    assert_eq!(found, expected);
    if Platform::host() != Platform::new("linux", "amd64", "") {
        return eprintln!("skip: definitions_of_go_s_client_of_today_are_built: its steps are for linux/amd64");
    }
    let made = solved(&world, recorded("go-exec").1).unwrap();
    let expected = [
        ("merged", "600 0:0 "),
        ("tmp", "1777 0:0 /"),
        ("tmp/in", "644 65534:65534 sub"),
        ("tmp/out", "644 65534:65534 y\n"),
        ("z", "777 0:0 /"),
        ("z/f", "644 65534:65534 made\n"),
    ];
    let found: Vec<_> = made.iter().map(|(path, what)| (path.as_str(), what.as_str())).collect();
    assert_eq!(found, expected);
}

fn file(builder: &mut Builder, base: Option<Output>, actions: Vec<Action>) -> Output {
    let mut draft = Draft::default();
    let first = draft.input_or_scratch(base);
    let inputs = draft.inputs.len() as i64;
    let count = actions.len() as i64;
    let actions = (0..).zip(actions).map(|(i, action)| pb::FileAction {
        input: if i == 0 { first } else { inputs + i - 1 },
        secondary_input: -1,
        output: if i + 1 == count { 0 } else { -1 },
        action: Some(action),
    });
    draft.op = Some(pb::op::Op::File(pb::FileOp { actions: actions.collect() }));
    builder.output(draft)
}

fn mkfile(path: &str, mode: i32) -> Action {
    Action::Mkfile(pb::FileActionMkFile { path: path.to_owned(), mode, timestamp: -1, ..Default::default() })
}

#[test]
fn what_came_after_2020_is_built_too() {
    let Some(world) = World::with_busybox() else { return };
    let mut builder = Builder::new();
    let image = source::image(&"busybox:latest".parse().unwrap(), &Platform::host());
    let base = builder.output(image);
    let owner = |id| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    let made = vec![
        Action::Mkdir(pb::FileActionMkDir {
            path: "/d".to_owned(),
            mode: 0o750,
            owner: Some(pb::ChownOpt { user: owner(7), group: owner(8) }),
            timestamp: -1,
            ..Default::default()
        }),
        mkfile("/d/one", 0o640),
        mkfile("/d/two", 0o600),
        Action::Symlink(pb::FileActionSymlink {
            oldpath: "d/one".to_owned(),
            newpath: "/link".to_owned(),
            timestamp: -1,
            ..Default::default()
        }),
        Action::Rm(pb::FileActionRm { path: "/d/t*".to_owned(), allow_wildcard: true, ..Default::default() }),
    ];
    let below = file(&mut builder, Some(base), made);
    let script = "test $(cat /run/secrets/s)$S = hushhush && test \"$(hostname)\" = there && echo 1 >/tmp/gone && \
                  echo done >/ran; exit 3";
    let exec = pb::ExecOp {
        meta: Some(pb::Meta {
            args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".to_owned()],
            cwd: "/".to_owned(),
            hostname: "there".to_owned(),
            valid_exit_codes: vec![3],
            ..Default::default()
        }),
        network: pb::NetMode::None.into(),
        mounts: vec![
            pb::Mount { dest: "/".to_owned(), output: 0, ..Default::default() },
            pb::Mount {
                dest: "/tmp".to_owned(),
                input: -1,
                output: -1,
                mount_type: pb::MountType::Tmpfs.into(),
                tmpfs_opt: Some(pb::TmpfsOpt { size: 1 << 20 }),
                ..Default::default()
            },
            pb::Mount {
                dest: "/run/secrets/s".to_owned(),
                input: -1,
                output: -1,
                mount_type: pb::MountType::Secret.into(),
                secret_opt: Some(pb::SecretOpt { id: "s".to_owned(), mode: 0o400, ..Default::default() }),
                ..Default::default()
            },
        ],
        secretenv: vec![pb::SecretEnv { id: "s".to_owned(), name: "S".to_owned(), optional: false }],
        ..Default::default()
    };
    let mut draft = Draft::new(pb::op::Op::Exec(exec));
    draft.input(below);
    let ran = builder.output(draft);
    let mut draft = Draft::new(pb::op::Op::Diff(pb::DiffOp {
        lower: Some(pb::LowerDiffInput { input: 0 }),
        upper: Some(pb::UpperDiffInput { input: 1 }),
    }));
    draft.input(base);
    draft.input(ran);
    let diff = builder.output(draft);
    let other = file(&mut builder, None, vec![mkfile("/merged", 0o600)]);
    let head = llb::merge::merge(&mut builder, &[Some(diff), Some(other)], |_| ());
    let definition = builder.finish(head);
    let graph = llb::Graph::decode(&definition).unwrap();
    let declared: Vec<String> = graph.vertices().iter().flat_map(|vertex| vertex.meta.caps.keys().cloned()).collect();
    for cap in
        ["diffop", "mergeop", "exec.validexitcode", "exec.secretenv", "exec.mount.tmpfs.size", "file.symlink.create"]
    {
        assert!(declared.iter().any(|declared| declared == cap), "{cap}: {declared:?}");
    }
    let files = solved(&world, definition).unwrap();
    assert!(files["d"].starts_with("750 7:8") && files["d/one"].starts_with("640 "), "{files:?}");
    assert!(
        files["ran"].ends_with("done\n") && files.contains_key("merged") && files.contains_key("link"),
        "{files:?}"
    );
    // Nothing of the base, of what went again, and of what was mounted.
    for gone in ["bin", "d/two", "tmp/gone", "run/secrets/s"] {
        assert!(!files.contains_key(gone), "{gone}: {files:?}");
    }
}

#[test]
fn what_cannot_be_honoured_is_an_error_that_names_it() {
    let world = World::new();
    let with = |change: &dyn Fn(&mut pb::Op, &mut pb::OpMetadata)| {
        let mut op = pb::Op {
            op: Some(pb::op::Op::Source(pb::SourceOp {
                identifier: "local://context".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let mut meta = pb::OpMetadata::default();
        change(&mut op, &mut meta);
        let bytes = llb::encode::op_bytes(&op);
        let digest = llb::encode::digest(&bytes).to_string();
        let head = pb::Op { inputs: vec![pb::Input { digest: digest.clone(), index: 0 }], ..Default::default() };
        let metadata = BTreeMap::from([(digest, meta)]).into_iter().collect();
        let definition = pb::Definition { def: vec![bytes, head.encode_to_vec()], metadata, source: None };
        solved(&world, definition).map_err(|error| format!("{error:#}"))
    };
    assert!(with(&|_, _| ()).is_ok());
    let source = |op: &mut pb::Op, identifier: &str, attrs: &[(&str, &str)]| {
        let attrs = attrs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        op.op = Some(pb::op::Op::Source(pb::SourceOp { identifier: identifier.to_owned(), attrs }));
    };
    let need = |meta: &mut pb::OpMetadata, cap: &str, needed: bool| {
        meta.caps.insert(cap.to_owned(), needed);
    };
    type Change<'a> = &'a dyn Fn(&mut pb::Op, &mut pb::OpMetadata);
    let cases: [(Change<'_>, &str); 9] = [
        (&|_, meta| need(meta, "exec.teleport", true), "needs the capability exec.teleport"),
        (
            &|op, _| op.constraints = Some(pb::WorkerConstraints { filter: vec!["gpu==yes".to_owned()] }),
            "needs a worker with gpu==yes",
        ),
        (&|op, _| source(op, "local://context", &[("local.colour", "red")]), "attribute local.colour is not supported"),
        (&|op, _| source(op, "local://other", &[]), "no local directory \"other\" was given"),
        (&|op, _| source(op, "floppy://a", &[]), "source floppy:// is not supported"),
        (&|op, _| source(op, "oci-layout://a/b:1", &[("oci.store", "x")]), "an oci-layout source without a digest"),
        (
            &|op, _| source(op, &format!("oci-layout://a/b@sha256:{}", "0".repeat(64)), &[]),
            "names no store (oci.store)",
        ),
        (
            &|op, _| source(op, &format!("oci-layout://a/b@sha256:{}", "0".repeat(64)), &[("oci.store", "x")]),
            "no OCI layout \"x\" was given",
        ),
        (&|op, _| op.op = Some(pb::op::Op::Build(pb::BuildOp::default())), "BuildOp"),
    ];
    for (change, part) in cases {
        let error = with(change).unwrap_err();
        assert!(error.contains(part), "{part}: {error}");
    }
    // A capability that is told of as not needed asks for nothing.
    assert!(with(&|_, meta| need(meta, "exec.teleport", false)).is_ok());
}

/// The base image of the recorded Dockerfiles.
struct OneImage;

impl ImageConfigs for OneImage {
    fn resolve(&self, reference: &Reference, _: &Platform) -> anyhow::Result<ResolvedImage> {
        let config = serde_json::json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", "2".repeat(64))]},
            "history": [{"created_by": "base"}],
        });
        let digest = format!("sha256:{}", "1".repeat(64)).parse()?;
        Ok(ResolvedImage { reference: reference.with_digest(digest), config: serde_json::from_value(config)? })
    }
}

/// An op has one digest, whoever made it: what one client has built another finds in an engine's cache.
#[test]
fn ops_are_those_of_go_s_client_of_today() {
    let cases = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/llb/go")).unwrap();
    let mut count = 0;
    for case in cases.map(|case| case.unwrap().path()) {
        let read = |name: &str| fs::read_to_string(case.join(name));
        let mut input = Input::new("Dockerfile", read("Dockerfile").unwrap(), epoch());
        input.platform = Some(Platform::new("linux", "amd64", ""));
        let arguments = read("args").unwrap_or_default();
        let arguments = arguments.lines().filter_map(|line| line.split_once('='));
        input.build_args = arguments.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let graph = llb::Graph::decode(&frontend::build(&input, &OneImage).unwrap().definition).unwrap();
        let mut ours: Vec<String> = graph.vertices().iter().map(|vertex| vertex.digest.to_string()).collect();
        let mut theirs: Vec<String> = read("digests").unwrap().lines().map(str::to_owned).collect();
        count += theirs.len();
        ours.sort();
        theirs.sort();
        assert_eq!(ours, theirs, "{}\n{}", case.display(), llb::print::text(&graph));
    }
    assert!(count > 80, "only {count} ops");
}

/// A build without images: there is nothing to resolve.
struct NoImages;

impl ImageConfigs for NoImages {
    fn resolve(&self, reference: &Reference, _: &Platform) -> anyhow::Result<ResolvedImage> {
        anyhow::bail!("{reference} is not asked for")
    }
}

/// The digests of what our frontend makes, in the order of the graph, had Go's client of 2021 written it: that one gave
/// every op a platform, wrote fields by their numbers, and knew neither stubs of mounts nor sizes of tmpfs.
fn as_in_2021(dockerfile: &str) -> Vec<String> {
    let platform = Platform::new("linux", "amd64", "");
    let mut input = Input::new("Dockerfile", dockerfile, epoch());
    input.platform = Some(platform.clone());
    let graph = llb::Graph::decode(&frontend::build(&input, &NoImages).unwrap().definition).unwrap();
    let mut theirs: BTreeMap<String, String> = BTreeMap::new();
    let rewritten = graph.vertices().iter().map(|vertex| {
        let mut op = vertex.op.clone();
        op.platform = Some(llb::build::platform_of(&platform));
        op.inputs.iter_mut().for_each(|input| input.digest.clone_from(&theirs[&input.digest]));
        if let Some(pb::op::Op::Exec(pb::ExecOp { meta: Some(meta), mounts, .. })) = &mut op.op {
            meta.remove_mount_stubs_recursive = false;
            mounts.iter_mut().for_each(|mount| mount.tmpfs_opt = None);
        }
        let digest = llb::encode::digest(&op.encode_to_vec()).to_string();
        theirs.insert(vertex.digest.to_string(), digest.clone());
        digest
    });
    rewritten.collect()
}

/// Against the digests that dockerd 20.10 tells of when its own frontend, on Go's `client/llb`, reads the same text.
#[test]
fn ops_are_those_that_go_s_client_made() {
    let cases: [(&str, &[&str]); 2] = [
        (
            "FROM scratch AS a\nWORKDIR /x/y\nFROM scratch\nCOPY --from=a /x /z/\n\
             COPY --from=a --chown=7:8 /x /w/\nWORKDIR /z/more\n",
            &[
                "7391d39f5ffe053e1dc7ab36cf6e70871c5b1ed41090497d83bdf2eaf0e0a9f5",
                "08a823af765a8ec9d2be40bd76ebdb0656eba7391151895737b1fcc65c2692d8",
                "29c458d0c2b1e506811e572e7c82884e2297174b8f99349ac9c7e0941a7ca085",
                "d68b452d4af97cef0f7df48eced7ec5623809fe2541e460cfcdfabb026e34ad3",
            ],
        ),
        (
            "FROM scratch\nRUN echo shell\nRUN [\"exec\", \"form\"]\nUSER 7:8\nWORKDIR /w\nENV A=b\n\
             RUN --mount=type=cache,target=/c,id=i,sharing=locked --mount=type=tmpfs,target=/t echo mounts\n",
            &[
                "659abe570d62168d25132df3df2d782714ae6bd59dc5b59f61066c48e10d1e5d",
                "95447090c87ef38b8295bcc354ea2cd9be5c452693d254e3b60b4be63675ff0b",
                "b1966c28c7abe600522c2e4a7754d3de380b8e936633cbe8bcb0ff347eba6515",
                "323de00c7a3cc08d59f49f1356a8501da28ecc988ab5da1991ee796aa94b9991",
            ],
        ),
    ];
    for (dockerfile, made) in cases {
        let made: Vec<String> = made.iter().map(|digest| format!("sha256:{digest}")).collect();
        assert_eq!(as_in_2021(dockerfile), made, "{dockerfile}");
    }
}
