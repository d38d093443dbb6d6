//! check, in and out against docker-registry, git servers and a small endpoint in place of Amazon's.

#[path = "support/docker_registry.rs"]
#[allow(dead_code, reason = "shared with the registry's own tests, which need more of it")]
mod docker_registry;
#[path = "support/sample_image.rs"]
#[allow(dead_code, reason = "shared with the registry's own tests, which need more of it")]
mod sample_image;

#[path = "resource/accounts.rs"]
mod accounts;
#[path = "resource/check.rs"]
mod check;
#[path = "resource/get.rs"]
mod get;
#[path = "resource/git.rs"]
mod git;
#[path = "resource/pipelines.rs"]
mod pipelines;
#[path = "resource/put.rs"]
mod put;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dockless::base::progress::Step;
use dockless::base::{Cancel, Env, Epoch, Event, Platform, Progress, Reference};
use dockless::engine;
use dockless::image::Descriptor;
use dockless::registry::{Patience, Registry, Settings};
use dockless::resource::{self, Outcome, Version, World};
use dockless::store::MemoryBlobs;

/// One container of the resource: its own home, nothing of the machine's configuration.
pub struct Place {
    pub dir: tempfile::TempDir,
    vars: Vec<(String, String)>,
    pub log: Arc<Mutex<String>>,
}

impl Default for Place {
    fn default() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), vars: Vec::new(), log: Arc::default() }
    }
}

impl Place {
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.vars.push((name.to_owned(), value.into()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// What people see.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn run<T>(&self, work: impl FnOnce(&World<'_>) -> T) -> T {
        let home = self.path("home");
        std::fs::create_dir_all(&home).unwrap();
        let mut env = Env::of([("HOME", home.to_str().unwrap()), ("PATH", std::env::var("PATH").unwrap().as_str())]);
        for (name, value) in &self.vars {
            env = env.with(name, value);
        }
        let log = Arc::clone(&self.log);
        let progress = Progress::new(move |event| {
            let mut log = log.lock().unwrap();
            match event {
                Event::Log { data, .. } => log.push_str(&String::from_utf8_lossy(&data)),
                Event::Vertex(vertex) if vertex.cached => log.push_str(&format!("CACHED {}\n", vertex.name)),
                Event::Warning { message, .. } => log.push_str(&format!("warning: {message}\n")),
                _ => {}
            }
        });
        let patience = Patience { tries: 2, delay: Duration::from_millis(20), stall: Duration::from_secs(20) };
        let settings = engine::Settings {
            program: Some(env!("CARGO_BIN_EXE_dockless").into()),
            registry: Settings { patience: Some(patience), ..Settings::default() },
            ..engine::Settings::default()
        };
        let epoch = Epoch::new(SystemTime::now(), None).unwrap();
        work(&World { env: &env, settings: &settings, epoch, progress: &progress, cancel: &Cancel::new() })
    }

    pub fn check(&self, request: serde_json::Value) -> anyhow::Result<Vec<Version>> {
        self.run(|world| resource::check(&request.to_string(), world))
    }

    /// Into `out` of this place.
    pub fn get(&self, request: serde_json::Value) -> anyhow::Result<Outcome> {
        self.run(|world| resource::get(&request.to_string(), &self.path("out"), world))
    }

    /// With this place's own folder as the put's.
    pub fn put(&self, request: serde_json::Value) -> anyhow::Result<Outcome> {
        self.run(|world| resource::put(&request.to_string(), self.dir.path(), world))
    }
}

pub fn registry() -> Registry {
    Registry::new(&Env::of([]), Settings::default()).unwrap()
}

pub fn host() -> Platform {
    Platform::host()
}

/// Pushes a one-file image, whose digest follows its content.
pub fn push(to: &Reference, content: &str) -> Descriptor {
    let blobs = MemoryBlobs::new();
    let files: &[(&str, &[u8])] = &[
        ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
        ("content", content.as_bytes()),
        ("dev/thing", b"not for a task"),
    ];
    let root = sample_image::image(&blobs, files, &host());
    registry().push(&root, &blobs, to, &[], &Step::none(), &Cancel::new()).unwrap();
    root
}

pub fn version(descriptor: &Descriptor) -> Version {
    Version { tag: None, digest: descriptor.digest.to_string() }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}
