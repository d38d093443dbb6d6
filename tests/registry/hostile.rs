//! Against a registry that lies, breaks, limits and leads astray.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Digest, Env};
use dockless::image::media_type;
use dockless::registry::{Credential, Error, Patience, Registry, Settings};
use dockless::store::{BlobStore, DiskBlobs, MemoryBlobs, read_document};

use crate::hostile_registry::{Body, HostileRegistry, Reply, Request};
use crate::sample_image::image;
use crate::{amd64, client, plain_client};

/// A registry with one good image, which every test bends in one place.
struct Good {
    blobs: MemoryBlobs,
    root: dockless::image::Descriptor,
}

impl Good {
    fn new() -> Arc<Self> {
        let blobs = MemoryBlobs::new();
        let root = image(&blobs, &[("a", &[3; 300_000])], &amd64());
        Arc::new(Self { blobs, root })
    }

    fn answer(&self, request: &Request) -> Reply {
        let name = request.path.rsplit('/').next().unwrap();
        if request.path == "/v2/" {
            return Reply::status(200);
        }
        let digest: Digest = name.parse().unwrap_or(self.root.digest);
        let Ok(bytes) = read_document(&self.blobs, &digest) else { return Reply::status(404) };
        let reply = Reply::bytes(bytes).header("Docker-Content-Digest", digest.to_string());
        if request.path.contains("/manifests/") {
            return reply.header("Content-Type", media_type::OCI_MANIFEST);
        }
        reply
    }

    fn layer(&self) -> Digest {
        dockless::image::Image::read(&self.blobs, &self.root, &amd64()).unwrap().layers[0].descriptor.digest
    }
}

/// The good registry, with `bend` asked first.
fn bent(
    bend: impl Fn(&Good, &Request, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Arc<Good>, HostileRegistry) {
    let good = Good::new();
    let inner = Arc::clone(&good);
    let server = HostileRegistry::start(move |request, before| {
        bend(&inner, request, before).unwrap_or_else(|| inner.answer(request))
    });
    (good, server)
}

fn pull_with(registry: &Registry, server: &HostileRegistry) -> (Result<(), Error>, MemoryBlobs) {
    let blobs = MemoryBlobs::new();
    let result = registry.pull(&server.reference("a/b:1"), &amd64(), &blobs, &Step::none(), &Cancel::new());
    (result.map(drop), blobs)
}

fn pull(server: &HostileRegistry) -> Result<(), Error> {
    pull_with(&plain_client(), server).0
}

fn is_blob(request: &Request) -> bool {
    request.path.contains("/blobs/")
}

fn is_layer(good: &Good, request: &Request) -> bool {
    request.path.ends_with(&good.layer().to_string())
}

fn is_manifest(request: &Request) -> bool {
    request.path.contains("/manifests/")
}

#[test]
fn the_good_registry_is_good() {
    let (good, server) = bent(|_, _, _| None);
    let (result, blobs) = pull_with(&plain_client(), &server);
    result.unwrap();
    assert!(blobs.size(&good.layer()).unwrap().is_some());
}

#[test]
fn a_layer_with_other_bytes_is_not_kept() {
    let (good, server) =
        bent(|good, request, _| is_layer(good, request).then(|| Reply::bytes(vec![4; good_size(good)])));
    let (result, blobs) = pull_with(&plain_client(), &server);
    assert!(matches!(result, Err(Error::Mismatch { .. })), "{result:?}");
    assert_eq!(blobs.size(&good.layer()).unwrap(), None);
}

fn good_size(good: &Good) -> usize {
    good.blobs.size(&good.layer()).unwrap().unwrap() as usize
}

#[test]
fn a_manifest_with_other_bytes_is_refused() {
    let (_, server) = bent(|good, request, _| {
        (is_manifest(request) && request.method == "GET")
            .then(|| Reply::bytes("{}").header("Docker-Content-Digest", good.root.digest.to_string()))
    });
    assert!(matches!(pull(&server), Err(Error::Mismatch { .. })));
}

#[test]
fn a_truncated_body_is_resumed_where_it_broke() {
    let (good, server) = bent(|good, request, before| {
        if !is_layer(good, request) {
            return None;
        }
        let bytes = read_document(&good.blobs, &good.layer()).unwrap();
        if before == 0 {
            return Some(Reply { length: Some(bytes.len() as u64), ..Reply::bytes(&bytes[..100_000]) });
        }
        let start: usize =
            request.headers["range"].strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
        let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
        Some(Reply { status: 206, ..Reply::bytes(&bytes[start..]) }.header("Content-Range", range))
    });
    pull(&server).unwrap();
    let ranges: Vec<_> = server
        .asked
        .lock()
        .unwrap()
        .iter()
        .filter(|r| is_layer(&good, r))
        .map(|r| r.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned())]);
}

