use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Repositories below a folder, served on loopback.
struct Server {
    tmp: tempfile::TempDir,
    daemon: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

fn git(dir: &Path, args: &[&str]) -> String {
    let out = Command::new("git")
        .current_dir(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always"])
        .args(args)
        .output()
        .unwrap();
    assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

impl Server {
    /// None, with the reason said, where git cannot serve.
    fn start() -> Option<Self> {
        let tmp = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Not by `git daemon`, which would leave it running when it is killed itself.
        let Ok(found) = Command::new("git").arg("--exec-path").output() else {
            eprintln!("skip: needs git");
            return None;
        };
        let programs = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim().to_owned());
        let daemon = Command::new(programs.join("git-daemon"))
            .args(["--export-all", "--listen=127.0.0.1", &format!("--port={port}")])
            .arg(format!("--base-path={}", tmp.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(daemon) = daemon else {
            eprintln!("skip: needs git daemon");
            return None;
        };
        let mut server = Self { tmp, daemon, port };
        let end = Instant::now() + Duration::from_secs(10);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end || server.daemon.try_wait().unwrap().is_some() {
                eprintln!("skip: needs git daemon");
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    fn repository(&self, name: &str) -> PathBuf {
        let dir = self.tmp.path().join(name);
        fs::create_dir_all(dir.join("sub/deep")).unwrap();
        git(&dir, &["init", "--quiet", "-b", "main", "."]);
        fs::write(dir.join("f"), "one").unwrap();
        fs::write(dir.join("name"), name).unwrap();
        fs::write(dir.join("run.sh"), "#!/bin/sh").unwrap();
        fs::set_permissions(dir.join("run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(dir.join("sub/deep/x"), "x").unwrap();
        fs::write(dir.join("sub/.checkout"), "named like ours").unwrap();
        symlink("sub/deep", dir.join("link")).unwrap();
        symlink("../../../../etc", dir.join("out")).unwrap();
        commit(&dir);
        dir
    }

    fn request(&self, name: &str) -> GitRequest {
        let remote = format!("git://127.0.0.1:{}/{name}", self.port);
        GitRequest { remote, submodules: true, ..GitRequest::default() }
    }

    fn cache(&self) -> GitRepository {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let env = Env::new([("PATH".into(), path)], "/".into(), 0, 0);
        GitRepository::open(&self.tmp.path().join("cache"), &env).unwrap()
    }
}

fn commit(dir: &Path) -> String {
    git(dir, &["add", "-A"]);
    git(dir, &["commit", "--quiet", "-m", "c"]);
    git(dir, &["rev-parse", "HEAD"])
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn checkout(repository: &GitRepository, request: &GitRequest) -> Result<tempfile::TempDir, GitError> {
    let dest = tempfile::tempdir().unwrap();
    let commit = repository.resolve(request, &Cancel::new())?;
    repository.checkout(request, &commit, dest.path(), &Step::none(), &Cancel::new())?;
    Ok(dest)
}

#[test]
fn refs_mean_what_git_means_by_them() {
    let Some(server) = Server::start() else { return };
    let dir = server.repository("r");
    let first = git(&dir, &["rev-parse", "HEAD"]);
    git(&dir, &["tag", "-a", "-m", "t", "v1"]);
    let tag = git(&dir, &["rev-parse", "v1"]);
    fs::write(dir.join("f"), "two").unwrap();
    let second = commit(&dir);
    git(&dir, &["branch", "dev", &first]);
    git(&dir, &["tag", "dev"]);
    git(&dir, &["update-ref", "refs/pull/1/head", &first]);
    let cache = server.cache();
    let resolve = |reference: Option<&str>, checksum: Option<&str>| {
        let request = GitRequest {
            reference: reference.map(str::to_owned),
            checksum: checksum.map(str::to_owned),
            ..server.request("r")
        };
        cache.resolve(&request, &Cancel::new())
    };
    let cases = [
        (None, &second),
        (Some("main"), &second),
        (Some("refs/heads/main"), &second),
        (Some("v1"), &first),
        (Some("refs/tags/v1"), &first),
        (Some("dev"), &first),
        (Some("refs/tags/dev"), &second),
        (Some("pull/1/head"), &first),
        (Some(first.as_str()), &first),
    ];
    for (reference, expected) in cases {
        assert_eq!(resolve(reference, None).unwrap(), *expected, "{reference:?}");
    }
    assert_eq!(resolve(Some("v1"), Some(&first[..8])).unwrap(), first);
    assert_eq!(resolve(Some("v1"), Some(&tag)).unwrap(), first);
    assert!(
        matches!(resolve(Some("main"), Some(&first)).unwrap_err(), GitError::Checksum { actual, .. } if actual == second)
    );
    for bad in ["none", "--upload-pack=x", "a b", "+main", "main:x", ""] {
        assert!(resolve(Some(bad), None).is_err(), "{bad:?}");
    }
}

#[test]
fn a_commit_is_checked_out_whole_in_part_and_with_its_history() {
    let Some(server) = Server::start() else { return };
    let dir = server.repository("r");
    let cache = server.cache();
    let whole = checkout(&cache, &server.request("r")).unwrap();
    assert_eq!(names(whole.path()), ["f", "link", "name", "out", "run.sh", "sub"]);
    let mode = |path: &str| fs::metadata(whole.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("f"), mode("run.sh"), mode("sub")), (0o644, 0o755, 0o755));

    let part = |subdir: &str| {
        let subdir = Some(subdir.to_owned());
        checkout(&cache, &GitRequest { subdir, ..server.request("r") })
    };
    assert_eq!(names(part("sub").unwrap().path()), [".checkout", "deep"]);
    assert_eq!(names(part("/sub/deep/").unwrap().path()), ["x"]);
    assert_eq!(names(part("link").unwrap().path()), ["x"]);
    for bad in ["f", "none", "out"] {
        assert!(part(bad).is_err(), "{bad}");
    }

    let kept = checkout(&cache, &GitRequest { keep_git_dir: true, ..server.request("r") }).unwrap();
    assert_eq!(git(kept.path(), &["rev-parse", "HEAD"]), git(&dir, &["rev-parse", "HEAD"]));
    assert_eq!(git(kept.path(), &["status", "--porcelain"]), "");
    assert_eq!(git(kept.path(), &["config", "remote.origin.url"]), server.request("r").remote);

    // An old commit, after the branch moved on, from the copy that has only new ones.
    let old = git(&dir, &["rev-parse", "HEAD"]);
    fs::write(dir.join("f"), "two").unwrap();
    commit(&dir);
    let fresh = GitRepository::open(&server.tmp.path().join("cache2"), &server.cache().env).unwrap();
    checkout(&fresh, &server.request("r")).unwrap();
    let past = checkout(&fresh, &GitRequest { reference: Some(old), ..server.request("r") }).unwrap();
    assert_eq!(fs::read(past.path().join("f")).unwrap(), b"one");
}

#[test]
fn submodules_come_along_but_not_from_this_machine() {
    let Some(server) = Server::start() else { return };
    let lib = server.repository("lib");
    let dir = server.repository("r");
    git(&dir, &["submodule", "--quiet", "add", &server.request("lib").remote, "mod"]);
    commit(&dir);
    let cache = server.cache();
    let with = checkout(&cache, &server.request("r")).unwrap();
    assert_eq!(names(&with.path().join("mod")), ["f", "link", "name", "out", "run.sh", "sub"]);
    assert!(!with.path().join(".git").exists());
    let without = checkout(&cache, &GitRequest { submodules: false, ..server.request("r") }).unwrap();
    assert!(names(&without.path().join("mod")).is_empty());

    let evil = server.repository("evil");
    git(&evil, &["submodule", "--quiet", "add", lib.to_str().unwrap(), "mod"]);
    commit(&evil);
    let error = checkout(&cache, &server.request("evil")).unwrap_err().to_string();
    assert!(error.contains("transport 'file' not allowed"), "{error}");
}

#[test]
fn what_is_wrong_is_said_without_secrets_and_a_cancel_ends_it() {
    let Some(server) = Server::start() else { return };
    let cache = server.cache();
    let error = cache.resolve(&server.request("none"), &Cancel::new()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("git://127.0.0.1:{}/none: ", server.port)), "{error}");
    let secret = GitRequest { remote: "http://user:hunter2@127.0.0.1:1/x.git".into(), ..GitRequest::default() };
    let error = cache.resolve(&secret, &Cancel::new()).unwrap_err().to_string();
    assert!(!error.contains("hunter2"), "{error}");
    for remote in ["", "--upload-pack=x", "ext::sh -c id", "/etc", "file:///etc"] {
        let request = GitRequest { remote: remote.into(), ..GitRequest::default() };
        assert!(cache.resolve(&request, &Cancel::new()).is_err(), "{remote}");
    }
    let none = GitRepository::open(&server.tmp.path().join("c"), &Env::of([("PATH", "/nowhere")])).unwrap();
    assert!(matches!(none.resolve(&server.request("r"), &Cancel::new()).unwrap_err(), GitError::NoGit { .. }));

    // A server that never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = format!("git://{}/x", silent.local_addr().unwrap());
    let cancel = Cancel::new();
    let later = cancel.clone();
    let canceller = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        later.cancel();
    });
    let request = GitRequest { remote, ..GitRequest::default() };
    assert!(matches!(cache.resolve(&request, &cancel).unwrap_err(), GitError::Cancelled(_)));
    canceller.join().unwrap();
}

#[test]
fn a_branch_wins_over_a_tag_and_peeled_tags_come_last() {
    let id = |letter: &str| letter.repeat(40);
    let listed = format!(
        "{}\trefs/heads/x\n{}\trefs/tags/x\n{}\trefs/tags/y\n{}\trefs/tags/y^{{}}\n{}\trefs/heads/a/x\n",
        id("a"),
        id("b"),
        id("c"),
        id("d"),
        id("e")
    );
    let cases = [("x", vec![id("a")]), ("y", vec![id("c"), id("d")]), ("tags/x", vec![id("b")]), ("z", vec![])];
    for (reference, expected) in cases {
        assert_eq!(choose(&listed, reference), expected, "{reference}");
    }
}
