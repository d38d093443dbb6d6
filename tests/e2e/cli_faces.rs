//! The names that dockless answers to beside its own, docker's and img's: `build` of Concourse's older tasks, buildctl,
//! kaniko's executor, and the resource's three programs.

use std::process::Stdio;

use crate::cli::{Place, ended, tree};
use crate::oracle::BUSYBOX;

const DOCKERFILE: &str = "ARG base=dockless.example/busybox:1\nFROM $base AS test\nARG WORD\nRUN echo $WORD > /word\n\
                          FROM test\nLABEL kind=main\n";

#[test]
fn build_takes_parameters_and_fills_the_declared_outputs() {
    let test = "build_takes_parameters_and_fills_the_declared_outputs";
    let Some(place) = Place::with_base(test) else { return };
    place.write("src/Dockerfile", DOCKERFILE);
    for output in ["image", "test"] {
        std::fs::create_dir(place.at(output)).unwrap();
    }
    let mut command = place.command("build");
    command.envs([
        ("CONTEXT", "src"),
        ("BUILD_ARG_WORD", "hello"),
        ("LABEL_note", "x"),
        ("ADDITIONAL_TARGETS", "test"),
        ("UNPACK_ROOTFS", "true"),
        ("REPOSITORY", "acct/app"),
        ("TAG", "7"),
    ]);
    ended(&mut command).ok();
    assert_eq!(place.read("image/rootfs/word"), "hello\n");
    assert_eq!(place.read("test/rootfs/word"), "hello\n");
    let id = place.read("image/digest");
    assert_eq!(place.dockless(&format!("inspect -f {{{{.Config.Labels}}}} {id}")).ok(), "map[kind:main note:x]\n");
    assert_eq!(place.dockless("load -i image/image.tar").ok(), "Loaded image: acct/app:7\n");
    assert!(tree(&place.at("image")).iter().all(|path| !path.starts_with('.')), "nothing unfinished is left");

    let mut command = place.command("build");
    command.envs([("CONTEXT", "src"), ("TAG_FILE", "absent")]);
    assert!(ended(&mut command).fails_with(1).contains("tag file 'absent' does not exist"));
}

#[test]
fn executor_takes_kaniko_s_flags() {
    let Some(place) = Place::with_base("executor_takes_kaniko_s_flags") else { return };
    place.write("src/sub/Dockerfile", &DOCKERFILE.replace("RUN echo", "RUN date +%N > /when; echo"));
    let executor = |words: &str| place.run("executor", words.split_whitespace());
    let built = "--context dir://src --context-sub-path sub --no-push --destination acct/app:1 --build-arg=WORD=hello";
    executor(&format!(
        "{built} --tar-path app.tar --oci-layout-path layout --digest-file out/digest --label x=y --snapshot-mode=redo \
         --image-name-tag-with-digest-file=out/name --reproducible --force --cleanup=true"
    ))
    .ok();
    let digest = place.read("out/digest");
    assert_eq!(place.read("out/name"), format!("docker.io/acct/app:1@{digest}\n"));
    assert!(place.read("layout/index.json").contains(&digest));
    assert_eq!(place.dockless("load -i app.tar").ok(), "Loaded image: acct/app:1\n");
    assert_eq!(place.dockless("inspect -f {{.Created}} acct/app:1").ok(), "1970-01-01T00:00:00Z\n");
    assert_eq!(place.run("docker", ["run", "--rm", "acct/app:1", "cat", "/word"]).ok(), "hello\n");

    // Steps are run again, and taken over where that is asked for.
    let id = || place.dockless("inspect -f {{.Id}} acct/app:1").ok();
    executor(built).ok();
    let first = id();
    executor(built).ok();
    assert_ne!(id(), first);
    executor(&format!("{built} --cache --cache-repo oci:cache")).ok();
    let kept = id();
    executor(&format!("{built} --cache=true --cache-repo oci:cache")).ok();
    assert_eq!(id(), kept);
    assert!(place.at("cache/index.json").is_file());

    let mut tar = std::process::Command::new("tar");
    assert!(tar.args(["-czf", "c.tgz", "-C", "src", "."]).current_dir(place.work()).status().unwrap().success());
    executor("-c tar://c.tgz --context-sub-path=sub --no-push --build-arg WORD=tar --destination acct/tar").ok();
    assert_eq!(place.run("docker", ["run", "--rm", "acct/tar", "cat", "/word"]).ok(), "tar\n");

    for (words, message) in [
        ("", "you must provide --destination, or use --no-push"),
        ("--no-push --bucket b", "--bucket b is not supported"),
        ("--no-push --context src", "there is no Dockerfile"),
        ("--no-push --bogus", "--bogus"),
        ("--context gs://b/c --no-push", "gs:// is not supported"),
    ] {
        assert!(executor(words).fails_with(1).contains(message), "{words}");
    }
}

