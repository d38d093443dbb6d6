//! What a build remembers, and what it does not look at.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, UNIX_EPOCH};

use dockless::engine::{Export, NoCache};
use dockless::sys::dir;

use crate::fixture::{Outcome, World};

const STAGES: &str = "FROM busybox AS build\nCOPY file /\nRUN cat /file > /built; cat /proc/sys/kernel/random/uuid > /random\n\
                      FROM scratch\nCOPY --from=build /built /random /\n";

/// Steps of the Dockerfile that were not found in the cache. A directory that is read in place is never kept.
fn built(outcome: &Outcome) -> Vec<String> {
    let ends = outcome.ends().into_iter();
    ends.filter_map(|end| Some(end.strip_prefix("done [")?.split_once("] ")?.1.to_owned()))
        .filter(|step| !step.starts_with("load "))
        .collect()
}

#[test]
fn a_second_build_is_all_from_the_cache() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    let first = world.build(STAGES).ok().0.image.unwrap();
    let second = world.build(STAGES);
    assert_eq!(built(&second), [""; 0]);
    assert_eq!(second.ok().0.image.unwrap().config, first.config, "the same image, to the time it was made");
}

#[test]
fn a_second_build_starts_no_process_reads_no_layer_and_is_fast() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    world.build(STAGES).ok();
    // Files of steps can be gone: nobody looks at them when the keys are known. Only their folders' names are asked for.
    let deltas = world.state.dir().join("snapshots/deltas");
    for delta in fs::read_dir(deltas).unwrap() {
        let files = delta.unwrap().path().join("fs");
        fs::rename(&files, files.with_extension("away")).unwrap();
    }
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let (state, outcome) = world.build_in_new_state(STAGES);
        outcome.ok();
        fastest = fastest.min(began.elapsed());
        assert!(!state.probed(), "what steps get here is asked only by who runs one");
        assert_eq!(state.snapshots().unwrap().layers_read(), (0, 0), "layers read, layers unpacked");
    }
    eprintln!("warm build: {fastest:?}");
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

/// All that is in a folder, and the folder.
fn all(path: &Path, found: &mut Vec<PathBuf>) {
    if path.symlink_metadata().unwrap().is_dir() {
        let names = dir::names(File::open(path).unwrap()).unwrap();
        names.into_iter().for_each(|name| all(&path.join(name), found));
    }
    found.push(path.to_owned());
}

/// A write waits for whoever has the file system write to disk: 40 ms of a build that takes 6. It was the notes of when
/// files were read first, and a file without a name that tried who may own files.
#[test]
fn a_second_build_writes_nothing_where_it_looks() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    world.write("folder/file", "two");
    let text = STAGES.replace("COPY file /", "COPY . /");
    let look = || {
        let mut found = Vec::new();
        all(world.state.dir(), &mut found);
        all(&world.context(), &mut found);
        found
    };
    let times = |path: &PathBuf| {
        let meta = path.symlink_metadata().unwrap();
        (path.clone(), meta.accessed().unwrap(), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec()))
    };
    world.build(&text).ok();
    // Read so long ago that every reader would be noted wherever anything is (`relatime`).
    let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let read = look();
    for path in read.iter().filter(|path| !path.is_symlink()) {
        File::open(path).unwrap().set_times(FileTimes::new().set_accessed(long_ago)).unwrap();
    }
    // Files change their dates by that, and are too young to be known by them at once.
    std::thread::sleep(Duration::from_millis(100));
    world.build_in_new_state(&text).1.ok();
    let before: Vec<_> = look().iter().map(times).collect();
    world.build_in_new_state(&text).1.ok();
    assert_eq!(look().iter().map(times).collect::<Vec<_>>(), before);
    for path in read.iter().filter(|path| path.exists() && !path.is_symlink()) {
        assert_eq!(path.metadata().unwrap().accessed().unwrap(), long_ago, "{}", path.display());
    }
}

#[test]
fn only_what_a_change_reaches_is_built_again() {
    let Some(world) = World::with_busybox() else { return };
    world.write("a", "one");
    world.write("b", "one");
    let text = "FROM busybox AS a\nCOPY a /\nRUN cat /a >/out\nFROM busybox AS b\nCOPY b /\nRUN cat /b > /out\n\
                FROM scratch\nCOPY --from=a /out /a\nCOPY --from=b /out /b\n";
    world.build(text).ok();
    world.write("b", "two");
    let outcome = world.build(text);
    let steps = built(&outcome);
    assert!(steps.iter().any(|step| step == "COPY b /"), "{steps:?}");
    assert!(!steps.iter().any(|step| step == "COPY a /" || step == "RUN cat /a >/out"), "{steps:?}");
    // The same content with new times: the walk sees a change, the checksum does not.
    world.write("b", "two");
    assert_eq!(built(&world.build(text)), [""; 0]);
}

#[test]
fn no_cache_builds_anew_and_the_next_build_finds_the_new_result() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    let text = "FROM busybox AS a\nRUN cat /proc/sys/kernel/random/uuid > /a\nFROM busybox AS b\nRUN cat /proc/sys/kernel/random/uuid > /b\n\
                FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n";
    let first = world.files(text);
    assert_eq!(world.files(text), first);
    let all = world.files_with(text, |plan| plan.no_cache = NoCache::All);
    assert!(all["a"] != first["a"] && all["b"] != first["b"]);
    assert_eq!(world.files(text), all);
    let one = world.files_with(text, |plan| plan.no_cache = NoCache::Stages(vec!["a".to_owned()]));
    assert!(one["a"] != all["a"] && one["b"] == all["b"]);
}

#[test]
fn build_args_and_secrets_count_as_they_should() {
    let Some(world) = World::with_busybox() else { return };
    let text = "FROM busybox\nARG A\nRUN --mount=type=secret,id=s echo $A $(wc -c < /run/secrets/s) > /a\n";
    let build = |arg: &str, secret: &str| {
        world.build_with(text, |plan, request| {
            plan.build_args.insert("A".to_owned(), arg.to_owned());
            request.secrets.insert("s".to_owned(), secret.into());
        })
    };
    build("1", "secret").result.unwrap();
    assert_eq!(built(&build("1", "another")), [""; 0], "a secret is no part of a key");
    assert_eq!(built(&build("2", "secret")).len(), 1);
}

#[test]
fn a_copy_unpacks_no_layer_of_the_image_it_is_copied_onto() {
    let Some(world) = World::with_busybox() else { return };
    world.write("file", "one");
    let (state, outcome) = world.build_in_new_state("FROM busybox\nCOPY file /etc/new/\nUSER 1000\n");
    outcome.ok();
    assert!(!state.probed());
    assert_eq!(state.snapshots().unwrap().layers_read().1, 0);
}

#[test]
fn without_an_export_only_the_cache_is_filled() {
    let world = World::new();
    world.write("file", "one");
    let outcome = world.build_with("FROM scratch\nCOPY file /\n", |_, request| request.exports = Vec::<Export>::new());
    assert!(outcome.ok().0.image.is_none());
    assert!(world.state.images().list().unwrap().is_empty());
}
