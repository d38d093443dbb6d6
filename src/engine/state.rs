//! The state folder: where images, snapshots, cache records and containers of one user live. Opening it costs
//! nothing; each part is opened when it is first asked for.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;

use super::cache::{DiskCache, entries};
use crate::base::Env;
use crate::exec::{self, Choice, Executor, Isolation};
use crate::image::ImageStore;
use crate::ops::Machine;
use crate::registry::Registry;
use crate::snapshot::{Driver, Snapshots};
use crate::store::{BlobStore, FileLock};
use crate::sys::{Ownership, process};

/// What the user chose for the whole process.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    pub isolation: Isolation,
    pub registry: crate::registry::Settings,
    /// What sandbox stages are started from; none: this very program. For tests, whose `main` is not ours.
    pub program: Option<PathBuf>,
}

/// One state folder, shared with other processes.
pub struct State {
    dir: PathBuf,
    env: Env,
    settings: Settings,
    images: ImageStore,
    cache: Arc<DiskCache>,
    choice: Lazy<Choice>,
    executor: Lazy<Arc<dyn Executor>>,
    snapshots: Lazy<Snapshots>,
    registry: Lazy<Registry>,
    tmp: Lazy<Tmp>,
}

impl State {
    /// Where the state is kept unless a flag says otherwise: `$DOCKLESS_STATE`, `$XDG_DATA_HOME/dockless`,
    /// `$HOME/.local/share/dockless`, `/var/tmp/dockless-UID`.
    pub fn default_dir(env: &Env) -> PathBuf {
        if let Some(dir) = env.nonempty("DOCKLESS_STATE") {
            return env.absolute(dir);
        }
        if let Some(data) = env.nonempty("XDG_DATA_HOME") {
            return env.absolute(data).join("dockless");
        }
        match env.home() {
            // A home of `/` is what a user without a home is given; nothing can be written there.
            Some(home) if home != Path::new("/") => env.absolute(home).join(".local/share/dockless"),
            _ => PathBuf::from(format!("/var/tmp/dockless-{}", env.uid())),
        }
    }