#[test]
fn build_for_several_platforms_makes_an_index() {
    let place = Place::empty();
    place.write("src/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY for-$TARGETARCH /what\n");
    for arch in ["amd64", "arm64"] {
        place.write(&format!("src/for-{arch}"), arch);
    }
    let build = || {
        let mut command = place.command("build");
        command.envs([("CONTEXT", "src"), ("IMAGE_PLATFORM", "linux/amd64,linux/arm64"), ("REPOSITORY", "acct/app")]);
        ended(&mut command)
    };
    build().ok();
    std::fs::create_dir(place.at("image")).unwrap();
    build().ok();
    assert!(tree(&place.at("image")).iter().all(|path| !path.starts_with('.')), "nothing unfinished is left");
    let json = |path: &str| serde_json::from_str::<serde_json::Value>(&place.read(path)).unwrap();
    let digest = place.read("image/digest");
    assert_eq!(json("image/image/index.json")["manifests"][0]["digest"], digest);
    let index = json(&format!("image/image/blobs/{}", digest.replace(':', "/")));
    let platforms: Vec<_> = (0..2).map(|at| index["manifests"][at]["platform"]["architecture"].clone()).collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    place.dockless("load -i image/image.tar").ok();

    std::fs::create_dir(place.at("rootfs")).unwrap();
    assert!(build().fails_with(1).contains("the output rootfs has room for one"));
}

#[test]
fn build_takes_images_as_arguments_and_keeps_its_state_in_the_cache() {
    let test = "build_takes_images_as_arguments_and_keeps_its_state_in_the_cache";
    let Some(place) = Place::with_base(test) else { return };
    place.write("src/Dockerfile", DOCKERFILE);
    place.dockless(&format!("save -o base.tar {BUSYBOX}")).ok();
    for dir in ["image", "cache"] {
        std::fs::create_dir(place.at(dir)).unwrap();
    }
    let mut command = place.command("build");
    // A state of its own: only the archive brings the base.
    command.env_remove("DOCKLESS_STATE").envs([
        ("CONTEXT", "src"),
        ("IMAGE_ARG_base", "base.tar"),
        ("OUTPUT_OCI", "true"),
    ]);
    ended(&mut command).ok();
    assert!(place.at("image/image/index.json").is_file() && place.at("image/image.tar").is_file());
    assert!(place.read("image/digest").starts_with("sha256:"));
    assert!(place.at("cache/images/index.json").is_file());
}

