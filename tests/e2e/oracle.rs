//! Real components to compare with, and a plain description of an image that both sides are turned into.
//!
//! The flattening here is on purpose as dumb as can be, in memory and with another tar reader than the program's own:
//! it shares no code with what it judges.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dockless::base::Digest;
use serde_json::{Map, Value, json};

/// The base that every golden Dockerfile stands on, made by `ci/bases`.
pub const BUSYBOX: &str = "dockless.example/busybox:1";

/// The date that the harness gives all files of a context, so that what COPY keeps can be told from what is new.
pub const CONTEXT_DATE: i64 = 1_577_836_800;

pub fn dockless() -> PathBuf {
    env!("CARGO_BIN_EXE_dockless").into()
}

pub fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// Says by name and reason that a test cannot run here.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skip: {test}: {reason}");
}

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A program on PATH, or where Debian puts the administrator's.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Runs to the end; the output of a failure is the panic.
pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Held while bases are made: all tests keep them in one folder.
static BASES: Mutex<()> = Mutex::new(());

/// Makes the busybox base's root file system as a tar.
pub fn busybox_tar(cache: &Path) -> PathBuf {
    let _alone = BASES.lock().unwrap_or_else(PoisonError::into_inner);
    // `true` takes the place of the dockless that would import it.
    run(Command::new(repository().join("ci/bases")).arg("true").arg(cache));
    cache.join("busybox.tar")
}

/// Puts the busybox base into a state folder; returns its tar.
pub fn import_busybox(state: &Path, cache: &Path) -> PathBuf {
    let _alone = BASES.lock().unwrap_or_else(PoisonError::into_inner);
    run(Command::new(repository().join("ci/bases")).arg(dockless()).arg(cache).env("DOCKLESS_STATE", state));
    cache.join("busybox.tar")
}

/// A dockerd of our own: Debian's, with the BuildKit that it embeds. Stopped when dropped.
pub struct Dockerd {
    dir: tempfile::TempDir,
    child: Child,
    client: PathBuf,
}

