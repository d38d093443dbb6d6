//! From a Dockerfile plan to what the frontend and the operations need: the texts, the directories, the contexts
//! by name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::address::{self, Fetched};
use super::contexts;
use super::{Context, DockerfilePlan, DockerfileSource, NoCache, SolveRequest, State};
use crate::base::Platform;
use crate::exec;
use crate::frontend::{self, Input, NamedContext};
use crate::llb::pb;
use crate::ops::Machine;
use crate::snapshot::{self, Tree};
use crate::sys::quiet;

/// What was read. The temporary directories live as long as this.
pub struct Prepared {
    /// For the first platform.
    pub input: Input,
    /// All that are built for, each once; none where nobody asked for one.
    pub platforms: Vec<Platform>,
    pub locals: BTreeMap<String, PathBuf>,
    tmp: Vec<tempfile::TempDir>,
}

impl Prepared {
    /// Lets a directory live as long.
    pub fn keep(&mut self, dir: tempfile::TempDir) {
        self.tmp.push(dir);
    }
}

/// The source that COPY and ADD read, by the frontend's name for it.
pub const CONTEXT: &str = "context";

/// A name under which buildx and BuildKit's clients look when nobody says another.
pub const DEFAULT_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];

/// Larger Dockerfiles and ignore files are refused, as BuildKit does with its messages.
const MAX_TEXT: u64 = 16 << 20;

pub fn prepare(
    state: &State,
    request: &SolveRequest,
    plan: &DockerfilePlan,
    solve: &dyn Fn(pb::Definition) -> anyhow::Result<Arc<dyn Tree>>,
) -> anyhow::Result<Prepared> {
    let mut tmp = Vec::new();
    let mut empty = || {
        let dir = Machine::tmp(state)?;
        let path = dir.path().to_owned();
        tmp.push(dir);
        Ok::<_, anyhow::Error>(path)
    };
    let mut source = &plan.dockerfile;
    let fetched;
    let mut date = None;
    let (main, remote) = match &plan.context {
        Context::Directory(dir) => (Files::Directory(dir.clone()), None),
        Context::Unpacked(dir) => {
            date = newest(dir.path())?;
            (Files::Directory(dir.path().to_owned()), None)
        }
        Context::Empty => (Files::Directory(empty()?), None),
        Context::Remote(address) => match address::fetch(state, request, plan, address, &mut empty, solve)? {
            Fetched::Repository(tree) => (Files::Tree(tree), Some(NamedContext::Url(address.clone()))),
            Fetched::Archive(dir, modified) => {
                date = modified.map_or_else(|| newest(&dir), |date| Ok(Some(date)))?;
                (Files::Directory(dir), None)
            }
            Fetched::Dockerfile(text) => {
                fetched = DockerfileSource::Text { name: "Dockerfile".to_owned(), text };
                source = &fetched;
                (Files::Directory(empty()?), None)
            }
        },
    };
    main.check()?;
    let (name, text, beside) = match source {
        DockerfileSource::Remote(address) => (address.clone(), address::dockerfile(state, request, address)?, None),
        source => {
            request.progress.step("[internal] load build definition from Dockerfile", |_| dockerfile(source, &main))?
        }
    };
    let ignore = request.progress.step("[internal] load .dockerignore", |_| ignore_file(beside.as_deref(), &main))?;
    let mut input = Input::new(name, text, request.epoch);
    let mut locals = BTreeMap::new();
    if let Files::Directory(dir) = main {
        locals.insert(CONTEXT.to_owned(), dir);
    }
    input.main_context = remote;
    input.context_date = date;
    input.ignore = ignore;
    input.target.clone_from(&plan.target);
    input.build_args.clone_from(&plan.build_args);
    input.labels.clone_from(&plan.labels);
    let mut platforms = Vec::new();
    for platform in &plan.platforms {
        if !platforms.contains(platform) {
            platforms.push(platform.clone());
        }
    }
    input.platform = platforms.first().cloned();
    input.multi_platform = platforms.len() > 1;
    for (name, value) in &plan.named_contexts {
        let context = contexts::named(state, name, value, request, &mut locals)
            .with_context(|| format!("build context {name}={value}"))?;
        input.named_contexts.insert(name.clone(), context);
    }
    input.no_cache = match &plan.no_cache {
        NoCache::Use => frontend::NoCache::Use,
        NoCache::All => frontend::NoCache::All,
        NoCache::Stages(stages) => frontend::NoCache::Stages(stages.clone()),
    };
    input.network = match plan.network {
        None => pb::NetMode::Unset,
        Some(exec::Network::Host) => pb::NetMode::Host,
        Some(exec::Network::None) => pb::NetMode::None,
    };
    input.extra_hosts.clone_from(&plan.extra_hosts);
    let limit = |value: u64| i64::try_from(value).unwrap_or(-1);
    input.ulimits = plan.ulimits.iter().map(|(name, soft, hard)| (name.clone(), limit(*soft), limit(*hard))).collect();
    input.shm_size = plan.shm_size;
    Ok(Prepared { input, platforms, locals, tmp })
}