#[test]
fn buildctl_builds_dockerfiles_and_definitions() {
    let Some(place) = Place::with_base("buildctl_builds_dockerfiles_and_definitions") else { return };
    place.write("Dockerfile", DOCKERFILE);
    let buildctl = |words: &str| place.run("buildctl-daemonless.sh", words.split_whitespace());
    let base = "build --frontend dockerfile.v0 --local context=. --local dockerfile=.";
    buildctl(&format!("{base} --opt build-arg:WORD=hi --opt target=test --output type=local,dest=out")).ok();
    assert_eq!(place.read("out/word"), "hi\n");
    let named = buildctl(&format!("{base} --output type=image,name=acct/x:1 --trace trace.json"));
    assert!(named.err.contains("--trace has no meaning without a daemon"), "{}", named.err);
    named.ok();
    assert_eq!(place.dockless("images -q acct/x:1").ok().lines().count(), 1);
    place.write("limits/Dockerfile", &format!("FROM {BUSYBOX}\nRUN ulimit -n >/n; df -k /dev/shm >/shm\n"));
    let limits = base.replace("=.", "=limits");
    buildctl(&format!("{limits} --opt ulimit=nofile=50:60 --opt shm-size=1048576 --output type=local,dest=limited"))
        .ok();
    assert_eq!(place.read("limited/n"), "50\n");
    assert!(place.read("limited/shm").contains(" 1024 "), "{}", place.read("limited/shm"));
    let err = buildctl(&format!("{base} --opt colour=red")).fails_with(1);
    assert!(err.contains("--opt colour is not supported"), "{err}");
    let err = buildctl("build --frontend gateway.v0 --opt source=r.example/frontend:1").fails_with(1);
    assert!(
        err.contains("--frontend gateway.v0 with r.example/frontend:1 is not supported; dockerfile.v0 is"),
        "{err}"
    );
    let err = buildctl("build --frontend gateway.v0").fails_with(1);
    assert!(err.contains("gateway.v0 needs the image of a frontend"), "{err}");
    let asked = |what: &str| buildctl(&format!("{base} --opt requestid={what}"));
    assert_eq!(asked("frontend.targets").ok(), place.dockless("build --call=targets .").ok());
    let outline = asked("frontend.outline").ok();
    assert!(outline.contains("BUILD ARG") && outline.contains("WORD"), "{outline}");
    assert!(asked("frontend.lint").ok().starts_with("Check complete"), "a lint's warnings are no failure");
    let err = asked("frontend.subrequests.describe").fails_with(1);
    assert!(err.contains("--opt requestid=frontend.subrequests.describe is not supported; there are"), "{err}");
    let err = buildctl("build").fails_with(1);
    assert!(err.contains("please specify --frontend or pipe LLB definition to stdin"), "{err}");

    let mut command = place.command("buildctl");
    command.args(["build", "--output", "type=local,dest=x"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"no definition").unwrap();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn a_definition_comes_by_pipe_and_takes_only_what_it_heeds() {
    let place = Place::empty();
    place.write("ctx/a.txt", "a");
    place.write("ctx/link", "linked");
    let recorded = crate::oracle::repository().join("tests/llb/files/definition.pb");
    let build = |words: &str| {
        let mut build = place.command("dockless");
        build.args(["build", "--llb", "-"]).args(words.split_whitespace()).arg("ctx");
        ended(build.stdin(std::fs::File::open(&recorded).unwrap()))
    };
    build("--no-cache -o type=local,dest=out").ok();
    assert_eq!(tree(&place.at("out")), ["a/", "a/b/", "a/b/made", "followed", "texts/", "texts/a.txt"]);
    build("--cache-to type=local,dest=cache -o type=local,dest=out2").ok();
    let again = build("--cache-from type=local,src=cache --progress=plain -o type=local,dest=out3");
    assert!(again.err.contains("cache"), "{}", again.err);
    again.ok();
    for flag in [
        "-f x",
        "--target x",
        "--build-arg A=1",
        "--label a=b",
        "--platform linux/amd64",
        "--no-cache-filter x",
        "--pull",
        "--network none",
        "--add-host a:1.2.3.4",
        "--ulimit nofile=1",
        "--shm-size 1m",
        "--check",
        "--call outline",
    ] {
        let err = build(flag).fails_with(2);
        assert!(err.contains("'--llb <FILE>' cannot be used with"), "{flag}: {err}");
    }
    let err = build("--build-context x=docker-image://y").fails_with(8);
    assert!(err.contains("x=docker-image://y is no folder"), "{err}");
    let err = place.dockless("debug llb --from x --target y").fails_with(2);
    assert!(err.contains("cannot be used with"), "{err}");
}

#[test]
fn buildctl_tells_where_it_looks_and_what_it_does_not_do() {
    let place = Place::empty();
    let buildctl = |words: &str| place.run("buildctl", words.split_whitespace());
    let nobody = format!("unix://{}/nobody", place.work().display());
    let err = buildctl(&format!("--addr {nobody} du")).fails_with(1);
    assert!(err.contains(&format!("reach the engine at {nobody}: No such file")), "{err}");
    let err = buildctl(&format!("--addr {nobody} --wait --timeout 1 du")).fails_with(1);
    assert!(err.contains("no answer"), "{err}");
    // A task says where its tools build, whatever they were told before.
    let mut chosen = place.command("buildctl");
    let chosen = ended(chosen.env("DOCKLESS_ENGINE", "local").args(["--addr", &nobody, "du"]));
    assert!(chosen.err.contains("--addr") && chosen.err.contains("DOCKLESS_ENGINE says local"), "{}", chosen.err);
    assert!(chosen.ok().ends_with("Total: 0B\n"));
    for (words, part) in [
        ("--addr nonsense du", "--addr: \"nonsense\" is no engine"),
        ("--log-format json du", "--log-format json is not supported"),
        ("--tlsservername x du", "--tlsservername needs --tlscacert or --tlsdir"),
        ("--tlsdir x --tlscacert y du", "cannot be used with"),
        ("--tlscert x --tlscacert y du", "--tlskey"),
        ("--addr tcp://127.0.0.1:1 --tlscacert none.pem du", "reach the engine at buildkit://127.0.0.1:1"),
        ("du --filter colour==red", "filter \"colour==red\" is not known"),
        ("prune --filter type==x", "the kind \"x\" is not known"),
        ("prune --free-storage 1", "--keep-storage is"),
        ("debug workers --filter x", "--filter x without an engine elsewhere is not supported"),
        ("build --frontend dockerfile.v0 --local context=. --trace x", "--trace"),
    ] {
        let err = buildctl(words).fails_with(1);
        assert!(err.contains(part), "{words}: {err}");
    }
    let workers = buildctl("debug workers --format json").ok();
    assert!(workers.starts_with(r#"[{"buildkitVersion":{"package":"dockless","#), "{workers}");
    assert_eq!(buildctl("prune --keep-storage 10").ok(), "Total: 0B\n");
    assert_eq!(buildctl("du --format {{len.}}").ok(), "0\n");
    let mut theirs = place.command("dockless");
    place.write("Dockerfile", "FROM scratch\n");
    let err = ended(theirs.env("DOCKLESS_FRONTEND", "engine").args(["build", "."])).fails_with(1);
    assert!(err.contains("DOCKLESS_FRONTEND=engine needs an engine elsewhere"), "{err}");
}

#[test]
fn the_resource_s_programs_speak_json_and_nothing_else() {
    let place = Place::empty();
    for (program, args) in [("check", &[][..]), ("in", &["dest"]), ("out", &["src"])] {
        let mut command = place.command(program);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"{\"source\": {\"tga\": 1}}").unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{program}");
        assert!(output.stdout.is_empty(), "{program}");
        assert!(!output.stderr.is_empty(), "{program}");
    }
}

#[test]
fn every_command_has_help_a_page_and_completions() {
    let place = Place::empty();
    let help = place.run("dockless", ["--help"]).ok();
    for command in ["task", "build", "expand", "doctor", "run", "debug"] {
        assert!(help.contains(command));
        assert!(place.run("dockless", [command, "--help"]).ok().contains("Usage: dockless "), "{command}");
    }
    assert!(place.run("dockless", ["help", "task"]).ok().contains("dockless.yml (every key may be left out"));
    place.run("dockless", ["man", "pages"]).ok();
    assert!(place.at("pages/dockless.1").is_file() && place.at("pages/dockless-build.1").is_file());
    for shell in ["bash", "zsh", "fish"] {
        assert!(place.run("dockless", ["completion", shell]).ok().contains("dockless"));
    }

    let mut command = place.command("dockless");
    command.arg("images").stdout(std::fs::File::options().write(true).open("/dev/full").unwrap());
    assert_eq!(ended(&mut command).code, Some(1), "a result that could not be written is a failure");
}

#[test]
fn debug_shows_a_dockerfile_from_inside() {
    let place = Place::empty();
    place.write("Dockerfile", "FROM scratch\nCOPY a /\n");
    assert_eq!(place.dockless("debug ast Dockerfile").ok(), "(from \"scratch\")\n(copy \"a\" \"/\")\n");
    assert!(place.dockless("debug llb Dockerfile").ok().contains("COPY a /"));
    assert!(place.dockless("debug llb --format dot Dockerfile").ok().starts_with("digraph"));
    let json = place.dockless("debug llb --format json Dockerfile").ok();
    serde_json::from_str::<serde_json::Value>(&json).unwrap();
    place.dockless("debug ast absent").fails_with(8);
}
