//! What a source says of registries, in all three programs: further accounts, mirrors, certificates, keys for git.

use serde_json::{Value, json};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Env};
use dockless::registry::{Credential, Registry, Settings};
use dockless::store::MemoryBlobs;

use crate::docker_registry::{DockerRegistry, PASSWORD, USER, has};
use crate::{Place, host, push, sample_image, version};

/// Pushes a base image to a registry with a password.
fn publish(server: &DockerRegistry, name: &str) {
    let given = Credential::Password { user: USER.into(), password: PASSWORD.into() };
    let settings = Settings { credentials: [(server.host(), given)].into(), ..Settings::default() };
    let blobs = MemoryBlobs::new();
    let root = sample_image::image(&blobs, &[("a", b"a")], &host());
    let registry = Registry::new(&Env::of([]), settings).unwrap();
    registry.push(&root, &blobs, &server.reference(name), &[], &Step::none(), &Cancel::new()).unwrap();
}

#[test]
fn a_base_comes_from_a_registry_with_an_account_of_its_own() {
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let (closed, open) = (DockerRegistry::htpasswd(), DockerRegistry::open());
    publish(&closed, "base:1");
    let put = |accounts: Value| {
        let place = Place::default();
        place.write("src/Dockerfile", format!("FROM {}/base:1\nLABEL a=b\n", closed.host()));
        let source = json!({
            "repository": format!("{}/out", open.host()), "additional_private_registries": accounts,
        });
        (place.put(json!({ "source": source, "params": { "build": "src" } })), place)
    };
    let error = format!("{:#}", put(json!([])).0.unwrap_err());
    assert!(error.contains("401 Unauthorized"), "{error}");
    let account = json!([{ "registry": closed.host(), "username": USER, "password": PASSWORD }]);
    let (done, place) = put(account);
    done.unwrap();
    assert!(!place.log().contains(PASSWORD), "{}", place.log());
}

#[test]
fn a_mirror_has_what_docker_hub_is_asked_for() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let image = push(&server.reference("library/thing:1"), "mirrored");
    let address = format!("http://{}", server.host());
    for mirror in [json!(address), json!({ "host": server.host() })] {
        let source = json!({ "repository": "thing", "tag": "1", "registry_mirror": mirror });
        let place = Place::default();
        assert_eq!(place.check(json!({ "source": source })).unwrap(), [version(&image)]);
        place.get(json!({ "source": source, "version": version(&image) })).unwrap();
        assert_eq!(place.read("out/rootfs/content"), "mirrored");
        assert_eq!(place.read("out/repository"), "thing\n");
    }
    let place = Place::default();
    place.write("src/Dockerfile", "FROM thing:1\nLABEL a=b\n");
    let source = json!({ "repository": format!("{}/out", server.host()), "registry_mirror": address });
    place.put(json!({ "source": source, "params": { "build": "src" } })).unwrap();
}

#[test]
fn a_client_certificate_is_shown_to_its_registry_alone() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let server = DockerRegistry::mutual_tls();
    let source = |domain: &str| {
        json!({ "source": {
            "repository": format!("{}/x", server.host()),
            "ca_certs": [{ "domain": server.host(), "cert": server.file("ca.crt") }],
            "client_certs": [{ "domain": domain, "cert": server.file("client.crt"), "key": server.file("client.key") }],
        } })
    };
    assert_eq!(Place::default().check(source(&server.host())).unwrap(), []);
    let error = Place::default().check(source("other.example")).unwrap_err().to_string();
    assert!(error.starts_with("failed to fetch digest for image"), "{error}");
    assert!(!error.contains("PRIVATE KEY"), "{error}");
}

