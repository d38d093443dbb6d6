//! `docker create`, `start`, `cp`, `export`, `rm` below their command lines; and what prune and `du` make of it all.

use std::io::Read;
use std::sync::{Arc, Mutex};

use dockless::base::{Cancel, Progress};
use dockless::engine::containers::{self, Create, Volume};
use dockless::engine::{Keep, UsageKind, du, prune};
use dockless::exec::{Exit, Io, Stdin};

use crate::fixture::World;

fn words(text: &str) -> Vec<String> {
    vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()]
}

fn create(world: &World, create: Create) -> anyhow::Result<containers::Container> {
    containers::create(&world.state, &"busybox".parse().unwrap(), &create, &Progress::none(), &Cancel::new())
}

fn start(world: &World, name: &str) -> (Exit, String) {
    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Sink {
        fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let sink = Sink::default();
    let io = Io { stdin: Stdin::Null, stdout: Box::new(sink.clone()), stderr: Box::new(sink.clone()) };
    let exit = containers::start(&world.state, name, io, &Cancel::new()).unwrap();
    let text = String::from_utf8_lossy(&sink.0.lock().unwrap()).into_owned();
    (exit, text)
}

fn read(world: &World, name: &str, path: &str) -> Vec<(String, String)> {
    let mut tar = Vec::new();
    containers::read_path(&world.state, name, path, false, &mut tar).unwrap();
    let mut files = Vec::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        files.push((entry.path().unwrap().display().to_string(), text));
    }
    files
}

#[test]
fn a_container_keeps_what_its_process_wrote() {
    let Some(world) = World::with_busybox() else { return };
    let made = create(
        &world,
        Create {
            name: Some("box".to_owned()),
            command: words("echo out; echo $A $HOSTNAME; mkdir /made; echo x > /made/file; exit 3"),
            env: vec!["A=1".to_owned()],
            hostname: Some("here".to_owned()),
            ..Create::default()
        },
    )
    .unwrap();
    assert_eq!(start(&world, "box"), (Exit::Code(3), "out\n1 here\n".to_owned()));
    assert_eq!(containers::find(&world.state, &made.id[..6]).unwrap().exit, Some(3));
    let expected = [("made/", ""), ("made/file", "x\n")].map(|(path, text)| (path.to_owned(), text.to_owned()));
    assert_eq!(read(&world, "box", "/made"), expected);
    assert_eq!(read(&world, "box", "/made/file"), [("file".to_owned(), "x\n".to_owned())]);
    let error = containers::read_path(&world.state, "box", "/none", false, &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "container box has no /none");
}

#[test]
fn files_go_in_and_the_whole_comes_out() {
    let Some(world) = World::with_busybox() else { return };
    let made = create(&world, Create { command: words("cat /tmp/in/file"), ..Create::default() }).unwrap();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_mode(0o600);
    header.set_size(5);
    tar.append_data(&mut header, "in/file", &b"hello"[..]).unwrap();
    let tar = tar.into_inner().unwrap();
    containers::write_path(&world.state, &made.name, "/tmp", &mut tar.as_slice()).unwrap();
    assert_eq!(start(&world, &made.name), (Exit::Code(0), "hello".to_owned()));
    let mut all = Vec::new();
    containers::export(&world.state, &made.name, &mut all).unwrap();
    let names: Vec<String> = tar::Archive::new(all.as_slice())
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert!(names.contains(&"tmp/in/file".to_owned()) && names.contains(&"bin/busybox".to_owned()), "{names:?}");
    let error = containers::write_path(&world.state, &made.name, "/none", &mut tar.as_slice()).unwrap_err();
    assert!(error.to_string().starts_with("/none is not a directory"), "{error}");
}

#[test]
fn volumes_are_shared_and_start_with_the_images_files() {
    let Some(world) = World::with_busybox() else { return };
    world.write("host", "from the host");
    let volumes = vec![
        Volume::Named { name: "v".to_owned(), target: "/etc".to_owned(), read_only: false },
        Volume::Bind { source: world.context(), target: "/host".to_owned(), read_only: true },
        Volume::Tmpfs { target: "/t".to_owned(), size: None, mode: None },
    ];
    for (command, expected) in [
        (
            "cat /host/host; echo; ls /etc; touch /etc/new /t/x; touch /host/no 2>/dev/null || echo read-only",
            "from the host\ngroup\npasswd\nread-only\n",
        ),
        ("ls /etc; ls /t", "group\nnew\npasswd\n"),
    ] {
        let made =
            create(&world, Create { command: words(command), volumes: volumes.clone(), ..Create::default() }).unwrap();
        let (exit, text) = start(&world, &made.name);
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("hosts") && !line.starts_with("resolv") && !line.starts_with("hostname"))
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!((exit, text.as_str()), (Exit::Code(0), expected));
    }
}

#[test]
fn names_are_unique_and_removed_ones_are_gone() {
    let Some(world) = World::with_busybox() else { return };
    let named = || Create { name: Some("one".to_owned()), ..Create::default() };
    let first = create(&world, named()).unwrap();
    let error = create(&world, named()).unwrap_err();
    assert_eq!(error.to_string(), format!("container name \"one\" is already in use by container {}", first.id));
    assert_eq!(containers::list(&world.state).unwrap().len(), 1);
    containers::remove(&world.state, "one").unwrap();
    assert!(containers::list(&world.state).unwrap().is_empty());
    assert_eq!(containers::remove(&world.state, "one").unwrap_err().to_string(), "no such container: one");
    create(&world, named()).unwrap();
}

#[test]
fn prune_leaves_what_containers_and_names_need() {
    let Some(world) = World::with_busybox() else { return };
    let made = create(&world, Create { command: words("echo x > /file"), ..Create::default() }).unwrap();
    start(&world, &made.name);
    world.build("FROM busybox\nRUN --mount=type=cache,id=c,target=/c touch /c/x /built\n").ok();
    let kinds = |kind: UsageKind| du(&world.state).unwrap().into_iter().filter(|usage| usage.kind == kind).count();
    assert!(kinds(UsageKind::Snapshot) >= 3);
    assert_eq!((kinds(UsageKind::Image), kinds(UsageKind::CacheMount)), (2, 1));
    let keep = Keep { cache_mounts: true, images: true, ..Keep::default() };
    prune(&world.state, &keep).unwrap();
    assert_eq!(kinds(UsageKind::CacheMount), 1);
    let pruned = prune(&world.state, &Keep::default()).unwrap();
    assert!(pruned.bytes > 0 && pruned.removed.contains(&"/c".to_owned()), "{pruned:?}");
    assert_eq!((kinds(UsageKind::Image), kinds(UsageKind::CacheMount), kinds(UsageKind::Blob)), (2, 0, 0));
    assert_eq!(read(&world, &made.name, "/file"), [("file".to_owned(), "x\n".to_owned())]);
    // All of it can be built again.
    let files = world.files("FROM busybox\nRUN --mount=type=cache,id=c,target=/c touch /c/x /built\n");
    assert!(files.contains_key("built"));
}
