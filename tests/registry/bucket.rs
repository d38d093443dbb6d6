//! S3 buckets: a server of our own that answers what a test wants, and a real one (s3s-fs) where it is installed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Env};
use dockless::registry::{BucketSettings, Object, Settings};

use crate::client;
use crate::hostile_registry::{HostileRegistry, Reply};
use crate::s3_server::{ID, S3Server, SECRET};

fn env(endpoint: &str) -> Env {
    Env::of([
        ("AWS_ENDPOINT_URL_S3", endpoint),
        ("AWS_ACCESS_KEY_ID", ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_SESSION_TOKEN", ""),
    ])
}

fn object(server: &HostileRegistry) -> Object {
    let env = env(&format!("http://{}", server.host()));
    let address = "s3://images/app/app-1.tgz".parse().unwrap();
    client(&env, Settings::default()).object(&address, &BucketSettings::default(), &env).unwrap()
}

fn download(object: &Object) -> dockless::registry::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    object.download(
        &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        },
        &Step::none(),
        &Cancel::new(),
    )?;
    Ok(bytes)
}

fn upload(object: &Object, content: &[u8]) -> dockless::registry::Result<()> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    object.upload(&file, &Step::none(), &Cancel::new())
}

fn xml(status: u16, code: &str, message: &str) -> Reply {
    let text = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>");
    Reply { status, ..Reply::bytes(text) }
}

#[test]
fn a_refusal_says_whose_keys_and_shows_no_secret() {
    let server = HostileRegistry::start(|request, _| match request.method.as_str() {
        "GET" => xml(403, "SignatureDoesNotMatch", "The request signature does not match."),
        _ => xml(301, "PermanentRedirect", "The bucket is elsewhere."),
    });
    let object = object(&server);
    let error = download(&object).unwrap_err();
    let text = format!("{error} {error:?} {}", error.hint().unwrap());
    let expected = format!(
        "{}: get s3://images/app/app-1.tgz: 403 Forbidden: SignatureDoesNotMatch: The request signature does not match.; access key {ID} of the environment",
        server.host()
    );
    assert_eq!(error.to_string(), expected);
    assert!(text.contains("check the access keys"), "{text}");
    assert!(!text.contains(SECRET) && !text.contains("X-Amz-Signature"), "{text}");
    let error = upload(&object, b"x").unwrap_err();
    assert!(error.to_string().contains("301 Moved Permanently: PermanentRedirect"), "{error}");
    assert!(error.hint().unwrap().contains("--region"));
}

#[test]
fn a_download_that_breaks_goes_on_where_it_was_and_only_with_the_same_object() {
    const CONTENT: &[u8] = b"0123456789abcdef";
    let server = HostileRegistry::start(|request, before| match (before, request.headers.get("range")) {
        (0, _) => xml(503, "SlowDown", "Please reduce your request rate."),
        (1, _) => Reply { length: Some(16), ..Reply::bytes(&CONTENT[..6]) }.header("ETag", "\"one\""),
        (_, Some(range)) if range == "bytes=6-" && request.headers["if-match"] == "\"one\"" => {
            Reply { status: 206, ..Reply::bytes(&CONTENT[6..]) }.header("Content-Range", "bytes 6-15/16")
        }
        _ => Reply::status(400),
    });
    assert_eq!(download(&object(&server)).unwrap(), CONTENT);

    let server = HostileRegistry::start(|_, before| match before {
        0 => Reply { length: Some(16), ..Reply::bytes(&CONTENT[..6]) }.header("ETag", "\"one\""),
        _ => xml(412, "PreconditionFailed", "It is another object now."),
    });
    let error = download(&object(&server)).unwrap_err();
    assert!(error.to_string().contains("412 Precondition Failed: PreconditionFailed"), "{error}");
}

