//! What the command lines have in common in these tests: a state folder with the busybox base in it, a folder to work
//! in, and a run's output as text.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::oracle;

/// A place of a test's own.
pub struct Place {
    dir: tempfile::TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// The output of a run that must have worked.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }

    pub fn fails_with(self, code: i32) -> String {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        self.err
    }
}

impl Place {
    /// With the busybox base; none, with the reason said, where it cannot be made.
    pub fn with_base(test: &str) -> Option<Self> {
        if oracle::find("busybox").is_none() {
            oracle::skip(test, "needs busybox (package busybox-static)");
            return None;
        }
        let place = Self::empty();
        let bases = oracle::repository().join("target/bases");
        oracle::import_busybox(&place.state(), &bases);
        Some(place)
    }

    pub fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("work")).unwrap();
        Self { dir }
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Where commands run.
    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.work().join(path)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        let path = self.at(path);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    /// dockless under one of its names, with nothing of the caller's environment but the search path.
    pub fn command(&self, face: &str) -> Command {
        let bin = self.dir.path().join("bin");
        fs::create_dir_all(&bin).unwrap();
        let program = bin.join(face);
        if !program.exists() {
            // Another thread may have made it in between.
            let _ = symlink(oracle::dockless(), &program);
        }
        let mut command = Command::new(program);
        command.current_dir(self.work()).stdin(Stdio::null()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.dir.path()).env("DOCKLESS_STATE", self.state());
        command
    }

    pub fn run<A: AsRef<OsStr>>(&self, face: &str, args: impl IntoIterator<Item = A>) -> Ended {
        ended(self.command(face).args(args))
    }

    /// Runs `dockless` with words split at spaces.
    pub fn dockless(&self, words: &str) -> Ended {
        self.run("dockless", words.split_whitespace())
    }
}

pub fn ended(command: &mut Command) -> Ended {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    Ended {
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Every path below a folder, sorted, folders with a slash at their end.
pub fn tree(dir: &Path) -> Vec<String> {
    fn walk(root: &Path, dir: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().display().to_string();
            if path.symlink_metadata().unwrap().is_dir() {
                found.push(format!("{name}/"));
                walk(root, &path, found);
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    if dir.exists() {
        walk(dir, dir, &mut found);
    }
    found.sort();
    found
}
