//! `build` as people type it: what it says, what it leaves behind, and how it ends when something is wrong.

use crate::cli::{Place, ended};

const TWO_STAGES: &str = "FROM dockless.example/busybox:1 AS build\nRUN echo made > /made\n\
                          FROM dockless.example/busybox:1\nCOPY --from=build /made /made\nCMD [\"cat\", \"/made\"]\n";

/// What is said of a Dockerfile that cannot be built as it is written.
fn refused(place: &Place, dockerfile: &str) -> String {
    place.write("Dockerfile", dockerfile);
    place.dockless("build .").fails_with(3)
}

#[test]
fn a_build_is_named_run_and_told_in_files() {
    let Some(place) = Place::with_base("a_build_is_named_run_and_told_in_files") else { return };
    place.write("Dockerfile", TWO_STAGES);
    let ended = place.dockless("build -t acct/app:1 -t app --iidfile id --metadata-file meta.json --progress plain .");
    assert!(ended.err.contains("[build 2/2] RUN echo made > /made"), "{}", ended.err);
    ended.ok();
    let id = place.read("id");
    assert_eq!(place.dockless("images -q --no-trunc acct/app:1").ok().trim(), id);
    assert_eq!(place.dockless("inspect -f {{.Id}} app").ok().trim(), id);
    let meta: serde_json::Value = serde_json::from_str(&place.read("meta.json")).unwrap();
    assert_eq!(meta["containerimage.config.digest"], id.as_str());
    assert_eq!(place.dockless("run --rm app").ok(), "made\n");

    // Again: all of it comes from the cache, and is the same image.
    let ended = place.dockless("build -q -t app .");
    assert_eq!(ended.err, "");
    assert_eq!(ended.ok().trim(), id);
}

#[test]
fn a_failing_step_shows_its_last_lines_its_place_and_its_code() {
    let test = "a_failing_step_shows_its_last_lines_its_place_and_its_code";
    let Some(place) = Place::with_base(test) else { return };
    place.write(
        "Dockerfile",
        "FROM dockless.example/busybox:1\nRUN echo first; \\\n    echo boom >&2; \\\n    exit 42\n",
    );
    let err = place.dockless("build -t broken --iidfile id .").fails_with(4);
    let tail = &err[err.find("------\n > ").expect("the last lines")..];
    assert!(tail.contains("\nboom\n------\n"), "{tail}");
    assert!(tail.contains("exited with code 42\n --> Dockerfile:2:1\n"), "{tail}");
    assert!(tail.contains("2 | / RUN echo first;") && tail.contains("4 | |     exit 42"), "{tail}");
    assert!(!place.at("id").exists(), "no id of a build that failed");
    assert_eq!(place.dockless("images -q broken").ok(), "");
    // Docker's own number.
    place.run("docker", ["build", "."]).fails_with(1);
}

#[test]
fn a_mistake_in_a_dockerfile_is_shown_where_it_is() {
    let Some(place) = Place::with_base("a_mistake_in_a_dockerfile_is_shown_where_it_is") else { return };
    let err = refused(&place, "FROM dockless.example/busybox:1\nRUNN echo\n");
    assert!(err.contains("2 | RUNN echo") && err.contains("unknown instruction"), "{err}");

    place.write("Dockerfile", "FROM dockless.example/busybox:1\nCOPY hidden.log there.txt /\n");
    place.write("there.txt", "");
    place.write("hidden.log", "");
    place.write(".dockerignore", "# all logs\n*.log\n");
    let err = place.dockless("build .").fails_with(3);
    assert!(err.contains("2 | COPY hidden.log there.txt /"), "{err}");
    assert!(
        err.contains("hidden.log is in the build context") && err.contains("hides it by the line \"*.log\""),
        "{err}"
    );

    let err = refused(&place, "FROM dockless.example/busybox:1\nCOPY absent.txt /\n");
    assert!(err.contains("hint: the build context is") && err.contains("there is no absent.txt in it"), "{err}");
}

