//! Artifacts out of a stage that is in no image: the build that the journal recorded is asked again, from the cache,
//! for a stage of our own that copies them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::base::{Cancel, Env, Epoch, Progress};
use crate::engine::{Context, DockerfilePlan, DockerfileSource, Engine, Export, NoCache, Plan, SolveRequest};
use crate::exec::Network;

use super::config::ArtifactEntry;
use super::journal::BuildRecord;
use super::secrets;

/// The stage that copies; no Dockerfile of a person has one of this name.
const STAGE: &str = "dockless-artifacts";

/// Where picking happens.
pub struct Place<'a> {
    /// What the artifacts are copied into.
    pub folder: &'a Path,
    /// A directory of this process.
    pub tmp: &'a Path,
    pub env: &'a Env,
}

/// Copies artifacts of stages into a folder.
pub fn pick(
    engine: &dyn Engine,
    record: &BuildRecord,
    artifacts: &[ArtifactEntry],
    place: &Place<'_>,
    epoch: Epoch,
    progress: &Progress,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let env = place.env;
    let work = tempfile::tempdir_in(place.tmp)?;
    let path = record.dockerfile.clone().unwrap_or_else(|| record.context.join("Dockerfile"));
    let text = match &record.text {
        Some(text) => text.clone(),
        None => fs::read_to_string(&path).with_context(|| path.display().to_string())?,
    };
    let dockerfile = work.path().join("Dockerfile");
    fs::write(&dockerfile, with_copies(&text, artifacts)?)?;
    // The ignore file that applied to the original must apply to its copy, or the context would be another one.
    let own_ignore = PathBuf::from(format!("{}.dockerignore", path.display()));
    if record.text.is_none() && own_ignore.exists() {
        fs::copy(&own_ignore, work.path().join("Dockerfile.dockerignore"))?;
    }
    let out = work.path().join("out");
    let mut values = BTreeMap::new();
    for spec in &record.secrets {
        let spec = secrets::parse(spec, env)?;
        if let Some(value) = spec.read(env)? {
            values.insert(spec.id, value);
        }
    }
    let request = SolveRequest {
        plan: Plan::Dockerfile(Box::new(DockerfilePlan {
            context: Context::Directory(record.context.clone()),
            dockerfile: DockerfileSource::Path(Some(dockerfile)),
            target: Some(STAGE.to_owned()),
            build_args: record.build_args.clone(),
            labels: record.labels.clone(),
            platforms: record.platform.iter().map(|p| p.parse()).collect::<Result<_, _>>()?,
            named_contexts: record.named_contexts.clone(),
            no_cache: NoCache::Use,
            pull: false,
            network: if record.network_none { Network::None } else { Network::Host },
            extra_hosts: record.extra_hosts.clone(),
            ulimits: record.ulimits.clone(),
            shm_size: record.shm_size,
        })),
        secrets: values,
        ssh: record.ssh.iter().map(|spec| secrets::parse_ssh(spec, env)).collect::<Result<_, _>>()?,
        exports: vec![Export::Local { dest: out.clone() }],
        epoch,
        progress: progress.clone(),
        cancel: cancel.clone(),
    };
    engine.solve(&request).with_context(|| {
        let stages: Vec<_> = artifacts.iter().filter_map(|a| a.stage.as_deref()).collect();
        format!("artifacts of stage {}", stages.join(", "))
    })?;
    merge(&out, place.folder)
}

/// The Dockerfile with one more stage. `COPY` knows paths and globs as `from` does, in its JSON form any character.
fn with_copies(text: &str, artifacts: &[ArtifactEntry]) -> anyhow::Result<String> {
    let mut text = text.to_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(&format!("FROM scratch AS {STAGE}\n"));
    for artifact in artifacts {
        let stage = artifact.stage.as_deref().unwrap_or_default();
        // It becomes a flag of COPY: what could end the word would be another instruction.
        if !stage.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
            anyhow::bail!("{stage:?} is no name of a stage");
        }
        let to = serde_json::to_string(&destination(artifact))?;
        let from = serde_json::to_string(&artifact.from)?;
        text.push_str(&format!("COPY --from={stage} [{from}, {to}]\n"));
    }
    Ok(text)
}

/// Where `COPY` must put it: under its own name unless something else is said; a glob's files into a folder.
fn destination(artifact: &ArtifactEntry) -> String {
    let is_glob = artifact.from.contains(['*', '?', '[']);
    match &artifact.to {
        Some(to) => {
            let to = to.to_string_lossy();
            let to = to.trim_start_matches("./");
            let folder = is_glob && !to.ends_with('/') || to == ".";
            format!("/{}{}", if to == "." { "" } else { to }, if folder && to != "." { "/" } else { "" })
        }
        None if is_glob => "/".to_owned(),
        None => {
            let name = artifact.from.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
            format!("/{name}")
        }
    }
}

/// Moves what was exported into the image's folder, over what is there.
fn merge(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && target.is_dir() {
            merge(&entry.path(), &target)?;
            continue;
        }
        move_entry(&entry.path(), &target).with_context(|| target.display().to_string())?;
    }
    Ok(())
}

/// Renames, or copies where the output is on another file system.
fn move_entry(from: &Path, to: &Path) -> anyhow::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == std::io::ErrorKind::CrossesDevices => {}
        other => return Ok(other?),
    }
    let meta = fs::symlink_metadata(from)?;
    if meta.is_symlink() {
        std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
    } else if meta.is_dir() {
        fs::create_dir(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            move_entry(&entry.path(), &to.join(entry.file_name()))?;
        }
        fs::set_permissions(to, meta.permissions())?;
    } else {
        fs::copy(from, to)?;
        let times = fs::FileTimes::new().set_modified(meta.modified()?);
        fs::File::options().write(true).open(to).and_then(|file| file.set_times(times)).or_else(|error| {
            // A read-only file's time stays what the copy made it.
            if error.kind() == std::io::ErrorKind::PermissionDenied { Ok(()) } else { Err(error) }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(from: &str, to: Option<&str>) -> ArtifactEntry {
        ArtifactEntry { from: from.to_owned(), to: to.map(PathBuf::from), stage: Some("build".to_owned()) }
    }

    #[test]
    fn a_stage_that_copies_is_added() {
        let text = with_copies(
            "FROM x AS build",
            &[
                artifact("/out/a b", None),
                artifact("/out/*.o", Some("objects/")),
                artifact("/out/*.o", Some("objects")),
                artifact("/out/*", None),
                artifact("/out/dir/", Some(".")),
                artifact("/out/x", Some("bin/y")),
            ],
        )
        .unwrap();
        assert_eq!(
            text,
            "FROM x AS build\nFROM scratch AS dockless-artifacts\n\
             COPY --from=build [\"/out/a b\", \"/a b\"]\n\
             COPY --from=build [\"/out/*.o\", \"/objects/\"]\n\
             COPY --from=build [\"/out/*.o\", \"/objects/\"]\n\
             COPY --from=build [\"/out/*\", \"/\"]\n\
             COPY --from=build [\"/out/dir/\", \"/\"]\n\
             COPY --from=build [\"/out/x\", \"/bin/y\"]\n"
        );
        let mut hostile = artifact("/x", None);
        hostile.stage = Some("a b\nRUN rm".to_owned());
        assert!(with_copies("", &[hostile]).is_err());
    }
}