impl Dockerd {
    /// None, with the reason said, where it cannot run.
    pub fn start(test: &str) -> Option<Self> {
        if !is_root() {
            skip(test, "dockerd needs root");
            return None;
        }
        // Debian's client speaks to its own daemon without plugins; another one on PATH may not.
        let client = [PathBuf::from("/usr/bin/docker")].into_iter().find(|p| p.is_file()).or_else(|| find("docker"));
        let (Some(daemon), Some(client)) = (find("dockerd"), client) else {
            skip(test, "needs dockerd and docker (Debian: docker.io)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(daemon)
            .args(["--iptables=false", "--bridge=none"])
            .arg(format!("--data-root={}", dir.path().join("data").display()))
            .arg(format!("--exec-root={}", dir.path().join("exec").display()))
            .arg(format!("--pidfile={}", dir.path().join("pid").display()))
            .arg(format!("--host=unix://{}", dir.path().join("sock").display()))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut dockerd = Self { dir, child, client };
        let start = Instant::now();
        loop {
            if dockerd.docker(&["version"]).output().is_ok_and(|o| o.status.success()) {
                return Some(dockerd);
            }
            if start.elapsed() > Duration::from_secs(60) || dockerd.child.try_wait().unwrap().is_some() {
                let log = fs::read_to_string(dockerd.dir.path().join("log")).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(3).collect();
                skip(test, &format!("dockerd does not start here: {}", last.join(" / ")));
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As dockless is told of it.
    pub fn engine(&self) -> String {
        format!("docker://{}", self.dir.path().join("sock").display())
    }

    /// As a machine that loses its power: nothing is told to anybody.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What a killed one leaves: its containerd, and mounts that would outlive the test.
    fn clean(&self) {
        let pid = fs::read_to_string(self.dir.path().join("exec/containerd/containerd.pid"));
        if let Some(pid) = pid.ok().and_then(|text| text.trim().parse().ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
        }
        unmount_below(self.dir.path());
    }

    pub fn docker(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.client);
        command
            .env("DOCKER_HOST", format!("unix://{}", self.dir.path().join("sock").display()))
            .env("DOCKER_CONFIG", self.dir.path())
            .env("DOCKER_BUILDKIT", "1")
            .args(args);
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its containerd and unmounts what it mounted.
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        } else {
            self.clean();
        }
    }
}

/// A buildkitd of our own, where one is installed: Debian has none. Stopped when dropped.
pub struct Buildkitd {
    dir: tempfile::TempDir,
    child: Child,
}

impl Buildkitd {
    /// None, with the reason said, where it cannot run.
    pub fn start(test: &str) -> Option<Self> {
        if !is_root() {
            skip(test, "buildkitd needs root");
            return None;
        }
        let (Some(daemon), Some(_)) = (find("buildkitd"), find("runc")) else {
            skip(test, "needs buildkitd (github.com/moby/buildkit) and runc on PATH");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        // Not what this machine's own is told to do.
        fs::write(dir.path().join("config"), "").unwrap();
        let log = File::create(dir.path().join("log")).unwrap();
        let child = Command::new(daemon)
            .arg("--config")
            .arg(dir.path().join("config"))
            .arg("--root")
            .arg(dir.path().join("root"))
            .arg(format!("--addr=unix://{}", dir.path().join("sock").display()))
            .args(["--containerd-worker=false", "--oci-worker-net=host"])
            .args(["network.host", "security.insecure"].map(|right| format!("--allow-insecure-entitlement={right}")))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut buildkitd = Self { dir, child };
        let start = Instant::now();
        loop {
            if std::os::unix::net::UnixStream::connect(buildkitd.dir.path().join("sock")).is_ok() {
                return Some(buildkitd);
            }
            if start.elapsed() > Duration::from_secs(60) || buildkitd.child.try_wait().unwrap().is_some() {
                let log = fs::read_to_string(buildkitd.dir.path().join("log")).unwrap_or_default();
                let last: Vec<_> = log.lines().rev().take(3).collect();
                skip(test, &format!("buildkitd does not start here: {}", last.join(" / ")));
                return None;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// As dockless is told of it.
    pub fn engine(&self) -> String {
        format!("unix://{}", self.dir.path().join("sock").display())
    }

    /// As a machine that loses its power: nothing is told to anybody.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Buildkitd {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = self.child.wait();
        }
        unmount_below(self.dir.path());
    }
}

/// Mounts that would outlive a daemon, and the test.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    for point in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
        if Path::new(point).starts_with(dir) {
            let _ = nix::mount::umount2(point, nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

/// Debian's buildah, with a store of its own.
pub struct Buildah {
    dir: tempfile::TempDir,
}

/// What it gets wrong changes with its version; the notes in the case folders are of this one.
const BUILDAH: &str = "buildah version 1.28.";

impl Buildah {
    /// None, with the reason said, where it cannot run.
    pub fn start(test: &str) -> Option<Self> {
        if !is_root() {
            skip(test, "buildah --isolation=chroot needs root here");
            return None;
        }
        let version = Command::new("buildah").arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if !version.starts_with(BUILDAH) {
            skip(test, &format!("needs {BUILDAH}x (Debian 12: buildah); here is {version:?}"));
            return None;
        }
        // As root in a container that allows no mounts, too.
        if !Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
            skip(test, "buildah --isolation=chroot needs mount namespaces");
            return None;
        }
        Some(Self { dir: tempfile::tempdir().unwrap() })
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        for (option, place) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(option).arg(self.dir.path().join(place));
        }
        command.arg("--storage-driver=vfs").args(args).stdin(Stdio::null());
        command
    }
}

/// A tree of files, a line each, by path.
pub type Tree = BTreeMap<String, String>;

/// The files of a root file system tar.
pub fn tree(tar: &Path) -> Tree {
    let mut tree = Tree::new();
    apply(&fs::read(tar).unwrap(), &mut tree);
    tree
}

/// An image as anyone would describe it: what it runs, its history, and its files with nothing left of the layers.
/// Of an image that stands on the base, what differs from the base.
pub fn describe(archive: &Path, base: &Tree) -> Value {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    for entry in tar::Archive::new(File::open(archive).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().to_string_lossy().into_owned();
        if let Some(target) = entry.link_name().unwrap() {
            let target = Path::new(&name).parent().unwrap().join(target);
            links.insert(name, normal(&target));
            continue;
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        files.insert(name, bytes);
    }
    let member =
        |name: &str| files.get(name).or_else(|| files.get(links.get(name)?)).unwrap_or_else(|| panic!("{name}"));
    let manifest: Value = serde_json::from_slice(member("manifest.json")).unwrap();
    let config: Value = serde_json::from_slice(member(manifest[0]["Config"].as_str().unwrap())).unwrap();
    let mut tree = Tree::new();
    for layer in manifest[0]["Layers"].as_array().unwrap() {
        apply(member(layer.as_str().unwrap()), &mut tree);
    }
    let history: Vec<Value> = config["history"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .map(|h| json!({"created_by": h["created_by"], "empty_layer": h["empty_layer"] == json!(true)}))
        .collect();
    json!({
        "os": config["os"],
        "architecture": config["architecture"],
        "config": without_empty(&config["config"]),
        "history": history,
        "tree": difference(&tree, base),
    })
}

fn difference(tree: &Tree, base: &Tree) -> Vec<String> {
    let on_base = tree.contains_key("bin/busybox");
    let changed = tree.iter().filter(|(path, node)| !on_base || base.get(*path) != Some(node));
    let gone = base.keys().filter(|path| on_base && !tree.contains_key(*path));
    changed.map(|(path, node)| format!("{node} /{path}")).chain(gone.map(|path| format!("gone /{path}"))).collect()
}

/// Go writes what is absent as null, "", [] or nothing at all, depending on its version.
fn without_empty(config: &Value) -> Value {
    let full =
        |v: &Value| !(v.is_null() || *v == json!("") || *v == json!([]) || *v == json!({}) || *v == json!(false));
    let kept: Map<String, Value> = config
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, value)| full(value) && key.as_str() != "ArgsEscaped")
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Value::Object(kept)
}

fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => parts.push(name.to_string_lossy().into_owned()),
            std::path::Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

fn apply(layer: &[u8], tree: &mut Tree) {
    let remove = |tree: &mut Tree, path: &str, itself: bool| {
        let below = format!("{path}/");
        tree.retain(|p, _| !(p.starts_with(&below) || (itself && p == path)));
    };
    let mut hard_links = Vec::new();
    for entry in tar::Archive::new(layer).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = normal(&entry.path().unwrap());
        if path.is_empty() {
            continue;
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            remove(tree, dir, false);
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            remove(tree, &normal(&Path::new(dir).join(hidden)), true);
            continue;
        }
        let xattrs: Vec<String> = entry
            .pax_extensions()
            .unwrap()
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|e| {
                Some((e.key().ok()?.strip_prefix("SCHILY.xattr.")?.to_owned(), Digest::of(e.value_bytes())))
            })
            .map(|(key, value)| format!(" {key}={}", value.short()))
            .collect();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let header = entry.header();
        let kind = header.entry_type();
        if kind.is_hard_link() {
            hard_links.push((path, normal(&entry.link_name().unwrap().unwrap())));
            continue;
        }
        let what = match kind {
            tar::EntryType::Directory => "dir".to_owned(),
            tar::EntryType::Symlink => format!("link -> {}", entry.link_name().unwrap().unwrap().display()),
            tar::EntryType::Fifo => "fifo".to_owned(),
            tar::EntryType::Char | tar::EntryType::Block => {
                format!("{kind:?} {:?}:{:?}", header.device_major().unwrap(), header.device_minor().unwrap())
            }
            _ => format!("file {} {}", bytes.len(), Digest::of(&bytes).short()),
        };
        let date = if header.mtime().unwrap().cast_signed() == CONTEXT_DATE && !kind.is_dir() { " dated" } else { "" };
        let mode = if kind.is_symlink() { 0o777 } else { header.mode().unwrap() & 0o7777 };
        let node =
            format!("{mode:04o} {}:{} {what}{date}{}", header.uid().unwrap(), header.gid().unwrap(), xattrs.concat());
        if !kind.is_dir() {
            remove(tree, &path, true);
        }
        tree.insert(path, node);
    }
    for (path, target) in hard_links {
        let node = tree.get(&target).unwrap_or_else(|| panic!("hard link to {target}")).clone();
        tree.insert(path, node);
    }
}
