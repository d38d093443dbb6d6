//! Builds on a buildkitd of today, where one is installed, come out as those of the local engine.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::agents::agents_answer_steps;
use crate::cli::{Place, ended, tree};
use crate::golden_build::{args, cases, compare, context, expected, name};
use crate::oracle::{self, BUSYBOX, Buildkitd};
use crate::remote::{a_file_that_changed_behind_its_times_is_sent, layers_are_stored_as_is_asked};
use crate::s3_server::{ID, S3Server, SECRET};

fn dockless(place: &Place, engine: &str) -> Command {
    let mut command = place.command("dockless");
    command.env("DOCKLESS_ENGINE", engine);
    command
}

/// One buildkitd for all of it.
#[test]
fn buildkitd_builds_what_the_local_engine_builds() {
    let test = "buildkitd_builds_what_the_local_engine_builds";
    let Some(place) = Place::with_base(test) else { return };
    let Some(buildkitd) = Buildkitd::start(test) else { return };
    let engine = buildkitd.engine();
    golden_cases_are_as_expected(&place, &engine);
    layers_are_stored_as_is_asked(&place, &engine);
    caches_go_both_ways(&place, &engine);
    a_file_that_changed_behind_its_times_is_sent(&place, &engine);
    nothing_is_an_image_too(&place, &engine);
    secrets_reach_a_step(&place, &engine);
    agents_answer_steps(&place, &[&engine]);
    buckets_keep_caches(&place, &engine);
    pinned_layers_are_those_of_the_local_engine(&place, &engine);
    what_was_not_planned_here_keeps_its_times(&place, &engine);
    shared_memory_has_its_size(&place, &engine);
}

/// Every one, those that dockerd is too old for among them.
fn golden_cases_are_as_expected(place: &Place, engine: &str) {
    let base = oracle::tree(&oracle::repository().join("target/bases/busybox.tar"));
    let mut failures = Vec::new();
    for case in cases().iter() {
        let dir = context(case, &place.work());
        let (tag, archive) = (format!("golden/{}", name(case)), place.at("image.tar"));
        let mut build = dockless(place, engine);
        build.args(["build", "-t", &tag]).args(args(case)).arg(".").current_dir(dir);
        ended(&mut build).ok();
        place.run("dockless", ["save", "-o", archive.to_str().unwrap(), &tag]).ok();
        let made = oracle::describe(&archive, &base);
        if let Err(why) = compare(&expected(case, "expected.json").unwrap(), &made) {
            failures.push(format!("{}: {why}", name(case)));
        }
    }
    assert!(failures.is_empty(), "{} cases differ\n\n{}", failures.len(), failures.join("\n\n"));
}

/// Of several platforms at once, in a folder and in an image; and of ours as far as its keys allow.
fn caches_go_both_ways(place: &Place, engine: &str) {
    let random = "RUN cat /proc/sys/kernel/random/uuid >/id";
    let last = "FROM scratch\nARG TARGETARCH\nCOPY --from=made /id /$TARGETARCH\n";
    place.write("kept/Dockerfile", &format!("FROM --platform=$BUILDPLATFORM {BUSYBOX} AS made\n{random}\n{last}"));
    let host = dockless::base::Platform::host();
    let platforms = format!("{host},{}/other", host.os);
    let build = |platform: &str, words: &[&str]| {
        let mut build = dockless(place, engine);
        build.args(["build", "--progress=plain", "--platform", platform]).args(words).arg("kept");
        ended(&mut build)
    };
    let ids = |dir: &str| -> Vec<String> {
        let files = tree(&place.at(dir)).into_iter().filter(|path| !path.ends_with('/'));
        files.map(|path| place.read(&format!("{dir}/{path}"))).collect()
    };
    let prune = || ended(place.command("buildctl").args(["--addr", engine, "prune", "--all"])).ok();
    let mode = "type=local,dest=cache,mode=max";
    build(&platforms, &["--no-cache", "-o", "type=local,dest=first", "--cache-to", mode]).ok();
    prune();
    build(&platforms, &["-o", "type=local,dest=second", "--cache-from", "type=local,src=cache"]).ok();
    assert_eq!((ids("first").len(), ids("first")), (2, ids("second")));

    // Each reads the other's inline cache, and finds nothing in it that it knows.
    let platform = host.to_string();
    for (writer, reader) in [(engine, "local"), ("local", engine)] {
        let layout = ["build", "--cache-to", "type=inline", "-o", "type=oci,dest=layout,tar=false", "kept"];
        ended(dockless(place, writer).args(layout)).ok();
        let digest = manifest(&place.at("layout"));
        let from = format!("type=local,src=layout,digest={digest}");
        let words = ["build", "--progress=plain", "--platform", &platform, "--cache-from", &from, "kept"];
        let read = ended(dockless(place, reader).args(words));
        assert_eq!(read.code, Some(0), "{}", read.err);
        assert!(read.err.contains("importing cache manifest from"), "{}", read.err);
        let broken = ["cannot unmarshal", "invalid type", "building without it"];
        assert!(broken.iter().all(|words| !read.err.contains(words)), "{reader}: {}", read.err);
        fs::remove_dir_all(place.at("layout")).unwrap();
    }
}

