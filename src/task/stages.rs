//! Artifacts out of a stage that is in no image: the build that the journal recorded is asked again, from the cache,
//! for a stage of our own that copies them. It is a build like any other, in a process of its own: there it may enter
//! a namespace, which a process with threads, as a task's is by now, may not.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::base::Cancel;

use super::config::ArtifactEntry;
use super::journal::BuildRecord;

/// The stage that copies; no Dockerfile of a person has one of this name.
const STAGE: &str = "dockless-artifacts";

/// Where picking happens.
pub struct Place<'a> {
    /// dockless itself.
    pub program: &'a Path,
    pub state: &'a Path,
    /// Where builds happen.
    pub engine: &'a str,
    /// How steps are boxed, as `--isolation` takes it.
    pub isolation: &'a str,
    /// What the artifacts are copied into.
    pub folder: &'a Path,
    /// A directory of this process.
    pub tmp: &'a Path,
}

/// Copies artifacts of stages into a folder.
pub fn pick(
    record: &BuildRecord,
    artifacts: &[ArtifactEntry],
    place: &Place<'_>,
    cancel: &Cancel,
) -> anyhow::Result<()> {
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
    let mut command = Command::new(place.program);
    command
        .arg("--state")
        .arg(place.state)
        .args(["--engine", place.engine, "--isolation", place.isolation])
        .args(words(record, &dockerfile, &out))
        .current_dir(&record.cwd);
    // It is no part of what the native build made.
    command.env_remove(super::journal::VARIABLE).stdin(Stdio::null()).stdout(Stdio::null());
    let stages: Vec<_> = artifacts.iter().filter_map(|a| a.stage.as_deref()).collect();
    run(command, cancel).with_context(|| format!("artifacts of stage {}", stages.join(", ")))?;
    merge(&out, place.folder)
}

/// The build as it would be typed.
fn words(record: &BuildRecord, dockerfile: &Path, out: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> =
        ["build", "--progress=quiet", "--target", STAGE, "--file"].map(OsString::from).into();
    words.push(dockerfile.into());
    words.push("--output".into());
    // A path may hold what ends a field.
    words.push(format!("type=local,\"dest={}\"", out.display().to_string().replace('"', "\"\"")).into());
    let mut option = |name: &str, value: String| words.extend([name.into(), value.into()]);
    for (key, value) in &record.build_args {
        option("--build-arg", format!("{key}={value}"));
    }
    for (key, value) in &record.labels {
        option("--label", format!("{key}={value}"));
    }
    for (name, value) in &record.named_contexts {
        option("--build-context", format!("{name}={value}"));
    }
    for secret in &record.secrets {
        option("--secret", secret.clone());
    }
    for ssh in &record.ssh {
        option("--ssh", ssh.clone());
    }
    for (host, ip) in &record.extra_hosts {
        option("--add-host", format!("{host}={ip}"));
    }
    for (name, soft, hard) in &record.ulimits {
        option("--ulimit", format!("{name}={soft}:{hard}"));
    }
    if let Some(platform) = &record.platform {
        option("--platform", platform.clone());
    }
    if let Some(size) = record.shm_size {
        option("--shm-size", size.to_string());
    }
    if let Some(network) = &record.network {
        option("--network", network.clone());
    }
    for name in &record.allow {
        option("--allow", name.clone());
    }
    words.push("--".into());
    words.push(record.context.clone().into());
    words
}

/// Runs a program to its end; a cancelled one is told, and waited for.
fn run(mut command: Command, cancel: &Cancel) -> anyhow::Result<()> {
    /// Between two looks at the child: a warm build takes a few of them.
    const PAUSE: Duration = Duration::from_millis(2);
    let mut child = command.spawn().with_context(|| command.get_program().display().to_string())?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let mut told = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if told {
            std::thread::sleep(PAUSE);
        } else if cancel.wait(PAUSE) {
            told = true;
            // Not reaped yet, so the number is still its own.
            kill(pid, Signal::SIGTERM)?;
        }
    };
    cancel.check()?;
    if status.success() { Ok(()) } else { anyhow::bail!("the build of the stage failed ({status})") }
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
        let record = BuildRecord {
            build_args: [("A".to_owned(), "b c".to_owned())].into(),
            context: "/src".into(),
            ..BuildRecord::default()
        };
        let words = words(&record, Path::new("/d"), Path::new("/o\"x"));
        assert!(words.contains(&"A=b c".into()) && words.contains(&"type=local,\"dest=/o\"\"x\"".into()));
        assert_eq!(words[words.len() - 2..], ["--", "/src"]);
        let mut hostile = artifact("/x", None);
        hostile.stage = Some("a b\nRUN rm".to_owned());
        assert!(with_copies("", &[hostile]).is_err());
    }
}
