//! `git_repo`: the image that follows a branch, over every protocol, against real servers.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::docker_registry::{DockerRegistry, free_port, has};
use crate::{Place, push, version};

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=master"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with so many commits on master; their ids, oldest first.
fn repository(dir: &Path, commits: usize) -> Vec<String> {
    git(dir, &["init", "-q"]);
    (0..commits)
        .map(|number| {
            git(dir, &["commit", "-q", "--allow-empty", "-m", &number.to_string()]);
            git(dir, &["rev-parse", "HEAD"])
        })
        .collect()
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn source(server: &DockerRegistry, address: &str, more: Value) -> Value {
    let mut source = json!({ "repository": format!("{}/app", server.host()), "git_repo": address });
    source.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "source": source })
}

#[test]
fn the_head_has_an_image_or_an_older_one_is_used_or_the_check_fails() {
    if !has(&["docker-registry", "git"]) {
        return;
    }
    let server = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let commits = repository(dir.path(), 4);
    let address = format!("file://{}", dir.path().display());
    let place = Place::default();
    let check = |more: Value| place.check(source(&server, &address, more));
    assert_eq!(check(json!({})).unwrap(), [], "no image at all");
    let error = check(json!({ "fail_when_missing": true })).unwrap_err();
    assert_eq!(error.to_string(), format!("no image tagged {} in {}/app yet", commits[3], server.host()));

    let old = push(&server.reference(&format!("app:{}", commits[1])), "old");
    assert_eq!(check(json!({})).unwrap(), [version(&old)], "an ancestor's");
    let new = push(&server.reference(&format!("app:{}", &commits[3][..8])), "new");
    assert_eq!(check(json!({})).unwrap(), [version(&new)], "by its first digits");
    assert_eq!(check(json!({ "fail_when_missing": true })).unwrap(), [version(&new)]);

    let mut request = source(&server, &address, json!({}));
    request["version"] = json!({ "digest": old.digest });
    assert_eq!(place.check(request).unwrap(), [version(&old), version(&new)]);
}

#[test]
fn a_branch_is_the_named_one_or_master_or_head() {
    if !has(&["docker-registry", "git"]) {
        return;
    }
    let server = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let commits = repository(dir.path(), 2);
    git(dir.path(), &["branch", "-q", "other", &commits[0]]);
    let first = push(&server.reference(&format!("app:{}", commits[0])), "first");
    let second = push(&server.reference(&format!("app:{}", commits[1])), "second");
    let address = format!("file://{}", dir.path().display());
    let place = Place::default();
    let check = |more: Value| place.check(source(&server, &address, more));
    assert_eq!(check(json!({})).unwrap(), [version(&second)]);
    assert_eq!(check(json!({ "git_branch": "other" })).unwrap(), [version(&first)]);
    let error = check(json!({ "git_branch": "none" })).unwrap_err().to_string();
    assert_eq!(error, format!("{address} has no branch \"none\""));
    git(dir.path(), &["branch", "-q", "-m", "master", "main"]);
    assert_eq!(check(json!({})).unwrap(), [version(&second)], "HEAD, where there is no master");
    assert!(place.check(source(&server, "--upload-pack=touch /tmp/x", json!({}))).is_err());
    assert!(place.check(source(&server, "ext::sh -c true", json!({}))).is_err());
}

#[test]
fn git_daemon_serves_it() {
    if !has(&["docker-registry", "git"]) {
        return;
    }
    let server = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    let commits = repository(&repo, 3);
    let port = free_port();
    let daemon = Command::new("git")
        .args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
        .arg(format!("--base-path={}", dir.path().display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let _daemon = Server(daemon.unwrap());
    wait_for(port);
    let image = push(&server.reference(&format!("app:{}", commits[0])), "x");
    let found = Place::default().check(source(&server, &format!("git://127.0.0.1:{port}/repo"), json!({})));
    assert_eq!(found.unwrap(), [version(&image)]);
}

#[test]
fn a_private_key_opens_ssh() {
    if !has(&["docker-registry", "git", "ssh", "ssh-keygen"]) {
        return;
    }
    let Some(sshd) = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists()) else {
        eprintln!("skip: needs sshd");
        return;
    };
    let server = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    let commits = repository(&repo, 2);
    for key in ["host", "client"] {
        let made =
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.path().join(key)).status();
        assert!(made.unwrap().success());
    }
    let path = |name: &str| dir.path().join(name).display().to_string();
    std::fs::copy(path("client.pub"), path("authorized")).unwrap();
    let port = free_port();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n",
        path("host"),
        path("authorized")
    );
    std::fs::write(path("config"), config).unwrap();
    let _ = std::fs::create_dir_all("/run/sshd");
    let daemon = Command::new(sshd).args(["-D", "-e", "-f", &path("config")]).stderr(Stdio::null()).spawn();
    let _daemon = Server(daemon.unwrap());
    wait_for(port);
    let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
    let address = format!("ssh://{user}@127.0.0.1:{port}{}", repo.display());
    let key = std::fs::read_to_string(path("client")).unwrap();
    let image = push(&server.reference(&format!("app:{}", commits[1])), "x");
    let place = Place::default();
    // As YAML often gives it: the last newline is lost.
    let found = place.check(source(&server, &address, json!({ "git_private_key": key.trim_end() })));
    assert_eq!(found.unwrap(), [version(&image)]);
    let error = format!("{:#}", place.check(source(&server, &address, json!({}))).unwrap_err());
    assert!(error.contains("Permission denied") || error.contains("denied"), "{error}");
}

fn wait_for(port: u16) {
    for _ in 0..200 {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("nobody listens on {port}");
}
