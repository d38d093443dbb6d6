//! What a RUN step can have: mounts, users, networks, and a proper end when it fails.

use dockless::engine::StepFailed;
use dockless::exec::Exit;

use crate::fixture::{World, log};

#[test]
fn a_failing_step_is_told_with_its_place_and_its_last_lines() {
    let Some(world) = World::with_busybox() else { return };
    let error =
        world.build("FROM busybox\n# comment\nRUN for n in $(seq 60); do echo line $n; done; \\\n  exit 7\n").err();
    let failed = error.downcast_ref::<StepFailed>().expect("a failed step");
    assert!(failed.name.ends_with("exit 7"), "{}", failed.name);
    let location = failed.location.as_ref().unwrap();
    assert_eq!((location.file.as_str(), location.lines.as_slice()), ("Dockerfile", &[(3, 4)][..]));
    assert!(location.text.contains("# comment"));
    let (command, exit) = failed.process.as_ref().unwrap();
    assert_eq!(*exit, Exit::Code(7));
    assert!(command.starts_with("/bin/sh -c for n"), "{command}");
    assert_eq!(failed.last_lines.len(), 50);
    assert_eq!(failed.last_lines.last().unwrap(), "line 60");
    assert!(format!("{error:#}").ends_with("did not complete successfully: exit code: 7"), "{error:#}");
}

#[test]
fn a_failing_step_stops_its_siblings_and_leaves_nothing_that_looks_finished() {
    let Some(world) = World::with_busybox() else { return };
    let began = std::time::Instant::now();
    let error = world
        .build("FROM busybox AS slow\nRUN sleep 60\nFROM busybox AS bad\nRUN sleep 0.2; false\nFROM scratch\nCOPY --from=slow /x /\nCOPY --from=bad /x /\n")
        .err();
    assert!(error.downcast_ref::<StepFailed>().unwrap().name.contains("false"));
    assert!(began.elapsed().as_secs() < 30, "the sleeping step was stopped");
    // Built again: nothing of the failed steps is taken for done.
    world.build("FROM busybox AS bad\nRUN sleep 0.2; false\n").err();
}

#[test]
fn cancelling_ends_a_build_soon() {
    let Some(world) = World::with_busybox() else { return };
    let cancel = dockless::base::Cancel::new();
    std::thread::scope(|scope| {
        let building = scope
            .spawn(|| world.build_with("FROM busybox\nRUN sleep 60\n", |_, request| request.cancel = cancel.clone()));
        std::thread::sleep(std::time::Duration::from_millis(700));
        cancel.cancel();
        let error = building.join().unwrap().err();
        assert!(error.chain().any(|cause| cause.is::<dockless::base::cancel::Cancelled>()), "{error:?}");
    });
}

#[test]
fn secrets_are_files_or_variables_and_never_stay() {
    let Some(world) = World::with_busybox() else { return };
    let (_, events) = world
        .build_with(
            "FROM busybox\nRUN --mount=type=secret,id=s,mode=0444 --mount=type=secret,id=s,env=S cat /run/secrets/s; echo; echo \"[$S]\"\nRUN ls /run/secrets || echo gone\n",
            |_, request| {
                request.secrets.insert("s".to_owned(), "hunter2".into());
            },
        )
        .ok();
    let log = log(&events);
    assert!(log.contains("hunter2\n[hunter2]\n") && log.contains("gone"), "{log}");
    let error = world.build("FROM busybox\nRUN --mount=type=secret,id=none,required=true true\n").err();
    assert!(format!("{error:#}").contains("secret none: not found"), "{error:#}");
    world.build("FROM busybox\nRUN --mount=type=secret,id=none true\n").ok();
    // Nothing in the state folder remembers it.
    let grep =
        std::process::Command::new("grep").args(["-r", "-l", "hunter2"]).arg(world.state.dir()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "");
}