#[test]
fn a_registry_without_ranges_is_read_again() {
    let (_, server) = bent(|good, request, before| {
        let bytes = read_document(&good.blobs, &good.layer()).unwrap();
        (is_layer(good, request) && before == 0)
            .then(|| Reply { length: Some(bytes.len() as u64), ..Reply::bytes(&bytes[..100_000]) })
    });
    pull(&server).unwrap();
}

#[test]
fn another_range_than_asked_for_is_refused() {
    let (_, server) = bent(|good, request, before| {
        let bytes = read_document(&good.blobs, &good.layer()).unwrap();
        is_layer(good, request).then(|| match before {
            0 => Reply { length: Some(bytes.len() as u64), ..Reply::bytes(&bytes[..100_000]) },
            _ => Reply { status: 206, ..Reply::bytes(bytes) }.header("Content-Range", "bytes 0-9/10"),
        })
    });
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().ends_with("answers another range than was asked for"), "{error}");
}

#[test]
fn a_body_that_always_breaks_is_given_up() {
    let (_, server) =
        bent(|good, request, _| is_layer(good, request).then(|| Reply { length: Some(300_000), ..Reply::bytes("") }));
    let error = pull(&server).unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert_eq!(
        server.lines().iter().filter(|line| line.contains("/blobs/")).count(),
        1 + 3,
        "a config and three tries"
    );
}

#[test]
fn too_many_requests_are_waited_out() {
    let (_, server) = bent(|_, request, before| {
        (is_manifest(request) && request.method == "GET" && before == 0)
            .then(|| Reply::status(429).header("Retry-After", "1"))
    });
    let start = Instant::now();
    pull(&server).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_wait_of_an_hour_is_an_error_with_the_quota_in_it() {
    let (_, server) = bent(|_, request, _| {
        is_manifest(request).then(|| {
            Reply { status: 429, ..Reply::bytes(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}"#) }
                .header("Retry-After", "3600")
                .header("RateLimit-Limit", "100;w=21600")
                .header("RateLimit-Remaining", "0;w=21600")
        })
    });
    let start = Instant::now();
    let error = pull(&server).unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("429 Too Many Requests"), "{error}");
    assert!(error.to_string().contains("rate limit 100;w=21600, remaining 0;w=21600"), "{error}");
    assert!(error.hint().unwrap().contains("mirror"));
}

#[test]
fn a_server_error_that_passes_is_forgotten() {
    let (_, server) = bent(|_, _, before| (before == 0).then(|| Reply::status(500)));
    pull(&server).unwrap();
}

#[test]
fn a_server_error_that_stays_is_told_with_its_words() {
    let (_, server) = bent(|_, request, _| {
        is_blob(request).then(|| Reply { status: 503, ..Reply::bytes("storage is \x1b[31mdown") })
    });
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().ends_with("503 Service Unavailable: storage is [31mdown"), "{error}");
}

