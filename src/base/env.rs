//! The process's surroundings, captured once in `main`; nobody else asks the system for them.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Environment variables, working directory and identity as they were when dockless started.
#[derive(Debug, Clone, Default)]
pub struct Env {
    vars: BTreeMap<OsString, OsString>,
    cwd: PathBuf,
    uid: u32,
    gid: u32,
}

impl Env {
    pub fn new(vars: impl IntoIterator<Item = (OsString, OsString)>, cwd: PathBuf, uid: u32, gid: u32) -> Self {
        Self { vars: vars.into_iter().collect(), cwd, uid, gid }
    }

    /// For tests: variables only, root in `/`.
    pub fn of<'a>(vars: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self::new(vars.into_iter().map(|(k, v)| (k.into(), v.into())), "/".into(), 0, 0)
    }

    /// A variable as text; none when unset or not UTF-8.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(OsStr::new(name)).and_then(|v| v.to_str())
    }

    /// A variable that is set and not empty: for switches, where `X=` means the same as no X.
    pub fn nonempty(&self, name: &str) -> Option<&str> {
        self.var(name).filter(|v| !v.is_empty())
    }

    pub fn var_os(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// All variables, sorted by name.
    pub fn vars(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str()))
    }

    /// This environment with one variable set: what a child of ours will see.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.vars.insert(name.into(), value.into());
        self
    }

    /// The same for somebody who stands in another folder.
    pub fn at(mut self, cwd: &Path) -> Self {
        cwd.clone_into(&mut self.cwd);
        self
    }

    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// A path as the user typed it, made absolute against the working directory at start.
    pub fn absolute(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        // Messages show it: `/src` reads better than `/src/.`.
        if path == Path::new(".") { self.cwd.clone() } else { self.cwd.join(path) }
    }

    /// The real user id. Inside a user namespace of our own making this is still the caller's.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    pub fn gid(&self) -> u32 {
        self.gid
    }

    /// `$HOME`. The passwd file is never asked: a pod's user often has no line there.
    pub fn home(&self) -> Option<PathBuf> {
        self.var_os("HOME").filter(|h| !h.is_empty()).map(PathBuf::from)
    }

    /// Where programs are looked for.
    pub fn path(&self) -> &OsStr {
        self.var_os("PATH").unwrap_or(OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"))
    }
}
