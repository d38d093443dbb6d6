//! A repository that is only asked: where its branches stand, and which commits came before. Nothing of it is kept.

use std::time::Duration;

use super::command::Git;
use super::{GitError, GitRequest, check, config};
use crate::base::{Cancel, Env, Secret, progress::Step};

/// The answers are small: a server that takes longer neither answers nor hangs up.
const LIMIT: Duration = Duration::from_secs(120);

/// A remote repository, with a folder of our own while we ask.
pub struct Remote {
    git: Git,
    dir: tempfile::TempDir,
}

/// A name on the remote, and the commit that it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub commit: String,
    pub reference: String,
}

impl Remote {
    /// Any address that git takes, a folder of this machine included. `key` opens ssh; hosts are not known beforehand.
    pub fn open(address: &str, key: Option<&Secret>, env: &Env) -> Result<Self, GitError> {
        let request = GitRequest { remote: address.to_owned(), ..GitRequest::default() };
        check(&request)?;
        let git = Git::new(&request, env)?.asking(key, LIMIT)?;
        let dir = tempfile::Builder::new().prefix("dockless-git-").tempdir();
        let dir = dir.map_err(|source| GitError::Io { path: "temporary folder".into(), source })?;
        Ok(Self { git, dir })
    }

    /// The address as it may be shown.
    pub fn shown(&self) -> &str {
        self.git.remote()
    }

    /// Those of the names that the remote has.
    pub fn heads(&self, names: &[&str], cancel: &Cancel) -> Result<Vec<Head>, GitError> {
        let args = [&["ls-remote", config::REMOTE], names].concat();
        let listed = self.git.run(None, args, &Step::none(), cancel)?;
        let listed = String::from_utf8_lossy(&listed).into_owned();
        let heads = listed.lines().filter_map(|line| line.split_once('\t'));
        Ok(heads
            .filter(|(_, name)| names.contains(name))
            .map(|(commit, name)| Head { commit: commit.to_owned(), reference: name.to_owned() })
            .collect())
    }

    /// The commits before a head, newest first, along first parents.
    pub fn first_parents(&self, head: &Head, limit: usize, cancel: &Cancel) -> Result<Vec<String>, GitError> {
        let git = |args: &[&str]| self.git.run(Some(self.dir.path()), args, &Step::none(), cancel);
        git(&["init", "--quiet", "--bare", "."])?;
        let depth = format!("--depth={}", limit + 1);
        let fetch = ["fetch", "--quiet", "--no-tags", &depth];
        // Commits alone. Old servers know no filter: then the trees come along.
        match git(&[&fetch[..], &["--filter=tree:0", config::REMOTE, &head.reference]].concat()) {
            Err(GitError::Failed { .. }) => drop(git(&[&fetch[..], &[config::REMOTE, &head.reference]].concat())?),
            result => drop(result?),
        }
        let count = format!("--max-count={limit}");
        let listed = git(&["rev-list", "--first-parent", "--skip=1", &count, "FETCH_HEAD"])?;
        Ok(String::from_utf8_lossy(&listed).lines().map(str::to_owned).collect())
    }
}
