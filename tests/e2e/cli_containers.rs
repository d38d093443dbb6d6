//! Containers that run in the background, and what becomes of containers, by docker's words.

use crate::cli::Place;
use crate::oracle::BUSYBOX;

#[test]
fn a_running_container_is_listed_stopped_and_removed() {
    let Some(place) = Place::with_base("a_running_container_is_listed_stopped_and_removed") else { return };
    let docker = |words: &[&str]| place.run("docker", words.iter().copied());
    // It counts as running from when its process is attended to, a moment after `run -d`.
    let running = |name: &str| {
        for _ in 0..500 {
            if docker(&["ps", "--format", "{{.Names}} {{.State}}"]).ok() == format!("{name} running\n") {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("{name} is not running: {}", docker(&["ps", "-a"]).ok());
    };
    docker(&["run", "-d", "--name", "web", BUSYBOX, "sleep", "600"]).ok();
    running("web");
    assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", "web"]).ok(), "true\n");
    let err = docker(&["rm", "web"]).fails_with(1);
    assert!(err.contains("is running"), "{err}");
    // What others use is not pruned, and that is no failure.
    let err = docker(&["system", "prune", "-f"]);
    assert!(err.err.contains("stays"), "{}", err.err);
    err.ok();
    assert_eq!(docker(&["stop", "web"]).ok(), "web\n");
    assert_eq!(docker(&["ps", "-q"]).ok(), "");
    assert_eq!(docker(&["wait", "web"]).ok(), "143\n");
    docker(&["start", "web"]).ok();
    running("web");
    assert_eq!(docker(&["rm", "-f", "web"]).ok(), "web\n");
    assert_eq!(docker(&["ps", "-aq"]).ok(), "");

    // One that removes itself.
    docker(&["run", "-d", "--rm=true", "--name", "once", BUSYBOX, "true"]).ok();
    for _ in 0..500 {
        if docker(&["ps", "-aq"]).ok().is_empty() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    panic!("it is still there: {}", docker(&["ps", "-a"]).ok());
}

#[test]
fn a_container_becomes_an_image() {
    let Some(place) = Place::with_base("a_container_becomes_an_image") else { return };
    let docker = |words: &[&str]| place.run("docker", words.iter().copied());
    docker(&["run", "--name", "made", BUSYBOX, "sh", "-c", "echo mine > /file"]).ok();
    let changes = ["-c", "CMD [\"cat\", \"/file\"]", "-c", "ENV A=b", "-m", "by hand", "-a", "me"];
    let words: Vec<&str> = ["commit"].into_iter().chain(changes).chain(["made", "acct/made:1"]).collect();
    let id = docker(&words).ok();
    assert_eq!(docker(&["inspect", "-f", "{{.Id}}", "acct/made:1"]).ok(), id);
    assert_eq!(docker(&["run", "--rm", "acct/made:1"]).ok(), "mine\n");
    assert_eq!(docker(&["run", "--rm", "acct/made:1", "sh", "-c", "echo $A"]).ok(), "b\n");
    assert_eq!(docker(&["inspect", "-f", "{{.Author}} {{len .RootFS.Layers}}", "acct/made:1"]).ok(), "me 2\n");
    assert!(docker(&["history", "acct/made:1"]).ok().contains("by hand"));
    let err = docker(&["commit", "-c", "RUN true", "made"]).fails_with(125);
    assert!(err.contains("RUN is not a valid change command"), "{err}");
    // An image can be built on it.
    place.write("Dockerfile", "FROM acct/made:1\nRUN test \"$(cat /file)\" = mine\n");
    docker(&["build", "-q", "--pull=false", "."]).ok();
}

#[test]
fn volumes_are_made_listed_and_removed() {
    let Some(place) = Place::with_base("volumes_are_made_listed_and_removed") else { return };
    let docker = |words: &str| place.run("docker", words.split_whitespace());
    assert_eq!(docker("volume create kept").ok(), "kept\n");
    docker(&format!("run --rm -v kept:/v {BUSYBOX} touch /v/file")).ok();
    assert_eq!(docker(&format!("run --rm -v kept:/v {BUSYBOX} ls /v")).ok(), "file\n");
    docker(&format!("run --rm -v other:/v {BUSYBOX} true")).ok();
    assert_eq!(docker("volume ls -q").ok(), "kept\nother\n");
    assert!(docker("volume inspect kept").ok().contains("\"Mountpoint\""));
    assert_eq!(docker("volume rm kept").ok(), "kept\n");
    assert!(docker("volume rm kept").fails_with(1).contains("No such volume"));
    docker("volume rm -f kept").ok();
    assert!(docker("volume create ../x").fails_with(1).contains("not valid"));
}

#[test]
fn what_docker_has_and_dockless_has_not_is_refused_by_name() {
    let place = Place::empty();
    let docker = |words: &str| place.run("docker", words.split_whitespace());
    let err = docker("exec web ls").fails_with(125);
    assert!(err.contains("docker exec is not supported"), "{err}");
    let err = docker("biuld .").fails_with(125);
    assert!(err.contains("'build'"), "{err}");
    let err = docker("run --network=mine x").fails_with(125);
    assert!(err.contains("--network=mine is not supported"), "{err}");
    assert_eq!(docker("-v").ok(), docker("--version").ok());
}
