//! Amazon's registry, as far as it can be played on loopback: its host is reached through a proxy of ours, and its
//! `GetAuthorizationToken` through an endpoint of ours.

use base64::Engine as _;

use dockless::base::{Cancel, Env};
use dockless::registry::{AwsKeys, Settings};

use crate::client;
use crate::hostile_registry::{HostileRegistry, Reply};

const HOST: &str = "123456789012.dkr.ecr.eu-west-1.amazonaws.com";

/// The environment in which [`HOST`] is this proxy, by plain HTTP.
fn env(proxy: &HostileRegistry, endpoint: &HostileRegistry, dir: &tempfile::TempDir) -> Env {
    let config = dir.path().join("config.yml");
    std::fs::write(&config, format!("registries:\n  {HOST}:\n    http: true\n")).unwrap();
    Env::of([
        ("http_proxy", format!("http://{}", proxy.host()).as_str()),
        ("AWS_ENDPOINT_URL_ECR", format!("http://{}/", endpoint.host()).as_str()),
        ("DOCKLESS_CONFIG", config.to_str().unwrap()),
    ])
}

fn registry() -> HostileRegistry {
    let expected = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("AWS:token"));
    HostileRegistry::start(move |request, _| {
        assert!(request.path.starts_with(&format!("http://{HOST}/v2/")), "{}", request.path);
        match request.headers.get("authorization") {
            None => Reply::status(401).header("WWW-Authenticate", "Basic realm=\"ecr\""),
            Some(given) if *given == expected => Reply::bytes(r#"{"tags":["1"]}"#),
            Some(_) => Reply::status(403),
        }
    })
}

fn keys() -> Settings {
    let keys = AwsKeys {
        access_key_id: "AKID".into(),
        secret_access_key: "hunter2".into(),
        session_token: Some("session".into()),
    };
    Settings { aws: Some(keys), ..Settings::default() }
}

#[test]
fn access_keys_become_a_password() {
    let endpoint = HostileRegistry::start(|_, _| {
        let token = base64::engine::general_purpose::STANDARD.encode("AWS:token");
        Reply::bytes(format!(r#"{{"authorizationData":[{{"authorizationToken":"{token}"}}]}}"#))
    });
    let (proxy, dir) = (registry(), tempfile::tempdir().unwrap());
    let registry = client(&env(&proxy, &endpoint, &dir), keys());
    let tags = registry.tags(&format!("{HOST}/a/b").parse().unwrap(), &Cancel::new()).unwrap();
    assert_eq!(tags, ["1"]);
    let asked = endpoint.asked.lock().unwrap();
    assert_eq!(asked.len(), 1);
    let headers = &asked[0].headers;
    assert_eq!((asked[0].method.as_str(), asked[0].body.as_slice()), ("POST", b"{}".as_slice()));
    assert_eq!(headers["x-amz-target"], "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken");
    assert_eq!(headers["x-amz-security-token"], "session");
    let day = &headers["x-amz-date"][..8];
    let signed = "content-type;host;x-amz-date;x-amz-security-token;x-amz-target";
    let expected = format!(
        "AWS4-HMAC-SHA256 Credential=AKID/{day}/eu-west-1/ecr/aws4_request, SignedHeaders={signed}, Signature="
    );
    assert!(headers["authorization"].starts_with(&expected), "{headers:?}");
}

#[test]
fn refused_keys_are_told_without_the_keys() {
    let endpoint = HostileRegistry::start(|_, _| Reply {
        status: 400,
        ..Reply::bytes(r#"{"__type":"UnrecognizedClientException","message":"The security token is invalid."}"#)
    });
    let (proxy, dir) = (registry(), tempfile::tempdir().unwrap());
    let registry = client(&env(&proxy, &endpoint, &dir), keys());
    let error = registry.tags(&format!("{HOST}/a/b").parse().unwrap(), &Cancel::new()).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("failed to get ECR credentials: ") && text.contains("The security token is invalid."),
        "{text}"
    );
    assert!(!text.contains("hunter2") && !text.contains("session"), "{text}");
}

#[test]
fn without_keys_the_error_says_where_they_were_looked_for() {
    let endpoint = HostileRegistry::start(|_, _| Reply::status(500));
    let (proxy, dir) = (registry(), tempfile::tempdir().unwrap());
    let registry = client(&env(&proxy, &endpoint, &dir), Settings::default());
    let error = registry.tags(&format!("{HOST}/a/b").parse().unwrap(), &Cancel::new()).unwrap_err();
    assert!(error.to_string().contains("no credentials in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{error}");
    assert!(endpoint.asked.lock().unwrap().is_empty());
}
