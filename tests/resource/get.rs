//! `in`: which files there are, and what is in them.

use serde_json::{Value, json};

use crate::docker_registry::{DockerRegistry, has};
use crate::{Place, names, push, version};

#[test]
fn the_files_are_docker_images() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let image = push(&server.reference("a/b:7"), "hello");
    let place = Place::default();
    let repository = format!("{}/a/b", server.host());
    let outcome = place
        .get(json!({
            "source": { "repository": repository, "tag": 7 },
            "version": { "digest": image.digest },
            "params": { "save": true, "rootfs": true },
        }))
        .unwrap();
    let id = place.read("out/image-id");
    assert_eq!(
        serde_json::to_value(&outcome).unwrap(),
        json!({
            "version": { "digest": image.digest },
            "metadata": [
                { "name": "repository", "value": repository },
                { "name": "tag", "value": "7" },
                { "name": "image", "value": &id[..12] },
            ],
        })
    );
    assert_eq!(
        names(&place.path("out")),
        [
            "digest",
            "docker_inspect.json",
            "image",
            "image-id",
            "metadata.json",
            "repository",
            "rootfs",
            "rootfs.tar",
            "tag"
        ]
    );
    assert_eq!(place.read("out/repository"), format!("{repository}\n"));
    assert_eq!(place.read("out/tag"), "7\n");
    assert_eq!(place.read("out/digest"), format!("{}\n", image.digest));
    assert_eq!(place.read("out/metadata.json"), "{\"user\":\"root\",\"env\":[\"PATH=/bin\",\"HOME=/root\"]}\n");
    assert_eq!(place.read("out/rootfs/content"), "hello");
    assert_eq!(names(&place.path("out/rootfs")), ["content", "etc"], "without /dev");
    let inspected: Value = serde_json::from_str(&place.read("out/docker_inspect.json")).unwrap();
    assert_eq!(inspected[0]["Id"], id.trim_end());
    assert_eq!(inspected[0]["RepoDigests"], json!([format!("{repository}@{}", image.digest)]));
    let mut archive = tar::Archive::new(std::fs::File::open(place.path("out/rootfs.tar")).unwrap());
    let mut paths: Vec<String> =
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
    paths.sort();
    paths.retain(|path| !path.ends_with('/') && path != ".");
    assert_eq!(paths, ["content", "dev/thing", "etc/passwd"]);
    let mut archive = tar::Archive::new(std::fs::File::open(place.path("out/image")).unwrap());
    let manifest =
        archive.entries().unwrap().map(Result::unwrap).find(|e| e.path().unwrap().ends_with("manifest.json"));
    let manifest: Value = serde_json::from_reader(manifest.unwrap()).unwrap();
    assert_eq!(manifest[0]["RepoTags"], json!([format!("{repository}:7")]));
}

#[test]
fn without_a_download_only_the_words_are_there() {
    let place = Place::default();
    let digest = dockless::base::Digest::of("x");
    let request = json!({
        "source": { "repository": "nowhere.example/x" },
        "version": { "digest": digest },
        "params": { "skip_download": true },
    });
    let outcome = place.get(request).unwrap();
    assert_eq!(names(&place.path("out")), ["digest", "repository", "tag"]);
    assert_eq!(outcome.metadata.len(), 2);
}

#[test]
fn registry_images_formats_have_its_files() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let image = push(&server.reference("a/b:1"), "hello");
    let cases: [(&str, &[&str]); 3] = [
        ("rootfs", &["digest", "labels.json", "metadata.json", "repository", "rootfs", "tag"]),
        ("oci", &["digest", "image.tar", "labels.json", "repository", "tag"]),
        ("oci-layout", &["digest", "labels.json", "oci", "repository", "tag"]),
    ];
    for (format, expected) in cases {
        let place = Place::default();
        let request = json!({
            "source": { "repository": format!("{}/a/b", server.host()), "tag": "1" },
            "version": { "digest": image.digest, "tag": "1" },
            "params": { "format": format },
        });
        place.get(request).unwrap();
        assert_eq!(names(&place.path("out")), expected, "{format}");
        assert_eq!(place.read("out/digest"), image.digest.to_string());
    }
}

#[test]
fn what_is_not_there_leaves_nothing_behind() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = Place::default();
    let digest = dockless::base::Digest::of("x");
    let repository = format!("{}/a/b", server.host());
    let error =
        place.get(json!({ "source": { "repository": repository }, "version": { "digest": digest } })).unwrap_err();
    assert_eq!(error.to_string(), format!("Failed to pull image {repository}@{digest}."));
    assert_eq!(names(&place.path("out")), [] as [&str; 0]);
    let error = place.get(json!({ "source": { "repository": repository } })).unwrap_err();
    assert_eq!(error.to_string(), "must specify version");
}

#[test]
fn what_out_pushed_in_gets() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let repository = format!("{}/round", server.host());
    let first = push(&server.reference("round:trip"), "there and back");
    let place = Place::default();
    let source = json!({ "repository": repository, "tag": "trip" });
    place.get(json!({ "source": source, "version": version(&first), "params": { "save": true } })).unwrap();
    // The very image again: the archive that `in` saved, given to `out`.
    let again = place
        .put(json!({ "source": { "repository": repository, "tag": "again" }, "params": { "load": "out" } }))
        .unwrap();
    let other = Place::default();
    other.get(json!({ "source": source, "version": again.version })).unwrap();
    assert_eq!(other.read("out/image-id"), place.read("out/image-id"));
    assert_eq!(other.read("out/rootfs/content"), "there and back");
}
