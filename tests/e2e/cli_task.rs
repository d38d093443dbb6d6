//! `task`: a project's own build with our faces on its PATH, and what is laid out of it.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::{Place, ended, tree};
use crate::oracle::{self, find};

const DOCKERFILE: &str = "FROM dockless.example/busybox:1 AS build\nRUN mkdir /out && echo object > /out/a.o && echo log > /out/b.log\n\
                          FROM dockless.example/busybox:1\nCOPY --from=build /out/a.o /lib/a.o\nENV MODE=fast\nUSER 1000:1000\n";

const MAKEFILE: &str = ".PHONY: release\nrelease:\n\t$(DOCKER) build -t acct/app:1 .\n\timg build --no-console -t acct/tool:2 .\n\
                        \tmkdir -p release\n\timg save -o release/tool.tar acct/tool:2\n\
                        \tbuildctl build --frontend dockerfile.v0 --local context=. --local dockerfile=. \
                        --opt target=build --output type=oci,dest=release/sdk.tar\n";

fn project(test: &str) -> Option<Place> {
    if find("make").is_none() {
        oracle::skip(test, "needs make");
        return None;
    }
    let place = Place::with_base(test)?;
    place.write("Dockerfile", DOCKERFILE);
    place.write("Makefile", MAKEFILE);
    Some(place)
}

#[test]
fn every_image_of_a_makefile_is_laid_out() {
    let Some(place) = project("every_image_of_a_makefile_is_laid_out") else { return };
    place.write(
        "dockless.yml",
        "images:\n  acct/app:\n    rootfs: true\n    artifacts:\n      - {from: /lib/*.o, to: lib/}\n\
         \x20     - {stage: build, from: /out/b.log}\n      - {stage: build, from: /out/*.o, to: objects}\n\
         \x20 acct/tool: {name: renamed, tgz: true}\n  sdk.tar: {archive: none, artifacts: [{from: /out, to: .}]}\n",
    );
    let ended = place.dockless("task --output ../out");
    assert!(ended.err.contains("acct/app:1 -> "), "{}", ended.err);
    ended.ok();
    let out = place.at("../out");
    let top: Vec<String> =
        tree(&out).into_iter().filter(|path| !path.starts_with("app/rootfs/") || path.ends_with("a.o")).collect();
    assert_eq!(
        top,
        [
            "app/",
            "app/b.log",
            "app/digest",
            "app/image-id",
            "app/image.tar",
            "app/lib/",
            "app/lib/a.o",
            "app/metadata.json",
            "app/objects/",
            "app/objects/a.o",
            "app/repository",
            "app/rootfs/lib/a.o",
            "app/tag",
            "renamed/",
            "renamed/digest",
            "renamed/image-id",
            "renamed/image.tar",
            "renamed/repository",
            "renamed/rootfs.tgz",
            "renamed/tag",
            "sdk/",
            "sdk/a.o",
            "sdk/b.log",
            "sdk/digest",
            "sdk/image-id",
        ],
        "{:?}",
        tree(&out)
    );
    assert_eq!(place.read("../out/app/repository").trim(), "acct/app");
    assert_eq!(place.read("../out/app/tag").trim(), "1");
    assert_eq!(place.read("../out/app/lib/a.o"), "object\n");
    assert_eq!(place.read("../out/app/b.log"), "log\n");
    let metadata: serde_json::Value = serde_json::from_str(&place.read("../out/app/metadata.json")).unwrap();
    assert_eq!(metadata["user"], "1000:1000");
    assert!(metadata["env"].as_array().unwrap().contains(&"MODE=fast".into()));
    if let Some(skopeo) = find("skopeo") {
        let archive = format!("docker-archive:{}/app/image.tar", out.display());
        oracle::run(Command::new(skopeo).args(["inspect", &archive]));
    }
    // Again, over what is there.
    let digest = place.read("../out/app/digest");
    place.dockless("task --output ../out").ok();
    assert_eq!(place.read("../out/app/digest"), digest);
}

#[test]
fn a_build_that_fails_lays_out_nothing_and_its_code_is_ours() {
    let Some(place) = project("a_build_that_fails_lays_out_nothing_and_its_code_is_ours") else { return };
    place.write("build.sh", "docker build -t acct/app:1 . && exit 23\n");
    place.dockless("task --output ../out -- sh build.sh").fails_with(23);
    assert_eq!(tree(&place.at("../out")), [""; 0]);
    place.dockless("task -- no-such-program").fails_with(1);
}

