//! `git_repo`: the image that follows a branch, over every protocol, against real servers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::docker_registry::{DockerRegistry, free_port, has, skip};
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

/// `git http-backend` behind a web server of a few lines; who does not show the password is asked for it.
fn serve_http(root: &Path) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = root.to_owned();
    // Ends with the test process.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            answer_http(stream.unwrap(), &root);
        }
    });
    port
}

fn answer_http(stream: TcpStream, root: &Path) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut headers = std::collections::BTreeMap::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).ok()? <= 2 {
            break;
        }
        let (name, value) = header.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).ok()?;
    let header = |name: &str| headers.get(name).map_or("", String::as_str);
    let mut stream = reader.into_inner();
    // me:hunter2
    if header("authorization") != "Basic bWU6aHVudGVyMg==" {
        let refused =
            "HTTP/1.1 401 no\r\nWWW-Authenticate: Basic realm=x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
        return stream.write_all(refused.as_bytes()).ok();
    }
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let feeder = std::thread::spawn(move || input.write_all(&body));
    let output = child.wait_with_output().unwrap().stdout;
    feeder.join().ok()?.ok()?;
    let end = output.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n{head}\r\n\r\n").ok()?;
    stream.write_all(&output[end + 4..]).ok()
}

#[test]
fn a_web_server_with_a_password_serves_it_and_the_password_is_nowhere() {
    if !has(&["docker-registry", "git"]) {
        return;
    }
    let server = DockerRegistry::open();
    let dir = tempfile::tempdir().unwrap();
    let repo = dir.path().join("repo");
    std::fs::create_dir(&repo).unwrap();
    let commits = repository(&repo, 3);
    let port = serve_http(dir.path());
    let image = push(&server.reference(&format!("app:{}", commits[0])), "x");
    let check = |account: &str| {
        let address = format!("http://{account}127.0.0.1:{port}/repo/.git");
        Place::default().check(source(&server, &address, json!({})))
    };
    assert_eq!(check("me:hunter2@").unwrap(), [version(&image)], "an ancestor's, so that history is fetched too");
    let error = format!("{:#}", check("me:wrong-one@").unwrap_err());
    assert!(error.contains(&format!("http://127.0.0.1:{port}/repo/.git: ")), "{error}");
    assert!(!error.contains("wrong-one"), "{error}");
    assert!(check("").is_err());
}

#[test]
fn a_private_key_opens_ssh() {
    if !has(&["docker-registry", "git", "ssh", "ssh-keygen"]) {
        return;
    }
    let Some(sshd) = ["/usr/sbin/sshd", "/usr/bin/sshd"].into_iter().find(|path| Path::new(path).exists()) else {
        skip("needs sshd");
        return;
    };
    // An sshd of an ordinary user lets in that user alone, and whose shell is none nobody at all.
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap();
    let Some(user) = user.filter(|user| !user.shell.ends_with("nologin") && !user.shell.ends_with("false")) else {
        skip("needs a user who can log in");
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
    let address = format!("ssh://{}@127.0.0.1:{port}{}", user.name, repo.display());
    let key = std::fs::read_to_string(path("client")).unwrap();
    let image = push(&server.reference(&format!("app:{}", commits[1])), "x");
    let place = Place::default();
    // As YAML often gives it: the last newline is lost.
    let found = place.check(source(&server, &address, json!({ "git_private_key": key.trim_end() })));
    assert_eq!(found.unwrap(), [version(&image)]);
    let error = format!("{:#}", place.check(source(&server, &address, json!({}))).unwrap_err());
    assert!(error.contains("Permission denied") || error.contains("denied"), "{error}");

    // A build's key files are in an agent that is started for them; they were once taken for its socket.
    std::fs::write(path("Dockerfile"), format!("FROM scratch\nADD {address}#{} /src\n", commits[1])).unwrap();
    let build = |ssh: &str| {
        let known = "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null";
        Command::new(env!("CARGO_BIN_EXE_dockless"))
            .args(["build", "--ssh", ssh, "-f", &path("Dockerfile"), &path("repo")])
            .env_remove("SSH_AUTH_SOCK")
            .env("DOCKLESS_STATE", dir.path().join("state"))
            .env("GIT_SSH_COMMAND", known)
            .output()
            .unwrap()
    };
    let refused = build(&format!("default={}", path("host")));
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && text.contains("denied"), "{text}");
    let built = build(&format!("default={}", path("client")));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

fn wait_for(port: u16) {
    for _ in 0..200 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("nobody listens on {port}");
}