#[test]
fn all_that_is_new_can_be_one_layer() {
    let Some(place) = Place::with_base("all_that_is_new_can_be_one_layer") else { return };
    place.write("secret", "not for you");
    place.write(
        "Dockerfile",
        "FROM dockless.example/busybox:1\nCOPY secret /key\nRUN wc -c </key >/read && rm /key && mkdir /d && echo 1 >/d/a\n\
         RUN mv /d /e && ln /e/a /b && chmod 700 /e && rm /bin/vi && chmod 1777 /etc\nENV A=b\n",
    );
    place.dockless("build -t plain .").ok();
    let one = || {
        place.dockless("build --squash -t one -o type=docker,dest=one.tar,compression=uncompressed .").ok();
        place.dockless("load -q -i one.tar").ok()
    };
    let id = one();
    let snapshots = || place.dockless("du --filter type=snapshot").ok();
    let before = snapshots();
    assert_eq!(one(), id, "the steps are the same, and so is the image");
    assert_eq!(snapshots(), before, "which is not made anew");
    let inspect = |name: &str| -> serde_json::Value {
        serde_json::from_str(&place.dockless(&format!("inspect {name}")).ok()).unwrap()
    };
    let layers = |name: &str| inspect(name)[0]["RootFS"]["Layers"].as_array().unwrap().len();
    let base = layers("dockless.example/busybox:1");
    assert_eq!((layers("plain"), layers("one")), (base + 3, base + 1));
    assert_eq!(inspect("one")[0]["Config"], inspect("plain")[0]["Config"]);
    let history = place.dockless("history --no-trunc one").ok();
    assert!(history.contains("mv /d /e") && history.contains("squashed from 3 layers"), "{history}");
    let archive = std::fs::read(place.at("one.tar")).unwrap();
    assert!(!archive.windows(11).any(|bytes| bytes == b"not for you"), "what a step removed is in no layer");
    for name in ["one", "plain"] {
        place.dockless(&format!("export --format=rootfs {name} {name}.d")).ok();
    }
    let differences = std::process::Command::new("diff")
        .args(["-r", "one.d/rootfs", "plain.d/rootfs"])
        .current_dir(place.work())
        .output();
    let differences = differences.unwrap();
    assert!(differences.status.success() && place.at("one.d/rootfs/e/a").exists(), "{differences:?}");
    place.write("Dockerfile", "FROM dockless.example/busybox:1\nRUN true\n");
    place.dockless("build --squash -t single .").ok();
    assert_eq!(layers("single"), base + 1, "of one there is nothing to be made");
    for inline in ["--cache-to=type=inline", "--cache-to=inline"] {
        let err = place.run("docker", ["build", "--squash", inline, "."]).fails_with(125);
        assert!(err.contains("--squash with --cache-to type=inline is not supported"), "{err}");
    }
    let inline = ["build", "--squash", "--build-arg", "BUILDKIT_INLINE_CACHE=1", "."];
    let err = place.run("docker", inline).fails_with(1);
    assert!(err.contains("a squashed image cannot carry a cache") && err.contains("BUILDKIT_INLINE_CACHE"), "{err}");
}

#[test]
fn outputs_go_where_they_are_sent() {
    let Some(place) = Place::with_base("outputs_go_where_they_are_sent") else { return };
    place.write("Dockerfile", "FROM scratch\nCOPY a /dir/a\n");
    place.write("a", "content\n");
    place.dockless("build -o out .").ok();
    assert_eq!(place.read("out/dir/a"), "content\n");
    place
        .dockless("build -o type=tar,dest=flat.tar -o type=oci,dest=layout,tar=false -o type=docker,dest=image.tar .")
        .ok();
    assert!(place.at("flat.tar").is_file() && place.at("layout/index.json").is_file());
    assert!(place.dockless("load -i image.tar").ok().starts_with("Loaded image ID: sha256:"));
    // To standard output there is nothing but the archive.
    let output = place.command("dockless").args(["build", "-o", "-", "."]).output().unwrap();
    assert_eq!(output.stdout.get(257..262), Some(b"ustar".as_slice()));
}

