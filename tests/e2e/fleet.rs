//! Builds shared between two real engines, one of which is killed in the middle of a step.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::{Place, ended};
use crate::oracle::{BUSYBOX, Buildkitd, Dockerd};

#[test]
fn two_engines_share_a_run_and_one_of_them_is_killed() {
    let test = "two_engines_share_a_run_and_one_of_them_is_killed";
    let Some(place) = Place::with_base(test) else { return };
    let starting = std::thread::spawn(move || Dockerd::start(test));
    let (one, other) = (Dockerd::start(test), starting.join().unwrap());
    let (Some(one), Some(other)) = (one, other) else { return };
    targets_stay_where_their_cache_is(&place, &[one.engine(), other.engine()]);
    the_work_of_a_killed_engine_moves(&place, [(one.engine(), one), (other.engine(), other)], Dockerd::kill);
}

#[test]
fn two_buildkitd_share_a_run_and_one_of_them_is_killed() {
    let test = "two_buildkitd_share_a_run_and_one_of_them_is_killed";
    let Some(place) = Place::with_base(test) else { return };
    let Some(one) = Buildkitd::start(test) else { return };
    let Some(other) = Buildkitd::start(test) else { return };
    targets_stay_where_their_cache_is(&place, &[one.engine(), other.engine()]);
    the_work_of_a_killed_engine_moves(&place, [(one.engine(), one), (other.engine(), other)], Buildkitd::kill);
}

fn targets_stay_where_their_cache_is(place: &Place, engines: &[String]) {
    let mut targets = BTreeMap::new();
    for name in ["a", "b", "c", "d"] {
        place.write(&format!("{name}/Dockerfile"), &format!("FROM {BUSYBOX}\nCOPY Dockerfile /{name}\n"));
        targets.insert(name, json!({"context": name, "tags": [format!("{name}:1")]}));
    }
    place.write(
        "docker-bake.json",
        &json!({"group": {"default": {"targets": ["a", "b", "c", "d"]}}, "target": targets}).to_string(),
    );
    let bake = || {
        let mut bake = place.command("dockless");
        bake.args([
            "--engine",
            &engines[0],
            "--engine",
            &engines[1],
            "bake",
            "--progress=plain",
            "--metadata-file=told",
        ]);
        let said = ended(&mut bake);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let told: Value = serde_json::from_str(&place.read("told")).unwrap();
        let by = ["a", "b", "c", "d"].map(|name| told[name]["dockless.engine"].as_str().unwrap().to_owned());
        for (name, engine) in ["a", "b", "c", "d"].iter().zip(&by) {
            assert!(engines.contains(engine), "{told}");
            let line = format!("[{name} internal] building on {engine}");
            assert!(said.err.contains(&line), "{line}: {}", said.err);
        }
        by
    };
    assert_eq!(bake(), bake());
}

/// A step that tells the test that it runs, and goes on when it is let.
fn waiting(port: u16) -> String {
    format!("FROM {BUSYBOX}\nRUN nc 127.0.0.1 {port} </dev/null >/answer && grep -q go /answer\n")
}

/// Whoever calls next.
fn next(calls: &mpsc::Receiver<TcpStream>) -> TcpStream {
    calls.recv_timeout(Duration::from_secs(120)).expect("a step that calls")
}

fn the_work_of_a_killed_engine_moves<E>(place: &Place, engines: [(String, E); 2], kill: impl FnOnce(&mut E)) {
    let [one, other] = engines;
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    place.write("long/Dockerfile", &waiting(listener.local_addr().unwrap().port()));
    let (sender, calls) = mpsc::channel();
    std::thread::spawn(move || listener.incoming().flatten().try_for_each(|call| sender.send(call)));
    let mut build = place.command("dockless");
    build.env("DOCKLESS_ENGINE", format!("{},{}", one.0, other.0));
    build.args([
        "build",
        "--network=host",
        "--allow=network.host",
        "--progress=plain",
        "-t",
        "long:1",
        "--metadata-file=told",
        "long",
    ]);
    let mut build = build.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut told = BufReader::new(build.stderr.take().unwrap());
    let mut text = String::new();
    while !text.contains("building on ") {
        assert!(told.read_line(&mut text).unwrap() > 0, "{text}");
    }
    let begun = next(&calls);
    let (mut killed, left) = if text.contains(&one.0) { (one, other) } else { (other, one) };
    kill(&mut killed.1);
    drop(begun);
    next(&calls).write_all(b"go\n").unwrap();
    told.read_to_string(&mut text).unwrap();
    assert!(build.wait().unwrap().success(), "{text}");
    assert!(text.contains(&format!("{} is lost: ", killed.0)), "{text}");
    assert!(text.contains(&format!("its work moves to {}", left.0)), "{text}");
    assert!(place.read("told").contains(&left.0), "{text}");
    assert_eq!(place.dockless("run --rm long:1 cat /answer").ok(), "go\n");
}
