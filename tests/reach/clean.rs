//! Builds that are killed at random moments leave nothing behind, in any isolation.

use crate::place;
use crate::yard::{all, repository, run, skip, yard};

/// How many builds are killed in each place.
const TIMES: usize = 8;
const MANY_TIMES: usize = 40;

fn check(place: &str, asked: &str) {
    let test = format!("killed builds in {place} with {asked}");
    let Some(yard) = yard(&test) else { return };
    if let Err(reason) = yard.base("busybox") {
        return skip(&test, &reason);
    }
    for name in ["killed", "killed.context"] {
        if !yard.dir.join(name).exists() {
            run(std::process::Command::new("cp")
                .arg("-R")
                .arg(repository().join("tests/reach").join(name))
                .arg(&yard.dir));
        }
    }
    let times = if all() { MANY_TIMES } else { TIMES }.to_string();
    let isolation = format!("DOCKLESS_ISOLATION={asked}");
    let command = ["bash", "killed", "killed.context", &times];
    let output = yard.command(place, &["--env", &isolation], &command).output().expect("start bash");
    let log = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if log.contains("does not have it") {
        return skip(&test, "this version of dockless does not have it");
    }
    assert!(output.status.success() && log.contains("\nclean\n"), "{place} with {asked}:\n{log}");
}

#[test]
fn killed_builds_leave_nothing() {
    for asked in ["ns", "ns1", "chroot", "rewrite"] {
        check("privileged", asked);
    }
}

#[test]
#[ignore = "the long half: make test-reach"]
fn nor_in_the_other_places() {
    for place in &place::PLACES[1..] {
        check(place.name, "auto");
    }
}
