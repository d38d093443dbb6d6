//! A state folder of its own for each test, a busybox image in it, and a build in one call.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use dockless::base::{Cancel, Env, Epoch, Event, Platform, Progress};
use dockless::engine::{
    Context, Dest, DockerfilePlan, DockerfileSource, Engine, Export, LayerOptions, LocalEngine, Plan, Settings,
    SolveOutcome, SolveRequest, State,
};
use dockless::image::{self, ImageConfig};

/// One state folder and one build context.
pub struct World {
    pub dir: tempfile::TempDir,
    pub state: Arc<State>,
}

/// What a build said and gave.
pub struct Outcome {
    pub result: anyhow::Result<SolveOutcome>,
    pub events: Vec<Event>,
}

impl World {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("context")).unwrap();
        let state = open_state(&dir.path().join("state"));
        Self { dir, state }
    }

    /// With an image `busybox`; none, said by name, where it cannot be made or no step can run.
    pub fn with_busybox() -> Option<Self> {
        let world = Self::new();
        let Ok(program) = fs::read("/bin/busybox") else {
            eprintln!("skip: needs /bin/busybox (busybox-static)");
            return None;
        };
        if let Err(error) = world.state.choice() {
            eprintln!("skip: needs a place where steps can run ({error:#})");
            return None;
        }
        world.import("busybox", &program);
        Some(world)
    }

    fn import(&self, name: &str, program: &[u8]) {
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: &str, kind: tar::EntryType, mode: u32, data: &[u8], link: &str| {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(data.len() as u64);
            if !link.is_empty() {
                header.set_link_name(link).unwrap();
            }
            tar.append_data(&mut header, path, data).unwrap();
        };
        for dir in ["bin/", "etc/", "root/"] {
            add(dir, tar::EntryType::Directory, 0o755, b"", "");
        }
        add("tmp/", tar::EntryType::Directory, 0o1777, b"", "");
        add("bin/busybox", tar::EntryType::Regular, 0o755, program, "");
        for name in [
            "sh", "cat", "echo", "ls", "mkdir", "rm", "sleep", "true", "false", "touch", "stat", "id", "env", "test",
            "cp", "mv", "seq", "date", "hostname", "wc", "head", "grep", "mount", "chmod", "chown", "readlink", "kill",
        ] {
            add(&format!("bin/{name}"), tar::EntryType::Symlink, 0o777, b"", "busybox");
        }
        add(
            "etc/passwd",
            tar::EntryType::Regular,
            0o644,
            b"root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home:/bin/sh\n",
            "",
        );
        add("etc/group", tar::EntryType::Regular, 0o644, b"root:x:0:\nuser:x:1000:\nextra:x:50:user\n", "");
        let bytes = tar.into_inner().unwrap();
        let mut config = ImageConfig::new(Platform::host());
        config.config.env = vec!["PATH=/bin".to_owned()];
        config.config.cmd = Some(vec!["sh".to_owned()]);
        let images = self.state.images();
        let made =
            image::import(&mut bytes.as_slice(), config, "test", &epoch(), images.blobs().as_ref(), &Cancel::new())
                .unwrap();
        images.tag(&made.manifest_descriptor, &name.parse().unwrap()).unwrap();
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The same state folder as another process would open it.
    pub fn reopen(&self) -> Arc<State> {
        open_state(self.state.dir())
    }

    pub fn build(&self, dockerfile: &str) -> Outcome {
        self.build_with(dockerfile, |_, _| ())
    }

    pub fn build_with(&self, dockerfile: &str, set: impl FnOnce(&mut DockerfilePlan, &mut SolveRequest)) -> Outcome {
        self.build_in(self.reopen(), dockerfile, set)
    }

    /// With the state folder opened anew, for asking afterwards what was needed of it.
    pub fn build_in_new_state(&self, dockerfile: &str) -> (Arc<State>, Outcome) {
        let state = self.reopen();
        let outcome = self.build_in(state.clone(), dockerfile, |_, _| ());
        (state, outcome)
    }

    fn build_in(
        &self,
        state: Arc<State>,
        dockerfile: &str,
        set: impl FnOnce(&mut DockerfilePlan, &mut SolveRequest),
    ) -> Outcome {
        let mut plan = plan(&self.context(), dockerfile);
        let events: Arc<Mutex<Vec<Event>>> = Arc::default();
        let sink = events.clone();
        let mut request = request(Progress::new(move |event| sink.lock().unwrap().push(event)));
        set(&mut plan, &mut request);
        request.plan = Plan::Dockerfile(Box::new(plan));
        let result = LocalEngine::new(state).solve(&request);
        drop(request);
        let events = std::mem::take(&mut *events.lock().unwrap());
        Outcome { result, events }
    }

    /// Builds and gives the result's files: path to mode, owner and what is in it.
    pub fn files(&self, dockerfile: &str) -> BTreeMap<String, String> {
        self.files_with(dockerfile, |_| ())
    }

    pub fn files_with(&self, dockerfile: &str, set: impl FnOnce(&mut DockerfilePlan)) -> BTreeMap<String, String> {
        let dest = self.dir.path().join("files.tar");
        let outcome = self.build_with(dockerfile, |plan, request| {
            set(plan);
            request.exports = vec![Export::Tar { dest: Dest::File(dest.clone()) }];
        });
        outcome.ok();
        listing(&dest)
    }
}

