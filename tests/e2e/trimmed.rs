//! A state folder that goes from run to run: what it costs to keep, and what does not stay.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::cli::Place;

const DAY: u64 = 24 * 3600;

/// What a tool that saves a folder looks at: for each file and folder its inode, size and times.
fn looks(dir: &Path) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()));
    }
    found
}

/// What is not as it was, but for the folder in which work in progress comes and goes.
fn changed(place: &Place, saved: &BTreeMap<PathBuf, (u64, u64, i64, i64)>) -> Vec<String> {
    let state = place.state();
    let now = looks(&state);
    let other = now.iter().filter(|(path, look)| saved.get(*path) != Some(look) && **path != state.join("tmp"));
    other.map(|(path, _)| path.strip_prefix(&state).unwrap().display().to_string()).collect()
}

/// Lets so many days go by for everything in the folder.
fn age(state: &Path, days: u64) {
    // An image says when its layers were made: the date of a delta's `base`.
    let dated = looks(state).into_keys().filter(|path| !path.is_symlink() && !path.ends_with("base"));
    for path in dated {
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        fs::File::open(&path).unwrap().set_modified(modified - Duration::from_secs(days * DAY)).unwrap();
    }
    let used = state.join("cache/used");
    let hours = |text: &str| text.parse::<u64>().unwrap() - days * 24;
    let text = fs::read_to_string(&used).unwrap_or_default();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap());
    let text: String = lines.map(|(hour, name)| format!("{} {name}\n", hours(hour))).collect();
    if !text.is_empty() {
        fs::write(&used, text).unwrap();
    }
}

/// A context whose build leaves one delta, and a stage below it that leaves another.
fn context(place: &Place, name: &str) {
    place.write(
        &format!("{name}/Dockerfile"),
        &format!("FROM scratch AS below\nCOPY data /{name}\nFROM scratch\nCOPY --from=below /{name} /\nLABEL a=b\n"),
    );
    place.write(&format!("{name}/data"), &name.repeat(50_000));
}

fn build(place: &Place, words: &str) -> usize {
    // Without a name it only fills the cache.
    let output = if words.contains("-t ") { "" } else { "--output=type=cacheonly " };
    let said = place.dockless(&format!("build --progress=plain {output}{words}"));
    assert_eq!(said.code, Some(0), "{}", said.err);
    said.err.lines().filter(|line| line.ends_with(" CACHED")).count()
}

fn deltas(place: &Place) -> usize {
    fs::read_dir(place.state().join("snapshots/deltas")).unwrap().count()
}

#[test]
fn a_run_that_finds_everything_leaves_nothing_to_save() {
    let place = Place::empty();
    context(&place, "one");
    // The times of a file that was written just now prove nothing yet: it would be read, and noted, once more.
    std::thread::sleep(Duration::from_millis(100));
    let words = "-t one:1 one";
    build(&place, words);
    build(&place, words);
    let saved = looks(&place.state());
    assert_eq!(build(&place, words), 2);
    assert_eq!(changed(&place, &saved), [""; 0]);
    // A whole task, with its trim.
    let task = || place.dockless("task -- docker build -t one:1 one").ok();
    task();
    let saved = looks(&place.state());
    task();
    assert_eq!(changed(&place, &saved), [""; 0]);
    age(&place.state(), 1);
    let saved = looks(&place.state());
    assert_eq!(build(&place, words), 2);
    assert_eq!(changed(&place, &saved), ["cache/used"], "the first of the day says what was used");
}