/// The only image of a layout.
fn manifest(layout: &Path) -> String {
    let index: serde_json::Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    index["manifests"][0]["digest"].as_str().unwrap().to_owned()
}

fn nothing_is_an_image_too(place: &Place, engine: &str) {
    place.write("nothing/Dockerfile", "FROM scratch\nLABEL kind=empty\n");
    for frontend in ["dockless", "engine"] {
        let mut build = dockless(place, engine);
        build.env("DOCKLESS_FRONTEND", frontend);
        ended(build.args(["build", "-t", "nothing:1", "nothing"])).ok();
        let label =
            place.run("dockless", ["inspect", "-f", "{{.Config.Labels.kind}} {{len .RootFS.Layers}}", "nothing:1"]);
        assert_eq!(label.ok(), "empty 0\n", "{frontend}");
    }
}

fn secrets_reach_a_step(place: &Place, engine: &str) {
    let step = "RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=other,mode=0444 \
                test $S = hush && cat /run/secrets/other >/told\n";
    place.write("secret/Dockerfile", &format!("FROM {BUSYBOX}\n{step}"));
    place.write("hush", "hush");
    let words = ["build", "--secret", "id=s,src=hush", "--secret", "id=other,src=hush"];
    ended(dockless(place, engine).args(words).args(["-o", "type=local,dest=told", "secret"])).ok();
    assert_eq!(place.read("told/told"), "hush");
}

/// BuildKit's own S3 client and ours, on the same bucket: each takes over what its kind has left, and reads the other's.
fn buckets_keep_caches(place: &Place, engine: &str) {
    let Some(server) = S3Server::start() else { return };
    // Has the same images, and built nothing yet.
    let machine = || {
        let machine = Place::empty();
        fs::create_dir(machine.state()).unwrap();
        oracle::run(Command::new("cp").arg("-R").arg(place.state().join("images")).arg(machine.state()));
        machine
    };
    let build = |place: &Place, engine: &str, words: &[&str]| {
        // A step of its own: of several results for one, BuildKit may export any.
        let random = "RUN head -n 1 /proc/sys/kernel/random/uuid >/id";
        let last = "FROM scratch\nCOPY --from=made /id /\n";
        place.write("bucket/Dockerfile", &format!("FROM {BUSYBOX} AS made\n{random}\n{last}"));
        let to = ["build", "--progress=plain", "-o", "type=local,dest=out"];
        let ended = ended(dockless(place, engine).args(to).args(words).arg("bucket"));
        assert_eq!(ended.code, Some(0), "{}", ended.err);
        let broken = [SECRET, "cannot unmarshal", "invalid type", "building without it"];
        assert!(broken.iter().all(|words| !ended.err.contains(words)), "{}", ended.err);
        let imports = words.contains(&"--cache-from");
        assert_eq!(ended.err.contains("importing cache manifest from s3"), imports, "{}", ended.err);
        place.read("out/id")
    };
    let prune = || ended(place.command("buildctl").args(["--addr", engine, "prune", "--all"])).ok();
    let [here, there] = ["here", "there"].map(|prefix| {
        format!(
            "type=s3,bucket=images,region=us-east-1,prefix={prefix}/,endpoint_url={},use_path_style=true,\
             access_key_id={ID},secret_access_key={SECRET}",
            server.endpoint()
        )
    });
    let ours = build(&machine(), "local", &["--cache-to", &format!("{here},mode=max")]);
    let theirs = build(place, engine, &["--no-cache", "--cache-to", &format!("{there},mode=max")]);
    for prefix in ["here", "there"] {
        let kept = server.dir.path().join("data/images").join(prefix);
        assert!(kept.join("manifests/buildkit").is_file() && kept.join("blobs").is_dir(), "{:?}", tree(&kept));
    }
    prune();
    assert_eq!(build(place, engine, &["--cache-from", &there]), theirs);
    assert_eq!(build(&machine(), "local", &["--cache-from", &here]), ours);
    prune();
    assert_ne!(build(place, engine, &["--cache-from", &here]), ours);
    assert_ne!(build(&machine(), "local", &["--cache-from", &there]), theirs);
}