#[test]
fn an_output_that_cannot_be_completed_is_not_seen_at_all() {
    let Some(place) = project("an_output_that_cannot_be_completed_is_not_seen_at_all") else { return };
    for (what, yaml) in [
        ("an artifact that is not there", "images:\n  acct/tool:\n    artifacts: [{from: /no/such/file}]\n"),
        ("one in a stage", "images:\n  acct/tool:\n    artifacts: [{stage: build, from: /no/such/file}]\n"),
        ("a stage that is not there", "images:\n  acct/tool:\n    artifacts: [{stage: nope, from: /out}]\n"),
        ("an image that was not made", "images:\n  acct/tol: {}\n"),
        ("two in one folder", "images:\n  acct/tool: {name: x}\n  acct/app: {name: x}\n"),
    ] {
        place.write("dockless.yml", yaml);
        let ended = place.dockless("task --output ../out");
        assert_ne!(ended.code, Some(0), "{what}: {}", ended.err);
        assert_eq!(tree(&place.at("../out")), [""; 0], "{what}");
    }
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    let Some(place) = project("an_unknown_key_is_shown_with_its_line") else { return };
    place.write("dockless.yml", "output: x\nimages:\n  app:\n    rootsf: true\n");
    let err = place.dockless("task").fails_with(2);
    assert!(err.contains("--> dockless.yml:4:5") && err.contains("4 |     rootsf: true"), "{err}");
    assert!(err.contains("unknown field `rootsf`"), "{err}");
    place.dockless("task --config absent.yml").fails_with(8);
    // Told before the build, which would be told of first.
    let err = place.dockless("task --config /dev/null --output dockless.yml -- false").fails_with(2);
    assert!(err.contains("dockless.yml is not a folder"), "{err}");
}

#[test]
fn the_tool_variables_are_set_where_they_are_unset() {
    let place = Place::empty();
    let script = "echo $DOCKER $IMG $BUILDCTL; command -v docker | xargs readlink | xargs basename";
    let out = place.run("dockless", ["task", "--", "sh", "-c", script]).ok();
    assert_eq!(out, "docker img buildctl\ndockless\n");
    let mut command = place.command("dockless");
    command.args(["task", "--", "sh", "-c", "echo $DOCKER"]).env("DOCKER", "mine");
    assert_eq!(ended(&mut command).ok(), "mine\n");
}

/// Faces boxed steps as they thought best, whatever the task, or its parameter, said.
#[test]
fn the_isolation_of_a_task_is_that_of_its_faces() {
    let place = Place::empty();
    let out = place.run("dockless", ["--isolation", "rewrite", "task", "--", "sh", "-c", "echo $DOCKLESS_ISOLATION"]);
    assert_eq!(out.ok(), "rewrite\n");
    for (face, words, code) in [("docker", "images", 125), ("img", "ls", 1), ("buildctl", "du", 1), ("check", "", 1)] {
        let images = |isolation| {
            let mut command = place.command(face);
            ended(command.args(words.split_whitespace()).env("DOCKLESS_ISOLATION", isolation))
        };
        assert!(images("none").fails_with(code).contains("DOCKLESS_ISOLATION: \"none\" is not known"), "{face}");
        if face != "check" {
            images("rewrite").ok();
            images("").ok();
        }
    }
}

#[test]
fn img_unpack_of_the_older_tool_finds_the_one_tag_that_was_built() {
    let Some(place) = project("img_unpack_of_the_older_tool_finds_the_one_tag_that_was_built") else { return };
    place.write("Makefile", "release:\n\timg build -t acct/app:branch .\n\timg unpack -o $(CURDIR)/release acct/app\n");
    let ended = place.dockless("task");
    assert!(ended.err.contains("acct/app:branch is meant"), "{}", ended.err);
    ended.ok();
    assert_eq!(place.read("release/lib/a.o"), "object\n");
    assert!(place.at("release/app/image.tar").is_file());
}

#[test]
fn an_archive_of_another_tool_is_found_by_its_content() {
    let test = "an_archive_of_another_tool_is_found_by_its_content";
    let Some(place) = project(test) else { return };
    let Some(skopeo) = find("skopeo") else { return oracle::skip(test, "needs skopeo") };
    place.dockless("build -t x .").ok();
    place.dockless("save -o x.tar x").ok();
    let copy = |to: &str| {
        let mut command = Command::new(&skopeo);
        command.args(["--insecure-policy", "copy", "--quiet", "docker-archive:x.tar", to]).current_dir(place.work());
        oracle::run(&mut command);
    };
    fs::create_dir(place.at("dist")).unwrap();
    copy("oci-archive:dist/odd.bin:latest");
    copy("oci:dist/folder:v1");
    copy("docker-archive:dist/plain:named/thing:7");
    oracle::run(Command::new("gzip").arg(place.at("dist/plain")));
    place.write("dist/notes.tar", "not an archive at all");
    place.dockless("task --search dist --output ../out -- true").ok();
    let out = tree(&place.at("../out"));
    assert!(out.contains(&"thing/image.tar".to_owned()), "one image, whatever it is packed in: {out:?}");
    assert_eq!(place.read("../out/thing/repository").trim(), "named/thing");
}

