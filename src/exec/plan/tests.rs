//! Plans compared as lists.

use std::path::PathBuf;

use super::*;
use crate::base::Secret;

fn place() -> Place {
    Place {
        own_proc: true,
        own_sysfs: true,
        many_ids: true,
        privileged: true,
        scratch: HostPath::from("/state/exec/scratch"),
    }
}

fn overlay() -> RootFs {
    RootFs::Overlay { lower: vec!["/deltas/1".into()], upper: "/new/upper".into(), work: "/new/work".into() }
}

fn process() -> Process {
    Process { args: vec!["true".into()], cwd: "/".into(), ..Process::default() }
}

fn planned(process: &Process, place: &Place) -> Plan {
    let host = HostFiles { resolv_conf: b"nameserver 192.0.2.1\n".to_vec() };
    plan(&overlay(), process, false, place, &host, Path::new("/stubs")).unwrap()
}

/// Steps as short words.
fn words(plan: &Plan) -> Vec<String> {
    plan.setup
        .iter()
        .map(|step| match step {
            Step::PrivateMounts => "private".into(),
            Step::Scratch { .. } => "scratch".into(),
            Step::WriteFile { name, content, .. } => format!("write {name} {content:?}"),
            Step::Overlay { name, lower, .. } => format!("overlay {name} of {}", lower.len()),
            Step::Directory { name, .. } => format!("directory {name}"),
            Step::Mount { kind, target, options } => format!("mount {kind:?} {target} {options}"),
            Step::Bind { from, target, recursive, read_only } => {
                let from = match from {
                    Source::Host(path) => path.as_ref().display().to_string(),
                    Source::Scratch(name) => format!("./{name}"),
                    Source::View { name, path } => format!("./{name}:{}", path.as_ref().display()),
                };
                let flags = [(*recursive, " all"), (*read_only, " ro")];
                let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, word)| *word).collect();
                format!("bind {from} {target}{flags}")
            }
            Step::Symlink { target, to } => format!("link {target} {to}"),
            Step::Hide { target } => format!("hide {target}"),
            Step::NoDevices { target } => format!("no devices {target}"),
            Step::Protect { target } => format!("protect {target}"),
            Step::MakeDirectory { target } => format!("cwd {target}"),
            Step::Hostname(name) => format!("hostname {name}"),
            Step::Loopback => "loopback".into(),
            Step::Pivot { read_only } => format!("pivot{}", if *read_only { " ro" } else { "" }),
        })
        .collect()
}

#[test]
fn a_plain_step_as_root() {
    let plan = planned(&process(), &place());
    assert_eq!(plan.namespaces, Some(Namespaces { pid: true, network: false }));
    let expected = "private
scratch
overlay root of 2
no devices /
mount Proc /proc 
mount Sysfs /sys 
mount Dev /dev mode=755,size=64k
no devices /dev
bind /dev/null /dev/null all
bind /dev/zero /dev/zero all
bind /dev/full /dev/full all
bind /dev/random /dev/random all
bind /dev/urandom /dev/urandom all
bind /dev/tty /dev/tty all
mount Devpts /dev/pts newinstance,ptmxmode=0666,mode=0620,gid=5
mount Tmpfs /dev/shm mode=1777,size=64m
mount Mqueue /dev/mqueue 
link /dev/core /proc/kcore
link /dev/fd /proc/self/fd
link /dev/ptmx pts/ptmx
link /dev/stderr /proc/self/fd/2
link /dev/stdin /proc/self/fd/0
link /dev/stdout /proc/self/fd/1
hide /proc/acpi
hide /proc/asound
hide /proc/interrupts
hide /proc/kcore
hide /proc/keys
hide /proc/latency_stats
hide /proc/sched_debug
hide /proc/scsi
hide /proc/timer_list
hide /proc/timer_stats
hide /sys/devices/virtual/powercap
hide /sys/firmware
protect /proc/bus
protect /proc/fs
protect /proc/irq
protect /proc/sys
protect /proc/sysrq-trigger
write hostname 16 bytes
bind ./hostname /etc/hostname
write hosts 77 bytes
bind ./hosts /etc/hosts
write resolv.conf 21 bytes
bind ./resolv.conf /etc/resolv.conf
cwd /
hostname buildkitsandbox
pivot";
    assert_eq!(words(&plan).join("\n"), expected);
    assert!(plan.launch.confined && plan.launch.answered == Answered::Kernel);
}