#[test]
fn bind_mounts_show_other_stages_and_the_context_and_keep_nothing() {
    let Some(world) = World::with_busybox() else { return };
    world.write("sub/file", "context");
    world.write("hidden", "ignored");
    world.write(".dockerignore", "hidden\n");
    let files = world.files(
        "FROM busybox AS tool\nRUN mkdir /tool && echo tool > /tool/name\n\
         FROM busybox\nRUN --mount=type=bind,target=/ctx --mount=from=tool,source=/tool,target=/t,rw \\\n\
         cat /ctx/sub/file /t/name > /out; ls /ctx >> /out; echo x > /t/new; if echo x > /ctx/no; then echo bad >> /out; fi\n",
    );
    assert_eq!(files["out"], "644 0:0 contexttool\nsub\n");
    assert!(!files.contains_key("ctx") && !files.contains_key("t"), "{:?}", files.keys());
}

#[test]
fn a_cache_folder_outlives_the_build_and_is_no_part_of_the_image() {
    let Some(world) = World::with_busybox() else { return };
    let text = |n: u32| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,id=c,target=/cache echo {n} >> /cache/all; cat /cache/all > /seen\n"
        )
    };
    assert_eq!(world.files(&text(1))["seen"], "644 0:0 1\n");
    let files = world.files(&text(2));
    assert_eq!(files["seen"], "644 0:0 1\n2\n");
    assert!(!files.contains_key("cache/all"));
    let other = world.files("FROM busybox\nRUN --mount=type=cache,id=d,target=/cache,uid=7,gid=8,mode=0750 stat -c '%u %g %a' /cache > /seen\n");
    assert_eq!(other["seen"], "644 0:0 7 8 750\n");
}

#[test]
fn a_locked_cache_folder_has_one_user_at_a_time_and_a_private_one_is_each_ones_own() {
    let Some(world) = World::with_busybox() else { return };
    let both = |sharing: &str| {
        let step = |name: &str| {
            format!(
                "FROM busybox AS {name}\nRUN --mount=type=cache,id=s{sharing},target=/c,sharing={sharing} if test -e /c/busy; then echo shared > /out; else echo alone > /out; fi; touch /c/busy; sleep 1; rm -f /c/busy\n"
            )
        };
        world.files(&format!("{}{}FROM scratch\nCOPY --from=a /out /a\nCOPY --from=b /out /b\n", step("a"), step("b")))
    };
    for (sharing, expected) in [("locked", false), ("private", false)] {
        let files = both(sharing);
        let shared = files["a"].contains("shared") || files["b"].contains("shared");
        assert_eq!(shared, expected, "{sharing}: {files:?}");
    }
}

#[test]
fn a_tmpfs_a_missing_directory_and_no_network() {
    let Some(world) = World::with_busybox() else { return };
    let files = world.files(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t echo x > /t/x\nRUN --network=none ls /sys/class/net > /net\n",
    );
    assert!(!files.contains_key("t/x"));
    assert_eq!(files["net"], "644 0:0 lo\n");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let Some(world) = World::with_busybox() else { return };
    let error = world.build("FROM busybox\nRUN [\"/no/such\"]\n").err();
    assert!(format!("{error:#}").contains("/no/such"), "{error:#}");
    let error = world.build("FROM busybox\nUSER nobody\nRUN true\n").err();
    assert!(format!("{error:#}").contains("unable to find user nobody"), "{error:#}");
}

#[test]
fn a_missing_source_of_a_copy_is_named() {
    let world = World::new();
    world.write("hidden", "x");
    world.write(".dockerignore", "hid*\n");
    let error = world.build("FROM scratch\nCOPY hidden /\n").err();
    let failed = error.downcast_ref::<StepFailed>().unwrap();
    assert_eq!(failed.location.as_ref().unwrap().lines, [(2, 2)]);
    assert!(format!("{error:#}").contains("hidden"), "{error:#}");
}
