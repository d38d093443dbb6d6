//! The program itself: build, push, pull, login and logout as a Makefile calls them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Env};
use dockless::image::media_type;
use dockless::registry::{Credential, Settings};
use dockless::store::MemoryBlobs;

use crate::docker_registry::{DockerRegistry, PASSWORD, USER, has};
use crate::{amd64, client, plain_client};

fn dockless(home: &Path, args: &[&str], input: &str) -> Output {
    use std::io::Write;
    let mut child = Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(args)
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .current_dir(home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

pub fn succeeds(home: &Path, args: &[&str], input: &str) -> String {
    let output = dockless(home, args, input);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_built_is_pushed_compressed_and_pulled_elsewhere() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(here.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let name = format!("{}/made/here:1", server.host());
    let other = format!("{}/made/too:1", server.host());
    succeeds(here.path(), &["build", "-t", &name, "-t", &other, "."], "");
    let said = succeeds(here.path(), &["push", &name], "");
    let image = plain_client()
        .pull(&name.parse().unwrap(), &amd64(), &MemoryBlobs::new(), &Step::none(), &Cancel::new())
        .unwrap();
    assert_eq!(
        said,
        format!(
            "The push refers to repository [{}/made/here]\n1: digest: {} size: {}\n",
            server.host(),
            image.root.digest,
            image.root.size
        )
    );
    assert_eq!(image.image.layers[0].descriptor.media_type, media_type::OCI_LAYER_GZIP);
    assert_eq!(succeeds(here.path(), &["push", "-q", &name], ""), format!("{name}\n"), "and again");
    // The layer is in the neighbour repository already.
    succeeds(here.path(), &["push", "-q", &other], "");
    std::thread::sleep(std::time::Duration::from_millis(200));
    let log = server.file("log");
    assert!(
        log.lines().any(|line| line.contains("/made/too/blobs/uploads/?mount=") && line.contains("\" 201")),
        "{log}"
    );

    let said = succeeds(there.path(), &["pull", &name], "");
    assert!(said.starts_with(&format!("Digest: {}\n", image.root.digest)), "{said}");
    std::fs::write(there.path().join("Dockerfile"), format!("FROM {name}\nLABEL a=b\n")).unwrap();
    drop(server);
    succeeds(there.path(), &["build", "-t", "derived", "."], "");
}

#[test]
fn login_is_remembered_and_its_password_is_nowhere_else() {
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let server = DockerRegistry::htpasswd();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("Dockerfile"), format!("FROM {}/private/base:1\n", server.host())).unwrap();
    let given = Credential::Password { user: USER.into(), password: PASSWORD.into() };
    let owner = client(&Env::of([]), Settings { credentials: [(server.host(), given)].into(), ..Settings::default() });
    let blobs = MemoryBlobs::new();
    let root = crate::sample_image::image(&blobs, &[("a", b"a")], &amd64());
    owner.push(&root, &blobs, &server.reference("private/base:1"), &[], &Step::none(), &Cancel::new()).unwrap();

    let refused = dockless(home.path(), &["build", "-t", "x", "."], "");
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success());
    assert!(text.contains("401 Unauthorized"), "{text}");
    assert!(text.contains(&format!("hint: log in with `dockless login {}`", server.host())), "{text}");

    let host = server.host();
    let wrong = dockless(home.path(), &["login", "-u", USER, "--password-stdin", &host], "hunter2\n");
    let text = format!("{}{}", String::from_utf8_lossy(&wrong.stderr), String::from_utf8_lossy(&wrong.stdout));
    assert!(!wrong.status.success() && !text.contains("hunter2"), "{text}");

    let said = succeeds(home.path(), &["login", "-u", USER, "--password-stdin", &host], &format!("{PASSWORD}\n"));
    assert_eq!(said, "Login Succeeded\n");
    succeeds(home.path(), &["build", "-t", "x", "."], "");
    assert_eq!(succeeds(home.path(), &["logout", &host], ""), format!("Removing login credentials for {host}\n"));
    assert_eq!(succeeds(home.path(), &["logout", &host], ""), format!("Not logged in to {host}\n"));
}

/// A run of dockless with further variables.
pub fn with(home: &Path, vars: &[(&str, &str)], words: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(words.split_whitespace())
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .envs(vars.iter().copied())
        .current_dir(home)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Pushes a small image, by a client that this machine's files say nothing to.
fn publish(settings: Settings, to: &dockless::base::Reference) {
    let blobs = MemoryBlobs::new();
    let root = crate::sample_image::image(&blobs, &[("a", b"a")], &amd64());
    client(&Env::of([]), settings).push(&root, &blobs, to, &[], &Step::none(), &Cancel::new()).unwrap();
}

#[test]
fn from_finds_its_image_behind_tls_a_mirror_and_a_helper() {
    if !has(&["docker-registry", "openssl", "htpasswd"]) {
        return;
    }
    let builds = |home: &Path, vars: &[(&str, &str)], from: &str| {
        std::fs::write(home.join("Dockerfile"), format!("FROM {from}\nLABEL a=b\n")).unwrap();
        with(home, vars, "build -q -t x .")
    };
    let home = || tempfile::tempdir().unwrap();

    let server = DockerRegistry::tls();
    let ca = server.file("ca.crt");
    let authorities = vec![(None, ca.clone())];
    publish(Settings { authorities, ..Settings::default() }, &server.reference("base:1"));
    let from = format!("{}/base:1", server.host());
    let place = home();
    let refused = builds(place.path(), &[], &from);
    assert!(!refused.status.success() && said(&refused).contains("LOCAL_CA_CERTIFICATE"), "{}", said(&refused));
    let trusted = builds(place.path(), &[("LOCAL_CA_CERTIFICATE", &ca)], &from);
    assert!(trusted.status.success(), "{}", said(&trusted));
    let place = home();
    let certs_d = place.path().join(".config/docker/certs.d").join(server.host());
    std::fs::create_dir_all(&certs_d).unwrap();
    std::fs::write(certs_d.join("ca.crt"), &ca).unwrap();
    let trusted = builds(place.path(), &[], &from);
    assert!(trusted.status.success(), "{}", said(&trusted));

    let server = DockerRegistry::open();
    publish(Settings::default(), &server.reference("library/thing:1"));
    let mirror = format!("http://{}", server.host());
    let mirrored = builds(home().path(), &[("REGISTRY_MIRRORS", &mirror)], "thing:1");
    assert!(mirrored.status.success(), "{}", said(&mirrored));

    let server = DockerRegistry::htpasswd();
    let credential = Credential::Password { user: USER.into(), password: PASSWORD.into() };
    let credentials = [(server.host(), credential)].into();
    publish(Settings { credentials, ..Settings::default() }, &server.reference("base:1"));
    let place = home();
    let bin = place.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let helper = format!("#!/bin/sh\ncat >&2\necho '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n");
    std::fs::write(bin.join("script"), helper).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("script"), mode).unwrap();
    // Renamed: one that is still open for writing elsewhere cannot be run.
    std::fs::rename(bin.join("script"), bin.join("docker-credential-ours")).unwrap();
    let config = format!(r#"{{"credHelpers":{{"{}":"ours"}}}}"#, server.host());
    std::fs::write(place.path().join("config.json"), config).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let folder = place.path().to_str().unwrap();
    let vars = [("PATH", path.as_str()), ("DOCKER_CONFIG", folder)];
    let helped = builds(place.path(), &vars, &format!("{}/base:1", server.host()));
    assert!(helped.status.success() && !said(&helped).contains(PASSWORD), "{}", said(&helped));
    let missing = builds(place.path(), &vars, &format!("{}/none:1", server.host()));
    assert!(said(&missing).contains("credentials from docker-credential-ours"), "{}", said(&missing));
    assert!(!said(&missing).contains(PASSWORD));
}

#[test]
fn a_password_is_asked_for_at_a_terminal_and_not_shown() {
    use std::io::{Read, Write};
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let server = DockerRegistry::htpasswd();
    let home = tempfile::tempdir().unwrap();
    let piped = with(home.path(), &[], &format!("login -u {USER} {}", server.host()));
    assert_eq!(piped.status.code(), Some(2));
    assert!(said(&piped).contains("use --password-stdin"), "{}", said(&piped));

    let pty = nix::pty::openpty(None, None).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dockless"))
        .args(["login", &server.host()])
        .env_clear()
        .env("HOME", home.path())
        .stdin(Stdio::from(pty.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = std::fs::File::from(pty.master);
    let mut err = child.stderr.take().unwrap();
    let mut until = |expected: &str| {
        let mut text = String::new();
        let mut byte = [0];
        while !text.ends_with(expected) && err.read(&mut byte).unwrap() == 1 {
            text.push(char::from(byte[0]));
        }
        assert!(text.ends_with(expected), "{text}");
    };
    until("Username: ");
    writeln!(terminal, "{USER}").unwrap();
    until("Password: ");
    writeln!(terminal, "{PASSWORD}").unwrap();
    let mut out = String::new();
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert_eq!(out, "Login Succeeded\n");
    assert!(child.wait().unwrap().success());
    // What the terminal showed: the kernel answers with an error once the other side is gone.
    let mut shown = Vec::new();
    let _ = terminal.read_to_end(&mut shown);
    let shown = String::from_utf8(shown).unwrap();
    assert!(shown.contains(USER) && !shown.contains(PASSWORD), "{shown:?}");
}

#[test]
fn an_index_that_was_built_here_is_pushed_compressed_for_every_platform() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let name = format!("{}/made/multi:1", server.host());
    succeeds(home.path(), &["build", "--platform", "linux/amd64,linux/arm64", "-t", &name, "."], "");
    let said = succeeds(home.path(), &["push", &name], "");
    let reference = name.parse().unwrap();
    for platform in [amd64(), crate::arm64()] {
        let pulled = plain_client().pull(&reference, &platform, &MemoryBlobs::new(), &Step::none(), &Cancel::new());
        let pulled = pulled.unwrap();
        assert!(media_type::is_index(&pulled.root.media_type));
        assert!(said.contains(&format!("1: digest: {} size: {}\n", pulled.root.digest, pulled.root.size)), "{said}");
        assert_eq!(pulled.image.config.platform, platform);
        assert_eq!(pulled.image.layers[0].descriptor.media_type, media_type::OCI_LAYER_GZIP);
    }
    assert_eq!(succeeds(home.path(), &["push", "-q", &name], ""), format!("{name}\n"), "and again");
}
