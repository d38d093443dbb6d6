//! Git repositories, by the `git` command: its credentials, ssh, proxies and LFS just work.

use std::path::{Path, PathBuf};

use crate::base::{Cancel, Env, Secret, progress::Step};

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
}

/// A repository and its bare copy in the cache folder.
pub struct GitRepository {}

impl GitRepository {
    pub fn open(_cache: &Path, _env: &Env) -> Result<Self, GitError> {
        todo!()
    }

    /// The commit that the request means now. One `git ls-remote`, or nothing for a whole commit id.
    pub fn resolve(&self, _request: &GitRequest, _cancel: &Cancel) -> Result<String, GitError> {
        todo!()
    }

    /// Writes the files of a commit into an empty directory.
    pub fn checkout(
        &self,
        _request: &GitRequest,
        _commit: &str,
        _dest: &Path,
        _step: &Step,
        _cancel: &Cancel,
    ) -> Result<(), GitError> {
        todo!()
    }
}