    /// Makes the folder where it is missing; reads nothing in it.
    pub fn open(dir: &Path, env: &Env, settings: Settings) -> anyhow::Result<Arc<Self>> {
        let dir = env.absolute(dir);
        if !dir.is_dir() {
            // Layers hold files of all kinds of owners and modes: they are nobody else's to look at.
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
            made.with_context(|| format!("make the state folder {}", dir.display()))?;
        }
        let cache = Arc::new(DiskCache::new(dir.join("cache/keys"), dir.join("locks")));
        Ok(Arc::new(Self {
            images: ImageStore::open(&dir.join("images")),
            cache,
            env: env.clone(),
            settings,
            dir,
            choice: Lazy::default(),
            executor: Lazy::default(),
            snapshots: Lazy::default(),
            registry: Lazy::default(),
            tmp: Lazy::default(),
        }))
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    /// The named images.
    pub fn images(&self) -> &ImageStore {
        &self.images
    }

    /// The blobs of the named images, and of layers that were made for them.
    pub fn blobs(&self) -> anyhow::Result<Arc<dyn BlobStore>> {
        Ok(self.images.blobs())
    }

    /// What steps get here. Probes the place when first asked.
    pub fn choice(&self) -> anyhow::Result<&Choice> {
        self.choice.get(|| {
            let program = self.settings.program.as_deref().unwrap_or(Path::new(exec::THIS_PROGRAM));
            Ok(exec::probe(&self.dir, program)?.choose(self.settings.isolation)?)
        })
    }

    /// Whether anybody has asked what the place allows, which starts a process.
    pub fn probed(&self) -> bool {
        self.choice.ready().is_some()
    }

    /// How steps were run, in a line for the log; none where none was.
    pub fn isolation_used(&self) -> Option<String> {
        let choice = self.choice.ready()?;
        Some(format!("isolation {}: {}", choice.isolation, choice.reason))
    }

    /// Probes the place when first asked.
    pub fn executor(&self) -> anyhow::Result<&Arc<dyn Executor>> {
        self.executor.get(|| Ok(exec::executor(self.choice()?).into()))
    }

    /// Every snapshot, to look at and to write: asks nothing of the place, so that a build of which everything is known,
    /// or that only copies, starts no process.
    pub fn snapshots(&self) -> anyhow::Result<&Snapshots> {
        self.snapshots
            .get(|| Ok(Snapshots::open_undecided(&self.dir.join("snapshots"), self.images.blobs(), self.ownership())?))
    }

    /// Where owners are kept, as far as that is known before anything is tried; none: on disk if that takes them.
    fn ownership(&self) -> Option<Ownership> {
        match self.settings.isolation {
            Isolation::Ns | Isolation::Chroot => Some(Ownership::Real),
            Isolation::Ns1 | Isolation::Rewrite => Some(Ownership::Stored),
            // Who may chown may mostly become another user as well, and then owners are real. Who may not need not be
            // able to box a step with real owners: there only the place can tell.
            Isolation::Auto if process::may_only_chown() => self.choice().ok().map(|choice| choice.ownership),
            Isolation::Auto => None,
        }
    }

    /// The same, for running processes in: how depends on what the place allows, which is probed when first asked.
    pub fn mountable(&self) -> anyhow::Result<&Snapshots> {
        let (snapshots, choice) = (self.snapshots()?, self.choice()?);
        anyhow::ensure!(
            snapshots.ownership() == choice.ownership,
            "files can be given to other users here, but steps cannot run as them; choose --isolation=rewrite",
        );
        snapshots.decide(if choice.overlay { Driver::Overlay } else { Driver::Native });
        Ok(snapshots)
    }

    pub fn registry(&self) -> anyhow::Result<&Registry> {
        self.registry.get(|| Ok(Registry::new(&self.env, self.settings.registry.clone())?))
    }

    /// A directory for this process's own short-lived files, swept by others when this process is gone.
    pub fn tmp(&self) -> anyhow::Result<PathBuf> {
        Ok(self.tmp.get(|| Tmp::make(&self.dir.join("tmp")))?.dir.clone())
    }

    pub(super) fn cache(&self) -> &Arc<DiskCache> {
        &self.cache
    }

    pub(super) fn containers_dir(&self) -> PathBuf {
        self.dir.join("containers")
    }

    pub(super) fn volumes_dir(&self) -> PathBuf {
        self.dir.join("volumes")
    }

    /// RUN cache mounts: files of steps, which mean to this process what the snapshots do.
    pub(super) fn cache_mounts_dir(&self) -> anyhow::Result<PathBuf> {
        let snapshots = self.snapshots()?.dir().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let meaning = snapshots.strip_prefix("snapshots").unwrap_or_default();
        Ok(self.dir.join(format!("cache/mounts{meaning}")))
    }

    pub(super) fn source_cache_dir(&self) -> PathBuf {
        self.dir.join("cache/sources")
    }
}

impl Machine for State {
    fn snapshots(&self) -> anyhow::Result<&Snapshots> {
        self.snapshots()
    }

    fn mountable(&self) -> anyhow::Result<&Snapshots> {
        self.mountable()
    }

    fn executor(&self) -> anyhow::Result<&Arc<dyn Executor>> {
        self.executor()
    }

    fn images(&self) -> &ImageStore {
        self.images()
    }

    fn registry(&self) -> anyhow::Result<&Registry> {
        self.registry()
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn cache_mounts(&self) -> anyhow::Result<PathBuf> {
        self.cache_mounts_dir()
    }

    fn source_cache(&self, kind: &str) -> PathBuf {
        self.source_cache_dir().join(kind)
    }

    fn tmp(&self) -> anyhow::Result<tempfile::TempDir> {
        let dir = self.tmp()?;
        tempfile::tempdir_in(&dir).with_context(|| format!("make a directory in {}", dir.display()))
    }
}

/// A part that is opened once, by whoever asks first; a failure is told to everybody who asks.
struct Lazy<T> {
    value: OnceLock<T>,
    opening: Mutex<()>,
}

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Self { value: OnceLock::new(), opening: Mutex::new(()) }
    }
}

