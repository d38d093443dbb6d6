//! `out`: every source of an image, every way to a tag.

use serde_json::{Value, json};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Reference};
use dockless::image::Image;
use dockless::store::MemoryBlobs;

use crate::docker_registry::{DockerRegistry, has};
use crate::{Place, host, names, push, registry};

fn pull(reference: &Reference) -> Image {
    registry().pull(reference, &host(), &MemoryBlobs::new(), &Step::none(), &Cancel::new()).unwrap().image
}

/// A place with a build context in `src`.
fn with_context(dockerfile: &str) -> Place {
    let place = Place::default();
    place.write("src/Dockerfile", dockerfile);
    place.write("src/file", "content");
    place
}

fn put(place: &Place, server: &DockerRegistry, params: Value) -> anyhow::Result<dockless::resource::Outcome> {
    place.put(json!({ "source": { "repository": format!("{}/out", server.host()) }, "params": params }))
}

fn build_arg(image: &Image, name: &str) -> Option<String> {
    let start = format!("{name}=");
    image.config.config.env.iter().find_map(|line| Some(line.strip_prefix(&start)?.to_owned()))
}

#[test]
fn a_build_is_pushed_under_its_tag() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = with_context("FROM scratch\nCOPY file /file\n");
    let outcome = put(&place, &server, json!({ "build": "src" })).unwrap();
    let image = pull(&server.reference("out:latest"));
    assert_eq!(outcome.version.digest, image.manifest_descriptor.digest.to_string());
    assert_eq!(outcome.metadata[0].value, &image.config_digest.to_string()[..12]);
    let line =
        format!("latest: digest: {} size: {}\n", image.manifest_descriptor.digest, image.manifest_descriptor.size);
    assert!(place.log().contains(&line), "{}", place.log());
    assert!(place.log().contains(&format!("The push refers to repository [{}/out]\n", server.host())));
    assert_eq!(image.layers[0].descriptor.media_type, dockless::image::media_type::OCI_LAYER_GZIP);
}

