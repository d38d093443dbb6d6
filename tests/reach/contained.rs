//! What a step can reach of what lies outside its root: a program of attacks (`contained/attack.c`) runs as the step.
//!
//! An attack that succeeds fails the test. What older kernels do not contain is in SECURITY.md.

use std::fs;
use std::process::Command;

use crate::place;
use crate::yard::{Yard, find, repository, run, skip, yard};

struct Attempt {
    who: String,
    name: String,
    leak: Option<String>,
}

/// Builds the attacks in a place; the error is a reason to skip.
fn attack(yard: &Yard, place: &str, asked: &str) -> Result<(String, Vec<Attempt>), String> {
    yard.base("busybox")?;
    let name = format!("contained-{place}-{asked}");
    let context = yard.dir.join(&name);
    run(Command::new("cp").arg("-R").arg(repository().join("tests/reach/contained")).arg(&context));
    run(Command::new(find("cc").ok_or("needs cc")?)
        .args(["-static", "-O1", "-o"])
        .arg(context.join("attack"))
        .arg(context.join("attack.c"))
        .arg("-lpthread"));
    let isolation = format!("DOCKLESS_ISOLATION={asked}");
    let output = yard.command(place, &["--env", &isolation], &["sh", &format!("{name}/outside"), &name]).output();
    let log = String::from_utf8_lossy(&output.expect("start bash").stdout).into_owned();
    if log.contains("this version of dockless does not have it") {
        return Err(format!("{place} with {asked}: this version of dockless does not have it"));
    }
    assert!(
        log.contains("the bait is as it was") && log.contains("dockless has ended well"),
        "{place} {asked}:\n{log}"
    );
    let attempts: Vec<_> = log.lines().filter_map(parse).collect();
    // Each of the four steps came to its end.
    for last in [
        "root: mounts and namespaces",
        "user: mounts and namespaces",
        "alone: mounts and namespaces",
        "beside: the secret",
    ] {
        assert!(
            attempts.iter().any(|it| format!("{}: {}", it.who, it.name).starts_with(last)),
            "{place}: no {last}:\n{log}"
        );
    }
    Ok((log, attempts))
}

/// `… WHO: NAME: contained`, `… WHO: NAME: LEAK how`
fn parse(line: &str) -> Option<Attempt> {
    let (words, leak) = match line.strip_suffix(": contained") {
        Some(words) => (words, None),
        None => line.split_once(": LEAK ").map(|(words, how)| (words, Some(how.to_owned())))?,
    };
    let mut words = words.rsplitn(2, ": ");
    let (name, before) = (words.next()?, words.next()?);
    Some(Attempt { who: before.rsplit(' ').next()?.to_owned(), name: name.to_owned(), leak })
}

/// Since when the kernel keeps signals and abstract sockets from others: before, more succeeds, as SECURITY.md says.
const KERNEL: (u32, u32) = (6, 12);

fn kernel() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn check(place: &str, asked: &str) {
    let test = format!("attacks in {place} with {asked}");
    if kernel() < KERNEL {
        return skip(&test, &format!("needs Linux {}.{}", KERNEL.0, KERNEL.1));
    }
    let Some(yard) = yard(&test) else { return };
    let (log, attempts) = match attack(yard, place, asked) {
        Ok(it) => it,
        Err(reason) => return skip(&test, &reason),
    };
    let leaks: Vec<_> = attempts
        .iter()
        .filter_map(|it| it.leak.as_ref().map(|leak| format!("{}: {}: {leak}", it.who, it.name)))
        .collect();
    assert!(leaks.is_empty(), "{place} with {asked} leaks:\n{}\n{log}", leaks.join("\n"));
}

#[test]
fn steps_cannot_reach_out() {
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
