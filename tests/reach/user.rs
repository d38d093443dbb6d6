//! The main job as an ordinary user: examples/monorepo, from base images to an expanded root file system.

use std::process::Command;

use crate::yard::{repository, run, skip, yard};

/// As the README's `make demo` does it, in one place.
fn demo(place: &str) {
    let test = format!("the main job in {place}");
    let Some(yard) = yard(&test) else { return };
    for base in ["busybox", "build"] {
        if let Err(reason) = yard.base(base) {
            return skip(&test, &reason);
        }
    }
    let home = yard.dir.join(format!("demo-{place}"));
    std::fs::create_dir_all(home.join("bases")).unwrap();
    for name in ["ci", "examples"] {
        run(Command::new("cp").arg("-R").arg(repository().join(name)).arg(&home));
    }
    // Links would lead out of what the user may read.
    run(Command::new("sh")
        .args(["-c", r#"cp bases/busybox.tar bases/build.tar "$0"/bases/"#])
        .arg(&home)
        .current_dir(&yard.dir));
    let script = format!("demo-{place}/ci/demo ./dockless demo-{place}");
    let output = yard.command(place, &[], &["sh", "-c", &script]).output().expect("start bash");
    let log = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if log.contains("this version of dockless does not have it") {
        return skip(&test, "this version of dockless does not have its isolation");
    }
    assert!(output.status.success() && log.contains("Hi, dear reader! (2 words)"), "{place}:\n{log}");
}

macro_rules! places {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            #[ignore = "the long half: make test-reach"]
            fn $test() {
                demo($name);
            }
        )*
    };
}

places! {
    a_user_with_subordinate_ids: "user",
    a_user_without: "user-nosubuid",
    a_user_without_namespaces: "user-nouserns",
    an_unprivileged_task: "concourse-unprivileged",
    docker_run: "docker-default",
    a_restricted_pod: "k8s-restricted",
}