#[test]
fn what_changes_the_result_is_refused_and_what_does_not_is_named() {
    let test = "what_changes_the_result_is_refused_and_what_does_not_is_named";
    let Some(place) = Place::with_base(test) else { return };
    place.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for flag in ["--sbom=true", "--provenance=mode=max", "--attest=type=sbom", "--call=nothing"] {
        let err = place.run("docker", ["build", flag, "."]).fails_with(125);
        assert!(err.contains("is not supported"), "{flag}: {err}");
    }
    let ended = place.run("docker", ["build", "--rm", "--memory", "1g", "--provenance=false", "."]);
    for flag in ["--rm", "--memory"] {
        assert_eq!(ended.err.matches(&format!("warning: {flag} ")).count(), 1, "{flag}: {}", ended.err);
    }
    ended.ok();
    let err = place.run("img", ["build", "."]).fails_with(1);
    assert!(err.contains("please specify an image tag with `-t` or an output spec with `-o`"), "{err}");
    // One word, two flags: docker's is for Windows, dockless's chooses the box.
    let ended = place.run("docker", ["build", "--isolation=default", "."]);
    assert!(ended.err.contains("warning: --isolation "), "{}", ended.err);
    ended.ok();
    place.dockless("build --isolation=auto .").ok();
    assert!(place.dockless("build --isolation=none .").fails_with(2).contains("auto, ns, ns1, chroot, rewrite"));
    place.run("docker", ["build", "--bogus", "."]).fails_with(125);
    place.run("dockless", ["build", "--bogus", "."]).fails_with(2);
}

#[test]
fn a_dockerfile_is_asked_about_and_not_built() {
    let Some(place) = Place::with_base("a_dockerfile_is_asked_about_and_not_built") else { return };
    place.write(
        "Dockerfile",
        "# the base of it all\nARG TAG=1\nFROM dockless.example/busybox:$TAG as Built\nRUN false\n",
    );
    let ended = place.dockless("build --check .");
    assert_eq!(ended.code, Some(1), "warnings show in the exit code: {}{}", ended.out, ended.err);
    assert_eq!(
        ended.out,
        "Check complete, 2 warnings have been found!\n\n\
         WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/\n\
         Stage name 'Built' should be lowercase\nDockerfile:3\n--------------------\n   \
         1 |     # the base of it all\n   2 |     ARG TAG=1\n   3 | >>> FROM dockless.example/busybox:$TAG as Built\n   \
         4 |     RUN false\n   5 |     \n--------------------\n\n\
         WARNING: FromAsCasing - https://docs.docker.com/go/dockerfile/rule/from-as-casing/\n\
         'as' and 'FROM' keywords' casing do not match\nDockerfile:3\n--------------------\n   \
         1 |     # the base of it all\n   2 |     ARG TAG=1\n   3 | >>> FROM dockless.example/busybox:$TAG as Built\n   \
         4 |     RUN false\n   5 |     \n--------------------\n"
    );
    let outline = place.run("docker", ["buildx", "build", "--call=outline", "."]).ok();
    assert_eq!(outline, "TARGET: built\n\nBUILD ARG   VALUE   DESCRIPTION\nTAG         1       \n\n");
    let targets = place.run("docker", ["build", "--call", "targets,format=json", "."]).ok();
    let targets: serde_json::Value = serde_json::from_str(&targets).unwrap();
    assert_eq!(targets["targets"][0]["base"], "dockless.example/busybox:$TAG");
    place.dockless("build --call=check,ignorestatus=true .").ok();

    place.write("Dockerfile", "FROM dockless.example/busybox:1\nRUNN x\nCOPY a\n");
    let err = place.run("docker", ["build", "--check", "."]).fails_with(1);
    assert!(err.contains("2 | RUNN x") && err.contains("3 | COPY a"), "both mistakes: {err}");
    place.write("Dockerfile", "FROM dockless.example/busybox:1\n");
    assert_eq!(place.dockless("build --check .").ok(), "Check complete, no warnings found.\n");
}

#[test]
fn the_usual_platform_comes_from_the_environment() {
    let place = Place::empty();
    place.write("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\n");
    let built = |usual: &str, words: &[&str]| {
        let mut command = place.command("docker");
        // What older scripts set: there is one builder here, and it is BuildKit's kind.
        command.env("DOCKER_DEFAULT_PLATFORM", usual).env("DOCKER_BUILDKIT", "0");
        command.args(["build", "-q", "-t", "x"]).args(words).arg(".");
        ended(&mut command)
    };
    let host = dockless::base::Platform::host().arch;
    for (usual, words, arch) in [
        ("linux/arm64", &[][..], "arm64"),
        ("linux/arm64", &["--platform", "linux/s390x"], "s390x"),
        ("", &[], host.as_str()),
    ] {
        built(usual, words).ok();
        assert_eq!(place.dockless("inspect -f {{.Config.Labels}} x").ok(), format!("map[arch:{arch}]\n"), "{usual}");
    }
    assert!(built("nonsense", &[]).fails_with(125).contains("DOCKER_DEFAULT_PLATFORM: "));
}

