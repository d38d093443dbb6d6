//! Builds on a real BuildKit, the one in Debian's dockerd, come out as those of the local engine.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::agents::agents_answer_steps;
use crate::cli::{Place, ended, tree};
use crate::golden_build::{args, cases, compare, context, differs, expected, name};
use crate::oracle::{self, BUSYBOX, Buildkitd, Dockerd, find, repository, run, skip};

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
    an_old_engine_refuses_what_it_does_not_know(&place, &engine);
    its_own_frontend_reads_a_dockerfile(&place, &engine, &dockerd);
    a_file_that_changed_behind_its_times_is_sent(&place, &engine);
    layers_are_stored_as_is_asked(&place, &engine);
    agents_answer_steps(&place, &["local", &engine]);
    caches_are_read_and_written_there(&place, &engine, &dockerd);
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

/// How the layers of an image in a layout are stored.
pub fn stored(layout: &Path) -> Vec<String> {
    let json = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let digest = json(&layout.join("index.json"))["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let layers = json(&layout.join("blobs").join(digest))["layers"].as_array().unwrap().clone();
    layers
        .iter()
        .map(|layer| layer["mediaType"].as_str().unwrap().replace("application/vnd.oci.image.layer.v1.", ""))
        .collect()
}

/// A Docker daemon hands out all layers plain, and a registry was once given them so.
pub fn layers_are_stored_as_is_asked(place: &Place, engine: &str) {
    place.write("asked/Dockerfile", &format!("FROM {BUSYBOX}\nCOPY Dockerfile /\n"));
    for (options, form) in [("", "tar+gzip"), (",compression=zstd", "tar+zstd"), (",compression=uncompressed", "tar")] {
        let output = format!("type=oci,dest=stored,tar=false{options}");
        ended(dockless(place, engine).args(["build", "--network=host", "-o", &output, "asked"])).ok();
        assert_eq!(stored(&place.at("stored")), [form, form], "{options}");
        fs::remove_dir_all(place.at("stored")).unwrap();
    }
}

/// Both keep copies of contexts, and see no change in a file of the same size and mtime: what a package manager installs
/// has a fixed date, and so has what a reproducible build touches.
pub fn a_file_that_changed_behind_its_times_is_sent(place: &Place, engine: &str) {
    place.write("dated/Dockerfile", "FROM scratch\nCOPY file other /\n");
    place.write("dated/other", "of its own date");
    for text in ["one", "two"] {
        place.write("dated/file", text);
        run(Command::new("touch").args(["-d", "@1000000000"]).arg(place.at("dated/file")));
        for frontend in ["dockless", "engine"] {
            let mut build = dockless(place, engine);
            build.env("DOCKLESS_FRONTEND", frontend);
            ended(build.args(["build", "--network=host", "-o", "type=local,dest=dated-out", "dated"])).ok();
            assert_eq!(place.read("dated-out/file"), text, "{frontend}");
        }
    }
}

/// An image that only this store has becomes one of dockerd's own.
fn give(place: &Place, dockerd: &Dockerd, name: &str) {
    let archive = place.at("given.tar");
    place.run("dockless", ["save", "-o", archive.to_str().unwrap(), name]).ok();
    run(dockerd.docker(&["load", "-q", "-i"]).arg(&archive));
}

fn its_own_frontend_reads_a_dockerfile(place: &Place, engine: &str, dockerd: &Dockerd) {
    give(place, dockerd, BUSYBOX);
    place.write(
        "theirs/its.dockerfile",
        &format!(
            "FROM {BUSYBOX} AS made\nARG WORD\nRUN --mount=type=secret,id=s echo $WORD $(cat /run/secrets/s) >/word\n\
             FROM scratch\nCOPY --from=made /word /\nCOPY . /\nLABEL by=them\n"
        ),
    );
    place.write("theirs/its.dockerfile.dockerignore", "hidden\nits.*\n");
    place.write("theirs/hidden", "");
    place.write("theirs/shown", "");
    let words = ["build", "--network=host", "--build-arg", "WORD=hi", "--secret", "id=s,src=secret", "--label", "l=m"];
    let mut build = dockless(place, engine);
    build.env("DOCKLESS_FRONTEND", "engine").args(words).args(["-f", "theirs/its.dockerfile", "-t", "theirs:1"]);
    build.args(["-o", "type=local,dest=out", "--load", "theirs"]);
    ended(&mut build).ok();
    assert_eq!(tree(&place.at("out")), ["shown", "word"]);
    assert_eq!(place.read("out/word"), "hi hush\n");
    fs::remove_dir_all(place.at("out")).unwrap();
    let labels = place.run("dockless", ["inspect", "-f", "{{json .Config.Labels}}", "theirs:1"]).ok();
    assert_eq!(labels.trim(), r#"{"by":"them","l":"m"}"#);

    let buildctl =
        |words: &str| ended(place.command("buildctl").env("DOCKLESS_FRONTEND", "engine").args(words.split(' ')));
    let face = format!("--addr {engine} build --local context=theirs --local dockerfile=theirs");
    let built = buildctl(&format!(
        "{face} --frontend dockerfile.v0 --opt filename=its.dockerfile --opt build-arg:WORD=you --opt \
         force-network-mode=host --allow network.host --output type=local,dest=out --metadata-file said"
    ));
    built.ok();
    assert_eq!(place.read("out/word"), "you\n");
    fs::remove_dir_all(place.at("out")).unwrap();

    // There is no such image anywhere: that the engine looks for it is all that can be seen without one.
    let error = buildctl(&format!("{face} --frontend gateway.v0 --opt source=127.0.0.1:1/frontend:1")).fails_with(1);
    assert!(error.contains("127.0.0.1:1/frontend:1"), "{error}");
    place.write("theirs/Dockerfile", "# syntax=127.0.0.1:1/other:1\nFROM scratch\n");
    let error = ended(dockless(place, engine).args(["build", "theirs"])).fails_with(3);
    assert!(error.contains("127.0.0.1:1/other:1"), "{error}");
    let named = ["build", "--build-context", "c=docker-image://x", "theirs"];
    let error = ended(dockless(place, engine).args(named)).fails_with(1);
    assert!(error.contains("too old for its frontend to know the build context c"), "{error}");
}

fn caches_are_read_and_written_there(place: &Place, engine: &str, dockerd: &Dockerd) {
    place.write(
        "kept/Dockerfile",
        &format!("FROM {BUSYBOX}\nRUN cat /proc/sys/kernel/random/uuid >/id\nCOPY Dockerfile /\n"),
    );
    let build = |words: &[&str]| {
        ended(dockless(place, engine).args(["build", "--network=host", "--progress=plain"]).args(words).arg("kept"))
    };
    build(&["-t", "kept:1", "--cache-to", "type=inline"]).ok();
    let id = place.dockless("run --rm kept:1 cat /id").ok();
    // As another engine would have it: the image, and nothing of what was built.
    give(place, dockerd, "kept:1");
    ended(place.command("buildctl").args(["--addr", engine, "prune", "--all"])).ok();
    build(&["-t", "kept:2", "--cache-from", "kept:1"]).ok();
    assert_eq!(place.dockless("run --rm kept:2 cat /id").ok(), id, "taken over");
    build(&["-t", "kept:3", "--no-cache"]).ok();
    assert_ne!(place.dockless("run --rm kept:3 cat /id").ok(), id, "made anew");

    // A folder of this machine is read through the session; keys of ours say nothing to another engine.
    ended(dockless(place, "local").args(["build", "--cache-to", "type=local,dest=cache", "kept"])).ok();
    let read = build(&["-t", "kept:4", "--cache-from", "type=local,src=cache"]);
    let line = read.err.lines().find(|line| line.contains("importing cache manifest from local:")).map(str::to_owned);
    let step = line.unwrap_or_else(|| panic!("{}", read.err)).split(' ').next().unwrap_or_default().to_owned();
    assert!(read.err.contains(&format!("{step} DONE")), "{}", read.err);
    read.ok();
    let missing = build(&["--cache-from", "type=local,src=nowhere"]);
    assert!(missing.err.contains("it has no cache with the tag latest"), "{}", missing.err);
    missing.ok();
    // dockerd of this age writes no cache but inline ones, and says so.
    let error = build(&["--cache-to", "type=local,dest=cache2"]).fails_with(1);
    assert!(error.contains("unknown cache exporter: \"local\""), "{error}");
}

/// 20.10 knows nothing of what came after it.
fn an_old_engine_refuses_what_it_does_not_know(place: &Place, engine: &str) {
    place.write("plain/Dockerfile", &format!("FROM {BUSYBOX}\nRUN echo here >/here\n"));
    place.dockless("build -o type=oci,dest=layout,tar=false plain").ok();
    let index: serde_json::Value = serde_json::from_str(&place.read("layout/index.json")).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    fs::write(place.at("of-layout"), layout_definition(digest)).unwrap();
    let words =
        ["build", "--llb", "of-layout", "--build-context", "mine=oci-layout://layout", "-o", "type=local,dest=out"];
    let error = ended(dockless(place, engine).args(words).arg("llb")).fails_with(1);
    assert!(error.contains("source.ocilayout"), "{error}");
    ended(dockless(place, "local").args(words).arg("llb")).ok();
    assert_eq!(place.read("out/here"), "here\n");
    fs::remove_dir_all(place.at("out")).unwrap();
    let words = ["build", "--network=host", "--shm-size=1m", "plain"];
    let error = ended(dockless(place, engine).args(words)).fails_with(1);
    assert!(error.contains("exec.mount.tmpfs.size"), "{error}");
    let error = place.dockless("build --llb of-layout llb").fails_with(1);
    assert!(error.contains("no OCI layout \"mine\" was given"), "{error}");
}

fn layout_definition(digest: &str) -> Vec<u8> {
    use dockless::base::Platform;
    use dockless::llb::build::Builder;
    use dockless::llb::source;
    let mut builder = Builder::new();
    let reference = format!("layout.example/any@{digest}").parse().unwrap();
    let head = builder.output(source::oci_layout(&reference, "mine", &Platform::host()));
    prost::Message::encode_to_vec(&builder.finish(Some(head)))
}

fn the_engine_is_looked_at(place: &Place, engine: &str) {
    let buildctl = |words: &[&str]| ended(place.command("buildctl").args(["--addr", engine]).args(words)).ok();
    let platform = dockless::base::Platform::host().to_string();
    assert!(buildctl(&["debug", "workers"]).contains(&platform));
    let told = buildctl(&["debug", "workers", "-v"]);
    assert!(told.starts_with("ID:          moby\n") && told.contains("Labels:\n"), "{told}");
    assert_eq!(buildctl(&["debug", "workers", "--format", "{{range .}}{{.ID}}{{end}}"]), "moby\n");
    let total = |said: String| said.lines().last().unwrap_or_default().to_owned();
    assert_ne!(total(buildctl(&["du"])), "Total: 0B");
    let records = |words: &[&str]| -> Vec<serde_json::Value> {
        serde_json::from_str(&buildctl(&[&["du", "--format", "json"], words].concat())).unwrap()
    };
    let (all, local) = (records(&[]), records(&["--filter", "type==source.local"]));
    assert!(local.iter().all(|record| record["recordType"] == "source.local"), "{local:?}");
    assert!(!local.is_empty() && local.len() < all.len(), "{local:?}");
    assert!(buildctl(&["du", "-v"]).contains("Type:           source.local\n"));
    buildctl(&["prune", "--filter", "type==source.local"]);
    assert_eq!(records(&["--filter", "type==source.local"]), [] as [serde_json::Value; 0]);
    buildctl(&["prune", "--all"]);
    assert_eq!(total(buildctl(&["du"])), "Total: 0B");

    let buildx = |verb: &str, engines: &str| {
        ended(place.command("docker").env("DOCKLESS_ENGINE", engines).args(["buildx", verb])).ok()
    };
    let told = buildx("inspect", engine);
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[..3], ["Name:   dockless", "Driver: remote", &format!("Endpoint: {engine}")], "{told}");
    assert!(lines.last().is_some_and(|line| line.starts_with("Platforms: ") && line.contains(&platform)), "{told}");
    let listed = buildx("ls", &format!("{engine},unix:///nobody,local"));
    let found: Vec<_> =
        listed.lines().skip(1).map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>()).collect();
    assert_eq!(found, [[engine, "running"], ["unix:///nobody", "inactive"], ["in-process", "running"]]);
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
        let mut piped = place.command("buildctl");
        piped.args(["build", "--local", "context=llb", "--output", "type=local,dest=out"]);
        ended(piped.env("DOCKLESS_ENGINE", engine).stdin(fs::File::open(&definition).unwrap())).ok();
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
    let Some(dockerd) = Dockerd::start(test) else { return };
    the_monorepo_s_task_on(test, &dockerd.engine());
}

#[test]
#[ignore = "makes a base of 300 MB, which takes a minute: cargo test --test e2e -- --ignored remote::"]
fn the_monorepo_s_task_comes_out_the_same_of_a_buildkitd() {
    let test = "the_monorepo_s_task_comes_out_the_same_of_a_buildkitd";
    let Some(buildkitd) = Buildkitd::start(test) else { return };
    the_monorepo_s_task_on(test, &buildkitd.engine());
}

fn the_monorepo_s_task_on(test: &str, engine: &str) {
    if let Some(missing) = ["mmdebstrap", "busybox", "make"].into_iter().find(|program| find(program).is_none()) {
        return skip(test, &format!("needs {missing}"));
    }
    let place = Place::empty();
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
    let (here, there) = (task("local", "here"), task(engine, "there"));
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