#[test]
fn a_cache_that_is_there_is_fetched_and_its_steps_are_taken_over() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    push(&server.reference("out:cached"), "cached");
    let place = Place::default();
    // The cached image is a base like any other: nobody has to have it again.
    place.write("src/Dockerfile", format!("FROM {}/out:cached\nCOPY Dockerfile /\n", server.host()));
    let source = json!({ "repository": format!("{}/out", server.host()) });
    let params = json!({ "build": "src", "cache": true, "cache_tag": "cached" });
    place.put(json!({ "source": source, "params": params })).unwrap();
    assert!(!place.log().contains("CACHED"), "{}", place.log());
    // What was put carries its steps to the next container.
    let next = Place::default();
    next.write("src/Dockerfile", place.read("src/Dockerfile"));
    next.put(json!({ "source": source, "params": { "build": "src", "cache": true } })).unwrap();
    assert!(next.log().contains("CACHED [2/2] COPY Dockerfile /"), "{}", next.log());
    for (cache, wanted) in [(json!("true"), true), (json!(false), false), (json!("yes"), false)] {
        let place = Place::default();
        place.write("src/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
        let params = json!({ "build": "src", "cache": cache, "cache_tag": "none" });
        place.put(json!({ "source": source, "params": params })).unwrap();
        assert_eq!(place.log().contains("cache"), wanted, "{cache}: {}", place.log());
    }
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let place = Place::default();
    place.write("src/Dockerfile", "FROM scratch\n");
    let source = |more: Value| {
        let mut source = json!({ "repository": "r.example/x" });
        source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        source
    };
    let cases = [
        (source(json!({ "semver_constraint": "1.x" })), json!({}), "unknown field `semver_constraint`"),
        (source(json!({ "git_branch": "x" })), json!({}), "git_branch and fail_when_missing need git_repo"),
        (
            source(json!({ "max_concurrent_uploads": "many" })),
            json!({}),
            "max_concurrent_uploads: \"many\" is not a number",
        ),
        (source(json!({ "git_repo": "x", "tag_regex": "y" })), json!({}), "exclude each other"),
        (source(json!({})), json!({ "bump_aliases": true }), "bump_aliases needs version"),
        (source(json!({})), json!({ "bump_alias": true }), "unknown field `bump_alias`"),
        (source(json!({})), json!({ "build": "src", "ssh_identity": "no" }), "ssh_identity: no is not a file"),
        (source(json!({})), json!({ "build": "src", "labels_file": "no" }), "Failed to parse labels_file (no)"),
        (
            source(json!({})),
            json!({ "build": "src", "secrets": { "a": {} } }),
            "secrets: a: needs either env or source",
        ),
        (source(json!({})), json!({ "load_file": "x" }), "must specify load_repository param"),
        (source(json!({})), json!({ "image": "*.tar" }), "no files match glob: *.tar"),
    ];
    for (source, params, expected) in cases {
        let error = format!("{:#}", place.put(json!({ "source": source, "params": params })).unwrap_err());
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn every_field_and_param_is_in_the_documentation() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/resource.md");
    let docs = std::fs::read_to_string(path).unwrap();
    let documented: Vec<&str> = docs.split('`').skip(1).step_by(2).collect();
    let version = json!({ "digest": dockless::base::Digest::of("x") });
    let named = |error: anyhow::Error| -> Vec<String> {
        let text = format!("{error:#}");
        let (_, list) = text.split_once("expected one of ").unwrap_or_else(|| panic!("{text}"));
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let place = Place::default();
    let source = json!({ "repository": "r.example/x" });
    let unknown = json!({ "no such": 1 });
    let lists = [
        named(place.check(json!({ "source": unknown })).unwrap_err()),
        named(place.get(json!({ "source": source, "version": version, "params": unknown })).unwrap_err()),
        named(place.put(json!({ "source": source, "params": unknown })).unwrap_err()),
    ];
    let missing: Vec<&String> = lists.iter().flatten().filter(|name| !documented.contains(&name.as_str())).collect();
    assert!(lists.iter().all(|list| list.len() > 3) && missing.is_empty(), "not in docs/resource.md: {missing:?}");
}
