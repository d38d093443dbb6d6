//! Each folder under `tests/golden/build` is a Dockerfile with its context, and `expected.json`, which says what
//! dockerd's BuildKit makes of it: the run config, the history, and every file with owner, mode and content.
//!
//! A new case is a new folder, recorded with `DOCKLESS_RECORD=1 cargo test --test e2e golden` where dockerd runs.
//! Beside its Dockerfile a folder may hold `args` (one a line, for `build`) and `context.sh`, which makes what git
//! cannot keep: modes, links to nowhere, archives. With a file `differs`, which says why, dockerd is not what is
//! followed: `expected.json` is then what newer builders make (recorded with dockless, and read by a person), and
//! `dockerd.json` what dockerd makes, where it understands the case at all.
//!
//! Debian's buildah builds them too (`make test-oracles`; a few of them in every run). Where what it makes is not what is
//! expected, a file `buildah` in the folder says why, and after an empty line what differs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use serde_json::Value;

use crate::oracle;

pub fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = fs::read_dir(oracle::repository().join("tests/golden/build"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(cases.len() >= 40, "only {} cases", cases.len());
    cases
}

pub fn name(case: &Path) -> &str {
    case.file_name().unwrap().to_str().unwrap()
}

pub fn args(case: &Path) -> Vec<String> {
    fs::read_to_string(case.join("args")).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Copies a case to where it is built, makes what git cannot keep, and gives every file the same date.
pub fn context(case: &Path, dir: &Path) -> PathBuf {
    let context = dir.join(name(case));
    oracle::run(Command::new("cp").arg("-RP").arg(case).arg(&context));
    for ours in ["args", "differs", "buildah", "expected.json", "dockerd.json"] {
        let _ = fs::remove_file(context.join(ours));
    }
    if context.join("context.sh").exists() {
        oracle::run(Command::new("sh").args(["-euc", ". ./context.sh; rm context.sh"]).current_dir(&context));
    }
    let touch = format!("find . -exec touch -h -d @{} {{}} +", oracle::CONTEXT_DATE);
    oracle::run(Command::new("sh").args(["-euc", &touch]).current_dir(&context));
    // The umask of whoever checked this out is not part of the case.
    if !case.join("context.sh").exists() {
        oracle::run(Command::new("chmod").args(["-R", "u=rwX,go=rX", "."]).current_dir(&context));
    }
    context
}

/// Two at a time: the cases also prove that builds side by side on one state folder do not disturb each other.
fn each_case(work: impl Fn(&Path) -> Result<(), String> + Sync) {
    each_of(cases(), work);
}

fn each_of(cases: Vec<PathBuf>, work: impl Fn(&Path) -> Result<(), String> + Sync) {
    let todo = Mutex::new(cases.into_iter());
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some(case) = todo.lock().unwrap().next() else { return };
                    if let Err(why) = work(&case) {
                        failures.lock().unwrap().push(format!("{}: {why}", name(&case)));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    assert!(failures.is_empty(), "{} cases differ\n\n{}", failures.len(), failures.join("\n\n"));
}

pub fn expected(case: &Path, name: &str) -> Result<Value, String> {
    let text = fs::read(case.join(name)).map_err(|e| format!("{name}: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("{name}: {e}"))
}

pub fn differs(case: &Path) -> bool {
    case.join("differs").exists()
}

fn record(case: &Path, name: &str, description: &Value) -> Result<(), String> {
    let text = format!("{}\n", serde_json::to_string_pretty(description).unwrap());
    fs::write(case.join(name), text).map_err(|e| e.to_string())
}

fn is_recording() -> bool {
    std::env::var_os("DOCKLESS_RECORD").is_some()
}

/// History as a builder of any age words it: newer ones show the flags of COPY and ADD and the values of ARG, and
/// write EXPOSE and HEALTHCHECK differently, than the one that Debian's dockerd embeds.
fn history(image: &Value) -> Vec<(String, bool)> {
    let worded = |created_by: &str| -> String {
        let (instruction, rest) = created_by.split_once(' ').unwrap_or((created_by, ""));
        match instruction {
            "ARG" => format!("ARG {}", rest.split('=').next().unwrap_or_default()),
            "EXPOSE" | "HEALTHCHECK" => instruction.to_owned(),
            "ADD" | "COPY" => {
                let words: Vec<&str> = rest.split(' ').filter(|word| !word.starts_with("--")).collect();
                format!("{instruction} {}", words.join(" "))
            }
            _ => created_by.to_owned(),
        }
    };
    let entries = image["history"].as_array().map(Vec::as_slice).unwrap_or_default();
    entries.iter().map(|h| (worded(h["created_by"].as_str().unwrap_or_default()), h["empty_layer"] == true)).collect()
}

/// The differences alone, line by line, or a failing tree would bury them.
pub fn compare(expected: &Value, actual: &Value) -> Result<(), String> {
    let mut lines = compare_contents(expected, actual);
    if history(expected) != history(actual) {
        lines.push(format!("history\n  - {}\n  + {}", expected["history"], actual["history"]));
    }
    if lines.is_empty() { Ok(()) } else { Err(lines.join("\n")) }
}

/// The same without the history, which tells of the builder.
fn compare_contents(expected: &Value, actual: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for key in ["os", "architecture", "config"] {
        if expected[key] != actual[key] {
            lines.push(format!("{key}\n  - {}\n  + {}", expected[key], actual[key]));
        }
    }
    let set = |v: &Value| -> Vec<String> {
        v["tree"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let (want, have) = (set(expected), set(actual));
    lines.extend(want.iter().filter(|l| !have.contains(l)).map(|l| format!("tree - {l}")));
    lines.extend(have.iter().filter(|l| !want.contains(l)).map(|l| format!("tree + {l}")));
    lines
}

#[test]
fn dockless_builds_what_is_expected() {
    if oracle::find("busybox").is_none() {
        return oracle::skip("dockless_builds_what_is_expected", "needs busybox (Debian: busybox-static)");
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let base = oracle::tree(&oracle::import_busybox(&state, &dir.path().join("bases")));
    each_case(|case| {
        let context = context(case, dir.path());
        let archive = dir.path().join(format!("{}.tar", name(case)));
        let tag = format!("golden/{}", name(case));
        let dockless = |args: &[&str]| {
            let output = Command::new(oracle::dockless())
                .args(args)
                .current_dir(&context)
                .env("DOCKLESS_STATE", &state)
                .env_remove("SOURCE_DATE_EPOCH")
                .output()
                .unwrap();
            if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
        };
        let args = args(case);
        let mut build = vec!["build", "-t", &tag];
        build.extend(args.iter().map(String::as_str));
        build.push(".");
        dockless(&build)?;
        dockless(&["save", "-o", archive.to_str().unwrap(), &tag])?;
        let description = oracle::describe(&archive, &base);
        if is_recording() && differs(case) {
            return record(case, "expected.json", &description);
        }
        compare(&expected(case, "expected.json")?, &description)
    });
}

#[test]
fn dockerd_makes_what_is_expected() {
    let Some(dockerd) = oracle::Dockerd::start("dockerd_makes_what_is_expected") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tar = oracle::busybox_tar(&dir.path().join("bases"));
    let base = oracle::tree(&tar);
    oracle::run(&mut dockerd.docker(&["import", "-c", "CMD [\"sh\"]", tar.to_str().unwrap(), oracle::BUSYBOX]));
    each_case(|case| {
        let name_of_expected = if differs(case) { "dockerd.json" } else { "expected.json" };
        if differs(case) && !case.join(name_of_expected).exists() {
            return Ok(());
        }
        let context = context(case, dir.path());
        let archive = dir.path().join(format!("{}.tar", name(case)));
        let tag = format!("golden/{}", name(case));
        let args = args(case);
        let mut build = vec!["build", "--network=host", "-q", "-t", &tag];
        build.extend(args.iter().map(String::as_str));
        build.push(".");
        oracle::run(dockerd.docker(&build).current_dir(&context));
        oracle::run(&mut dockerd.docker(&["save", "-o", archive.to_str().unwrap(), &tag]));
        let description = oracle::describe(&archive, &base);
        if is_recording() {
            return record(case, name_of_expected, &description);
        }
        compare(&expected(case, name_of_expected)?, &description)
    });
}

/// A few of different kinds, for runs that have no time for all.
const USUAL: [&str; 5] =
    ["add-archives-of-each-kind", "copy-chown-names", "dockerignore-reinclude", "onbuild", "user-names"];

/// What buildah leaves of a step's surroundings in an image: the step's host name, and what it mounted over.
fn without_traces(mut image: Value) -> Value {
    const TRACES: [&str; 4] = [" /etc/hostname", " /etc/hosts", " /etc/resolv.conf", " /run"];
    if let Some(config) = image["config"].as_object_mut() {
        config.remove("Hostname");
    }
    if let Some(tree) = image["tree"].as_array_mut() {
        tree.retain(|line| !TRACES.iter().any(|trace| line.as_str().unwrap().ends_with(trace)));
    }
    image
}

#[test]
fn buildah_makes_what_is_expected() {
    let test = "buildah_makes_what_is_expected";
    let Some(buildah) = oracle::Buildah::start(test) else { return };
    let all = std::env::var_os("DOCKLESS_ORACLES").is_some_and(|which| which == "all");
    let chosen = cases().into_iter().filter(|case| all || USUAL.contains(&name(case))).collect();
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let base = oracle::tree(&oracle::import_busybox(&state, &dir.path().join("bases")));
    let archive = dir.path().join("base.tar");
    let mut save = Command::new(oracle::dockless());
    oracle::run(save.args(["save", "-o", archive.to_str().unwrap(), oracle::BUSYBOX]).env("DOCKLESS_STATE", &state));
    oracle::run(&mut buildah.command(&["pull", &format!("docker-archive:{}", archive.display())]));
    each_of(chosen, |case| {
        let context = context(case, dir.path());
        let archive = dir.path().join(format!("{}.tar", name(case)));
        let args = args(case);
        let mut build = vec!["bud", "--isolation=chroot", "--pull-never", "--format=docker", "-q", "-t", name(case)];
        build.push("--identity-label=false");
        build.extend(args.iter().map(String::as_str));
        build.push(".");
        let output = buildah.command(&build).current_dir(&context).output().map_err(|e| e.to_string())?;
        let differences = if output.status.success() {
            let place = format!("docker-archive:{}", archive.display());
            oracle::run(&mut buildah.command(&["push", name(case), &place]));
            compare_contents(&expected(case, "expected.json")?, &without_traces(oracle::describe(&archive, &base)))
        } else {
            let error = String::from_utf8_lossy(&output.stderr);
            let error = error.trim_end().lines().last().unwrap_or_default().replace(dir.path().to_str().unwrap(), "");
            // Some name a place in memory.
            let error = error.split(" Next:").next().unwrap_or_default();
            vec![format!("does not build: {error}")]
        };
        let text = fs::read_to_string(case.join("buildah")).unwrap_or_default();
        let (reason, known) = text.trim_end().split_once("\n\n").unwrap_or((&text, ""));
        let differences = differences.join("\n");
        if is_recording() && differences != known {
            let reason = if reason.is_empty() { "WHY?" } else { reason };
            return fs::write(case.join("buildah"), format!("{reason}\n\n{differences}\n")).map_err(|e| e.to_string());
        }
        if differences == known { Ok(()) } else { Err(format!("- {known}\n+ {differences}")) }
    });
}
