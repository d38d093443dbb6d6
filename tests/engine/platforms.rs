//! Builds for several platforms: an index in the store, a folder each in files, and steps of a platform that is not
//! this host's.

use std::fs;

use dockless::base::Platform;
use dockless::engine::{DockerfilePlan, Export, LayerOptions, SolveRequest};
use dockless::image::Image;
use dockless::ops::ForeignPlatform;
use dockless::store::read_document;

use crate::fixture::{World, listing};

const COPY: &str = "FROM scratch\nARG TARGETARCH\nCOPY for-$TARGETARCH /what\n";

fn platforms(names: &[&str]) -> impl Fn(&mut DockerfilePlan, &mut SolveRequest) {
    let platforms: Vec<Platform> = names.iter().map(|name| name.parse().unwrap()).collect();
    move |plan, _| plan.platforms.clone_from(&platforms)
}

#[test]
fn several_platforms_make_one_index() {
    let world = World::new();
    world.write("for-amd64", "a");
    world.write("for-riscv64", "r");
    let both = platforms(&["linux/amd64", "linux/riscv64", "linux/amd64"]);
    let (outcome, events) = world.build_with(COPY, &both).ok();
    assert!(format!("{events:?}").contains("[linux/riscv64 1/1] COPY for-riscv64 /what"), "steps say for which");

    let images = world.state.images();
    let descriptor = images.named(&"test".parse().unwrap()).unwrap().expect("it is named");
    assert_eq!(outcome.image.unwrap().manifest.unwrap().digest, descriptor.digest);
    let index = read_document(images.blobs().as_ref(), &descriptor.digest).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let listed: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["platform"]["architecture"].as_str().unwrap())
        .collect();
    assert_eq!(listed, ["amd64", "riscv64"], "a platform named twice is built once");
    let riscv = images.load_for(&descriptor, &Platform::new("linux", "riscv64", "")).unwrap();
    assert_eq!(riscv.config.platform.arch, "riscv64");
    let history: Vec<_> = riscv.config.history.iter().filter_map(|line| line.created_by.clone()).collect();
    assert_eq!(history, ["ARG TARGETARCH=riscv64", "COPY for-riscv64 /what # buildkit"]);
}

#[test]
fn files_of_several_platforms_have_a_folder_each() {
    let world = World::new();
    world.write("for-amd64", "a");
    world.write("for-arm", "r");
    let tar = world.dir.path().join("files.tar");
    let dest = world.dir.path().join("files");
    let layout = world.dir.path().join("layout");
    let both = platforms(&["linux/amd64", "linux/arm/v7"]);
    let exports = vec![
        Export::Tar { dest: dockless::engine::Dest::File(tar.clone()) },
        Export::Local { dest: dest.clone() },
        Export::Oci {
            names: vec!["x:1".parse().unwrap()],
            dest: dockless::engine::Dest::File(layout.clone()),
            tar: false,
            options: LayerOptions::default(),
        },
    ];
    world
        .build_with(COPY, |plan, request| {
            both(plan, request);
            request.exports = exports;
        })
        .ok();
    let files = listing(&tar);
    assert_eq!((files["linux_amd64/what"].as_str(), files["linux_arm_v7/what"].as_str()), ("644 0:0 a", "644 0:0 r"));
    assert_eq!(fs::read_to_string(dest.join("linux_arm_v7/what")).unwrap(), "r");
    let tmp = tempfile::tempdir().unwrap();
    let opened = dockless::image::open(&layout, tmp.path()).unwrap();
    let images: Vec<&Image> = opened.images.iter().map(|(image, _)| image).collect();
    assert_eq!(images.len(), 1, "one name, and of its index the image that runs here");
}

#[test]
fn a_docker_archive_for_several_platforms_is_refused_before_anything_is_built() {
    let world = World::new();
    let both = platforms(&["linux/amd64", "linux/arm64"]);
    let outcome = world.build_with(COPY, |plan, request| {
        both(plan, request);
        let dest = dockless::engine::Dest::File(world.dir.path().join("x.tar"));
        request.exports = vec![Export::Docker { names: Vec::new(), dest, options: LayerOptions::default() }];
    });
    assert!(outcome.err().to_string().starts_with("a docker archive holds an image for one platform"));
}

