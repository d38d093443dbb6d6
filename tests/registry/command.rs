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

fn succeeds(home: &Path, args: &[&str], input: &str) -> String {
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

#[test]
fn the_resources_names_speak_its_protocol() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let home = tempfile::tempdir().unwrap();
    let request = format!(r#"{{"source":{{"repository":"{}/none"}},"version":null}}"#, server.host());
    assert_eq!(succeeds(home.path(), &["resource", "check"], &request), "[]\n");
    std::fs::create_dir(home.path().join("src")).unwrap();
    std::fs::write(home.path().join("src/Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let source = format!(r#"{{"repository":"{}/made"}}"#, server.host());
    let folder = home.path().to_str().unwrap();
    let put = format!(r#"{{"source":{source},"params":{{"build":"src"}}}}"#);
    let out: serde_json::Value =
        serde_json::from_str(&succeeds(home.path(), &["resource", "out", folder], &put)).unwrap();
    let dest = home.path().join("dest");
    let get = format!(r#"{{"source":{source},"version":{}}}"#, out["version"]);
    succeeds(home.path(), &["resource", "in", dest.to_str().unwrap()], &get);
    assert_eq!(std::fs::read_to_string(dest.join("rootfs/Dockerfile")).unwrap(), "FROM scratch\nCOPY Dockerfile /\n");
    // As Concourse calls it: by the name in /opt/resource.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dockless"), home.path().join("check")).unwrap();
    let check = Command::new(home.path().join("check"))
        .env_clear()
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut check = check.unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), format!(r#"{{"source":{source}}}"#).as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("[{}]\n", out["version"]));
}