impl Outcome {
    /// The outcome, or a panic that tells all of the failure.
    pub fn ok(self) -> (SolveOutcome, Vec<Event>) {
        match self.result {
            Ok(outcome) => (outcome, self.events),
            Err(error) => panic!("build failed: {error:#}\n{}", log(&self.events)),
        }
    }

    pub fn err(self) -> anyhow::Error {
        self.result.expect_err("the build must fail")
    }

    /// Names of vertices as `cached NAME` or `done NAME`, in the order in which they ended.
    pub fn ends(&self) -> Vec<String> {
        let mut ends = Vec::new();
        for event in &self.events {
            if let Event::Vertex(vertex) = event
                && vertex.completed.is_some()
            {
                ends.push(format!("{} {}", if vertex.cached { "cached" } else { "done" }, vertex.name));
            }
        }
        ends
    }
}

pub fn log(events: &[Event]) -> String {
    let mut text = String::new();
    for event in events {
        if let Event::Log { data, .. } = event {
            text.push_str(&String::from_utf8_lossy(data));
        }
    }
    text
}

pub fn open_state(dir: &Path) -> Arc<State> {
    let program = Some(PathBuf::from(env!("CARGO_BIN_EXE_dockless")));
    State::open(dir, &Env::of([]), Settings { program, ..Settings::default() }).unwrap()
}

pub fn epoch() -> Epoch {
    Epoch::new(SystemTime::now(), None).unwrap()
}

pub fn plan(context: &Path, dockerfile: &str) -> DockerfilePlan {
    let text = DockerfileSource::Text { name: "Dockerfile".to_owned(), text: dockerfile.to_owned() };
    DockerfilePlan::new(Context::Directory(context.to_owned()), text)
}

/// Exports the image `test`.
pub fn request(progress: Progress) -> SolveRequest {
    SolveRequest {
        allow: Vec::new(),
        plan: Plan::Llb { definition: Default::default(), given: Default::default() },
        caches: Default::default(),
        secrets: BTreeMap::new(),
        ssh: BTreeMap::new(),
        exports: vec![Export::Image {
            names: vec!["test".parse().unwrap()],
            push: false,
            options: LayerOptions::default(),
        }],
        epoch: epoch(),
        progress,
        cancel: Cancel::new(),
    }
}

/// Files of an archive: path to mode, owner and what is in it.
pub fn listing(tar: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let mut files = BTreeMap::new();
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = entry.path().unwrap().display().to_string().trim_end_matches('/').to_owned();
        let header = entry.header().clone();
        let owner =
            format!("{:o} {}:{}", header.mode().unwrap() & 0o7777, header.uid().unwrap(), header.gid().unwrap());
        let what = match header.entry_type() {
            tar::EntryType::Directory => "/".to_owned(),
            tar::EntryType::Symlink => format!("-> {}", entry.link_name().unwrap().unwrap().display()),
            tar::EntryType::Link => format!("= {}", entry.link_name().unwrap().unwrap().display()),
            _ => {
                let mut text = Vec::new();
                std::io::Read::read_to_end(&mut entry, &mut text).unwrap();
                String::from_utf8_lossy(&text).into_owned()
            }
        };
        files.insert(path, format!("{owner} {what}"));
    }
    files
}
