//! Place by build: what the corpus comes to in each place, held against what root gets in namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use crate::picture::Picture;
use crate::place::{self, Place};
use crate::yard::{Yard, all, repository, skip, yard};

/// Builds that are known to come out otherwise: in which isolation, which case, and why. docs/isolation.md says the
/// same in words. `no devices` is every place with real owners where the host lets nobody make a device.
const OPEN: &[(&str, &str, &str)] = &[
    ("no devices", "devices", "mknod in a step is refused"),
    ("chroot", "kernel", "no step can change to a directory of /proc"),
    ("chroot", "boundaries", "mounts lie on the root's file system"),
];

/// Where the state folder is: on a disk, and on the container's own root file system, where no overlay can be mounted
/// and no whiteout made.
const ON_DISK: &str = "/scratch/state";
const ON_ROOT: &str = "/var/tmp/state";

/// What the corpus is built on; each has a folder of cases.
const BASES: [&str; 3] = ["busybox", "debian", "node"];

/// One way of building the corpus.
struct Way<'a> {
    place: &'a Place,
    /// `auto`, or the isolation that is asked for.
    asked: &'static str,
    state: &'static str,
}

/// What every case came to: its picture, or why there is none; and what the place was.
struct Outcome {
    cases: BTreeMap<String, Result<Picture, String>>,
    isolation: &'static str,
    devices: bool,
}

impl Outcome {
    fn is_known(&self, case: &str) -> Option<&'static str> {
        let real = matches!(self.isolation, "ns" | "chroot");
        let applies =
            |condition: &str| condition == self.isolation || condition == "no devices" && real && !self.devices;
        OPEN.iter().find(|(condition, open, _)| *open == case && applies(condition)).map(|(_, _, why)| *why)
    }
}

impl Way<'_> {
    fn name(&self) -> String {
        let state = if self.state == ON_DISK { "" } else { "-on-root" };
        format!("{}-{}{state}", self.place.name, self.asked)
    }

    /// Builds the corpus; the error is a reason to skip.
    fn build(&self, yard: &Yard, base: &str) -> Result<Outcome, String> {
        yard.base(base)?;
        let cases = cases(base);
        let out = format!("out/{base}/{}", self.name());
        let isolation = format!("DOCKLESS_ISOLATION={}", self.asked);
        let mut command = vec!["sh", "inside", &out, self.state, base];
        command.extend(cases.iter().map(String::as_str));
        let output = yard
            .command(self.place.name, &["--net", "none", "--env", &isolation], &command)
            .output()
            .expect("start bash");
        let dir = yard.dir.join(&out);
        let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
        let doctor = read("doctor");
        if doctor.contains("this version of dockless does not have it") {
            return Err(format!("{}: {}", self.name(), doctor.lines().next().unwrap_or_default()));
        }
        assert!(
            output.status.success(),
            "{}: {}{}{doctor}",
            self.name(),
            String::from_utf8_lossy(&output.stderr),
            read("import"),
        );
        let chosen = if self.asked == "auto" { self.place.isolation } else { self.asked };
        assert!(doctor.contains(&format!("isolation: {chosen}\n")), "{}: not {chosen}:\n{doctor}", self.name());
        let pictures = cases.into_iter().map(|case| {
            let outcome = match read(&format!("{case}.exit")).trim() {
                "0" => {
                    let archive = dir.join(format!("{case}.tar"));
                    let picture = Picture::of(&archive);
                    // With its base it is large, and there are hundreds.
                    fs::remove_file(archive).expect("remove what was looked at");
                    Ok(picture)
                }
                code => Err(format!("exit code {code}\n{}", last_lines(&read(&format!("{case}.log"))))),
            };
            (case, outcome)
        });
        let devices = doctor.contains("yes  make a device");
        Ok(Outcome { cases: pictures.collect(), isolation: chosen, devices })
    }
}

/// The names of a base's cases: a folder each.
fn cases(base: &str) -> Vec<String> {
    let corpus = repository().join("tests/reach/corpus").join(base);
    let only = std::env::var("DOCKLESS_REACH_CASE").ok();
    let names = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| only.as_ref().is_none_or(|only| only == name)).collect();
    names.sort();
    names
}