#[test]
fn arguments_labels_and_the_target_reach_the_build() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let dockerfile = "FROM scratch AS wanted\nARG A\nARG B\nARG C\nARG https_proxy\nENV A=$A B=$B C=$C P=$https_proxy\nCOPY file /\nFROM scratch\nCOPY file /other\n";
    let place = with_context(dockerfile).with("BUILD_ID", "42").with("https_proxy", "http://proxy:1");
    place.write("args.json", r#"{"B":"from file"}"#);
    place.write("labels.json", r#"{"l2":"file"}"#);
    place.write("elsewhere/Containerfile", dockerfile);
    put(
        &place,
        &server,
        json!({
            "build": "src", "dockerfile": "elsewhere/Containerfile", "target_name": "wanted",
            "build_args": { "A": "$BUILD_ID and $HOME", "B": "from params", "C": false },
            "build_args_file": "args.json", "labels": { "l1": 1 }, "labels_file": "labels.json",
            "docker_buildkit": 1,
        }),
    )
    .unwrap();
    let image = pull(&server.reference("out:latest"));
    assert_eq!(build_arg(&image, "A").as_deref(), Some("42 and $HOME"));
    assert_eq!(build_arg(&image, "B").as_deref(), Some("from file"));
    assert_eq!(build_arg(&image, "C").as_deref(), Some("false"));
    assert_eq!(build_arg(&image, "P").as_deref(), Some("http://proxy:1"));
    let labels = &image.config.config.labels;
    assert_eq!((labels["l1"].as_str(), labels["l2"].as_str()), ("1", "file"));
}

#[test]
fn tags_come_from_files_with_a_prefix_and_latest_beside() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = with_context("FROM scratch\nCOPY file /\n");
    place.write("version", "1.2\n\n");
    place.write("more", " edge\n  v1\tx\n");
    let params = json!({
        "build": "src", "tag_file": "version", "tag_prefix": "v", "tag_as_latest": true, "additional_tags": "more",
    });
    let outcome = put(&place, &server, params).unwrap();
    let mut tags = registry().tags(&server.reference("out"), &Cancel::new()).unwrap();
    tags.sort();
    assert_eq!(tags, ["edge", "latest", "v1", "v1.2", "x"]);
    for tag in tags {
        let digest = pull(&server.reference(&format!("out:{tag}"))).manifest_descriptor.digest;
        assert_eq!(digest.to_string(), outcome.version.digest);
    }
    assert!(place.log().contains(&format!("{}/out:v1.2 tagged as latest\n", server.host())));
    for (params, expected) in [
        (json!({ "build": "src", "tag": "no" }), "tag file 'no' does not exist"),
        (json!({ "build": "src", "additional_tags": "no" }), "additional tags file 'no' does not exist"),
        (
            json!({ "build": "src", "dockerfile": "src/no" }),
            "It doesn't appear that given Dockerfile: \"src/no\" is a file",
        ),
    ] {
        assert_eq!(put(&place, &server, params).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_base_image_is_loaded_instead_of_pulled() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let base = push(&server.reference("base:1"), "of the base");
    let place = Place::default();
    let source = json!({ "repository": format!("{}/base", server.host()), "tag": "1" });
    place.get(json!({ "source": source, "version": { "digest": base.digest }, "params": { "save": true } })).unwrap();
    let name = format!("{}/base", server.host());
    drop(server);
    // The base's registry is gone; only its files are left.
    let server = DockerRegistry::open();
    for params in [json!({ "load_base": "out" }), json!({ "load_bases": ["out"] }), json!({ "cache_from": ["out"] })] {
        let fresh = Place::default();
        let copied = std::process::Command::new("cp").arg("-a").arg(place.path("out")).arg(fresh.path("out")).status();
        assert!(copied.unwrap().success());
        fresh.write("src/Dockerfile", format!("FROM {name}:1\nCOPY Dockerfile /\n"));
        let mut params = params;
        params["build"] = "src".into();
        put(&fresh, &server, params).unwrap();
        assert_eq!(pull(&server.reference("out:latest")).layers.len(), 4);
    }
}

#[test]
fn files_are_loaded_and_imported() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let image = push(&server.reference("a/b:7"), "hello");
    let place = Place::default();
    let source = json!({ "repository": format!("{}/a/b", server.host()), "tag": "7" });
    let params = json!({ "save": true, "rootfs": true });
    place.get(json!({ "source": source, "version": { "digest": image.digest }, "params": params })).unwrap();
    let id = place.read("out/image-id");

    let repository = format!("{}/a/b", server.host());
    let params = json!({ "load_file": "out/image", "load_repository": repository, "load_tag": 7 });
    put(&place, &server, params).unwrap();
    assert_eq!(pull(&server.reference("out:latest")).config_digest.to_string(), id.trim_end());

    let error = put(&place, &server, json!({ "load_file": "out/image", "load_repository": repository })).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("out/image holds no image {repository}:latest, only {}, {repository}:7", id.trim_end())
    );
    let error = put(&place, &server, json!({ "load_file": "out/image" })).unwrap_err();
    assert_eq!(error.to_string(), "must specify load_repository param");

    put(&place, &server, json!({ "import_file": "out/rootfs.tar" })).unwrap();
    assert_eq!(pull(&server.reference("out:latest")).layers.len(), 1);

    put(&place, &server, json!({ "pull_repository": repository, "pull_tag": "7" })).unwrap();
    assert_eq!(pull(&server.reference("out:latest")).config_digest.to_string(), id.trim_end());

    let outcome = put(&place, &server, json!({ "image": "o*/image", "version": "9" })).unwrap();
    assert_eq!(outcome.version.tag.as_deref(), Some("9"));
    assert_eq!(pull(&server.reference("out:9")).config_digest.to_string(), id.trim_end());

    let source = json!({ "repository": format!("{}/slim", server.host()), "variant": "slim" });
    for (version, expected) in [("1.2.3", "1.2.3-slim 1.2-slim 1-slim slim"), ("1.1.9", "1.1.9-slim 1.1-slim")] {
        let params = json!({ "image": "o*/image", "version": version, "bump_aliases": true });
        let outcome = place.put(json!({ "source": source, "params": params })).unwrap();
        for tag in expected.split(' ') {
            let digest = pull(&server.reference(&format!("slim:{tag}"))).manifest_descriptor.digest;
            assert_eq!(digest.to_string(), outcome.version.digest);
            assert!(place.log().contains(&format!("{tag}: digest: {digest} size: ")), "{tag}");
        }
    }
    let mut tags = registry().tags(&server.reference("slim"), &Cancel::new()).unwrap();
    tags.sort();
    assert_eq!(tags, ["1-slim", "1.1-slim", "1.1.9-slim", "1.2-slim", "1.2.3-slim", "slim"]);

    let error = put(&place, &server, json!({})).unwrap_err();
    assert_eq!(error.to_string(), "must specify build, load, load_file, import_file, or pull_repository params");
    assert!(names(&place.path("out")).contains(&"image".to_owned()));
}

#[test]
fn secrets_and_a_cache_that_is_not_there() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = with_context("FROM scratch\nCOPY file /\n").with("S", "hunter2");
    put(
        &place,
        &server,
        json!({ "build": "src", "cache": true, "cache_tag": "none", "secrets": { "a-b": { "env": "S" } } }),
    )
    .unwrap();
    assert!(place.log().contains("building without it"), "{}", place.log());
    assert!(!place.log().contains("hunter2"));
}