impl<T> Lazy<T> {
    fn ready(&self) -> Option<&T> {
        self.value.get()
    }

    fn get(&self, open: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<&T> {
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(value) = self.value.get() {
            return Ok(value);
        }
        let value = open()?;
        Ok(self.value.get_or_init(|| value))
    }
}

/// This process's folder under `tmp/`. The lock beside it says that somebody lives there.
struct Tmp {
    dir: PathBuf,
    lock: Option<FileLock>,
}

impl Tmp {
    fn make(home: &Path) -> anyhow::Result<Self> {
        sweep(home)?;
        fs::create_dir_all(home).with_context(|| format!("make {}", home.display()))?;
        for number in 0.. {
            let name = format!("{}-{number}", std::process::id());
            // The lock first: a sweeper never sees the directory without it.
            let Some(lock) = FileLock::try_exclusive(&home.join(format!("{name}.lock")))? else { continue };
            let dir = home.join(name);
            remove_dir(&dir)?;
            fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
            return Ok(Self { dir, lock: Some(lock) });
        }
        unreachable!("there are more numbers than processes")
    }
}

impl Drop for Tmp {
    fn drop(&mut self) {
        let removed = remove_dir(&self.dir);
        // The lock's file goes last: while it is there, a sweeper finds what is left.
        if let (Ok(()), Some(lock)) = (&removed, self.lock.take())
            && let Err(error) = lock.remove()
        {
            tracing::debug!(%error, "a lock file stays until the next sweep");
        }
        if let Err(error) = removed {
            tracing::debug!(%error, "temporary files stay until the next sweep");
        }
    }
}

/// Removes folders of processes that are gone.
pub(super) fn sweep(home: &Path) -> anyhow::Result<()> {
    for path in entries(home)?.into_iter().filter(|path| path.extension().is_some_and(|end| end == "lock")) {
        if let Some(lock) = FileLock::try_exclusive(&path)? {
            remove_dir(&path.with_extension(""))?;
            lock.remove()?;
        }
    }
    Ok(())
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_folder_follows_the_environment() {
        let cases: [(&[(&str, &str)], &str, &str); 5] = [
            (&[("DOCKLESS_STATE", "/s"), ("HOME", "/h")], "/s", "the own variable wins"),
            (&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")], "/x/dockless", "then the desktop's"),
            (&[("HOME", "/h")], "/h/.local/share/dockless", "then home"),
            (&[("HOME", "/")], "/var/tmp/dockless-0", "a home of / is no home"),
            (&[], "/var/tmp/dockless-0", "no home"),
        ];
        for (vars, expected, case) in cases {
            assert_eq!(State::default_dir(&Env::of(vars.iter().copied())), Path::new(expected), "{case}");
        }
    }

    #[test]
    fn temporary_files_go_with_the_process_and_leftovers_with_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("tmp");
        let first = Tmp::make(&home).unwrap();
        fs::write(first.dir.join("file"), "").unwrap();
        // As a process that was killed leaves it: a folder and a lock that nobody holds.
        fs::create_dir(home.join("4711-0")).unwrap();
        fs::write(home.join("4711-0.lock"), "").unwrap();
        let second = Tmp::make(&home).unwrap();
        assert!(first.dir.join("file").exists());
        assert!(!home.join("4711-0").exists());
        drop((first, second));
        assert_eq!(entries(&home).unwrap(), Vec::<PathBuf>::new());
    }

    #[test]
    fn opening_makes_the_folder_and_nothing_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(&dir.path().join("a/b"), &Env::default(), Settings::default()).unwrap();
        assert_eq!(entries(state.dir()).unwrap(), Vec::<PathBuf>::new());
    }
}
