//! Builds on a real BuildKit, the one in Debian's dockerd, come out as those of the local engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::{Place, ended, tree};
use crate::golden_build::{args, cases, compare, context, differs, expected, name};
use crate::oracle::{self, BUSYBOX, Dockerd, find, repository, run, skip};

/// One of each kind: what only the context's transfer can get wrong, what only the definition can, what only the
/// way back can. All were compared once; these stay quick.
const CASES: [&str; 10] = [
    "copy-hardlinks",
    "copy-names-with-blanks",
    "copy-setuid-modes",
    "dockerignore-reinclude",
    "copy-chown-names",
    "from-scratch-config",
    "many-stages",
    "run-deletes",
    "run-mount-cache",
    "scratch-copy",
];

fn dockless(place: &Place, engine: &str) -> Command {
    let mut command = place.command("dockless");
    command.env("DOCKLESS_ENGINE", engine);
    command
}

/// One dockerd for all of it: to start one takes seconds.
#[test]
fn dockerd_builds_what_the_local_engine_builds() {
    let test = "dockerd_builds_what_the_local_engine_builds";
    let Some(place) = Place::with_base(test) else { return };
    let Some(dockerd) = Dockerd::start(test) else { return };
    let engine = dockerd.engine();
    golden_cases_are_as_expected(&place, &engine);
    what_is_built_there_can_be_built_on(&place, &engine);
    a_failure_is_told_as_the_local_engine_tells_it(&place, &engine);
    a_definition_is_solved(&place, &engine);
    the_engine_is_looked_at(&place, &engine);
}

fn golden_cases_are_as_expected(place: &Place, engine: &str) {
    let base = oracle::tree(&bases().join("busybox.tar"));
    for case in cases().iter().filter(|case| CASES.contains(&name(case))) {
        assert!(!differs(case), "{}", name(case));
        let dir = context(case, &place.work());
        let (tag, archive) = (format!("golden/{}", name(case)), place.at("image.tar"));
        let mut build = dockless(place, engine);
        build.args(["build", "--network=host", "-t", &tag]).args(args(case)).arg(".").current_dir(dir);
        ended(&mut build).ok();
        place.run("dockless", ["save", "-o", archive.to_str().unwrap(), &tag]).ok();
        let made = oracle::describe(&archive, &base);
        compare(&expected(case, "expected.json").unwrap(), &made).unwrap_or_else(|why| panic!("{}: {why}", name(case)));
    }
}

fn what_is_built_there_can_be_built_on(place: &Place, engine: &str) {
    place.write("on/Dockerfile", "FROM golden/run-deletes\nRUN --mount=type=secret,id=s cat /run/secrets/s >/told\n");
    place.write("secret", "hush");
    let on = ["build", "--network=host", "--secret", "id=s,src=secret", "-t", "on:1", "on"];
    ended(dockless(place, engine).args(on)).ok();
    assert_eq!(place.dockless("run --rm on:1 cat /told").ok(), "hush");
}

fn the_engine_is_looked_at(place: &Place, engine: &str) {
    let buildctl = |words: &[&str]| ended(place.command("buildctl").env("BUILDKIT_HOST", engine).args(words)).ok();
    let workers = buildctl(&["debug", "workers"]);
    assert!(workers.contains(&dockless::base::Platform::host().to_string()), "{workers}");
    let total = |said: String| said.lines().last().unwrap_or_default().to_owned();
    assert_ne!(total(buildctl(&["du"])), "Total: 0B");
    buildctl(&["prune", "--all"]);
    assert_eq!(total(buildctl(&["du"])), "Total: 0B");
}

fn a_failure_is_told_as_the_local_engine_tells_it(place: &Place, engine: &str) {
    place.write("bad/Dockerfile", &format!("FROM {BUSYBOX}\nRUN echo so near; exit 7\n"));
    let words = ["build", "--network=host", "bad"];
    let there = ended(dockless(place, engine).args(words)).fails_with(4);
    let here = ended(dockless(place, "local").args(words)).fails_with(4);
    let report = |said: &str| said[said.find("------").unwrap_or_else(|| panic!("{said}"))..].to_owned();
    assert_eq!(report(&there), report(&here));
}

