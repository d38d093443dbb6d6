//! Several processes on one state folder, as `make -j` starts them, and processes that are killed.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use dockless::engine::{Keep, UsageKind, du, prune};

use crate::child::{build, finish};
use crate::fixture::{World, listing};

/// How often the step that appends to the cache folder `count` has run.
fn count(world: &World) -> usize {
    let folders = du(&world.state).unwrap().into_iter().filter(|usage| usage.kind == UsageKind::CacheMount);
    assert_eq!(folders.map(|usage| usage.id).collect::<Vec<_>>(), ["/count"]);
    let homes = fs::read_dir(world.state.dir().join("cache/mounts")).unwrap();
    let log = homes.map(|home| home.unwrap().path().join("0/log")).find(|log| log.exists()).unwrap();
    fs::read_to_string(log).unwrap().lines().count()
}

#[test]
fn processes_build_what_they_share_once() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "shared");
    let shared = "FROM busybox AS shared\nCOPY file /\nRUN --mount=type=cache,id=count,target=/count echo x >> /count/log; sleep 0.3; cat /file > /out\n";
    let text = |n: usize| format!("{shared}FROM busybox\nCOPY --from=shared /out /\nRUN echo {n} >> /out\n");
    // Eight images, two of them the same.
    let children: Vec<_> = (0..8).map(|n| build(&world, &text(n.min(6)), &format!("image{n}"), None)).collect();
    children.into_iter().for_each(finish);
    assert_eq!(count(&world), 1, "the shared step ran once");
    let id = |name: &str| {
        let images = world.state.images();
        images.load(&images.find(name).unwrap().unwrap().descriptor).unwrap().config_digest
    };
    assert_eq!(id("image6"), id("image7"));
    assert_ne!(id("image0"), id("image1"));
}

/// Kills, and at least so many of them however slow the machine is.
const KILLS: (usize, usize) = (100, 15);
const TIME: Duration = Duration::from_secs(45);

#[test]
fn a_build_that_is_killed_at_any_moment_leaves_the_next_one_right() {
    let Some(world) = World::with_busybox() else { return };
    let text = "FROM busybox AS a\nCOPY n /\nRUN cat /n > /a; chmod 4711 /a\nFROM busybox AS b\nCOPY --chown=1:2 n /b\nRUN echo more >> /b\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let tar = world.dir.path().join("out.tar");
    let run = |n: usize| {
        world.write("n", &n.to_string());
        let began = Instant::now();
        finish(build(&world, text, "victim", Some(&tar)));
        let files = listing(&tar);
        assert_eq!(files["a"], format!("4711 0:0 {n}"));
        assert_eq!(files["b"], format!("644 1:2 {n}more\n"));
        began.elapsed()
    };
    let whole = run(0);
    let began = Instant::now();
    let mut kills = 0;
    // Spread evenly over a build's whole life, in an order that jumps: the golden ratio's multiples.
    while kills < KILLS.0 && (kills < KILLS.1 || began.elapsed() < TIME) {
        kills += 1;
        world.write("n", &kills.to_string());
        let mut child = build(&world, text, "victim", Some(&tar));
        std::thread::sleep(whole.mul_f64((kills as f64 * 0.618_034).fract()));
        child.kill().unwrap();
        child.wait().unwrap();
        run(kills);
    }
    eprintln!("{kills} builds killed, each built again right");
    wait_until_nobody_works(world.state.dir());
    leaves_nothing(&world);
}

/// What a killed build had started ends with it, but not in the same instant.
fn wait_until_nobody_works(state: &Path) {
    let text = state.to_str().unwrap();
    let began = Instant::now();
    while fs::read_to_string("/proc/self/mountinfo").unwrap().contains(text) {
        assert!(began.elapsed() < Duration::from_secs(10), "mounts of killed builds are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// After a prune only named images are left.
fn leaves_nothing(world: &World) {
    prune(&world.reopen(), &Keep::default()).unwrap();
    let left: Vec<_> =
        du(&world.reopen()).unwrap().into_iter().filter(|usage| usage.kind != UsageKind::Image).collect();
    assert_eq!(left, []);
    for folder in ["tmp", "locks", "snapshots/active", "snapshots/deltas", "cache/mounts"] {
        let names: Vec<_> = fs::read_dir(world.state.dir().join(folder))
            .map(|entries| entries.map(|entry| entry.unwrap().file_name()).collect())
            .unwrap_or_default();
        assert!(names.is_empty(), "{folder}: {names:?}");
    }
    // Older victims lost their name to the newest and are known by their ids, as Docker keeps them.
    let images = world.state.images().list().unwrap();
    let named: Vec<String> = images.iter().flat_map(|image| &image.references).map(|name| name.familiar()).collect();
    assert_eq!(named, ["busybox:latest", "victim:latest"]);
}