/// What rusty-s3 reads, as S3 writes it.
fn begun() -> Reply {
    Reply::bytes(
        "<?xml version=\"1.0\"?><InitiateMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Bucket>images</Bucket><Key>app/app-1.tgz</Key><UploadId>u1</UploadId></InitiateMultipartUploadResult>",
    )
}

fn query(path: &str) -> BTreeMap<String, String> {
    let url = url::Url::parse(&format!("http://x{path}")).unwrap();
    url.query_pairs().into_owned().collect()
}

#[test]
fn a_large_file_goes_up_in_parts_and_a_failed_one_is_taken_back() {
    let content: Vec<u8> = (0..20_000_000_u32).map(|n| n as u8).collect();
    let ended = "<CompleteMultipartUploadResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><ETag>\"all\"</ETag></CompleteMultipartUploadResult>";
    for (last, expected) in [
        (ended, Ok(())),
        ("<Error><Code>InternalError</Code><Message>Try again.</Message></Error>", Err("InternalError: Try again.")),
    ] {
        let server = HostileRegistry::start(move |request, before| {
            let query = query(&request.path);
            match (request.method.as_str(), query.get("partNumber")) {
                ("POST", _) if query.contains_key("uploads") => begun(),
                // Each part is refused once.
                ("PUT", Some(_)) if before == 0 => xml(503, "SlowDown", "Please reduce your request rate."),
                ("PUT", Some(number)) => Reply::status(200).header("ETag", format!("\"tag {number}\"")),
                ("POST", _) => Reply::bytes(last),
                ("DELETE", _) => Reply::status(204),
                _ => Reply::status(400),
            }
        });
        let done = upload(&object(&server), &content);
        match expected {
            Ok(()) => done.unwrap(),
            Err(words) => assert!(done.unwrap_err().to_string().ends_with(words)),
        }
        let asked = server.asked.lock().unwrap();
        let mut parts: Vec<(u16, u64)> = Vec::new();
        for request in asked.iter().filter(|request| request.method == "PUT") {
            parts.push((query(&request.path)["partNumber"].parse().unwrap(), request.length));
        }
        parts.sort_unstable();
        parts.dedup();
        assert_eq!(parts, [(1, 8 << 20), (2, 8 << 20), (3, 20_000_000 - (16 << 20))]);
        let list = asked.iter().find(|request| request.method == "POST" && request.path.contains("uploadId")).unwrap();
        let list = String::from_utf8(list.body.clone()).unwrap();
        let order: Vec<usize> = (1..=3).map(|n| list.find(&format!("tag {n}")).unwrap()).collect();
        assert!(order.is_sorted(), "{list}");
        let taken_back = asked.iter().any(|r| r.method == "DELETE" && query(&r.path)["uploadId"] == "u1");
        assert_eq!(taken_back, expected.is_err());
    }
}

