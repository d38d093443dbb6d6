//! What comes out of a build.

use crate::fixture::World;

#[test]
fn a_copy_onto_scratch() {
    let world = World::new();
    world.write("a/file", "hello");
    let files = world.files("FROM scratch\nCOPY a /dir/\nCOPY --chmod=640 --chown=1:2 a/file /other\n");
    assert_eq!(files["dir"], "755 0:0 /");
    assert_eq!(files["dir/file"], "644 0:0 hello");
    assert_eq!(files["other"], "640 1:2 hello");
}

#[test]
fn a_run_sees_the_image_and_its_changes_are_the_result() {
    let Some(world) = World::with_busybox() else { return };
    let files = world.files("FROM busybox\nRUN echo made > /made && rm /etc/group && mkdir /new && chown 7:8 /new\n");
    assert_eq!(files["made"], "644 0:0 made\n");
    assert_eq!(files["new"], "755 7:8 /");
    assert!(!files.contains_key("etc/group"));
    assert!(files.contains_key("bin/busybox"));
    assert!(!files.contains_key("proc/self"), "what is mounted is not the result");
}

#[test]
fn stages_copy_from_each_other() {
    let Some(world) = World::with_busybox() else { return };
    world.write("src/main", "source");
    let files = world.files(
        "FROM busybox AS build\nWORKDIR /src\nCOPY src .\nRUN cat main > built; echo more >> built\n\
         FROM busybox AS unused\nRUN false\n\
         FROM scratch\nCOPY --from=build /src/built /out/\n",
    );
    assert_eq!(files.keys().collect::<Vec<_>>(), ["out", "out/built"]);
    assert_eq!(files["out/built"], "644 0:0 sourcemore\n");
}

#[test]
fn the_environment_user_and_directory_are_the_images() {
    let Some(world) = World::with_busybox() else { return };
    let (_, events) = world
        .build("FROM busybox\nENV A=1\nWORKDIR /w\nUSER user\nRUN id; env; readlink /proc/self/cwd; hostname\n")
        .ok();
    let log = crate::fixture::log(&events);
    for line in [
        "uid=1000(user) gid=1000(user) groups=50(extra),1000(user)",
        "A=1",
        "HOME=/home",
        "PATH=/bin",
        "/w",
        "buildkitsandbox",
    ] {
        assert!(log.lines().any(|l| l == line || l.starts_with(line)), "{line:?} is not in:\n{log}");
    }
}

#[test]
fn an_image_is_stored_with_its_config() {
    let Some(world) = World::with_busybox() else { return };
    let (outcome, _) = world.build("FROM busybox\nLABEL a=b\nRUN touch /x\nCMD [\"/x\"]\n").ok();
    let built = outcome.image.unwrap();
    let stored = world.state.images().find("test").unwrap().expect("the name is in the store");
    let image = world.state.images().load(&stored.descriptor).unwrap();
    assert_eq!(image.config_digest, built.config);
    assert_eq!(image.config.config.labels["a"], "b");
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["/x".to_owned()][..]));
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.config.history.iter().filter(|line| !line.empty_layer).count(), 2);
}