const BAKE: &str = r#"{
  "variable": {"TAG": {"default": "dev"}},
  "group": {"default": {"targets": ["app"]}},
  "target": {
    "tools": {"dockerfile-inline": "FROM dockless.example/busybox:1\nRUN echo made > /made\n", "tags": ["tools:1"]},
    "app": {
      "context": "app", "tags": ["baked:${TAG}"], "args": {"FLAVOUR": "plain"},
      "contexts": {"made": "target:tools"}
    }
  }
}"#;

#[test]
fn a_bake_file_builds_its_targets() {
    let Some(place) = Place::with_base("a_bake_file_builds_its_targets") else { return };
    place.write("docker-bake.json", BAKE);
    place.write(
        "app/Dockerfile",
        "FROM dockless.example/busybox:1\nARG FLAVOUR\nENV FLAVOUR=$FLAVOUR\nCOPY --from=made /made /made\n\
         CMD [\"sh\", \"-c\", \"cat /made; echo $FLAVOUR\"]\n",
    );
    let printed = place.run("docker", ["buildx", "bake", "--print"]).ok();
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed["target"]["app"]["tags"], serde_json::json!(["baked:dev"]));
    assert_eq!(printed["target"]["tools"]["output"], serde_json::json!([{"type": "cacheonly"}]));

    let mut command = place.command("docker");
    command.args(["buildx", "bake", "--set", "app.args.FLAVOUR=fancy", "--metadata-file", "meta.json"]).env("TAG", "7");
    ended(&mut command).ok();
    assert_eq!(place.dockless("run --rm baked:7").ok(), "made\nfancy\n");
    let meta: serde_json::Value = serde_json::from_str(&place.read("meta.json")).unwrap();
    assert!(meta["app"]["containerimage.digest"].is_string(), "{meta}");
    let images = place.dockless("images").ok();
    assert!(!images.contains("tools") && !images.contains("<none>"), "what is only linked leaves no image: {images}");

    // All of a group at once; then the same result is there under its own name too.
    place.dockless("bake tools app --set *.platform= --set app.tags=again:1").fails_with(2);
    place.dockless("bake tools app --set app.tags=again:1").ok();
    assert_eq!(place.dockless("run --rm tools:1 cat /made").ok(), "made\n");
    assert_eq!(place.dockless("run --rm again:1").ok(), "made\nplain\n");

    place.write(
        "compose.yaml",
        "services:\n  web:\n    image: web:1\n    build:\n      context: app\n      \
                                 additional_contexts: {made: 'service:t'}\n  t:\n    build: {dockerfile_inline: \"FROM \
                                 dockless.example/busybox:1\\nRUN touch /made\"}\n",
    );
    place.dockless("bake -f compose.yaml web").ok();
    assert_eq!(place.dockless("run --rm web:1 ls /made").ok(), "/made\n");
    place.write("docker-bake.hcl", "target \"x\" {}\n");
    let err = place.run("docker", ["buildx", "bake"]).fails_with(125);
    assert!(
        err.contains("docker-bake.hcl: it is HCL") && err.contains("hint: ") && err.contains("bake --print"),
        "{err}"
    );
}

#[test]
fn a_dockerfile_may_come_through_a_pipe() {
    let place = Place::empty();
    place.write("x", "x\n");
    let build = |dockerfile: &str| {
        // What `-f <(…)` is for the program.
        let (read, mut write) = std::io::pipe().unwrap();
        std::io::Write::write_all(&mut write, dockerfile.as_bytes()).unwrap();
        drop(write);
        ended(place.command("dockless").args(["build", "-q", "-f", "/dev/stdin", "."]).stdin(read))
    };
    build("FROM scratch\nCOPY x /\n").ok();
    assert!(build("FROM scratch\nCOPIE x /\n").fails_with(3).contains("/dev/stdin:2"));
    std::fs::create_dir(place.at("dir")).unwrap();
    assert!(place.dockless("build -f dir .").fails_with(2).contains("dir is a folder"));
}

