//! Against docker-registry: open, TLS with an own authority, htpasswd, tokens; and other tools on the same registry.

use std::process::Command;

use dockless::base::progress::Step;
use dockless::base::{Cancel, Digest, Env, Reference};
use dockless::image::Image;
use dockless::registry::{ClientCertificate, Credential, Registry, Settings};
use dockless::store::{BlobStore, DiskBlobs, MemoryBlobs};

use crate::docker_registry::{DockerRegistry, IDENTITY, PASSWORD, TokenServer, USER, has};
use crate::sample_image::{image, index};
use crate::{amd64, arm64, client, plain_client};

fn push(registry: &Registry, to: &Reference) -> dockless::registry::Result<Image> {
    let blobs = MemoryBlobs::new();
    let root = image(&blobs, &[("a", b"one"), ("b", &[7; 3_000_000])], &amd64());
    registry.push(&root, &blobs, to, &[], &Step::none(), &Cancel::new())?;
    Ok(Image::read(&blobs, &root, &amd64()).unwrap())
}

fn pull(registry: &Registry, from: &Reference) -> dockless::registry::Result<Image> {
    let blobs = MemoryBlobs::new();
    let resolved = registry.pull(from, &amd64(), &blobs, &Step::none(), &Cancel::new())?;
    for blob in resolved.image.blobs() {
        assert_eq!(blobs.size(&blob.digest).unwrap(), Some(blob.size));
    }
    assert_eq!(resolved.reference.digest(), Some(&resolved.root.digest));
    Ok(resolved.image)
}

#[test]
fn what_is_pushed_is_pulled() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let registry = plain_client();
    let to = server.reference("a/b:1");
    let pushed = push(&registry, &to).unwrap();
    assert_eq!(pull(&registry, &to).unwrap(), pushed);
    let head = registry.head(&to, &Cancel::new()).unwrap().unwrap();
    assert_eq!(head, pushed.manifest_descriptor);
    let pinned = to.with_digest(head.digest);
    assert_eq!(registry.head(&pinned, &Cancel::new()).unwrap(), Some(head));
    assert_eq!(registry.tags(&to, &Cancel::new()).unwrap(), ["1"]);
    assert_eq!(registry.head(&server.reference("a/b:2"), &Cancel::new()).unwrap(), None);
    let error = pull(&registry, &server.reference("a/b:2")).unwrap_err();
    assert_eq!(error.status(), Some(404));
    assert!(error.to_string().contains("MANIFEST_UNKNOWN: manifest unknown"), "{error}");
    assert!(error.to_string().contains(&format!("{}: manifest of a/b:2: 404 Not Found", server.host())), "{error}");
}

#[test]
fn a_blob_that_rotted_in_the_store_is_told_from_a_registry_that_refuses() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let to = server.reference("a/b:1");
    let dir = tempfile::tempdir().unwrap();
    let blobs = DiskBlobs::open(dir.path());
    let root = image(&blobs, &[("a", &[7; 3_000_000])], &amd64());
    let layer = Image::read(&blobs, &root, &amd64()).unwrap().layers[0].descriptor.digest;
    let mut bytes = std::fs::read(blobs.path(&layer)).unwrap();
    bytes[2_000_000] ^= 1;
    std::fs::write(blobs.path(&layer), &bytes).unwrap();
    // In one piece, and in chunks.
    for settings in [Settings::default(), Settings { upload_chunk: Some(1 << 20), ..Settings::default() }] {
        let registry = client(&Env::of([]), settings);
        let error = registry.push(&root, &blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap_err();
        assert_eq!(error.to_string(), format!("blob {layer}: content has digest {}", Digest::of(&bytes)));
        assert_eq!(registry.head(&to, &Cancel::new()).unwrap(), None, "no name for half an image");
    }
}

