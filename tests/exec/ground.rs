//! A root file system to run things in, and what came out of running them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use dockless::base::Cancel;
use dockless::exec::{Choice, Error, Executor, Exit, Io, Network, Process, Stdin};
use dockless::sys::RootFs;

/// Where state folders are made: on a disk, unless the environment names another place.
pub fn disk() -> PathBuf {
    std::env::var_os("TMPDIR").map_or("/var/tmp".into(), PathBuf::from)
}

/// A state folder, an executor that works in it, and a base with busybox.
pub struct Ground {
    pub choice: Choice,
    pub executor: Box<dyn Executor>,
    pub base: PathBuf,
    dir: tempfile::TempDir,
}

/// What a step wrote and how it ended.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Exit, Error>,
    pub out: String,
    pub err: String,
}

impl Ground {
    pub fn new(dir: tempfile::TempDir, choice: Choice) -> Self {
        let base = dir.path().join("base");
        for path in ["bin", "etc", "home/app", "tmp", "root", "proc", "sys", "dev"] {
            fs::create_dir_all(base.join(path)).unwrap();
        }
        fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for name in APPLETS {
            symlink("busybox", base.join("bin").join(name)).unwrap();
        }
        fs::write(base.join("etc/group"), "root:x:0:\napp:x:1000:\n").unwrap();
        fs::write(base.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n").unwrap();
        let executor = dockless::exec::executor(&choice);
        Self { choice, executor, base, dir }
    }

    /// A fresh layer on the base.
    pub fn root(&self) -> RootFs {
        self.layered(std::slice::from_ref(&self.base))
    }

    /// Where nothing can be mounted, a copy.
    pub fn layered(&self, lower: &[PathBuf]) -> RootFs {
        if !self.choice.overlay {
            let root = self.fresh("root").join("root");
            fs::create_dir(&root).unwrap();
            for layer in lower.iter().rev() {
                let source = layer.join(".");
                assert!(Command::new("cp").arg("-a").arg(source).arg(&root).status().unwrap().success());
            }
            return RootFs::Directory(root);
        }
        let layer = self.fresh("layer");
        let (upper, work) = (layer.join("upper"), layer.join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        RootFs::Overlay { lower: lower.to_vec(), upper, work }
    }

    /// A fresh directory of the state folder.
    pub fn fresh(&self, name: &str) -> PathBuf {
        tempfile::Builder::new().prefix(name).tempdir_in(self.dir.path()).unwrap().keep()
    }

    /// A directory of the state folder that a step may have for a while.
    pub fn lent(&self, path: &str) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    pub fn run(&self, root: &RootFs, process: &Process) -> Outcome {
        self.run_until(root, process, &Cancel::new())
    }

    pub fn run_until(&self, root: &RootFs, process: &Process, cancel: &Cancel) -> Outcome {
        let (out, err) = (Mutex::default(), Mutex::default());
        let io = Io { stdin: Stdin::Null, stdout: Box::new(Sink(&out)), stderr: Box::new(Sink(&err)) };
        let result = self.executor.run(root, process, io, cancel);
        let text = |bytes: Mutex<Vec<u8>>| String::from_utf8_lossy(&bytes.into_inner().unwrap()).into_owned();
        Outcome { result, out: text(out), err: text(err) }
    }

    /// Runs a script on a fresh layer; it must succeed. Its output.
    pub fn shell(&self, script: &str) -> String {
        self.run(&self.root(), &shell(script)).success()
    }
}

impl Outcome {
    pub fn success(self) -> String {
        assert_eq!(self.result.as_ref().ok(), Some(&Exit::Code(0)), "{self:?}");
        self.out
    }
}

/// A shell script as root.
pub fn shell(script: &str) -> Process {
    Process {
        args: ["/bin/sh", "-c", script].map(String::from).into(),
        env: vec!["PATH=/bin".into(), "HOME=/root".into()],
        cwd: "/".into(),
        network: Network::Host,
        ..Process::default()
    }
}

pub fn upper(root: &RootFs) -> &Path {
    match root {
        RootFs::Overlay { upper, .. } => upper,
        RootFs::Directory(path) => path,
    }
}

/// Every path below a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        for entry in fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(dir).unwrap().display().to_string());
            if fs::symlink_metadata(&path).unwrap().is_dir() {
                left.push(path);
            }
        }
    }
    found.sort();
    found
}

struct Sink<'a>(&'a Mutex<Vec<u8>>);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

const APPLETS: &[&str] = &[
    "sh", "cat", "chmod", "chown", "cp", "cut", "dd", "echo", "env", "false", "grep", "head", "hostname", "id", "kill",
    "ln", "ls", "mkdir", "mknod", "mount", "mv", "ps", "pwd", "readlink", "rm", "seq", "setsid", "sleep", "sort",
    "stat", "su", "tail", "touch", "tr", "true", "umount", "uniq", "wc", "yes", "unshare", "mkfifo", "ifconfig",
    "find", "test",
];