/// With a pinned date in its files too, a layer is the same to the byte wherever it was made.
fn pinned_layers_are_those_of_the_local_engine(place: &Place, engine: &str) {
    place.write(
        "pinned/Dockerfile",
        &format!(
            "FROM {BUSYBOX}\n\
             RUN mkdir -p /opt/a/b && echo 1 >/opt/a/b/f && ln -s f /opt/a/b/s && ln /opt/a/b/f /opt/a/b/h && \
             chown -R 7:8 /opt/a && chmod 4750 /opt/a/b/f\n\
             WORKDIR /srv/deep\n\
             COPY Dockerfile /tmp/new\n\
             COPY --chown=5:6 --chmod=0700 Dockerfile /made/by/copy/\n\
             RUN rm /tmp/new && mkdir /opt/c && mkfifo /opt/c/pipe && touch -d @5 /opt/c/old && ln /opt/c/old /opt/c/same\n"
        ),
    );
    let diff_ids = |engine: &str, options: &str| {
        let output = format!("type=oci,dest=pinned-layout,tar=false,rewrite-timestamp=true{options}");
        let mut build = dockless(place, engine);
        build.env("SOURCE_DATE_EPOCH", "1000000000");
        ended(build.args(["build", "--network=host", "--no-cache", "-o", &output, "pinned"])).ok();
        let json = |digest: &serde_json::Value| -> serde_json::Value {
            let file = digest.as_str().unwrap().replace(':', "/");
            serde_json::from_str(&place.read(&format!("pinned-layout/blobs/{file}"))).unwrap()
        };
        let index: serde_json::Value = serde_json::from_str(&place.read("pinned-layout/index.json")).unwrap();
        let manifest = json(&index["manifests"][0]["digest"]);
        // The base's may have come plain, and then is compressed.
        let made = manifest["layers"].as_array().unwrap().iter().skip(1);
        let layers: Vec<_> = made.map(|layer| layer["digest"].clone()).collect();
        let diff_ids = json(&manifest["config"]["digest"])["rootfs"]["diff_ids"].clone();
        fs::remove_dir_all(place.at("pinned-layout")).unwrap();
        (diff_ids, layers)
    };
    for options in ["", ",compression=zstd", ",compression=uncompressed"] {
        let (ours, theirs) = (diff_ids("local", options), diff_ids(engine, options));
        assert_eq!(ours.0.as_array().unwrap().len(), 6);
        assert_eq!(theirs, ours, "{options}");
    }
}

fn what_was_not_planned_here_keeps_its_times(place: &Place, engine: &str) {
    let output = "type=oci,dest=kept.tar,rewrite-timestamp=true";
    let mut build = dockless(place, engine);
    build.env("DOCKLESS_FRONTEND", "engine").env("SOURCE_DATE_EPOCH", "1000000000");
    let error = ended(build.args(["build", "-o", output, "nothing"])).fails_with(1);
    assert!(error.contains("nothing tells which layers are the base's"), "{error}");
}

fn shared_memory_has_its_size(place: &Place, engine: &str) {
    place.write(
        "shm/Dockerfile",
        &format!("FROM {BUSYBOX}\nRUN df -k /dev/shm | grep -q ' 1024 ' && touch /dev/shm/x\n"),
    );
    for engine in [engine, "local"] {
        ended(dockless(place, engine).args(["build", "--shm-size=1m", "shm"])).ok();
    }
}