#[test]
fn what_no_run_used_for_long_goes_and_what_one_found_stays() {
    let place = Place::empty();
    for name in ["one", "two"] {
        context(&place, name);
        build(&place, name);
    }
    assert_eq!(deltas(&place), 4);
    age(&place.state(), 10);
    assert_eq!(build(&place, "one"), 2, "found, and no file of it touched");
    age(&place.state(), 5);
    place.dockless("trim").ok();
    assert_eq!(deltas(&place), 2, "both of the one that was found, with the stage that nobody looked into");
    place.write("one/Dockerfile", "FROM scratch AS below\nCOPY data /one\nFROM scratch\nCOPY --from=below /one /new\n");
    assert_eq!(build(&place, "one"), 1, "the stage is built on");
    assert_eq!(build(&place, "two"), 0);
    // Nothing was made since the last time: there is nothing to look at, however small the limit.
    place.dockless("trim").ok();
    let before = looks(&place.state());
    place.dockless("trim --cache-age=1s").ok();
    assert_eq!(
        looks(&place.state())[&place.state().join("cache/trimmed")],
        before[&place.state().join("cache/trimmed")]
    );
    assert_eq!(deltas(&place), 5);
    fs::File::open(place.state().join("cache/trimmed")).unwrap().set_modified(UNIX_EPOCH).unwrap();
    place.dockless("trim --cache-age=none --cache-size=none").ok();
    assert_eq!(deltas(&place), 5, "without limits");
}

#[test]
fn every_road_to_a_result_is_kept_while_one_is_taken() {
    let place = Place::empty();
    context(&place, "one");
    std::thread::sleep(Duration::from_millis(100));
    build(&place, "one");
    age(&place.state(), 10);
    assert_eq!(build(&place, "one"), 2, "recognised by the times of its files");
    age(&place.state(), 5);
    place.dockless("trim").ok();
    context(&place, "one");
    assert_eq!(build(&place, "one"), 2, "another checkout, recognised by its content");
}

#[test]
fn what_was_used_longest_ago_makes_room() {
    let place = Place::empty();
    for (index, name) in ["one", "two", "three"].iter().enumerate() {
        context(&place, name);
        build(&place, name);
        age(&place.state(), 1 + index as u64);
    }
    // Two deltas of each: 150, 150 and 250 kB.
    place.dockless("trim --cache-size=900kB").ok();
    assert_eq!(deltas(&place), 4, "{}", place.dockless("du -v").ok());
    for (name, expected) in [("three", 4), ("two", 4), ("one", 6)] {
        build(&place, name);
        assert_eq!(deltas(&place), expected, "{name}");
    }
}

#[test]
fn names_that_earlier_runs_gave_go_with_the_rest() {
    let place = Place::empty();
    context(&place, "one");
    build(&place, "-t mine:1 one");
    place.dockless("build --label of=nobody one").ok();
    for version in ["1", "2"] {
        build(&place, &format!("-t app:{version} --label v={version} one"));
        place.dockless(&format!("trim app:{version}")).ok();
        age(&place.state(), 10);
    }
    place.dockless("trim").ok();
    let names = place.dockless("images --format {{.Repository}}:{{.Tag}}").ok();
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert_eq!(names, ["app:2", "mine:1"], "given in the last two weeks; given by hand");
}

#[test]
fn du_and_prune_take_docker_s_filters() {
    let place = Place::empty();
    context(&place, "one");
    build(&place, "-t one:1 one");
    let rows = |words: &str| {
        let said = place.dockless(words).ok();
        said.lines().skip(1).filter(|line| !line.contains("Total:") && !line.contains("Reclaimable:")).count()
    };
    assert_eq!(rows("du --filter type=snapshot"), 2);
    assert_eq!(rows("du --filter type==regular --filter type=image"), 3);
    assert_eq!(rows("du --filter type=frontend"), 0);
    assert_eq!(rows("du --filter type=image --filter description=one:1"), 1);
    assert_eq!(rows("du --filter type=snapshot --filter unused-for=1h"), 0);
    let unknown = place.dockless("du --filter colour=red").fails_with(2);
    assert!(unknown.contains("filter \"colour=red\" is not known"), "{unknown}");

    place.dockless("prune -f --filter until=1h").ok();
    place.dockless("prune -f --all --filter type=source").ok();
    assert_eq!(deltas(&place), 2);
    let list = place.dockless("du -v --filter type=snapshot").ok();
    let id = list.lines().nth(1).unwrap().split_whitespace().next().unwrap();
    let gone = place.dockless(&format!("prune -f --all --filter id={id}")).ok();
    assert!(gone.starts_with(&format!("{id}\n")) && deltas(&place) == 1, "{gone}");
    place.dockless("prune -f --all --filter type=cache-mount").ok();
    assert_eq!(deltas(&place), 1);
    place.dockless("prune -f --all").ok();
    assert_eq!(deltas(&place), 0);
}
