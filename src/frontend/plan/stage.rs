//! One stage on its way: what its instructions have made of its file system, its variables and its image so far.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::rc::Rc;

use super::outline::Notes;
use crate::base::{Platform, clean};
use crate::frontend::input::NamedContext;
use crate::frontend::instruction::{Argument, Stage, Step};
use crate::frontend::lint::Linter;
use crate::frontend::variables::Variables;
use crate::image::config::{History, ImageConfig};
use crate::llb::Output;

/// What BuildKit's frontend calls itself in histories.
const COMMENT: &str = "buildkit.dockerfile.v0";

pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub struct StageState {
    pub stage: Stage,
    /// How steps are called in progress; empty for a lone stage.
    pub label: String,
    /// The stage that it is built on.
    pub base: Option<usize>,
    /// Stages whose files it takes, and where.
    pub needs: BTreeMap<usize, RangeInclusive<usize>>,
    pub steps: Vec<Planned>,
    pub platform: Option<Platform>,
    /// Replaces the whole stage.
    pub replaced_by: Option<(String, NamedContext)>,
    /// Not in the file: an image or a context that a COPY or a mount names.
    pub implied: bool,
    pub resolved: bool,
    pub done: bool,
    pub triggers_read: bool,
    pub no_cache: bool,
    /// Steps that show up in progress.
    pub total: usize,
    pub index: usize,
    pub in_trigger: bool,

    /// The file system; none is `scratch`.
    pub root: Option<Output>,
    /// What the stage, or the stage it stands on, began with.
    pub ground: Option<Output>,
    pub env: Variables,
    pub dir: String,
    pub user: String,
    /// Its history is what the base image had; [`StageState::log`] goes on from there.
    pub image: ImageConfig,
    pub log: Log,
    pub base_image: Option<ImageConfig>,
    pub build_args: Vec<Argument>,
    /// What of its own may be given from outside.
    pub notes: Notes,
    pub workdir_set: bool,
    pub entrypoint: Option<RangeInclusive<usize>>,
    pub cmd: Option<RangeInclusive<usize>>,
    pub healthcheck: Option<RangeInclusive<usize>>,
    /// With what comments at the current instruction add.
    pub linter: Linter,
}

/// Lines of a history. Stages on top of each other share what they have in common: a chain of a thousand stages
/// would otherwise hold half a million lines.
#[derive(Clone, Default)]
pub struct Log(Option<Rc<Entry>>);

struct Entry {
    line: History,
    before: Log,
}

impl Log {
    fn push(&mut self, line: History) {
        let before = std::mem::take(self);
        self.0 = Some(Rc::new(Entry { line, before }));
    }

    /// All lines, the oldest first.
    pub fn to_lines(&self) -> Vec<History> {
        let mut lines = Vec::new();
        let mut at = &self.0;
        while let Some(entry) = at {
            lines.push(entry.line.clone());
            at = &entry.before.0;
        }
        lines.reverse();
        lines
    }
}

impl Drop for Log {
    /// One by one: a long list dropped from inside itself would fill the stack.
    fn drop(&mut self) {
        let mut next = self.0.take();
        while let Some(mut entry) = next.and_then(Rc::into_inner) {
            next = entry.before.0.take();
        }
    }
}

/// An instruction, and the stages whose files it takes.
#[derive(Clone)]
pub struct Planned {
    pub step: Rc<Step>,
    /// In the order of the mounts; one for a COPY.
    pub sources: Vec<Option<usize>>,
    pub in_trigger: bool,
}

impl StageState {
    pub fn new(stage: Stage, label: String, platform: Platform) -> Self {
        Self {
            stage,
            label,
            base: None,
            needs: BTreeMap::new(),
            steps: Vec::new(),
            platform: None,
            replaced_by: None,
            implied: false,
            resolved: false,
            done: false,
            triggers_read: false,
            no_cache: false,
            total: 0,
            index: 0,
            in_trigger: false,
            root: None,
            ground: None,
            env: Variables::new(),
            dir: "/".to_owned(),
            user: String::new(),
            image: ImageConfig::new(platform),
            log: Log::default(),
            base_image: None,
            build_args: Vec::new(),
            notes: Notes::default(),
            workdir_set: false,
            entrypoint: None,
            cmd: None,
            healthcheck: None,
            linter: Linter::silent(),
        }
    }

    /// A stage that stands for an image or a context that was named without FROM.
    pub fn implied(name: &str, lines: RangeInclusive<usize>, platform: Platform) -> Self {
        let stage = Stage {
            name: String::new(),
            base: name.to_owned(),
            platform: String::new(),
            keyword: String::new(),
            code: String::new(),
            lines,
            comments: Vec::new(),
            description: String::new(),
            steps: Vec::new(),
        };
        Self { implied: true, ..Self::new(stage, String::new(), platform) }
    }

