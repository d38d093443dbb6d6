//! Step caches that go from one machine to another: through a registry, a folder, an image.

use std::path::Path;

use dockless::base::progress::Step;
use dockless::base::{Cancel, Platform};
use dockless::store::MemoryBlobs;

use crate::command::{said, with};
use crate::docker_registry::{DockerRegistry, has};
use crate::{plain_client, sample_image};

/// Vertices of this Dockerfile that are looked up, with the base image.
const STEPS: usize = 4;

fn dockerfile(server: &DockerRegistry) -> String {
    format!(
        "FROM {host}/base:1 AS one\nCOPY data /data\nFROM {host}/base:1\nCOPY --from=one /data /copy\nWORKDIR /made\n",
        host = server.host()
    )
}

/// A machine that has never built anything.
fn machine(server: &DockerRegistry) -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("src")).unwrap();
    std::fs::write(home.path().join("src/data"), "data").unwrap();
    std::fs::write(home.path().join("src/Dockerfile"), dockerfile(server)).unwrap();
    home
}

fn serve() -> DockerRegistry {
    let server = DockerRegistry::open();
    let blobs = MemoryBlobs::new();
    let root = sample_image::image(&blobs, &[("etc/base", b"base")], &Platform::host());
    plain_client().push(&root, &blobs, &server.reference("base:1"), &[], &Step::none(), &Cancel::new()).unwrap();
    server
}

/// What a build says, and how many of its steps were taken over.
pub fn build(home: &Path, flags: &str) -> (String, usize) {
    let output = with(home, &[], &format!("build --progress plain {flags} src"));
    assert!(output.status.success(), "{}", said(&output));
    let text = said(&output);
    let taken = text.lines().filter(|line| line.ends_with(" CACHED")).count();
    (text, taken)
}

fn layers(home: &Path) -> String {
    said(&with(home, &[], "inspect -f {{.RootFS.Layers}} made:1"))
}

#[test]
fn what_one_machine_built_another_takes_over() {
    if !has(&["docker-registry", "skopeo"]) {
        return;
    }
    let server = serve();
    let host = server.host();
    let here = machine(&server);
    let folder = here.path().join("cache");
    let (text, taken) = build(
        here.path(),
        &format!(
            "-t made:1 --cache-to type=registry,ref={host}/cache:1,mode=max --cache-to type=local,dest=cache,mode=max,tag=t"
        ),
    );
    assert_eq!(taken, 0, "{text}");
    for source in [
        format!("--cache-from {host}/cache:1"),
        format!("--cache-from type=registry,ref={host}/cache:1"),
        format!("--cache-from {host}/none:1 --cache-from type=local,src={},tag=t", folder.display()),
    ] {
        let there = machine(&server);
        let (text, taken) = build(there.path(), &format!("-t made:1 {source}"));
        assert_eq!(taken, STEPS, "{source}: {text}");
        assert_eq!(layers(there.path()), layers(here.path()), "{source}");
        assert_eq!(text.contains("building without it"), source.contains("none:1"), "{text}");
    }
    // Other tools see an image manifest whose config is BuildKit's.
    let raw = std::process::Command::new("skopeo")
        .args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{host}/cache:1")])
        .output()
        .unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&raw.stdout).expect("a manifest");
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.buildkit.cacheconfig.v0");
}

#[test]
fn an_image_carries_the_cache_of_its_own_layers() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = serve();
    let host = server.host();
    let here = machine(&server);
    let name = format!("{host}/app:1");
    for (flags, expected) in [
        ("--cache-to type=inline", STEPS - 1),
        ("--build-arg BUILDKIT_INLINE_CACHE=1", STEPS - 1),
        // A later build without it leaves none.
        ("", 0),
    ] {
        build(here.path(), &format!("{flags} -t {name} --push"));
        let there = machine(&server);
        let (text, taken) = build(there.path(), &format!("--cache-from {name}"));
        assert_eq!(taken, expected, "{flags}: {text}");
        assert_eq!(text.contains("COPY data /data"), expected == 0, "nobody needs the first stage: {text}");
        assert_eq!(text.contains("holds no step cache"), expected == 0, "{text}");
    }
}

#[test]
fn a_cache_that_lost_its_layers_is_no_cache() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = serve();
    let here = machine(&server);
    build(here.path(), "-t made:1 --cache-to type=local,dest=cache,mode=max");
    let manifests = std::fs::read_to_string(here.path().join("cache/index.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifests).unwrap();
    let digest = manifest["manifests"][0]["digest"].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    let blobs = here.path().join("cache/blobs/sha256");
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(blobs.join(digest)).unwrap()).unwrap();
    for layer in manifest["layers"].as_array().unwrap() {
        std::fs::write(blobs.join(layer["digest"].as_str().unwrap().trim_start_matches("sha256:")), "x").unwrap();
    }
    let there = machine(&server);
    let (text, _) =
        build(there.path(), &format!("-t made:1 --cache-from type=local,src={}", here.path().join("cache").display()));
    assert!(text.contains("building without it"), "{text}");
    assert!(layers(there.path()).starts_with("[sha256:"), "and was built all the same");
}
