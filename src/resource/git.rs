//! The git repository whose head an image follows (`git_repo`).

use anyhow::{Context, bail};

use super::World;
use crate::base::Secret;
use crate::source::git::{Head, Remote};

/// The branch that the fork began with.
const DEFAULT_BRANCH: &str = "master";

pub struct Repository<'a> {
    remote: Remote,
    world: &'a World<'a>,
}

impl<'a> Repository<'a> {
    pub fn open(address: &str, key: Option<&Secret>, world: &'a World<'a>) -> anyhow::Result<Self> {
        let remote = Remote::open(address, key, world.env).context("source.git_repo")?;
        Ok(Self { remote, world })
    }

    /// The head of a branch; without one of `master`, or where there is none of that name, of the repository's HEAD.
    pub fn head(&self, branch: Option<&str>) -> anyhow::Result<Head> {
        let reference = format!("refs/heads/{}", branch.unwrap_or(DEFAULT_BRANCH));
        let heads = self.remote.heads(&[&reference, "HEAD"], self.world.cancel).context("source.git_repo")?;
        let find = |name: &str| heads.iter().find(|head| head.reference == name).cloned();
        match (find(&reference), branch) {
            (Some(head), _) => Ok(head),
            (None, None) => find("HEAD").with_context(|| format!("{} has no commit yet", self.remote.shown())),
            (None, Some(branch)) => bail!("{} has no branch {branch:?}", self.remote.shown()),
        }
    }

    /// The commits before a head, newest first, along first parents.
    pub fn first_parents(&self, head: &Head, limit: usize) -> anyhow::Result<Vec<String>> {
        self.remote.first_parents(head, limit, self.world.cancel).context("source.git_repo")
    }
}
