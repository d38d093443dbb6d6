//! The main job as a newcomer meets it: `make demo` on examples/monorepo, and dockless building its own task image and
//! then working inside it. Needs mmdebstrap and the network of Debian's packages, as the README says.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::oracle::{self, dockless, find, repository, run, skip};

/// Debian bases take half a minute to make; all runs on one machine share them.
fn bases() -> std::path::PathBuf {
    repository().join("target/bases")
}

fn needs_debian(test: &str) -> bool {
    for tool in ["mmdebstrap", "busybox", "make"] {
        if find(tool).is_none() {
            skip(test, &format!("needs {tool}"));
            return false;
        }
    }
    true
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn the_demo_builds_three_images_and_expands_them() {
    if !needs_debian("the_demo_builds_three_images_and_expands_them") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(bases()).unwrap();
    std::os::unix::fs::symlink(bases(), dir.path().join("bases")).unwrap();
    let out = run(Command::new(repository().join("ci/demo")).arg(dockless()).arg(dir.path()));
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("Hi, dear reader! (2 words)"), "{out}");

    let release = dir.path().join("monorepo/release");
    for (image, repository) in [("greeter", "monorepo/greeter"), ("tally", "monorepo/tally")] {
        let folder = release.join(image);
        assert_eq!(text(&folder.join("repository")).trim(), repository);
        assert_eq!(text(&folder.join("tag")).trim(), "1.0");
        assert!(text(&folder.join("digest")).starts_with("sha256:"));
        assert!(text(&folder.join("image-id")).starts_with("sha256:"));
        assert!(folder.join("image.tar").is_file());
    }
    assert!(release.join("greeter/rootfs/usr/local/bin/greeter").is_file());
    let metadata: serde_json::Value = serde_json::from_str(&text(&release.join("greeter/metadata.json"))).unwrap();
    assert_eq!(metadata["user"], "1000:1000");
    assert!(metadata["env"].as_array().unwrap().contains(&"GREETING=Hello".into()));
    assert!(release.join("greeter/bin/greeter").is_file(), "an artifact out of the image");
    assert!(release.join("greeter/objects/greeter.o").is_file(), "an artifact out of a stage");
    assert!(release.join("tally/rootfs.tgz").is_file());
    assert!(release.join("sdk/lib/libtext.a").is_file(), "an image that is only artifacts");
    assert!(release.join("sdk/include/text.h").is_file());

    if let Some(skopeo) = find("skopeo") {
        for image in ["greeter", "tally", "sdk"] {
            let archive = format!("docker-archive:{}", release.join(image).join("image.tar").display());
            run(Command::new(&skopeo).args(["inspect", &archive]));
        }
    }
}

/// `make release`, but for the compiler: the binary under test is the one that goes into the image.
#[test]
fn dockless_builds_its_own_task_image_and_works_inside_it() {
    let test = "dockless_builds_its_own_task_image_and_works_inside_it";
    if !needs_debian(test) {
        return;
    }
    if !oracle::is_root() {
        return skip(test, "entering the image's root file system needs root");
    }
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    run(Command::new(repository().join("ci/bases"))
        .arg(dockless())
        .arg(bases())
        .arg("task")
        .env("DOCKLESS_STATE", &state));

    let src = dir.path().join("src");
    fs::create_dir_all(src.join("target")).unwrap();
    for file in ["Dockerfile", ".dockerignore"] {
        fs::copy(repository().join(file), src.join(file)).unwrap();
    }
    fs::copy(dockless(), src.join("target/dockless")).unwrap();
    run(Command::new(dockless())
        .args(["task", "--output", "release", "--rootfs", "--", "docker", "build"])
        .args(["--build-arg", "BASE=dockless.example/debian-task:bookworm", "-t", "dockless/dockless:test", "."])
        .env("DOCKLESS_STATE", &state)
        .current_dir(&src));

    let image = src.join("release/dockless");
    assert!(image.join("image.tar").is_file());
    let rootfs = image.join("rootfs");
    for program in ["check", "in", "out"] {
        assert!(fs::symlink_metadata(rootfs.join("opt/resource").join(program)).unwrap().is_symlink());
    }

    // Inside: a task of its own, with the tools of the image, and a base that it is handed as a tar.
    let inner = rootfs.join("src");
    fs::copy(oracle::busybox_tar(&bases()), inner.join("busybox.tar")).unwrap();
    fs::write(inner.join("Dockerfile"), "FROM inner/base:1\nRUN echo made inside > /proof\n").unwrap();
    fs::write(
        inner.join("Makefile"),
        "release:\n\tdocker import busybox.tar inner/base:1\n\t$(DOCKER) build -t inner/proof:2 .\n",
    )
    .unwrap();
    // The image has no mount(8): what a container runtime mounts, the root first, is mounted from outside.
    let enter = r#"mount --bind "$1" "$1" && mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/tmp" && exec chroot "$1" bash -ec "$2""#;
    let inside = "cd /src && export HOME=/root DOCKER=img DOCKLESS_STATE=/src/state && exec dockless task --rootfs";
    run(Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "sh", "-ec", enter, "sh"])
        .arg(&rootfs)
        .arg(inside)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
    assert_eq!(text(&inner.join("release/proof/rootfs/proof")), "made inside\n");
}