#[test]
fn an_address_that_cannot_be_had_is_shown_where_it_is_written() {
    let place = Place::empty();
    place.write("Dockerfile", "FROM scratch\nADD http://127.0.0.1:1/x /\n");
    let err = place.dockless("build .").fails_with(1);
    assert!(err.contains("--> Dockerfile:2:1") && err.contains("get http://127.0.0.1:1/x"), "{err}");
}

#[test]
fn compose_builds_the_images_of_services() {
    let Some(place) = Place::with_base("compose_builds_the_images_of_services") else { return };
    place.write("proj/.env", "TAG=7 # of the day\nWORD=\"from $TAG\"\n");
    place.write("proj/app/Dockerfile", "FROM dockless.example/busybox:1\nARG WORD\nRUN echo $WORD > /word\n");
    place.write(
        "proj/docker-compose.yml",
        "x-build: &build {context: ./app}\nservices:\n  app:\n    image: acct/app:${TAG}\n    build: {<<: *build, args: [WORD]}\n  \
         worker: {extends: app, image: null, command: work}\n  gated: {build: ./nowhere, profiles: [debug]}\n  db: {image: postgres}\n",
    );
    place.write(
        "proj/docker-compose.override.yml",
        "services: {worker: {build: {args: {WORD: over}}, image: acct/worker}}\n",
    );
    let docker = |words: &str| place.run("docker", words.split_whitespace());
    let word = |image: &str| docker(&format!("run --rm {image} cat /word")).ok();
    docker("compose --progress plain -f proj/docker-compose.yml build").ok();
    assert_eq!((word("acct/app:7").as_str(), docker("images -q acct/worker").ok().as_str()), ("from 7\n", ""));
    let there = |face: &str, words: &str| {
        let mut command = place.command(face);
        ended(command.args(words.split_whitespace()).current_dir(place.at("proj/app")))
    };
    there("docker-compose", "build --build-arg WORD=typed worker").ok();
    assert_eq!(word("acct/worker"), "typed\n");
    there("docker", "compose -p other --env-file ../.env build worker").ok();
    assert_eq!(word("acct/worker"), "over\n");
    assert!(there("docker", "compose build db").ok().is_empty());
    for (words, code, message) in [
        ("compose build nope", 1, "no such service: nope"),
        ("compose --profile debug build", 1, "nowhere"),
        ("compose up -d", 125, "compose up is not supported; dockless builds images"),
        ("compose -f absent.yml build", 1, "absent.yml"),
    ] {
        assert!(there("docker", words).fails_with(code).contains(message), "{words}");
    }
}

#[test]
fn targets_of_a_bake_file_are_built_side_by_side_and_share_their_steps() {
    let test = "targets_of_a_bake_file_are_built_side_by_side_and_share_their_steps";
    let Some(place) = Place::with_base(test) else { return };
    // Each waits for the other: one after another this would fail.
    let step = "mine=$(cat /name); other=$(cat /other); touch /meet/$mine; i=0; \
                while [ ! -e /meet/$other ]; do [ $((i += 1)) -lt 600 ]; sleep 0.1; done";
    place.write(
        "Dockerfile",
        &format!(
            "FROM dockless.example/busybox:1 AS common\nRUN cat /proc/sys/kernel/random/uuid > /shared\nFROM common\n\
             ARG NAME\nARG OTHER\nRUN echo $NAME > /name; echo $OTHER > /other\n\
             RUN --mount=type=cache,id=meet,target=/meet {step}\n"
        ),
    );
    let target = |name: &str, other: &str| serde_json::json!({"args": {"NAME": name, "OTHER": other}, "tags": [format!("{name}:1")]});
    let file = serde_json::json!({
        "group": {"default": {"targets": ["left", "right"]}},
        "target": {"left": target("left", "right"), "right": target("right", "left")}
    });
    place.write("docker-bake.json", &file.to_string());
    let ended = place.dockless("bake --progress=plain --metadata-file meta.json");
    for part in ["[left stage-1 1/2] RUN echo left", "[right stage-1 1/2] RUN echo right", "[left] exporting to image"]
    {
        assert!(ended.err.contains(part), "{part} is told: {}", ended.err);
    }
    assert_eq!(ended.err.matches("common 2/2] RUN cat").count(), 1, "a shared step is told once: {}", ended.err);
    ended.ok();
    let shared = |name: &str| place.dockless(&format!("run --rm {name}:1 cat /shared")).ok();
    assert_eq!(shared("left"), shared("right"), "the shared step ran once");
    let meta: serde_json::Value = serde_json::from_str(&place.read("meta.json")).unwrap();
    assert_eq!(meta["right"]["image.name"], "docker.io/library/right:1");

    let mut file = file;
    file["target"]["bad"] = serde_json::json!({"dockerfile-inline": "FROM dockless.example/busybox:1\nRUN exit 7\n"});
    place.write("docker-bake.json", &file.to_string());
    let err = place.dockless("bake left bad").fails_with(4);
    assert!(err.contains("target bad: ") && err.contains("RUN exit 7"), "{err}");
    let err = place.dockless("bake --set *.output=- left right").fails_with(2);
    assert!(err.contains("targets left and right both write to standard output"), "{err}");
}