#[test]
fn a_private_authority_is_trusted_by_the_tools_of_a_build() {
    let test = "a_private_authority_is_trusted_by_the_tools_of_a_build";
    for tool in ["openssl", "curl"] {
        if find(tool).is_none() {
            return oracle::skip(test, &format!("needs {tool}"));
        }
    }
    let place = Place::empty();
    place.write(
        "make-certs.sh",
        "set -e\nopenssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=test-ca -days 2\n\
         openssl req -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=localhost\n\
         printf 'subjectAltName=DNS:localhost' >ext\n\
         openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -out crt -days 2 -extfile ext\n",
    );
    oracle::run(Command::new("sh").arg("make-certs.sh").current_dir(place.work()));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = Command::new("openssl")
        .args(["s_server", "-quiet", "-www", "-key", "key", "-cert", "crt", "-accept", &port.to_string()])
        .current_dir(place.work())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(10), "openssl s_server does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    let url = format!("https://localhost:{port}/");
    let task = |certificate: &str| {
        let mut command = place.command("dockless");
        command.args(["task", "--", "curl", "-sSf", "-o", "page", &url]).env("LOCAL_CA_CERTIFICATE", certificate);
        ended(&mut command)
    };
    let without = task("");
    let with = task(&place.read("ca.crt"));
    let wrong = task("/etc/ssl/ca.pem");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_ne!(without.code, Some(0));
    with.ok();
    assert!(wrong.fails_with(2).contains("the variable holds the text, not a path"));
}

#[test]
fn a_signal_reaches_the_build_and_nothing_stays_behind() {
    let place = Place::empty();
    // The build has a child of its own that would outlive it, and says when it is ready.
    let script =
        "trap 'echo told; exit 9' TERM; sleep 1000 & echo $! > child; echo > ready; while :; do sleep 0.05; done";
    let mut command = place.command("dockless");
    command.args(["task", "--", "sh", "-c", script]).stdout(Stdio::piped());
    let task = command.spawn().unwrap();
    let started = Instant::now();
    while !place.at("ready").exists() {
        assert!(started.elapsed() < Duration::from_secs(20), "the build does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    kill(Pid::from_raw(task.id().cast_signed()), Signal::SIGTERM).unwrap();
    let output = task.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(9), "its own exit code: {:?}", output.status.signal());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "told\n");
    let child = Pid::from_raw(place.read("child").trim().parse().unwrap());
    assert!(kill(child, None).is_err(), "what the build left running is ended");
    assert!(tree(&place.state().join("tmp")).is_empty(), "nothing of the task stays in the state folder");
}

#[test]
fn a_cancelled_build_step_ends_with_the_signal_s_number() {
    let Some(place) = Place::with_base("a_cancelled_build_step_ends_with_the_signal_s_number") else { return };
    place.write("Dockerfile", "FROM dockless.example/busybox:1\nRUN echo started; sleep 1000\n");
    let mut command = place.command("dockless");
    command.args(["build", "--progress", "plain", "."]);
    let (code, rest) = signalled(&mut command, Signal::SIGINT);
    assert_eq!(code, Some(130), "{rest}");
    assert!(rest.contains("stopped by SIGINT"), "{rest}");
}

/// The build was stopped when the terminal that it was started from was closed.
#[test]
fn what_nohup_started_goes_on_after_a_hangup() {
    let Some(place) = Place::with_base("what_nohup_started_goes_on_after_a_hangup") else { return };
    place.write("Dockerfile", "FROM dockless.example/busybox:1\nRUN echo started; sleep 1; echo ended\n");
    let mut command = Command::new("nohup");
    command.arg(place.command("dockless").get_program()).args(["build", "--progress", "plain", "."]);
    command.current_dir(place.work()).env("DOCKLESS_STATE", place.state()).stdin(Stdio::null()).stdout(Stdio::null());
    let (code, rest) = signalled(&mut command, Signal::SIGHUP);
    assert_eq!(code, Some(0), "{rest}");
    assert!(rest.contains("ended"), "{rest}");
}

/// Sends a signal once a step has said "started"; the exit code, and what was said from then on.
fn signalled(command: &mut Command, signal: Signal) -> (Option<i32>, String) {
    let mut build = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut err = std::io::BufReader::new(build.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("started") || line.contains("RUN") {
        line.clear();
        assert_ne!(std::io::BufRead::read_line(&mut err, &mut line).unwrap(), 0, "the step never started");
    }
    kill(Pid::from_raw(build.id().cast_signed()), signal).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut err, &mut rest).unwrap();
    (build.wait().unwrap().code(), rest)
}