#[test]
fn head_may_be_unknown_or_say_nothing() {
    for status in [404, 405, 200] {
        let (good, server) = bent(move |good, request, _| {
            if !is_manifest(request) {
                return None;
            }
            let bytes = read_document(&good.blobs, &good.root.digest).unwrap();
            Some(match request.method.as_str() {
                "HEAD" => Reply::status(status),
                _ => Reply::bytes(bytes).header("Content-Type", media_type::OCI_MANIFEST),
            })
        });
        let head = plain_client().head(&server.reference("a/b:1"), &Cancel::new()).unwrap();
        assert_eq!(head.map(|d| d.digest), Some(good.root.digest), "{status}");
        pull(&server).unwrap();
    }
}

#[test]
fn an_endless_manifest_and_an_endless_layer_end() {
    let endless = || Reply { status: 200, body: Body::Zeros(None), ..Reply::default() };
    let (_, server) = bent(move |_, request, _| (is_manifest(request) && request.method == "GET").then(endless));
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().ends_with("more than 4194304 bytes"), "{error}");
    let (_, server) = bent(move |good, request, _| is_layer(good, request).then(endless));
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().contains("is longer than the 301568 bytes that were told"), "{error}");
}

#[test]
fn an_endless_error_ends_too() {
    let (_, server) = bent(|_, request, _| {
        is_manifest(request).then(|| Reply { status: 403, body: Body::Zeros(None), ..Reply::default() })
    });
    assert_eq!(pull(&server).unwrap_err().status(), Some(403));
}

#[test]
fn redirects_in_a_ring_end() {
    let (_, server) =
        bent(|_, request, _| is_blob(request).then(|| Reply::status(307).header("Location", request.path.clone())));
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().ends_with("more than 10 redirects"), "{error}");
}

#[test]
fn another_host_gets_the_request_and_not_the_credentials() {
    let good = Good::new();
    let inner = Arc::clone(&good);
    let elsewhere = HostileRegistry::start(move |request, _| inner.answer(request));
    let target = elsewhere.host();
    let (_, server) = {
        let inner = Arc::clone(&good);
        let server = HostileRegistry::start(move |request, _| {
            if !request.headers.contains_key("authorization") {
                return Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
            }
            if is_blob(request) {
                return Reply::status(307).header("Location", format!("http://{target}{}", request.path));
            }
            inner.answer(request)
        });
        ((), server)
    };
    let given = Credential::Password { user: "u".into(), password: "p".into() };
    let settings = Settings { credentials: [(server.host(), given)].into(), ..Settings::default() };
    pull_with(&client(&Env::of([]), settings), &server).0.unwrap();
    let asked = elsewhere.asked.lock().unwrap();
    assert!(asked.len() >= 2);
    assert!(asked.iter().all(|r| !r.headers.contains_key("authorization")), "{asked:?}");
}

#[test]
fn an_upload_that_moves_to_another_host_keeps_the_credentials_at_home() {
    let elsewhere = HostileRegistry::start(|_, _| Reply::status(201));
    let target = elsewhere.host();
    let server = HostileRegistry::start(move |request, _| {
        if !request.headers.contains_key("authorization") {
            return Reply::status(401).header("WWW-Authenticate", "Basic realm=\"x\"");
        }
        match request.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).header("Location", format!("http://{target}/upload?state=1")),
            _ => Reply::status(201),
        }
    });
    let good = Good::new();
    let given = Credential::Password { user: "u".into(), password: "p".into() };
    let settings = Settings { credentials: [(server.host(), given)].into(), ..Settings::default() };
    let to = server.reference("a/b:1");
    client(&Env::of([]), settings).push(&good.root, &good.blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap();
    let asked = elsewhere.asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert!(
        asked.iter().all(|r| !r.headers.contains_key("authorization") && r.path.starts_with("/upload?state=1&digest="))
    );
}