/// The time of the newest file that an archive held.
fn newest(dir: &Path) -> io::Result<Option<i64>> {
    use std::os::unix::fs::MetadataExt as _;
    let mut newest = None;
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                folders.push(entry.path());
            } else if meta.is_file() {
                newest = newest.max(Some(meta.mtime()));
            }
        }
    }
    Ok(newest)
}

/// Where the Dockerfile and its ignore file are read from.
pub enum Files {
    Directory(PathBuf),
    /// A repository that was fetched; paths in it are relative.
    Tree(Arc<dyn Tree>),
}

impl Files {
    fn check(&self) -> anyhow::Result<()> {
        match self {
            Self::Directory(dir) if !dir.is_dir() => bail!("build context {} is not a directory", dir.display()),
            _ => Ok(()),
        }
    }

    /// A path in the context; one that is absolute stays what it is.
    fn at(&self, path: &Path) -> PathBuf {
        match self {
            Self::Directory(dir) => dir.join(path),
            Self::Tree(_) => path.strip_prefix("/").unwrap_or(path).to_owned(),
        }
    }

    /// What people call a path: as seen from the context.
    fn name(&self, path: &Path) -> String {
        match self {
            Self::Directory(dir) => path.strip_prefix(dir).unwrap_or(path).display().to_string(),
            Self::Tree(_) => path.display().to_string(),
        }
    }

    /// None where no file is.
    fn read(&self, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        let read = match self {
            Self::Directory(_) => read_text(path),
            Self::Tree(tree) => snapshot::read_small(tree.as_ref(), path, MAX_TEXT),
        };
        read.with_context(|| format!("read {}", path.display()))
    }
}

/// The name that errors show, the text, and the path where it lies, if it does.
fn dockerfile(source: &DockerfileSource, files: &Files) -> anyhow::Result<(String, Vec<u8>, Option<PathBuf>)> {
    let read =
        |path: PathBuf| Ok::<_, anyhow::Error>(files.read(&path)?.map(|text| (files.name(&path), text, Some(path))));
    let missing = |path: PathBuf| anyhow::anyhow!("there is no Dockerfile at {}", path.display());
    match source {
        DockerfileSource::Text { name, text } => Ok((name.clone(), text.clone().into_bytes(), None)),
        DockerfileSource::Remote(address) => bail!("{address} is not in the context"),
        DockerfileSource::Path(Some(path)) => {
            let path = files.at(path);
            read(path.clone())?.ok_or_else(|| missing(path))
        }
        DockerfileSource::Path(None) => {
            for name in DEFAULT_NAMES {
                if let Some(found) = read(files.at(Path::new(name)))? {
                    return Ok(found);
                }
            }
            Err(missing(files.at(Path::new(DEFAULT_NAMES[0]))))
        }
    }
}

/// The ignore file that belongs to the Dockerfile, else the context's: its name and text.
pub fn ignore_file(dockerfile: Option<&Path>, files: &Files) -> anyhow::Result<Option<(String, String)>> {
    let own = dockerfile.map(|path| {
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    for path in own.into_iter().chain([files.at(Path::new(".dockerignore"))]) {
        if let Some(text) = files.read(&path)? {
            let text = String::from_utf8(text).with_context(|| format!("{} is not text", path.display()))?;
            return Ok(Some((files.name(&path), text)));
        }
    }
    Ok(None)
}

/// None where no file is.
fn read_text(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => Err(io::Error::new(io::ErrorKind::IsADirectory, "it is a directory")),
        Ok(meta) if meta.len() > MAX_TEXT => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {MAX_TEXT} bytes")))
        }
        Ok(_) => quiet::read(path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ignore_file_of_the_dockerfile_beats_that_of_the_context() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path();
        let files = Files::Directory(context.to_owned());
        let dockerfile = context.join("build.dockerfile");
        assert_eq!(ignore_file(Some(&dockerfile), &files).unwrap(), None);
        fs::write(context.join(".dockerignore"), "a").unwrap();
        let found = ignore_file(Some(&dockerfile), &files).unwrap().unwrap();
        assert_eq!(found, (".dockerignore".to_owned(), "a".to_owned()));
        fs::write(context.join("build.dockerfile.dockerignore"), "b").unwrap();
        let found = ignore_file(Some(&dockerfile), &files).unwrap().unwrap();
        assert_eq!(found, ("build.dockerfile.dockerignore".to_owned(), "b".to_owned()));
    }

    #[test]
    fn the_dockerfile_is_found_and_named_as_people_call_it() {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path();
        let files = Files::Directory(context.to_owned());
        let missing = dockerfile(&DockerfileSource::Path(None), &files).unwrap_err().to_string();
        assert_eq!(missing, format!("there is no Dockerfile at {}/Dockerfile", context.display()));
        fs::write(context.join("dockerfile"), "FROM scratch").unwrap();
        let (name, text, path) = dockerfile(&DockerfileSource::Path(None), &files).unwrap();
        assert_eq!((name.as_str(), text.as_slice()), ("dockerfile", &b"FROM scratch"[..]));
        assert_eq!(path, Some(context.join("dockerfile")));
    }
}
