//! Runs a build that a verb or a face has worded: display, engine, and what is left behind of it (id file, metadata
//! file, journal).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::base::{Cancel, Epoch, Progress};
use crate::engine::{BuiltImage, Dest, Export, Plan, SharedCaches, SolveRequest};
use crate::exec::Network;
use crate::frontend::Warning;
use crate::task::journal::{BuildRecord, Record};
use crate::task::secrets;

use super::exit::Hinted;
use super::hidden;
use super::progress::{Display, Mode};
use super::session::{Out, Session};

/// A build, meant.
pub struct Build {
    pub plan: Plan,
    /// As typed; read when the build starts.
    pub secrets: Vec<String>,
    /// Values that were given as such, by id.
    pub secret_values: BTreeMap<String, crate::base::Secret>,
    pub ssh: Vec<String>,
    pub exports: Vec<Export>,
    pub caches: SharedCaches,
    /// `--allow`
    pub allow: Vec<String>,
    pub epoch: Epoch,
    pub mode: Mode,
    /// Print the image id and nothing else.
    pub quiet: bool,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    /// What the journal of a task keeps, to come back for other stages.
    pub record: Option<BuildRecord>,
}

impl Build {
    /// One of which nothing is asked but its exports.
    pub fn new(plan: Plan, exports: Vec<Export>, epoch: Epoch) -> Self {
        Self {
            plan,
            secrets: Vec::new(),
            secret_values: BTreeMap::new(),
            ssh: Vec::new(),
            exports,
            caches: SharedCaches::default(),
            allow: Vec::new(),
            epoch,
            mode: Mode::Auto,
            quiet: false,
            iidfile: None,
            metadata_file: None,
            record: None,
        }
    }

    /// How it is shown.
    fn mode(&self) -> Mode {
        if self.quiet { Mode::Quiet } else { self.mode }
    }
}

/// A build that is over, and what is still to be done for it.
pub struct Solved {
    pub warnings: Vec<Warning>,
    image: Option<BuiltImage>,
    engine: Option<String>,
    archives: Vec<PathBuf>,
    quiet: bool,
    iidfile: Option<PathBuf>,
    metadata_file: Option<PathBuf>,
    record: Option<BuildRecord>,
}

/// Builds, with a display of its own. The process must be in its namespace already.
pub fn run(session: &Session, build: Build) -> anyhow::Result<Option<BuiltImage>> {
    let mode = build.mode();
    let display = Display::start(mode, &session.env);
    let solved = solve(session, build, display.progress(), session.cancel()?);
    // The display must be over before anything else is said, an error above all.
    display.finish();
    let solved = solved?;
    if mode.shows_warnings() {
        session.lint(&solved.warnings);
    }
    solved.keep(session)
}

/// Says that a permission means nothing here. For before the display starts.
pub fn admit(allow: &[String], session: &Session) -> anyhow::Result<()> {
    if let (true, Some(name)) = (session.places()?.are_here(), allow.first()) {
        session.warn(format!("--allow {name} has no effect: what a step may do is decided by this place"));
    }
    Ok(())
}

/// Builds, and says nothing but to `progress`.
pub fn solve(session: &Session, build: Build, progress: Progress, cancel: Cancel) -> anyhow::Result<Solved> {
    if let Some(path) = &build.iidfile {
        // A stale id must not survive a failed build.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| path.display().to_string());
            }
            _ => {}
        }
    }
    let mut values = build.secret_values;
    for spec in &build.secrets {
        let spec = secrets::parse(spec, &session.env)?;
        if let Some(value) = spec.read(&session.env)? {
            values.insert(spec.id, value);
        }
    }
    let mut ssh = BTreeMap::new();
    for spec in &build.ssh {
        let (id, keys) = secrets::parse_ssh(spec, &session.env)?;
        if ssh.get(&id).is_some_and(|other| *other != keys) {
            bail!("--ssh {id} is given twice, and not with the same keys");
        }
        ssh.insert(id, keys);
    }
    if build.exports.iter().any(Export::is_to_stdout) {
        session.refuse_terminal()?;
    }
    let mut allow = build.allow;
    if matches!(&build.plan, Plan::Dockerfile(plan) if plan.network == Some(Network::Host)) {
        // Whoever types --network=host means it.
        allow.push("network.host".to_owned());
    }
    let engine = session.engine()?;
    let hiding = hidden::Place::of(&build.plan);
    let request = SolveRequest {
        plan: build.plan,
        secrets: values,
        ssh,
        exports: build.exports,
        caches: build.caches,
        allow,
        epoch: build.epoch,
        progress,
        cancel,
    };
    let outcome = engine.solve(&request).map_err(|error| match hiding.and_then(|place| place.explain(&error)) {
        Some(hint) => Hinted { hint, source: error }.into(),
        None => error,
    })?;
    Ok(Solved {
        warnings: outcome.warnings,
        image: outcome.image,
        engine: outcome.engine,
        archives: request.exports.iter().filter_map(archive).collect(),
        quiet: build.quiet,
        iidfile: build.iidfile,
        metadata_file: build.metadata_file,
        record: build.record,
    })
}

impl Solved {
    /// Which engine built it, where several might have.
    pub fn engine(&self) -> Option<&str> {
        self.engine.as_deref()
    }

    /// Leaves what was asked for of the image behind, and tells a task's journal of it.
    pub fn keep(self, session: &Session) -> anyhow::Result<Option<BuiltImage>> {
        let Some(image) = self.image else { return Ok(None) };
        if let Some(path) = &self.iidfile {
            std::fs::write(path, image.config.to_string()).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.metadata_file {
            std::fs::write(path, format!("{:#}\n", metadata(&image, self.engine.as_deref())))
                .with_context(|| path.display().to_string())?;
        }
        if let Some(journal) = session.journal() {
            let engine = self.engine;
            journal.append(&Record::Built {
                image: image.config,
                names: image.names.clone(),
                archives: self.archives,
                request: self.record.map(|record| Box::new(BuildRecord { engine, ..record })),
            })?;
        }
        if self.quiet {
            let mut out = Out::new();
            out.line(image.config.to_string())?;
            out.finish()?;
        }
        Ok(Some(image))
    }
}

/// The file or folder in which an export leaves an image.
fn archive(export: &Export) -> Option<PathBuf> {
    match export {
        Export::Docker { dest: Dest::File(path), .. } | Export::Oci { dest: Dest::File(path), .. } => {
            Some(path.clone())
        }
        _ => None,
    }
}

/// buildx's `--metadata-file`, with the engine where several might have built.
pub fn metadata(image: &BuiltImage, engine: Option<&str>) -> Value {
    let mut value = json!({});
    if let Some(engine) = engine {
        value["dockless.engine"] = json!(engine);
    }
    // An index has no config of its own.
    if image.manifest.as_ref().is_none_or(|manifest| manifest.digest != image.config) {
        value["containerimage.config.digest"] = json!(image.config);
    }
    if let Some(manifest) = &image.manifest {
        value["containerimage.digest"] = json!(manifest.digest);
        value["containerimage.descriptor"] = json!(manifest);
    }
    if !image.names.is_empty() {
        let names: Vec<_> = image.names.iter().map(ToString::to_string).collect();
        value["image.name"] = json!(names.join(","));
    }
    value
}
