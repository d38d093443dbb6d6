//! Step caches in a bucket and in a registry that tell what they were asked: what is written, and what is not fetched.

use std::path::Path;

use serde_json::Value;

use crate::command::{said, with};
use crate::kept::Kept;
use crate::shared::build;

const SECRET: &str = "very-secret-key";

/// Two layers in the result, and one of a stage below it.
const DOCKERFILE: &str =
    "FROM scratch AS below\nCOPY data /data\nFROM scratch\nCOPY --from=below /data /copy\nWORKDIR /made\n";

/// Its steps that are looked up.
const STEPS: usize = 3;

/// A machine that has never built anything.
fn machine() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join("src")).unwrap();
    std::fs::write(home.path().join("src/data"), "data").unwrap();
    std::fs::write(home.path().join("src/Dockerfile"), DOCKERFILE).unwrap();
    home
}

fn s3(bucket: &Kept, more: &str) -> String {
    let endpoint = format!("http://{}", bucket.server.host());
    format!(
        "type=s3,bucket=b,region=r,prefix=team/,endpoint_url={endpoint},use_path_style=true,access_key_id=id,secret_access_key={SECRET}{more}"
    )
}

/// Requests of a method that are about layers.
fn layers(asked: &[(String, String)], method: &str) -> Vec<String> {
    let blobs = asked.iter().filter(|(own, path)| own == method && path.contains("/blobs/"));
    blobs.map(|(_, path)| path.clone()).collect()
}

#[test]
fn a_bucket_holds_a_cache_as_buildkit_lays_it_out() {
    let bucket = Kept::bucket();
    let (here, there) = (machine(), machine());
    let (text, taken) = build(here.path(), &format!("-t made:1 --cache-to {}", s3(&bucket, ",mode=max,name=main;too")));
    assert_eq!(taken, 0, "{text}");
    assert!(!text.contains(SECRET), "{text}");
    let paths = bucket.paths();
    let (blobs, names): (Vec<&String>, Vec<&String>) = paths.iter().partition(|path| path.contains("/blobs/"));
    assert_eq!(names, ["/b/team/manifests/main", "/b/team/manifests/too"]);
    assert!(blobs.len() == 3 && blobs.iter().all(|path| path.starts_with("/b/team/blobs/sha256")), "{blobs:?}");
    let document: Value = serde_json::from_slice(&bucket.objects.lock().unwrap()["/b/team/manifests/main"]).unwrap();
    for layer in document["layers"].as_array().unwrap() {
        let annotations = &layer["annotations"];
        assert_eq!(annotations["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip", "{layer}");
        assert!(annotations["diffID"].is_string() && annotations["size"].is_u64(), "{layer}");
    }
    bucket.asked();

    let (text, taken) = build(there.path(), &format!("-t made:1 --cache-from {}", s3(&bucket, ",name=main")));
    assert_eq!(taken, STEPS, "{text}");
    let digests = |home: &Path| said(&with(home, &[], "inspect -f {{.RootFS.Layers}} made:1"));
    assert_eq!(digests(there.path()), digests(here.path()));
    assert_eq!(layers(&bucket.asked(), "GET").len(), 2, "those of the result and no other");

    let (text, _) = build(machine().path(), &format!("--cache-from {}", s3(&bucket, ",name=none")));
    assert!(text.contains("404 Not Found") && text.contains("building without it"), "{text}");
}

#[test]
fn what_a_place_has_is_neither_fetched_nor_sent_again() {
    for place in ["bucket", "registry"] {
        let server = if place == "bucket" { Kept::bucket() } else { Kept::registry() };
        let spec = |more: &str| match place {
            "bucket" => s3(&server, more),
            _ => format!("type=registry,ref={}/cache:1{more}", server.server.host()),
        };
        build(machine().path(), &format!("--cache-to {}", spec(",mode=max")));
        let before = server.paths();
        server.asked();
        let both = format!("--cache-from {} --cache-to {}", spec(""), spec(",mode=max"));
        let (text, taken) = build(machine().path(), &both);
        assert_eq!(taken, STEPS, "{place}: {text}");
        // Keys may have come to the document, which in a registry is a blob.
        let now = server.paths();
        assert!(before.iter().all(|path| now.contains(path)), "{place}: {now:?}");
        let asked = server.asked();
        let documents = usize::from(place == "registry");
        assert_eq!(layers(&asked, "GET").len(), 2 + documents, "{place}: what the result is made of: {asked:?}");
        assert_eq!(layers(&asked, "HEAD").len(), 3 + documents, "{place}: {asked:?}");
        let sent = layers(&asked, "PUT");
        // Objects of 2015 are copied onto themselves.
        assert_eq!(sent.len(), if place == "bucket" { 3 } else { documents }, "{place}: {asked:?}");

        // Other bytes than the place has must be made here.
        let forced = format!(
            "--cache-from {} --cache-to {}",
            spec(""),
            spec(",mode=max,compression=zstd,force-compression=true")
        );
        build(machine().path(), &forced);
        let asked = server.asked();
        assert_eq!(layers(&asked, "GET").len(), 3 + documents, "{place}: {asked:?}");
        assert!(server.paths().len() >= before.len() + 3, "{place}: {:?}", server.paths());
    }
}

#[test]
fn objects_that_are_young_are_left_as_they_are() {
    let bucket = Kept::bucket();
    let home = machine();
    build(home.path(), &format!("--cache-to {}", s3(&bucket, ",mode=max")));
    bucket.asked();
    // Since 2015 is less than this.
    build(home.path(), &format!("--cache-to {}", s3(&bucket, ",mode=max,touch_refresh=999999h")));
    assert_eq!(layers(&bucket.asked(), "PUT"), [""; 0]);
}

#[test]
fn a_layer_that_the_place_lost_is_left_out_of_the_next_cache() {
    let bucket = Kept::bucket();
    build(machine().path(), &format!("--cache-to {}", s3(&bucket, ",mode=max")));
    let there = machine();
    build(there.path(), &format!("-t made:1 --cache-from {}", s3(&bucket, "")));
    bucket.objects.lock().unwrap().retain(|path, _| !path.contains("/blobs/"));
    let both = format!("--cache-from {} --cache-to {}", s3(&bucket, ""), s3(&bucket, ",mode=max"));
    let (text, _) = build(there.path(), &both);
    assert!(text.contains("building without it"), "{text}");
    // The result's own layers are here, and went up again; nobody has the other's.
    let paths = bucket.paths();
    assert_eq!(paths.iter().filter(|path| path.contains("/blobs/")).count(), 2, "{paths:?}");
    let document: Value =
        serde_json::from_slice(&bucket.objects.lock().unwrap()["/b/team/manifests/buildkit"]).unwrap();
    assert_eq!(document["layers"].as_array().unwrap().len(), 2, "{document}");
}

#[test]
fn docker_s_words_when_asked_for() {
    let home = machine();
    build(home.path(), "--cache-to type=local,dest=cache,mode=max,oci-mediatypes=false");
    let read = |path: std::path::PathBuf| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let folder = home.path().join("cache");
    let entry = &read(folder.join("index.json"))["manifests"][0];
    assert_eq!(entry["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    let digest = entry["digest"].as_str().unwrap().replace(':', "/");
    let manifest = read(folder.join("blobs").join(digest));
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
}

#[test]
fn a_spec_that_is_wrong_shows_no_key() {
    let home = machine();
    let words = format!("build --cache-to type=s3,secret_access_key={SECRET},colour=red src");
    let output = with(home.path(), &[], &words);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("\"colour\" is not known") && !text.contains(SECRET), "{text}");
}