#[test]
fn a_token_server_without_tls_gets_no_password_of_a_registry_with_it() {
    // The registry is loopback here, so only its answer can be looked at: the realm's scheme is checked before use.
    let (_, server) = bent(|_, request, _| {
        (request.path != "/v2/")
            .then(|| Reply::status(401).header("WWW-Authenticate", "Bearer realm=\"ftp://127.0.0.1/token\""))
    });
    let error = pull(&server).unwrap_err();
    assert!(error.to_string().contains("is not encrypted, while the registry is"), "{error}");
}

#[test]
fn wrong_media_types_are_named() {
    let cases = [
        ("text/html", "<html>welcome</html>", "is of type \"text/html\", not an image manifest"),
        ("application/vnd.docker.distribution.manifest.v1+prettyjws", r#"{"schemaVersion":1}"#, "schema 1"),
        (media_type::OCI_INDEX, r#"{"schemaVersion":2,"config":{},"layers":[]}"#, "which its content is not"),
    ];
    for (content_type, body, expected) in cases {
        let (_, server) = bent(move |_, request, _| {
            is_manifest(request).then(|| match request.method.as_str() {
                "HEAD" => Reply::status(404),
                _ => Reply::bytes(body).header("Content-Type", content_type),
            })
        });
        let error = pull(&server).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_drip_is_not_waited_for() {
    let (_, server) = bent(|good, request, _| {
        is_layer(good, request).then(|| Reply {
            status: 200,
            body: Body::Drip(vec![0; 300_000], Duration::from_millis(20)),
            ..Reply::default()
        })
    });
    let patience = Patience { tries: 2, delay: Duration::from_millis(10), stall: Duration::from_millis(500) };
    let start = Instant::now();
    let (result, _) =
        pull_with(&client(&Env::of([]), Settings { patience: Some(patience), ..Settings::default() }), &server);
    assert!(result.unwrap_err().to_string().contains("bytes per second"));
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_cancelled_pull_ends_at_once_and_keeps_nothing_half() {
    let (good, server) = bent(|good, request, _| {
        is_layer(good, request).then(|| Reply {
            status: 200,
            body: Body::Drip(vec![0; 300_000], Duration::from_millis(20)),
            ..Reply::default()
        })
    });
    let cancel = Cancel::new();
    let raise = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        raise.cancel();
    });
    let blobs = MemoryBlobs::new();
    let start = Instant::now();
    let result = plain_client().pull(&server.reference("a/b:1"), &amd64(), &blobs, &Step::none(), &cancel);
    assert!(matches!(result, Err(Error::Cancelled(_))), "{result:?}");
    assert!(start.elapsed() < Duration::from_secs(3));
    assert_eq!(blobs.size(&good.layer()).unwrap(), None);
}

#[test]
fn a_known_manifest_costs_one_head() {
    let (_, server) = bent(|_, _, _| None);
    let registry = plain_client();
    let blobs = MemoryBlobs::new();
    let reference = server.reference("a/b:1");
    for _ in 0..2 {
        registry.pull(&reference, &amd64(), &blobs, &Step::none(), &Cancel::new()).unwrap();
    }
    let lines = server.lines();
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert_eq!(lines[4], "HEAD /v2/a/b/manifests/1");
}

#[test]
fn an_upload_too_large_for_a_proxy_goes_in_chunks() {
    let server = HostileRegistry::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).header("Location", "/upload"),
        "PATCH" => Reply::status(202).header("Location", "/upload"),
        "PUT" if request.body.len() > 100_000 => Reply::status(413),
        _ => Reply::status(201),
    });
    let good = Good::new();
    let to = server.reference("a/b:1");
    plain_client().push(&good.root, &good.blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap();
    let asked = server.asked.lock().unwrap();
    let patch = asked.iter().find(|r| r.method == "PATCH").unwrap();
    assert_eq!(patch.headers["content-range"], format!("0-{}", patch.body.len() - 1));
}

#[test]
fn a_chunk_that_breaks_is_sent_again_from_where_the_registry_is() {
    let server = HostileRegistry::start(|request, before| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).header("Location", "/upload"),
        "GET" if request.path == "/upload" => {
            Reply::status(204).header("Location", "/upload").header("Range", "0-49999")
        }
        "PATCH" if request.body.len() == 200_000 && before <= 1 => Reply::status(500),
        "PATCH" => Reply::status(202).header("Location", "/upload"),
        _ => Reply::status(201),
    });
    let good = Good::new();
    let layer = good.layer();
    let settings = Settings { upload_chunk: Some(200_000), uploads: Some(1), ..Settings::default() };
    let to = server.reference("a/b:1");
    // Only the layer is large enough for a second chunk; the config is one PATCH.
    client(&Env::of([]), settings).push(&good.root, &good.blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap();
    let asked = server.asked.lock().unwrap();
    let ranges: Vec<_> =
        asked.iter().filter(|r| r.method == "PATCH").map(|r| r.headers["content-range"].clone()).collect();
    assert!(ranges.iter().any(|range| range.starts_with("50000-")), "{ranges:?} {layer}");
}