#[test]
fn a_second_push_sends_no_layer_and_a_neighbour_repository_is_mounted() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let registry = plain_client();
    let blobs = MemoryBlobs::new();
    let root = image(&blobs, &[("a", &[1; 100_000])], &amd64());
    let push = |to: &str, mount: &[Reference]| {
        registry.push(&root, &blobs, &server.reference(to), mount, &Step::none(), &Cancel::new()).unwrap();
    };
    push("a/b:1", &[]);
    push("a/b:2", &[]);
    push("c/d:1", &[server.reference("a/b")]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    let log = server.file("log");
    let put = log.lines().filter(|line| line.contains("\"PUT /v2/") && line.contains("/blobs/")).count();
    assert_eq!(put, 2, "one layer and one config, once:\n{log}");
    let mounted = log.lines().filter(|line| line.contains("mount=sha256") && line.contains("HTTP/1.1\" 201")).count();
    assert_eq!(mounted, 2, "{log}");
    pull(&registry, &server.reference("c/d:1")).unwrap();
}

#[test]
fn an_index_gives_each_platform_its_image() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let registry = plain_client();
    let blobs = MemoryBlobs::new();
    let ours = image(&blobs, &[("a", b"amd64")], &amd64());
    let theirs = image(&blobs, &[("a", b"arm64")], &arm64());
    let root = index(&blobs, &[(ours.clone(), amd64()), (theirs.clone(), arm64())]);
    let to = server.reference("multi:latest");
    registry.push(&root, &blobs, &to, &[], &Step::none(), &Cancel::new()).unwrap();
    for (platform, expected) in [(amd64(), &ours), (arm64(), &theirs)] {
        let store = MemoryBlobs::new();
        let resolved = registry.resolve(&to, &platform, &store, &Cancel::new()).unwrap();
        assert_eq!(resolved.root.digest, root.digest);
        assert_eq!(resolved.image.manifest_descriptor.digest, expected.digest);
        assert_eq!(store.list().unwrap().len(), 3, "index, manifest and config; no layer");
    }
    let s390x = dockless::base::Platform::new("linux", "s390x", "");
    let error = registry.resolve(&to, &s390x, &MemoryBlobs::new(), &Cancel::new()).unwrap_err();
    assert!(
        error.to_string().ends_with("is not there for platform linux/s390x, only for linux/amd64, linux/arm64"),
        "{error}"
    );
}

#[test]
fn chunks_arrive_whole() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let registry = client(&Env::of([]), Settings { upload_chunk: Some(1_000_000), ..Settings::default() });
    let to = server.reference("chunks:1");
    let pushed = push(&registry, &to).unwrap();
    assert_eq!(pull(&registry, &to).unwrap(), pushed);
    assert!(server.file("log").matches("PATCH /v2/chunks").count() >= 4);
}

#[test]
fn an_own_authority_is_trusted_by_every_road_and_only_then() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let server = DockerRegistry::tls();
    let ca = server.file("ca.crt");
    let to = server.reference("tls:1");
    let error = push(&plain_client(), &to).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.hint().unwrap().contains("LOCAL_CA_CERTIFICATE"));

    let by_environment = client(&Env::of([("LOCAL_CA_CERTIFICATE", ca.as_str())]), Settings::default());
    let pushed = push(&by_environment, &to).unwrap();

    let home = tempfile::tempdir().unwrap();
    let certs_d = home.path().join(".config/docker/certs.d").join(server.host());
    std::fs::create_dir_all(&certs_d).unwrap();
    std::fs::write(certs_d.join("ca.crt"), &ca).unwrap();
    let by_folder = client(&Env::of([("HOME", home.path().to_str().unwrap())]), Settings::default());
    assert_eq!(pull(&by_folder, &to).unwrap(), pushed);

    let config = home.path().join("config.yml");
    let text = format!("registries:\n  \"{}\":\n    ca: [{}/ca.crt]\n", server.host(), server.dir.path().display());
    std::fs::write(&config, text).unwrap();
    let by_file = client(&Env::of([("DOCKLESS_CONFIG", config.to_str().unwrap())]), Settings::default());
    pull(&by_file, &to).unwrap();

    let by_settings =
        client(&Env::of([]), Settings { authorities: vec![(Some(server.host()), ca.clone())], ..Settings::default() });
    pull(&by_settings, &to).unwrap();
    let for_another = Settings { authorities: vec![(Some("other.example".into()), ca)], ..Settings::default() };
    pull(&client(&Env::of([]), for_another), &to).unwrap_err();

    let insecure = Settings { insecure: vec!["127.0.0.0/8".into()], ..Settings::default() };
    pull(&client(&Env::of([]), insecure), &to).unwrap();
}

