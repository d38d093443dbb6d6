//! The build tasks of the pipelines in ci/examples that have no registry, run as Concourse would run them.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::cli::Place;
use crate::oracle::{self, BUSYBOX, find, run, skip};

/// What bash is given by the task `build` of a pipeline.
fn script(pipeline: &str) -> String {
    let path = oracle::repository().join("ci/examples").join(pipeline);
    let pipeline: serde_json::Value = serde_yaml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let plan = pipeline["jobs"][0]["plan"].as_array().unwrap();
    let task = plan.iter().find(|step| step["task"] == "build").unwrap();
    assert_eq!((&task["config"]["run"]["path"], &task["config"]["run"]["args"][0]), (&"bash".into(), &"-ec".into()));
    task["config"]["run"]["args"][1].as_str().unwrap().to_owned()
}

/// A place where the sources, a base image and dockless are as the task finds them.
fn with_sources(test: &str) -> Option<Place> {
    if let Some(missing) = ["git", "bash", "make"].into_iter().find(|program| find(program).is_none()) {
        skip(test, &format!("needs {missing}"));
        return None;
    }
    let place = Place::with_base(test)?;
    place.write("src/Makefile", "release:\n\tdocker build -t acct/app:1 .\n");
    place.write(
        "src/Dockerfile",
        "FROM debian:bookworm-slim\nRUN echo built > /built\nCOPY --chmod=4755 app /usr/local/bin/app\n",
    );
    place.write("src/app", "#!/bin/sh\n");
    place.write("src/.git/short_ref", "abc1234\n");
    fs::create_dir(place.at("bin")).unwrap();
    symlink(oracle::dockless(), place.at("bin/dockless")).unwrap();
    Some(place)
}

fn bash(place: &Place, script: &str) {
    let path = format!("{}:{}", place.at("bin").display(), std::env::var("PATH").unwrap());
    run(Command::new("bash")
        .args(["-ec", script])
        .current_dir(place.work())
        .env_clear()
        .env("PATH", path)
        .env("HOME", place.work()));
}

fn git(place: &Place, dir: &str, args: &[&str]) -> String {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main"];
    let said = run(Command::new("git").arg("-C").arg(place.at(dir)).args(identity).args(args));
    String::from_utf8(said).unwrap()
}

#[test]
fn images_from_git_and_to_git() {
    let Some(place) = with_sources("images_from_git_and_to_git") else { return };
    place.dockless(&format!("export --format=rootfs-git {BUSYBOX} base-rootfs")).ok();
    for (dir, file) in [("base-rootfs", None), ("app-rootfs", Some("README"))] {
        if let Some(file) = file {
            place.write(&format!("{dir}/{file}"), "the application's images\n");
        }
        git(&place, dir, &["init", "--quiet"]);
        git(&place, dir, &["add", "--force", "."]);
        git(&place, dir, &["commit", "--quiet", "--message=first"]);
    }
    fs::create_dir(place.at("updated")).unwrap();
    bash(&place, &script("disconnected-git.yml"));
    assert_eq!(git(&place, "updated", &["log", "--format=%s"]), "abc1234\nfirst\n");
    assert_eq!(git(&place, "updated", &["status", "--short", "--ignored"]), "");
    git(&place, ".", &["clone", "--quiet", "updated", "cloned"]);
    // Concourse's rootfs format: a task could start from the clone.
    assert!(place.read("cloned/metadata.json").contains("\"user\":\"root\""));
    assert_eq!(place.read("cloned/rootfs/built"), "built\n");
    assert!(place.at("cloned/rootfs/tmp/.keep").is_file() && place.at("cloned/README").is_file());
    place.dockless("import --format=rootfs-git cloned again:1").ok();
    let said = place.dockless("run --rm again:1 stat -c %a /usr/local/bin/app /tmp").ok();
    assert_eq!(said, "4755\n1777\n", "what git cannot store");
}

#[test]
fn images_from_s3_and_to_s3() {
    let Some(place) = with_sources("images_from_s3_and_to_s3") else { return };
    place.dockless(&format!("export --format=rootfs-tgz {BUSYBOX} base-tgz/base-12.tgz")).ok();
    place.write("version/version", "1.2.0");
    fs::create_dir(place.at("release")).unwrap();
    bash(&place, &script("disconnected-s3.yml"));
    // As the s3 resource does with `unpack: true`.
    fs::create_dir(place.at("app-tgz")).unwrap();
    run(Command::new("tar").arg("-C").arg(place.at("app-tgz")).arg("-xzf").arg(place.at("release/app-1.2.0.tgz")));
    assert!(place.read("app-tgz/metadata.json").contains("\"user\":\"root\""));
    assert_eq!(place.read("app-tgz/rootfs/built"), "built\n");
}
