//! Runs a build that a verb or a face has worded: display, engine, and what is left behind of it (id file, metadata
//! file, journal).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use serde_json::json;

use crate::base::Epoch;
use crate::engine::{BuiltImage, Dest, Engine, Export, Plan, SolveRequest};
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
    pub epoch: Epoch,
    pub mode: Mode,
    /// Print the image id and nothing else.
    pub quiet: bool,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    /// What the journal of a task keeps, to come back for other stages.
    pub record: Option<BuildRecord>,
}

/// Builds. The process must be in its namespace already.
pub fn run(session: &Session, build: Build) -> anyhow::Result<Option<BuiltImage>> {
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
    let ssh = build.ssh.iter().map(|spec| secrets::parse_ssh(spec, &session.env)).collect::<Result<_, _>>()?;
    if build.exports.iter().any(to_stdout) {
        session.refuse_terminal()?;
    }
    let engine = session.engine()?;
    let cancel = session.cancel()?;
    let mode = if build.quiet { Mode::Quiet } else { build.mode };
    let display = Display::start(mode, &session.env);
    let place = hidden::Place::of(&build.plan);
    let request = SolveRequest {
        plan: build.plan,
        secrets: values,
        ssh,
        exports: build.exports,
        epoch: build.epoch,
        progress: display.progress(),
        cancel,
    };
    let outcome = engine.solve(&request);
    // The display must be over before anything else is said, an error above all.
    display.finish();
    let outcome = outcome.map_err(|error| match place.and_then(|place| place.explain(&error)) {
        Some(hint) => Hinted { hint, source: error }.into(),
        None => error,
    })?;
    if mode.shows_warnings() {
        session.lint(&outcome.warnings);
    }
    let Some(image) = outcome.image else { return Ok(None) };
    if let Some(path) = &build.iidfile {
        std::fs::write(path, image.config.to_string()).with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &build.metadata_file {
        std::fs::write(path, metadata(&image)).with_context(|| path.display().to_string())?;
    }
    if let Some(journal) = session.journal() {
        journal.append(&Record::Built {
            image: image.config,
            names: image.names.clone(),
            archives: request.exports.iter().filter_map(archive).collect(),
            request: build.record.map(Box::new),
        })?;
    }
    if build.quiet {
        let mut out = Out::new();
        out.line(image.config.to_string())?;
        out.finish()?;
    }
    Ok(Some(image))
}

fn to_stdout(export: &Export) -> bool {
    matches!(
        export,
        Export::Docker { dest: Dest::Stdout, .. }
            | Export::Oci { dest: Dest::Stdout, .. }
            | Export::Tar { dest: Dest::Stdout }
    )
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

/// buildx's `--metadata-file`.
fn metadata(image: &BuiltImage) -> String {
    let mut value = json!({});
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
    format!("{value:#}\n")
}