/// What root gets in namespaces, with everything that this machine has.
fn reference(yard: &Yard, base: &'static str) -> Result<&'static Outcome, String> {
    static MADE: [OnceLock<Result<Outcome, String>>; BASES.len()] = [const { OnceLock::new() }; BASES.len()];
    let cell = &MADE[BASES.iter().position(|known| *known == base).expect("a base of the corpus")];
    let way = Way { place: place::find("privileged"), asked: "ns", state: ON_DISK };
    let outcome = cell.get_or_init(|| way.build(yard, base)).as_ref().map_err(String::clone)?;
    for (case, picture) in &outcome.cases {
        assert!(picture.is_ok(), "{case} fails where everything is allowed: {}", picture.as_ref().unwrap_err());
    }
    Ok(outcome)
}

/// Builds a base's corpus in a place in every way that is asked for, and tells all differences.
fn check(name: &str, base: &'static str) {
    let test = format!("{name} on {base}");
    let Some(yard) = yard(&test) else { return };
    let place = place::find(name);
    let reference = match reference(yard, base) {
        Ok(reference) => reference,
        Err(reason) => return skip(&test, &reason),
    };
    let mut ways = vec![Way { place, asked: "auto", state: ON_DISK }];
    if base == "busybox" && (all() || matches!(name, "privileged" | "docker-default")) {
        ways.push(Way { place, asked: "auto", state: ON_ROOT });
    }
    if all() || name == "privileged" && base == "busybox" {
        ways.extend(place.others.iter().map(|&asked| Way { place, asked, state: ON_DISK }));
    }
    // A restricted pod has no other place to write to than its volume.
    ways.retain(|way| !(name == "k8s-restricted" && way.state == ON_ROOT));
    let mut failures = Vec::new();
    for way in ways {
        let outcome = match way.build(yard, base) {
            Ok(outcome) => outcome,
            Err(reason) => {
                skip(&test, &reason);
                continue;
            }
        };
        for (case, result) in &outcome.cases {
            let expected = reference.cases[case].as_ref().expect("checked above");
            let lines = match result {
                Ok(picture) => expected.differences(picture),
                Err(reason) => vec![reason.clone()],
            };
            if let Some(why) = outcome.is_known(case) {
                let state = if lines.is_empty() { "no longer differs: take it off the list" } else { why };
                eprintln!("known: {}: {case}: {state}", way.name());
            } else if !lines.is_empty() {
                failures.push(format!("{}: {case}:\n  {}", way.name(), shorten(&lines).join("\n  ")));
            }
        }
    }
    assert!(failures.is_empty(), "{} builds differ:\n{}", failures.len(), failures.join("\n"));
}

/// What a build's log ends with.
fn last_lines(log: &str) -> String {
    const SHOWN: usize = 12;
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

/// The first differences; they mostly have one cause.
fn shorten(lines: &[String]) -> Vec<String> {
    const SHOWN: usize = 25;
    let mut shown = lines[..lines.len().min(SHOWN)].to_vec();
    if lines.len() > SHOWN {
        shown.push(format!("… and {} more", lines.len() - SHOWN));
    }
    shown
}

macro_rules! places {
    ($($(#[$long:meta])? $test:ident: $name:literal,)*) => {
        $(
            mod $test {
                #[test]
                $(#[$long])?
                fn small_builds() {
                    super::check($name, "busybox");
                }

                #[test]
                #[ignore = "the long half: make test-reach"]
                fn whole_systems() {
                    super::check($name, "debian");
                }

                #[test]
                #[ignore = "the long half: make test-reach"]
                fn packages_of_node() {
                    super::check($name, "node");
                }
            }
        )*

        #[test]
        fn every_place_is_tested() {
            let tested = [$($name),*];
            assert_eq!(tested, place::PLACES.each_ref().map(|place| place.name));
        }
    };
}

places! {
    privileged: "privileged",
    user: "user",
    user_nosubuid: "user-nosubuid",
    #[ignore = "another place like it is tested: make test-reach"]
    user_nouserns: "user-nouserns",
    #[ignore = "another place like it is tested: make test-reach"]
    user_apparmor: "user-apparmor",
    concourse_unprivileged: "concourse-unprivileged",
    #[ignore = "another place like it is tested: make test-reach"]
    concourse_fuse_only: "concourse-fuse-only",
    docker_default: "docker-default",
    #[ignore = "another place like it is tested: make test-reach"]
    docker_seccomp_off: "docker-seccomp-off",
    #[ignore = "another place like it is tested: make test-reach"]
    podman_default: "podman-default",
    k8s_restricted: "k8s-restricted",
    #[ignore = "another place like it is tested: make test-reach"]
    k8s_baseline: "k8s-baseline",
    #[ignore = "another place like it is tested: make test-reach"]
    k8s_userns: "k8s-userns",
}