fn dockless(server: &S3Server, home: &Path, words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(words.split_whitespace())
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("AWS_ENDPOINT_URL", server.endpoint())
        .env("AWS_ACCESS_KEY_ID", ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ok(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn an_image_goes_through_a_bucket_and_comes_back_the_same() {
    let Some(server) = S3Server::start() else { return };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = |home: &Path, words: &str| ok(dockless(&server, home, words));
    // Large enough for parts, and not to be compressed away.
    let noise = std::iter::successors(Some(1_u64), |n| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)));
    let noise: Vec<u8> = noise.take(1_200_000).flat_map(u64::to_be_bytes).collect();
    std::fs::write(here.path().join("noise"), noise).unwrap();
    std::fs::write(
        here.path().join("Dockerfile"),
        "FROM scratch\nCOPY --chown=7:8 --chmod=4750 noise /bin/noise\nCOPY Dockerfile /etc/\nUSER 7\nENV A=b\n",
    )
    .unwrap();
    run(here.path(), "build -q -t app:1 .");
    assert_eq!(run(here.path(), "push -q app:1 s3://images/app/app-1.tgz"), "s3://images/app/app-1.tgz\n");
    assert_eq!(run(here.path(), "push -q app:1 s3://images/app-1.tar"), "s3://images/app-1.tar\n");

    assert_eq!(run(there.path(), "pull -q s3://images/app/app-1.tgz tgz:1"), "docker.io/library/tgz:1\n");
    assert_eq!(run(there.path(), "pull -q s3://images/app-1.tar"), "docker.io/library/app:1\n");
    let digest = |home: &Path, image: &str, form: &str| {
        run(home, &format!("export --format=rootfs-tgz {image} {form}.tgz"));
        run(home, &format!("import {form}.tgz {form}:1"));
        run(home, &format!("inspect -f {{{{.RootFS.Layers}}}} {form}:1"))
    };
    let before = digest(here.path(), "app:1", "before");
    assert_eq!(digest(there.path(), "tgz:1", "after-tgz"), before);
    assert_eq!(digest(there.path(), "app:1", "after-tar"), before);
    let config = "inspect -f {{.Config.User}}{{.Config.Env}}";
    assert_eq!(run(there.path(), &format!("{config} tgz:1")), run(here.path(), &format!("{config} app:1")));

    // As the s3 resource unpacks it.
    let unpacked = server.dir.path().join("unpacked");
    std::fs::create_dir(&unpacked).unwrap();
    let tar = Command::new("tar")
        .arg("-xzf")
        .arg(server.dir.path().join("data/images/app/app-1.tgz"))
        .arg("-C")
        .arg(&unpacked)
        .status();
    assert!(tar.unwrap().success());
    assert!(unpacked.join("metadata.json").is_file() && unpacked.join("rootfs/etc/Dockerfile").is_file());

    let missing = dockless(&server, there.path(), "pull s3://images/none.tgz x:1");
    let text = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert_eq!(missing.status.code(), Some(5), "{text}");
    assert!(text.contains("404 Not Found: NoSuchKey"), "{text}");
    std::fs::write(there.path().join("secret"), "wrong\n").unwrap();
    let words = format!("pull --access-key-id {ID} --secret-access-key-file secret s3://images/app-1.tar");
    let refused = dockless(&server, there.path(), &words);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(5), "{text}");
    assert!(text.contains("403 Forbidden") && text.contains("of the command line"), "{text}");
    assert!(!text.contains("wrong"), "{text}");
}

#[test]
fn a_step_cache_goes_through_a_bucket() {
    let Some(server) = S3Server::start() else { return };
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for home in [&here, &there] {
        std::fs::write(home.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /a\nWORKDIR /made\n").unwrap();
    }
    let cache = "type=s3,bucket=images,region=us-east-1,prefix=team/";
    // The second time everything is there, and made new at once.
    for _ in 0..2 {
        ok(dockless(&server, here.path(), &format!("build --cache-to {cache},touch_refresh=0s .")));
    }
    let output = dockless(&server, there.path(), &format!("build --progress plain --cache-from {cache} ."));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(text.lines().filter(|line| line.ends_with(" CACHED")).count(), 2, "{text}");
}

#[test]
fn what_is_no_object_is_refused_before_anybody_is_asked() {
    let home = tempfile::tempdir().unwrap();
    let fails = |words: &str, code: i32, expected: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_dockless"))
            .args(words.split_whitespace())
            .env_clear()
            .env("HOME", home.path())
            .current_dir(home.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(expected), "{words}: {code}: {text}");
    };
    fails("push s3://b/k.tgz", 2, "name the image too: push IMAGE s3://BUCKET/KEY");
    fails("push app:1 s3://b", 2, "s3://b: is not s3://BUCKET/KEY");
    fails("push app:1 s3://b/app.zip", 2, "say which with --format");
    fails("push --endpoint http://x app:1", 2, "are for s3://BUCKET/KEY");
    fails("pull app:1 other:1", 2, "a second name is for what comes out of a bucket");
    fails("push --access-key-id x app:1 s3://b/k.tgz", 2, "--secret-access-key-file");
}
