//! A container on disk: one small JSON file in a folder of its own, replaced whole.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::{Container, Create, Error, Volume};
use crate::engine::State;
use crate::exec::Network;
use crate::image::ImageConfig;
use crate::store::FileLock;

/// All that is known of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stored {
    pub container: Container,
    /// Its file system, as the snapshots know it.
    pub snapshot: String,
    pub run: RunAs,
}

/// How its process is started: the image's config with what was asked for over it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunAs {
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub user: String,
    pub workdir: String,
    pub hostname: Option<String>,
    pub no_network: bool,
    pub volumes: Vec<Volume>,
    pub extra_hosts: Vec<(String, String)>,
    pub ulimits: Vec<(String, u64, u64)>,
    pub privileged: bool,
    pub read_only: bool,
}

impl RunAs {
    pub fn of(config: &ImageConfig, create: &Create) -> anyhow::Result<Self> {
        let config = &config.config;
        // An entrypoint of one's own comes without the image's command, which was meant for another.
        let (entrypoint, command) = match &create.entrypoint {
            Some(entrypoint) => (entrypoint.clone(), Vec::new()),
            None => (config.entrypoint.clone().unwrap_or_default(), config.cmd.clone().unwrap_or_default()),
        };
        let command = if create.command.is_empty() { command } else { create.command.clone() };
        let args: Vec<String> = entrypoint.into_iter().chain(command).collect();
        if args.is_empty() {
            bail!("no command was given, and the image has none");
        }
        let mut env = config.env.clone();
        if create.terminal {
            set(&mut env, "TERM=xterm");
        }
        create.env.iter().for_each(|variable| set(&mut env, variable));
        Ok(Self {
            args,
            env,
            user: create.user.clone().unwrap_or_else(|| config.user.clone()),
            workdir: create.workdir.clone().unwrap_or_else(|| config.working_dir.clone()),
            hostname: create.hostname.clone(),
            no_network: create.network == Network::None,
            volumes: create.volumes.clone(),
            extra_hosts: create.extra_hosts.clone(),
            ulimits: create.ulimits.clone(),
            privileged: create.privileged,
            read_only: create.read_only,
        })
    }
}

/// Sets a `KEY=value` in place of one with its key.
pub fn set(env: &mut Vec<String>, variable: &str) {
    let key = variable.split_inclusive('=').next().unwrap_or(variable);
    match env.iter_mut().find(|set| set.starts_with(key)) {
        Some(found) => variable.clone_into(found),
        None => env.push(variable.to_owned()),
    }
}

const FILE: &str = "container.json";

impl Stored {
    /// None where no container is.
    pub fn read(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = dir.join(FILE);
        // What is being removed has a name that no id has.
        if dir.extension().is_some() {
            return Ok(None);
        }
        match fs::read(&path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
            Ok(text) => serde_json::from_slice(&text).map(Some).with_context(|| format!("read {}", path.display())),
        }
    }

    /// Makes the container's folder, complete at once.
    pub fn add(self, home: &Path) -> anyhow::Result<Self> {
        let mut this = self;
        this.container.args.clone_from(&this.run.args);
        let beside = tempfile::Builder::new().prefix(".new-").tempdir_in(home)?;
        let dir = beside.path().join("container");
        fs::create_dir(&dir)?;
        this.write(&dir)?;
        let place = home.join(&this.container.id);
        fs::rename(&dir, &place).with_context(|| format!("make {}", place.display()))?;
        Ok(this)
    }

    pub fn write(&self, dir: &Path) -> anyhow::Result<()> {
        let path = dir.join(FILE);
        let mut file = tempfile::NamedTempFile::new_in(dir).with_context(|| format!("write {}", path.display()))?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.persist(&path).with_context(|| format!("write {}", path.display()))?;
        Ok(())
    }

    /// Held while its files are changed or its process runs.
    pub fn lock(&self, state: &State) -> anyhow::Result<FileLock> {
        self.try_lock(state)?.ok_or_else(|| Error::Running(self.container.name.clone()).into())
    }

    /// None while somebody holds it.
    pub fn try_lock(&self, state: &State) -> anyhow::Result<Option<FileLock>> {
        Ok(FileLock::try_exclusive(&self.dir(state).join("lock"))?)
    }

    pub fn dir(&self, state: &State) -> PathBuf {
        state.containers_dir().join(&self.container.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Platform;

    #[test]
    fn the_command_is_put_together_as_docker_does() {
        let mut config = ImageConfig::new(Platform::host());
        config.config.entrypoint = Some(vec!["entry".to_owned()]);
        config.config.cmd = Some(vec!["cmd".to_owned()]);
        config.config.env = vec!["A=1".to_owned(), "AB=2".to_owned()];
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let cases = [
            (None, "", "entry cmd", "the image's own"),
            (None, "x y", "entry x y", "a command for the image's entrypoint"),
            (Some("mine"), "", "mine", "an entrypoint drops the image's command"),
            (Some("mine"), "x", "mine x", "both"),
            (Some(""), "x", "x", "an empty entrypoint"),
        ];
        for (entrypoint, command, expected, case) in cases {
            let create = Create { entrypoint: entrypoint.map(words), command: words(command), ..Create::default() };
            assert_eq!(RunAs::of(&config, &create).unwrap().args, words(expected), "{case}");
        }
        let create = Create { env: vec!["A=9".to_owned(), "C=".to_owned()], ..Create::default() };
        assert_eq!(RunAs::of(&config, &create).unwrap().env, ["A=9", "AB=2", "C="]);
        let create = Create { entrypoint: Some(Vec::new()), ..Create::default() };
        let error = RunAs::of(&config, &create).unwrap_err();
        assert_eq!(error.to_string(), "no command was given, and the image has none");
    }
}
