//! `check`: the cursor's rules, tags that are versions, and what is refused.

use serde_json::json;

use crate::docker_registry::{DockerRegistry, PASSWORD, USER, has};
use crate::{Place, push, version};

#[test]
fn the_cursor_comes_first_while_it_exists_and_is_another() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = Place::default();
    let source = json!({ "repository": format!("{}/a/b", server.host()) });
    let check = |cursor: Option<&str>| {
        place.check(json!({ "source": source, "version": cursor.map(|d| json!({ "digest": d })) }))
    };
    assert_eq!(check(None).unwrap(), []);
    let old = push(&server.reference("a/b:latest"), "old");
    assert_eq!(check(None).unwrap(), [version(&old)]);
    assert_eq!(check(Some(&old.digest.to_string())).unwrap(), [version(&old)]);
    let new = push(&server.reference("a/b:latest"), "new");
    assert_eq!(check(Some(&old.digest.to_string())).unwrap(), [version(&old), version(&new)]);
    let gone = dockless::base::Digest::of("gone").to_string();
    assert_eq!(check(Some(&gone)).unwrap(), [version(&new)]);
    let numeric = push(&server.reference("a/b:3"), "three");
    let by_number =
        place.check(json!({ "source": { "repository": format!("{}/a/b", server.host()), "tag": 3 }, "version": null }));
    assert_eq!(by_number.unwrap(), [version(&numeric)]);
}

#[test]
fn an_account_is_needed_where_it_is_needed() {
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let server = DockerRegistry::htpasswd();
    let place = Place::default();
    let repository = format!("{}/x", server.host());
    let known = json!({ "repository": repository, "username": USER, "password": PASSWORD });
    assert_eq!(place.check(json!({ "source": known })).unwrap(), []);
    let error = place.check(json!({ "source": { "repository": repository } })).unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to fetch digest for image '{repository}:latest': ")), "{error}");
    assert!(error.contains("401 Unauthorized") && error.contains("\ndoes the image exist?\nlog in with"), "{error}");
    let wrong = json!({ "repository": repository, "username": USER, "password": "hunter2" });
    let error = format!("{:?}", place.check(json!({ "source": wrong })).unwrap_err());
    assert!(error.contains("401") && !error.contains("hunter2"), "{error}");
}

#[test]
fn an_own_authority_is_trusted_and_a_bad_one_is_named() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let server = DockerRegistry::tls();
    let place = Place::default();
    let source = |certificate: &str| {
        let authority = json!([{ "domain": server.host(), "cert": certificate }]);
        json!({ "source": { "repository": format!("{}/x", server.host()), "ca_certs": authority } })
    };
    assert_eq!(place.check(source(&server.file("ca.crt"))).unwrap(), []);
    let error = place.check(source("no PEM")).unwrap_err().to_string();
    assert!(error.starts_with(&format!("failed to parse CA certificate for \"{}\"", server.host())), "{error}");
    let insecure = json!({ "repository": format!("{}/x", server.host()), "insecure_registries": ["127.0.0.0/8"] });
    assert_eq!(place.check(json!({ "source": insecure })).unwrap(), []);
}

#[test]
fn tags_that_are_versions_come_in_their_order() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let place = Place::default();
    let repository = format!("{}/app", server.host());
    for tag in ["1.2.0-alpine", "1.10.0-alpine", "1.9.0-alpine", "1.9.0", "latest", "2.0.0-rc.1-alpine"] {
        push(&server.reference(&format!("app:{tag}")), tag);
    }
    let tags = |request: serde_json::Value| -> Vec<String> {
        place.check(request).unwrap().into_iter().map(|version| version.tag.unwrap()).collect()
    };
    let source = json!({ "repository": repository, "variant": "alpine" });
    assert_eq!(tags(json!({ "source": source })), ["1.2.0-alpine", "1.9.0-alpine", "1.10.0-alpine"]);
    let cursor = json!({ "tag": "1.9.0-alpine", "digest": "sha256:0" });
    assert_eq!(tags(json!({ "source": source, "version": cursor })), ["1.9.0-alpine", "1.10.0-alpine"]);
    let source = json!({ "repository": repository, "tag_regex": "^1\\.9" });
    assert_eq!(tags(json!({ "source": source })), ["1.9.0", "1.9.0-alpine"]);
}

#[test]
fn requests_that_mean_nothing_are_refused() {
    let place = Place::default();
    for (request, expected) in [
        (json!({ "source": {} }), "must specify repository"),
        (json!({ "source": { "repository": "a//b" } }), "malformed repository url"),
        (
            json!({ "source": { "repository": "a", "regsitry_mirror": "x" } }),
            "invalid request: unknown field `regsitry_mirror`",
        ),
        (json!({}), "invalid request: missing field `source`"),
    ] {
        let error = format!("{:#}", place.check(request).unwrap_err());
        assert!(error.starts_with(expected), "{error}");
    }
}