#[test]
fn a_client_certificate_opens_the_door() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let server = DockerRegistry::mutual_tls();
    let ca = vec![(None, server.file("ca.crt"))];
    let own = ClientCertificate { certificate: server.file("client.crt"), key: server.file("client.key").into() };
    let with =
        Settings { authorities: ca.clone(), client_certificates: [(server.host(), own)].into(), ..Settings::default() };
    push(&client(&Env::of([]), with), &server.reference("x:1")).unwrap();
    push(&client(&Env::of([]), Settings { authorities: ca, ..Settings::default() }), &server.reference("x:1"))
        .unwrap_err();
}

#[test]
fn a_password_is_found_tried_kept_and_forgotten() {
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let server = DockerRegistry::htpasswd();
    let home = tempfile::tempdir().unwrap();
    let env = Env::of([("HOME", home.path().to_str().unwrap())]);
    let to = server.reference("private/x:1");
    let error = push(&client(&env, Settings::default()), &to).unwrap_err();
    assert_eq!(error.status(), Some(401));
    assert!(error.to_string().contains("no credentials: there is no config.json to look in"), "{error}");

    let registry = client(&env, Settings::default());
    let error = registry.login(&server.host(), USER, &"wrong-secret".into(), &Cancel::new()).unwrap_err();
    assert!(error.status() == Some(401) && !format!("{error} {error:?}").contains("wrong-secret"), "{error:?}");
    assert!(!home.path().join(".docker").exists());

    let kept = registry.login(&server.host(), USER, &PASSWORD.into(), &Cancel::new()).unwrap();
    assert_eq!(kept, home.path().join(".docker/config.json").display().to_string());
    let registry = client(&env, Settings::default());
    let pushed = push(&registry, &to).unwrap();
    assert_eq!(pull(&registry, &to).unwrap(), pushed);
    assert!(registry.logout(&server.host()).unwrap());
    assert_eq!(pull(&client(&env, Settings::default()), &to).unwrap_err().status(), Some(401));

    let given = Credential::Password { user: USER.into(), password: PASSWORD.into() };
    let settings = Settings { credentials: [(server.host(), given)].into(), ..Settings::default() };
    pull(&client(&env, settings), &to).unwrap();
}

#[test]
fn tokens_are_fetched_for_what_is_done() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let tokens = TokenServer::start();
    let server = DockerRegistry::token(&tokens);
    let given = Credential::Password { user: USER.into(), password: PASSWORD.into() };
    let known = || {
        client(&Env::of([]), Settings { credentials: [(server.host(), given.clone())].into(), ..Settings::default() })
    };
    let public = server.reference("public/x:1");
    let registry = known();
    let pushed = push(&registry, &public).unwrap();
    assert_eq!(pull(&registry, &public).unwrap(), pushed);
    let asked = tokens.asked.lock().unwrap().len();
    assert_eq!(asked, 2, "one token to push, one to pull: {:?}", tokens.asked.lock().unwrap());

    // The anonymous may pull what is public, and nothing else.
    assert_eq!(pull(&plain_client(), &public).unwrap(), pushed);
    assert_eq!(push(&plain_client(), &public).unwrap_err().status(), Some(401));

    // A mount needs both repositories in one token.
    let blobs = MemoryBlobs::new();
    registry.pull(&public, &amd64(), &blobs, &Step::none(), &Cancel::new()).unwrap();
    let to = server.reference("other/y:1");
    known().push(&pushed.manifest_descriptor, &blobs, &to, &[public], &Step::none(), &Cancel::new()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    let log = server.file("log");
    assert!(log.lines().any(|line| line.contains("mount=sha256") && line.contains("HTTP/1.1\" 201")), "{log}");

    let wrong = Credential::Password { user: USER.into(), password: "wrong-secret".into() };
    let settings = Settings { credentials: [(server.host(), wrong)].into(), ..Settings::default() };
    let error = pull(&client(&Env::of([]), settings), &to).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(text.contains("incorrect username or password") && text.contains("the given user name"), "{text}");
    assert!(!text.contains("wrong-secret"), "{text}");
}