/// Made by our own frontend, which is another LLB client as good as any.
fn a_definition_is_solved(place: &Place, engine: &str) {
    place.write("llb/file", "x");
    let definition = place.at("definition");
    fs::write(&definition, dockless_definition()).unwrap();
    let words = ["build", "--llb", "definition", "--output", "type=local,dest=out", "llb"];
    for engine in [engine, "local"] {
        ended(dockless(place, engine).args(words)).ok();
        assert_eq!(tree(&place.at("out")), ["d/", "d/file"], "{engine}");
        fs::remove_dir_all(place.at("out")).unwrap();
    }
    let drawn = place.dockless("debug llb --from definition").ok();
    assert!(drawn.contains("local://context") && drawn.contains("file.actions.0.copy.src: \"/file\""), "{drawn}");
}

fn dockless_definition() -> Vec<u8> {
    use dockless::llb::build::Builder;
    use dockless::llb::file::{FileActions, NO_MODE, NO_TIMESTAMP};
    use dockless::llb::{pb, source};
    let mut builder = Builder::new();
    let local = builder.output(source::local("context", "", "", ""));
    let mut actions = FileActions::on(None);
    actions.copy(
        Some(local),
        pb::FileActionCopy {
            src: "/file".to_owned(),
            dest: "/d/".to_owned(),
            mode: NO_MODE,
            timestamp: NO_TIMESTAMP,
            create_dest_path: true,
            ..Default::default()
        },
    );
    let head = builder.output(actions.into_draft());
    prost::Message::encode_to_vec(&builder.finish(Some(head)))
}

/// A program that puts `--network=host` into builds: a dockerd without a bridge has no other network for steps.
fn with_host_network(dir: &Path, tool: &str) -> PathBuf {
    let script = format!(
        "#!/bin/sh\ncase $1 in\nbuild) shift; exec {tool} build --network=host \"$@\" ;;\n\
         buildx) shift 2; exec {tool} buildx build --network=host \"$@\" ;;\nesac\nexec {tool} \"$@\"\n"
    );
    let path = dir.join(format!("host-{tool}"));
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn bases() -> PathBuf {
    repository().join("target/bases")
}

#[test]
#[ignore = "gives dockerd a base of 300 MB, which takes a minute: cargo test --test e2e -- --ignored remote::"]
fn the_monorepo_s_task_comes_out_the_same() {
    let test = "the_monorepo_s_task_comes_out_the_same";
    if let Some(missing) = ["mmdebstrap", "busybox", "make"].into_iter().find(|program| find(program).is_none()) {
        return skip(test, &format!("needs {missing}"));
    }
    let Some(dockerd) = Dockerd::start(test) else { return };
    let (place, engine) = (Place::empty(), dockerd.engine());
    fs::create_dir_all(bases()).unwrap();
    run(Command::new(repository().join("ci/bases"))
        .args([oracle::dockless(), bases(), "build".into()])
        .env("DOCKLESS_STATE", place.state()));
    let base = oracle::tree(&bases().join("busybox.tar"));
    let task = |engine: &str, name: &str| {
        let dir = place.at(name);
        run(Command::new("cp").arg("-R").arg(repository().join("examples/monorepo")).arg(&dir));
        let mut task = dockless(&place, engine);
        task.env("DOCKER", with_host_network(&place.work(), "docker"));
        task.env("IMG", with_host_network(&place.work(), "img"));
        ended(task.args(["task", "--", "make", "release"]).current_dir(&dir)).ok();
        dir.join("release")
    };
    let (here, there) = (task("local", "here"), task(&engine, "there"));
    assert_eq!(tree(&here), tree(&there));
    for image in ["greeter", "tally"] {
        let [ours, theirs] = [&here, &there].map(|out| oracle::describe(&out.join(image).join("image.tar"), &base));
        assert_eq!(ours, theirs, "{image}");
    }
    for artifact in ["greeter/objects/greeter.o", "greeter/bin/greeter", "sdk/lib/libtext.a", "sdk/include/text.h"] {
        let [ours, theirs] = [&here, &there].map(|out| fs::read(out.join(artifact)).unwrap());
        assert!(ours == theirs, "{artifact}");
    }
}