    /// What is left in its place while a stage is worked on.
    pub fn placeholder(platform: Platform) -> Self {
        Self::implied("", 0..=0, platform)
    }

    /// Takes over what the base stage has become.
    pub fn inherit(&mut self, base: &Self) {
        self.root = base.root;
        self.ground = base.ground;
        self.env = base.env.clone();
        self.dir.clone_from(&base.dir);
        self.user.clone_from(&base.user);
        self.platform.clone_from(&base.platform);
        self.image = base.image.clone();
        self.log = base.log.clone();
        // Triggers fire once, in the first stage on top.
        self.image.config.on_build.clear();
        self.base_image.clone_from(&base.base_image);
        self.workdir_set = base.workdir_set;
        self.build_args.clone_from(&base.build_args);
    }

    pub fn platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.image.platform)
    }

    /// Adds a line to the image's history.
    pub fn commit(&mut self, created_by: String, layer: bool, created: Option<String>) {
        self.log.push(History {
            created,
            created_by: Some(created_by),
            author: None,
            comment: Some(COMMENT.to_owned()),
            empty_layer: !layer,
            extra: serde_json::Map::new(),
        });
    }

    /// A path as an instruction gives it, from the working directory on. A slash at the end stays, and so does `/.`.
    pub fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') {
            return path.to_owned();
        }
        let path = if path.is_empty() || path == "." { "./" } else { path };
        let mut joined = clean::join(&["/", &self.dir, path]);
        if path.ends_with('/') && !joined.ends_with('/') {
            joined.push('/');
        } else if path.ends_with("/.") {
            if joined != "/" {
                joined.push('/');
            }
            joined.push('.');
        }
        joined
    }

    /// Sets a variable of the image, in the place where it stands.
    pub fn set_image_env(&mut self, name: &str, value: &str) {
        let line = format!("{name}={value}");
        let of_name =
            |l: &&mut String| l.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
        match self.image.config.env.iter_mut().find(of_name) {
            Some(old) => *old = line,
            None => self.image.config.env.push(line),
        }
    }

    /// The name that progress shows, counting one step.
    pub fn step_name(&mut self, command: &str, prefix_platform: Option<&Platform>) -> String {
        if self.total == 0 {
            return command.to_owned();
        }
        self.index += 1;
        let mut name = String::from("[");
        if let Some(platform) = prefix_platform {
            name.push_str(&format!("{platform}{} ", self.cross(platform)));
        }
        if !self.label.is_empty() {
            name.push_str(&self.label);
            name.push(' ');
        }
        let width = self.total.to_string().len();
        name.push_str(&format!("{:width$}/{}] ", self.index, self.total));
        if self.in_trigger {
            name.push_str("ONBUILD ");
        }
        name.push_str(command);
        name
    }

    /// `->arm64` in a stage that runs on one platform and builds for another.
    fn cross(&self, platform: &Platform) -> String {
        let target = match self.env.get("TARGETPLATFORM").and_then(|p| p.parse::<Platform>().ok()) {
            Some(target) => target,
            None => {
                let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| self.env.get(name));
                if parts.iter().all(Option::is_none) {
                    return String::new();
                }
                let or =
                    |part: Option<&str>, default: &str| part.filter(|p| !p.is_empty()).unwrap_or(default).to_owned();
                Platform::new(&or(parts[0], &platform.os), &or(parts[1], &platform.arch), parts[2].unwrap_or_default())
            }
        };
        if target.os != platform.os {
            return format!("->{target}");
        }
        if target.arch == platform.arch {
            return String::new();
        }
        if target.variant.is_empty() {
            return format!("->{}", target.arch);
        }
        format!("->{}/{}", target.arch, target.variant)
    }
}

/// The image of a stage on `scratch`.
pub fn empty_image(platform: &Platform) -> ImageConfig {
    let mut image = ImageConfig::new(platform.clone());
    image.config.working_dir = "/".to_owned();
    image.config.env = vec![format!("PATH={DEFAULT_PATH}")];
    image
}

/// Arguments that steer a scanner and never become variables.
pub fn is_scan_argument(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

/// The first word in capitals, as progress shows a command.
pub fn shouted(command: &str) -> String {
    match command.split_once(' ') {
        Some((first, rest)) => format!("{} {rest}", first.to_uppercase()),
        None => command.to_uppercase(),
    }
}

/// Paths of a context that are used: a set that is everything once it holds the root.
#[derive(Debug, Clone, Default)]
pub struct UsedPaths(BTreeSet<String>);

impl UsedPaths {
    pub fn add(&mut self, path: &str) {
        self.0.insert(clean::join(&["/", path]));
    }

    /// Relative paths, sorted; none when everything may be used.
    pub fn to_list(&self) -> Vec<String> {
        if self.0.contains("/") {
            return Vec::new();
        }
        let mut list: Vec<String> = self.0.iter().map(|p| p.trim_start_matches('/').to_owned()).collect();
        list.sort();
        list
    }
}
