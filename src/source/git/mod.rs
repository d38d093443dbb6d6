//! Git repositories, by the `git` command: its credential helpers, ssh, proxies and LFS just work. Each remote has a
//! bare copy in the cache folder, into which only the commits that were asked for are fetched.

mod command;
mod config;
mod remote;
#[cfg(test)]
mod tests;
mod tidy;

use std::io;
use std::path::{Path, PathBuf};

use crate::base::cancel::Cancelled;
use crate::base::{Cancel, Digest, Env, Secret, progress::Step};
use crate::store::{self, FileLock};
use command::Git;
pub use remote::{Head, Remote};

/// What to check out: LLB's `git://…` source with its attributes.
#[derive(Debug, Clone, Default)]
pub struct GitRequest {
    /// The full address.
    pub remote: String,
    /// A branch, tag, other ref or commit; none for the remote's HEAD.
    pub reference: Option<String>,
    /// A folder of the repository that becomes the root.
    pub subdir: Option<String>,
    pub keep_git_dir: bool,
    pub submodules: bool,
    /// All files get the commit's date, not that of the checkout.
    pub commit_dates: bool,
    /// The commit that the reference must mean, whole or its first digits.
    pub checksum: Option<String>,
    pub auth_token: Option<Secret>,
    pub auth_header: Option<Secret>,
    pub known_hosts: Option<String>,
    pub ssh_socket: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("git is not installed, which {remote} needs")]
    NoGit { remote: String },
    #[error("{remote}: {reason}")]
    Failed { remote: String, reason: String },
    #[error("{remote}: {reference} is commit {actual}, expected {expected}")]
    Checksum { remote: String, reference: String, expected: String, actual: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Lock(#[from] store::Error),
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Where bare copies of repositories are kept, and what git is run with.
pub struct GitRepository {
    cache: PathBuf,
    env: Env,
}

impl GitRepository {
    pub fn open(cache: &Path, env: &Env) -> Result<Self, GitError> {
        Ok(Self { cache: cache.to_owned(), env: env.clone() })
    }

    /// The commit that the request means now. One `git ls-remote`, or nothing for a whole commit id.
    pub fn resolve(&self, request: &GitRequest, cancel: &Cancel) -> Result<String, GitError> {
        check(request)?;
        let reference = request.reference.as_deref().unwrap_or("HEAD");
        let commits = if is_commit(reference) {
            vec![reference.to_owned()]
        } else {
            let git = Git::new(request, &self.env)?;
            let peeled = format!("{reference}^{{}}");
            let listed = git.run(None, ["ls-remote", config::REMOTE, reference, &peeled], &Step::none(), cancel)?;
            choose(&String::from_utf8_lossy(&listed), reference)
        };
        let Some(commit) = commits.last() else {
            let reason = format!("the repository has no {reference}");
            return Err(GitError::Failed { remote: command::shown(&request.remote), reason });
        };
        match &request.checksum {
            // Of an annotated tag both the tag's own id and its commit's are right.
            Some(expected) if !commits.iter().any(|id| id.starts_with(expected.as_str())) => Err(GitError::Checksum {
                remote: command::shown(&request.remote),
                reference: reference.to_owned(),
                expected: expected.clone(),
                actual: commit.clone(),
            }),
            _ => Ok(commit.clone()),
        }
    }

    /// Writes the files of a commit into an empty directory. Modes are git's own two, whatever the umask is.
    pub fn checkout(
        &self,
        request: &GitRequest,
        commit: &str,
        dest: &Path,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<(), GitError> {
        check(request)?;
        let git = Git::new(request, &self.env)?;
        let bare = self.cache.join(Digest::of(&request.remote).hex());
        std::fs::create_dir_all(&self.cache).map_err(|source| GitError::Io { path: self.cache.clone(), source })?;
        // One process at a time fetches into a bare copy, and nobody prunes it meanwhile.
        let _lock = FileLock::exclusive(&bare.with_extension("lock"), cancel)?;
        self.fetch(&git, request, commit, &bare, step, cancel)?;

        let subdir = request.subdir.as_deref().filter(|subdir| !matches!(*subdir, "" | "." | "/"));
        let tree = if subdir.is_some() { dest.join(".checkout") } else { dest.to_owned() };
        let io = |source| GitError::Io { path: dest.to_owned(), source };
        if subdir.is_some() {
            std::fs::create_dir(&tree).map_err(io)?;
        }
        let modules = request.submodules && git.has(&bare, commit, ".gitmodules", cancel)?;
        if request.keep_git_dir || modules {
            git.clone_from(&bare, commit, &tree, step, cancel)?;
            if modules {
                let update = ["submodule", "update", "--init", "--recursive", "--depth=1"];
                git.run(Some(&tree), update, step, cancel)?;
            }
        } else {
            git.export(&bare, commit, &tree, step, cancel)?;
        }
        let keep = request.keep_git_dir && subdir.is_none();
        let date = if request.commit_dates { Some(git.date(&bare, commit, cancel)?) } else { None };
        tidy::tidy(&tree, keep, date).map_err(io)?;
        if let Some(subdir) = subdir {
            tidy::hoist(dest, ".checkout", subdir).map_err(|source| {
                let reason = format!("folder {subdir:?} of commit {commit}: {source}");
                GitError::Failed { remote: command::shown(&request.remote), reason }
            })?;
        }
        Ok(())
    }

    fn fetch(
        &self,
        git: &Git,
        request: &GitRequest,
        commit: &str,
        bare: &Path,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<(), GitError> {
        if !bare.join("HEAD").exists() {
            git.run(None, [Path::new("init"), Path::new("--quiet"), Path::new("--bare"), bare], step, cancel)?;
        }
        if git.has(bare, commit, "", cancel)? {
            return Ok(());
        }
        let fetch =
            |args: &[&str]| git.run(Some(bare), [&["fetch", "--no-tags", "--force"], args].concat(), step, cancel);
        // By its id: the ref may have moved since it was resolved. Not every server gives commits that way, so that
        // next the ref is asked for, and at last everything.
        let reference = request.reference.as_deref().unwrap_or("HEAD");
        let mut failed = None;
        for args in [
            &["--depth=1", config::REMOTE, commit][..],
            &["--depth=1", config::REMOTE, reference],
            &[config::REMOTE, "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"],
        ] {
            match fetch(args) {
                Err(error @ GitError::Cancelled(_)) => return Err(error),
                Err(error) => failed = Some(error),
                Ok(_) => {}
            }
            if git.has(bare, commit, "", cancel)? {
                return Ok(());
            }
        }
        Err(failed.unwrap_or_else(|| GitError::Failed {
            remote: command::shown(&request.remote),
            reason: format!("the repository has no commit {commit}"),
        }))
    }
}

/// What would be an option or another program's business to git.
fn check(request: &GitRequest) -> Result<(), GitError> {
    let refused =
        |reason: &str| Err(GitError::Failed { remote: command::shown(&request.remote), reason: reason.to_owned() });
    let odd = |text: &str| text.starts_with('-') || text.chars().any(char::is_control);
    if request.remote.is_empty() || odd(&request.remote) {
        return refused("not an address of a git repository");
    }
    if request
        .reference
        .as_deref()
        .is_some_and(|text| odd(text) || text.contains([' ', ':', '*', '?', '[', '\\', '^', '~']))
    {
        return refused("not a name that a ref can have");
    }
    Ok(())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase())
}

/// The ids that `ls-remote` gives for a reference, the commit last: like `git checkout`, which takes a branch where a
/// tag has the same name.
fn choose(listed: &str, reference: &str) -> Vec<String> {
    let full = format!("refs/{}", reference.trim_start_matches("refs/"));
    let head = format!("refs/heads/{}", reference.trim_start_matches("refs/heads/"));
    let tag = format!("refs/tags/{}", reference.trim_start_matches("refs/tags/"));
    for name in [reference, &full, &head, &tag] {
        let ids = |suffix: &str| {
            listed.lines().filter_map(|line| line.split_once('\t')).find_map(|(id, found)| {
                (found.strip_suffix(suffix) == Some(name) && is_commit(id)).then(|| id.to_owned())
            })
        };
        if let Some(id) = ids("") {
            return [Some(id), ids("^{}")].into_iter().flatten().collect();
        }
    }
    Vec::new()
}