/// A program of 93 bytes that ends at once; for machines other than 386 it is nothing but its header.
fn program(machine: u16) -> Vec<u8> {
    let code = [0x31, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]; // exit(0)
    let (headers, base) = (52 + 32, 0x0804_8000_u32);
    let size = headers + code.len() as u32;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for half in [2, machine] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, base + headers, 52, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [52_u16, 32, 1, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    for word in [1, 0, base, base, size, size, 5, 0x1000] {
        elf.extend(word.to_le_bytes());
    }
    elf.extend(code);
    elf
}

/// The same for arm64, in the format of 64 bits.
fn arm64_program() -> Vec<u8> {
    let code = [0xd280_0000_u32, 0xd280_0ba8, 0xd400_0001]; // mov x0, #0; mov x8, #93; svc #0
    let (headers, base) = (64 + 56, 0x40_0000_u64);
    let size = headers + 4 * code.len() as u64;
    let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    elf.extend([2_u16, 183].map(u16::to_le_bytes).concat()); // a program, for AArch64
    elf.extend(1_u32.to_le_bytes());
    elf.extend([base + headers, 64, 0].map(u64::to_le_bytes).concat());
    elf.extend(0_u32.to_le_bytes());
    elf.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    elf.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    elf.extend([0, base, base, size, size, 0x1000].map(u64::to_le_bytes).concat());
    elf.extend(code.map(u32::to_le_bytes).concat());
    elf
}

/// A world with a program in its context; none where no step can run.
fn with_program(program: &[u8]) -> Option<World> {
    let world = World::new();
    if let Err(error) = world.state.choice() {
        eprintln!("skip: needs a place where steps can run ({error:#})");
        return None;
    }
    let path = world.context().join("program");
    fs::write(&path, program).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    Some(world)
}

const RUN: &str = "FROM scratch\nCOPY program /program\nRUN [\"/program\"]\n";

#[test]
fn a_step_of_a_386_image_runs_on_amd64() {
    if Platform::host().arch != "amd64" {
        eprintln!("skip: needs an amd64 host");
        return;
    }
    const I386: u16 = 3;
    let Some(world) = with_program(&program(I386)) else { return };
    let runs_here = std::process::Command::new(world.context().join("program")).status();
    if runs_here.is_err() {
        eprintln!("skip: this kernel runs no 386 programs");
        return;
    }
    let (outcome, _) = world.build_with(RUN, platforms(&["linux/386"])).ok();
    assert_eq!(outcome.image.unwrap().platform.to_string(), "linux/386");
}

#[test]
fn a_step_of_another_machine_runs_where_an_emulator_is_registered() {
    let Some(world) = with_program(&arm64_program()) else { return };
    // One that is opened when it is registered (flag F) is there inside of a step's root too.
    let entries = fs::read_dir("/proc/sys/fs/binfmt_misc").into_iter().flatten().flatten();
    let registered = entries
        .filter(|entry| entry.file_name().to_string_lossy().contains("aarch64"))
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .any(|text| {
            text.starts_with("enabled") && text.lines().any(|line| line.starts_with("flags:") && line.contains('F'))
        });
    if !registered || Platform::host().arch == "arm64" {
        eprintln!(
            "skip: a_step_of_another_machine_runs_where_an_emulator_is_registered: needs another machine than arm64, and \
             an emulator of arm64 in binfmt_misc (Debian: qemu-user-static)"
        );
        return;
    }
    let (outcome, _) = world.build_with(RUN, platforms(&["linux/arm64"])).ok();
    assert_eq!(outcome.image.unwrap().platform.to_string(), "linux/arm64");
}

#[test]
fn a_step_that_nothing_here_can_run_says_so() {
    // Of a machine that is long gone, so that no emulator is registered for it.
    const CLIPPER: u16 = 127;
    let Some(world) = with_program(&program(CLIPPER)) else { return };
    let error = world.build_with(RUN, platforms(&["linux/s390x"])).err();
    let foreign = error.chain().find_map(|cause| cause.downcast_ref::<ForeignPlatform>()).expect("a reason");
    assert_eq!(foreign.program, "/program");
    assert!(format!("{error:#}").contains("has no emulator registered for linux/s390x"), "{error:#}");
}