#[test]
fn a_place_that_allows_less() {
    let narrow = Place { own_proc: false, own_sysfs: false, many_ids: false, privileged: false, ..place() };
    let plan = planned(&process(), &narrow);
    assert!(!plan.namespaces.unwrap().pid, "a /proc of other processes would lie");
    assert_eq!(plan.launch.answered, Answered::Owners);
    let words = words(&plan);
    for expected in
        ["bind /proc /proc all", "bind /sys /sys all ro", "mount Devpts /dev/pts newinstance,ptmxmode=0666,mode=0620"]
    {
        assert!(words.iter().any(|word| word == expected), "{expected}");
    }
}

#[test]
fn mounts_come_after_what_they_may_cover_and_secrets_are_not_shown() {
    let mount = |target: &str, source, read_only| Mount { target: target.into(), source, read_only };
    let process = Process {
        mounts: vec![
            mount("/src", MountSource::Bind("/context".into()), true),
            mount("/stage", MountSource::RootFs { root: overlay(), subpath: "usr".into() }, true),
            mount("/tmp", MountSource::Tmpfs { size: Some(5), mode: Some(0o700) }, false),
            mount(
                "/run/secrets/s",
                MountSource::Secret { value: Secret::from("hunter2"), mode: 0o400, uid: 5, gid: 6 },
                true,
            ),
        ],
        network: Network::None,
        read_only_root: true,
        ..process()
    };
    let plan = planned(&process, &place());
    let words = words(&plan);
    let tail = &words[words.iter().position(|word| word == "bind ./resolv.conf /etc/resolv.conf").unwrap() + 1..];
    assert_eq!(
        tail,
        [
            "bind /context /src all ro",
            "no devices /src",
            "overlay view1 of 1",
            "bind ./view1:usr /stage all ro",
            "no devices /stage",
            "mount Tmpfs /tmp mode=700,size=5",
            "no devices /tmp",
            "write secret3 7 bytes",
            "bind ./secret3 /run/secrets/s all ro",
            "no devices /run/secrets/s",
            "cwd /",
            "hostname buildkitsandbox",
            "loopback",
            "pivot ro",
        ]
    );
    assert!(!format!("{plan:?}").contains("hunter2"));
}

#[test]
fn hosts_names_the_machine_and_the_extra_hosts() {
    let process =
        Process { hostname: Some("h".into()), extra_hosts: vec![("db".into(), "192.0.2.7".into())], ..process() };
    let content = planned(&process, &place()).setup.into_iter().find_map(|step| match step {
        Step::WriteFile { name, content, .. } if name == "hosts" => Some(content.0),
        _ => None,
    });
    let expected = "127.0.0.1\tlocalhost h\n::1\tlocalhost ip6-localhost ip6-loopback\n192.0.2.7\tdb\n";
    assert_eq!(String::from_utf8(content.unwrap()).unwrap(), expected);
}

#[test]
fn what_cannot_be_given_is_refused_by_name() {
    let mount = Mount { target: "relative".into(), source: MountSource::Bind(PathBuf::from("/x")), read_only: true };
    let narrow = Place { privileged: false, ..place() };
    for (process, place, expected) in [
        (Process { insecure: true, ..process() }, &narrow, "a step with all privileges is not possible"),
        (Process { ulimits: vec![("x".into(), 1, 2)], ..process() }, &place(), "the limit x is not possible"),
        (Process { mounts: vec![mount], ..process() }, &place(), "a mount at \"relative\" is not possible"),
        (Process { args: vec!["a\0b".into()], ..process() }, &place(), "an argument (a\\u{0}b) has a NUL byte in it"),
        (Process { env: vec!["A=\0".into()], ..process() }, &place(), "a variable (A=\\u{0}) has a NUL byte in it"),
    ] {
        let error = plan(&overlay(), &process, false, place, &HostFiles::default(), Path::new("/stubs")).unwrap_err();
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn stubs_are_for_mount_points_in_the_image_only() {
    let mount = |target: &str, source| Mount { target: target.into(), source, read_only: false };
    let tmpfs = || MountSource::Tmpfs { size: None, mode: None };
    let process = Process { mounts: vec![mount("/var/cache", tmpfs()), mount("/dev/shm", tmpfs())], ..process() };
    let targets: Vec<_> = stubs(&process).into_iter().map(|stub| (stub.target, stub.directory)).collect();
    let expected = [
        ("/dev", true),
        ("/etc/hostname", false),
        ("/etc/hosts", false),
        ("/etc/resolv.conf", false),
        ("/proc", true),
        ("/sys", true),
        ("/var/cache", true),
    ];
    assert_eq!(targets, expected.map(|(target, directory)| (target.to_owned(), directory)));
}

#[test]
fn a_plan_survives_its_way_to_the_sandbox() {
    let plan = planned(&process(), &place());
    let text = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