#[test]
fn warnings_are_told_when_a_build_is_over() {
    let Some(place) = Place::with_base("warnings_are_told_when_a_build_is_over") else { return };
    place.write("Dockerfile", "FROM dockless.example/busybox:1 as x\nCMD top\n");
    let ended = place.dockless("build .");
    let told = "\n 2 warnings found (use dockless --debug to expand):\n \
                - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n \
                - JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS \
                signals (line 2)\n";
    assert!(ended.err.ends_with(told), "{}", ended.err);
    ended.ok();
    assert_eq!(place.dockless("build -q .").err, "");
    let err = place.run("docker", ["--debug", "build", "."]).err;
    assert!(err.contains("2 | CMD top") && err.contains("rule/json-args-recommended/"), "{err}");
    let err = refused(&place, "# check=error=true\nFROM dockless.example/busybox:1 as x\n");
    assert!(err.contains("lint violation found for rules: FromAsCasing") && err.contains("2 | FROM"), "{err}");
}

#[test]
fn a_context_comes_from_standard_input_too() {
    let Some(place) = Place::with_base("a_context_comes_from_standard_input_too") else { return };
    place.write("ctx/Dockerfile", "FROM scratch\nCOPY file /file\n");
    place.write("ctx/file", "piped\n");
    let feed = |words: &str, command: &str| {
        let program = place.command("dockless").get_program().to_owned();
        let script = format!("{command} | \"$0\" {words}");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &script]).arg(program).current_dir(place.work()).env("DOCKLESS_STATE", place.state());
        ended(&mut shell)
    };
    feed("build -o one -", "tar -C ctx -cz .").ok();
    assert_eq!(place.read("one/file"), "piped\n");
    feed("build -o two -f - ctx", "printf 'FROM scratch\\nCOPY file /other\\n'").ok();
    assert_eq!(place.read("two/other"), "piped\n");
    let err = feed("build -", "printf 'FROM scratch\\nCOPY file /\\n'").fails_with(3);
    assert!(err.contains("COPY file /"), "{err}");
}

#[test]
fn a_secret_reaches_its_step_and_nothing_else() {
    let Some(place) = Place::with_base("a_secret_reaches_its_step_and_nothing_else") else { return };
    place.write(
        "Dockerfile",
        "FROM dockless.example/busybox:1\nRUN --mount=type=secret,id=token wc -c </run/secrets/token >/length\n",
    );
    let mut command = place.command("dockless");
    command.args(["build", "-t", "x", "--secret", "id=token,env=TOKEN", "."]).env("TOKEN", "hunter2-hunter2");
    ended(&mut command).ok();
    assert_eq!(place.dockless("run --rm x cat /length").ok().trim(), "15");
    let grep = std::process::Command::new("grep").args(["-rqa", "hunter2"]).arg(place.state()).status().unwrap();
    assert_eq!(grep.code(), Some(1), "the value is nowhere in the state folder");
}