#[test]
fn an_identity_token_is_what_login_keeps() {
    if !has(&["docker-registry", "openssl"]) {
        return;
    }
    let tokens = TokenServer::start();
    let server = DockerRegistry::token(&tokens);
    let home = tempfile::tempdir().unwrap();
    let env = Env::of([("HOME", home.path().to_str().unwrap())]);
    let registry = client(&env, Settings::default());
    registry.login(&server.host(), USER, &PASSWORD.into(), &Cancel::new()).unwrap();
    let config = std::fs::read_to_string(home.path().join(".docker/config.json")).unwrap();
    assert!(config.contains(IDENTITY) && !config.contains("\"auth\""), "{config}");
    push(&client(&env, Settings::default()), &server.reference("private/x:1")).unwrap();
    let asked = tokens.asked.lock().unwrap();
    assert!(asked.last().unwrap().starts_with("POST /token"), "{asked:?}");
}

#[test]
fn a_mirror_serves_docker_hub_and_the_next_one_helps_out() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let pushed = push(&plain_client(), &server.reference("library/thing:1")).unwrap();
    let mirrors = format!("http://127.0.0.1:{}, http://{}", crate::docker_registry::free_port(), server.host());
    let registry = client(&Env::of([("REGISTRY_MIRRORS", mirrors.as_str())]), Settings::default());
    let reference: Reference = "thing:1".parse().unwrap();
    assert_eq!(pull(&registry, &reference).unwrap(), pushed);
    assert_eq!(registry.head(&reference, &Cancel::new()).unwrap().unwrap().digest, pushed.manifest_descriptor.digest);
}

#[test]
fn skopeo_and_buildah_read_what_we_push_and_we_read_theirs() {
    if !has(&["docker-registry", "skopeo"]) {
        return;
    }
    let server = DockerRegistry::open();
    let registry = plain_client();
    let pushed = push(&registry, &server.reference("ours:1")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).env("HOME", dir.path()).output().unwrap();
        assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let ours = format!("docker://{}/ours:1", server.host());
    let layout = format!("oci:{}:ours", dir.path().join("layout").display());
    run("skopeo", &["copy", "-q", "--src-tls-verify=false", &ours, &layout]);
    // Back under another name, with compressed layers and Docker's own types.
    let theirs = format!("docker://{}/theirs:1", server.host());
    run("skopeo", &["copy", "-q", "--format", "v2s2", "--dest-tls-verify=false", &layout, &theirs]);
    let pulled = pull(&registry, &server.reference("theirs:1")).unwrap();
    assert_eq!(pulled.config.rootfs, pushed.config.rootfs);
    assert_eq!(pulled.dialect(), dockless::image::Dialect::Docker);
    // As a user it would need a user namespace with many ids.
    if rustix::process::geteuid().is_root() && has(&["buildah"]) {
        let (root, run_root) = (dir.path().join("root"), dir.path().join("run"));
        let storage =
            ["--root", root.to_str().unwrap(), "--runroot", run_root.to_str().unwrap(), "--storage-driver", "vfs"];
        let buildah = |args: &[&str]| run("buildah", &[&storage[..], args].concat());
        let id = buildah(&["pull", "-q", "--tls-verify=false", &ours]);
        let back = format!("docker://{}/buildah:1", server.host());
        buildah(&["push", "-q", "--tls-verify=false", "--format", "oci", id.trim(), &back]);
        let pulled = pull(&registry, &server.reference("buildah:1")).unwrap();
        assert_eq!(pulled.config.rootfs, pushed.config.rootfs);
        assert_eq!(pulled.config.config, pushed.config.config);
    }
}