#[test]
fn a_blob_that_rotted_in_the_store_is_named_whatever_the_registry_says() {
    type Answer = fn(&Request) -> Reply;
    let cases: [(&str, Answer); 3] = [
        ("it hashes what it gets, as the specification has it", |_| Reply {
            status: 400,
            ..Reply::bytes(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#)
        }),
        ("it says what it has stored", |request| {
            Reply::status(201).header("Docker-Content-Digest", Digest::of(&request.body).to_string())
        }),
        ("it takes anything, and says nothing", |_| Reply::status(201)),
    ];
    for (why, answer) in cases {
        let server = HostileRegistry::start(move |request, _| match request.method.as_str() {
            "HEAD" => Reply::status(404),
            "POST" => Reply::status(202).header("Location", "/upload"),
            _ if request.length > 100_000 => answer(request),
            _ => Reply::status(201),
        });
        let dir = tempfile::tempdir().unwrap();
        let blobs = DiskBlobs::open(dir.path());
        let root = image(&blobs, &[("a", &[3; 300_000])], &amd64());
        let layer = dockless::image::Image::read(&blobs, &root, &amd64()).unwrap().layers[0].descriptor.clone();
        let push = || {
            let to = server.reference("a/b:1");
            plain_client().push(&root, &blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap_err()
        };
        let mut bytes = std::fs::read(blobs.path(&layer.digest)).unwrap();
        bytes[1000] ^= 1;
        std::fs::write(blobs.path(&layer.digest), &bytes).unwrap();
        let expected = format!("blob {}: content has digest {}", layer.digest, Digest::of(&bytes));
        assert_eq!(push().to_string(), expected, "{why}");
        bytes.pop();
        std::fs::write(blobs.path(&layer.digest), &bytes).unwrap();
        let expected = format!("blob {}: content has {} bytes, expected {}", layer.digest, bytes.len(), layer.size);
        assert_eq!(push().to_string(), expected, "{why}");
        let asked = server.asked.lock().unwrap();
        assert!(!asked.iter().any(is_manifest), "no name for half an image: {why}");
        assert_eq!(asked.iter().filter(|r| r.length > 100_000).count(), 1, "what is short is not sent: {why}");
    }
}

#[test]
fn a_registry_that_refuses_a_good_blob_speaks_for_itself() {
    let server = HostileRegistry::start(|request, _| match request.method.as_str() {
        "HEAD" => Reply::status(404),
        "POST" => Reply::status(202).header("Location", "/upload"),
        "PUT" => {
            Reply { status: 400, ..Reply::bytes(r#"{"errors":[{"code":"BLOB_UPLOAD_INVALID","message":"quota"}]}"#) }
        }
        _ => Reply::status(200),
    });
    let good = Good::new();
    let to = server.reference("a/b:1");
    let error = plain_client().push(&good.root, &good.blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap_err();
    assert_eq!(error.status(), Some(400));
    assert!(error.to_string().contains("quota"), "{error}");
}
