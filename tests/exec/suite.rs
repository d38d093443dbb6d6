//! What every executor must do.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use dockless::base::{Cancel, Env, Secret};
use dockless::exec::{self, Error, Exit, Isolation, Mount, MountSource, Network, Process};
use dockless::sys::{RootFs, SideTable};
use rustix::thread::CapabilitySet;

use crate::ground::{self, Ground, names, shell, upper};
use crate::{traps, unmounted};

pub type Case = (&'static str, fn(&Ground));

const CASES: &[Case] = &[
    ("output comes whole, each stream by itself", output),
    ("exit codes and signals come through", exits),
    ("a missing program is named", missing),
    ("a program that cannot run is named", not_executable),
    ("kernel file systems look as in a container", kernel_file_systems),
    ("names come from outside and stay out of the layer", names_of_the_machine),
    ("a step changes its layer and nothing else", layers),
    ("an image without mount points keeps its layer clean", stubs),
    ("mounts of every kind", mounts),
    ("secrets are in memory only", secrets),
    ("users, groups and limits", users),
    ("owners are kept, shown and passed on", owners),
    ("owners outlive their step and can change in the next", owners_of_lower_layers),
    ("what is made in a setgid directory is its group's", setgid_directories),
    ("root becomes a user and cannot come back", becoming_a_user),
    ("devices can be made where the place is not in the way", devices),
    ("capabilities and system calls are a container's", confinement),
    ("no network but loopback", no_network),
    ("daemons end with the step", daemons),
    ("a cancelled step ends, with what it started", cancelled),
    ("a step may answer a cancellation before it ends", signals),
    ("a dockless that is killed leaves no process behind", killed),
    ("a step does not see what dockless has open", descriptors),
    ("every name of a link is its owner's", owners_of_linked_links),
    ("many layers", many_layers),
    ("a plain directory as root", directory),
    ("a user cannot change what is root's", unmounted::protection),
    ("whoever root becomes cannot change what is root's", protection_of_root),
    ("ten steps in a row", ten_steps),
];

pub fn run(place: &str, args: &[String]) -> ExitCode {
    let env = Env::new(
        std::env::vars_os(),
        std::env::current_dir().unwrap(),
        nix::unistd::getuid().as_raw(),
        nix::unistd::getgid().as_raw(),
    );
    let wanted = isolation(place);
    let entered = exec::enter(&env, wanted).unwrap();
    let dir = tempfile::Builder::new().prefix("dockless-exec-").tempdir_in(ground::disk()).unwrap();
    let report = exec::probe(dir.path(), exec::THIS_PROGRAM.as_ref()).unwrap();
    for check in &report.checks {
        println!("  {}: {}", check.trial, check.refusal.as_deref().unwrap_or("works"));
    }
    let choice = match report.choose(wanted) {
        Ok(choice) => choice,
        Err(error) => {
            eprintln!("skip: place {place}: {error}");
            return ExitCode::SUCCESS;
        }
    };
    println!("  {entered:?}: {}", choice.reason);
    assert!(place != "masked" || choice.reason.contains("/proc is masked here"));
    let mounts = matches!(choice.isolation, Isolation::Ns | Isolation::Ns1);
    if mounts && !choice.overlay {
        eprintln!("skip: place {place}: needs overlay mounts on {}", ground::disk().display());
        return ExitCode::SUCCESS;
    }
    let ground = Ground::new(dir, choice);
    let mut failed = 0;
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| name.contains(arg.as_str()));
    let cases: &[&[Case]] =
        if mounts { &[CASES, traps::CASES] } else { &[unmounted::CASES, traps::CASES, traps::SUPERVISED] };
    for (name, case) in cases.iter().copied().flatten().filter(|(name, _)| wanted(name)) {
        let started = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| case(&ground)));
        failed += i32::from(result.is_err());
        println!("  {} {name} ({:?})", if result.is_ok() { "ok  " } else { "FAIL" }, started.elapsed());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a place is there to show.
fn isolation(place: &str) -> Isolation {
    match place {
        "chroot" => Isolation::Chroot,
        "rewrite" | "rewrite-user" => Isolation::Rewrite,
        _ => Isolation::Auto,
    }
}

pub fn output(ground: &Ground) {
    let outcome = ground.run(&ground.root(), &shell("seq 1 200000; echo done >&2; printf '\\377no newline'"));
    let lines: Vec<_> = outcome.out.lines().collect();
    assert_eq!((lines.len(), lines[199_999]), (200_001, "200000"));
    assert!(lines[200_000].ends_with("no newline"));
    assert_eq!(outcome.err, "done\n");
}

pub fn exits(ground: &Ground) {
    for (script, expected) in [
        ("exit 0", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        ("kill -9 $$", Exit::Signal(9)),
        ("kill -15 $$", Exit::Signal(15)),
    ] {
        assert_eq!(ground.run(&ground.root(), &shell(script)).result.unwrap(), expected, "{script}");
    }
}

pub fn missing(ground: &Ground) {
    for program in ["nowhere", "/bin/nowhere"] {
        let process = Process { args: vec![program.into()], ..shell("") };
        match ground.run(&ground.root(), &process).result {
            Err(Error::NotFound { path }) => assert_eq!(path, program),
            other => panic!("{other:?}"),
        }
    }
}

pub fn not_executable(ground: &Ground) {
    let process = Process { args: vec!["/etc/passwd".into()], ..shell("") };
    match ground.run(&ground.root(), &process).result {
        Err(Error::NotExecutable { path, source }) => {
            assert_eq!((path.as_str(), source.raw_os_error()), ("/etc/passwd", Some(libc::EACCES)));
        }
        other => panic!("{other:?}"),
    }
}

fn kernel_file_systems(ground: &Ground) {
    let script = "readlink /proc/self >/dev/null && cat /proc/self/comm && \
        echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && \
        ls /dev | tr '\\n' ' ' && echo && ls -ld /dev/shm /tmp | cut -c1-10 && echo hi | cat /dev/stdin && \
        readlink /dev/fd && test -d /sys/class && ! (echo 1 >/proc/sys/kernel/printk) 2>/dev/null && \
        cat /proc/timer_list 2>/dev/null | wc -c && ls /sys/firmware 2>/dev/null | wc -l; df=$(dd if=/dev/full of=/dev/full count=1 2>&1); echo $?";
    let out = ground.shell(script);
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "cat",
            "4",
            "4",
            "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
            "drwxrwxrwt",
            "drwxr-xr-x",
            "hi",
            "/proc/self/fd",
            "0",
            "0",
            "1",
        ],
        "{out}"
    );
}

fn names_of_the_machine(ground: &Ground) {
    let root = ground.root();
    let process = Process {
        hostname: Some("builder".into()),
        extra_hosts: vec![("db.example".into(), "192.0.2.7".into())],
        ..shell("cat /etc/hostname; grep -c builder /etc/hosts; grep db.example /etc/hosts; cat /etc/resolv.conf")
    };
    let out = ground.run(&root, &process).success();
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert_eq!(out, format!("builder\n1\n192.0.2.7\tdb.example\n{resolv}"));
    // Some containers' filters refuse to name a machine; then it keeps the name it has.
    let name = ground.run(&ground.root(), &Process { hostname: Some("builder".into()), ..shell("hostname") }).success();
    let outer = rustix::system::uname().nodename().to_string_lossy().into_owned();
    assert!(name == "builder\n" || name == format!("{outer}\n"), "{name}");
    assert_eq!(names(upper(&root)), Vec::<String>::new());
}

fn layers(ground: &Ground) {
    let root = ground.root();
    ground.run(&root, &shell("echo new >/etc/new; rm /etc/passwd; rm -r /home; mkdir /home; umask")).success();
    assert_eq!(names(upper(&root)), ["etc", "etc/new", "etc/passwd", "home"]);
    assert!(ground.base.join("etc/passwd").exists());
    let again = ground.run(&root, &shell("cat /etc/new; test ! -e /etc/passwd; ls /home")).success();
    assert_eq!(again, "new\n");
}

fn stubs(ground: &Ground) {
    let bare = ground.fresh("bare");
    fs::create_dir(bare.join("bin")).unwrap();
    fs::copy("/bin/busybox", bare.join("bin/sh")).unwrap();
    let root = ground.layered(std::slice::from_ref(&bare));
    let cache = ground.fresh("cache");
    let process = Process {
        mounts: vec![Mount { target: "/var/cache/x".into(), source: MountSource::Bind(cache), read_only: false }],
        ..shell("echo 1 >/dev/null; test -e /proc/self/status; test -e /etc/hosts; echo kept >/var/cache/x/f")
    };
    ground.run(&root, &process).success();
    assert_eq!(names(upper(&root)), Vec::<String>::new());

    // A dangling link on the way hides the stub: the mount point is made in the layer, and taken away again.
    std::os::unix::fs::symlink("/run/cache", bare.join("link")).unwrap();
    let root = ground.layered(&[bare]);
    let mount =
        Mount { target: "/link/deep".into(), source: MountSource::Tmpfs { size: None, mode: None }, read_only: false };
    let process = Process { mounts: vec![mount], ..shell("echo x >/run/cache/deep/f") };
    ground.run(&root, &process).success();
    assert_eq!(names(upper(&root)), Vec::<String>::new());
}

fn mounts(ground: &Ground) {
    let (cache, source) = (ground.fresh("cache"), ground.fresh("source"));
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "from a stage").unwrap();
    let file = ground.fresh("file").join("file");
    fs::write(&file, "one file").unwrap();
    let mount = |target: &str, source, read_only| Mount { target: target.into(), source, read_only };
    let view = |subpath: &str| MountSource::RootFs {
        root: ground.layered(std::slice::from_ref(&source)),
        subpath: subpath.into(),
    };
    let process = Process {
        mounts: vec![
            mount("/cache", MountSource::Bind(cache.clone()), false),
            mount("/fixed", MountSource::Bind(cache.clone()), true),
            mount("/one", MountSource::Bind(file), true),
            mount("/view", view(""), true),
            mount("/deep/view", view("dir"), false),
            mount("/deep/file", view("dir/file"), true),
            mount("/memory", MountSource::Tmpfs { size: Some(4096), mode: Some(0o700) }, false),
        ],
        ..shell(
            "echo kept >/cache/f && cat /fixed/f && ! touch /fixed/g 2>/dev/null && cat /one && echo && \
             cat /view/dir/file && echo && ! touch /view/x 2>/dev/null && touch /deep/view/x && cat /deep/file && echo && \
             ! touch /deep/file 2>/dev/null && stat -c %a /memory && ! dd if=/dev/zero of=/memory/f bs=8192 count=1 2>/dev/null",
        )
    };
    let root = ground.root();
    let out = ground.run(&root, &process).success();
    assert_eq!(out, "kept\none file\nfrom a stage\nfrom a stage\n700\n");
    assert_eq!(fs::read_to_string(cache.join("f")).unwrap(), "kept\n");
    assert_eq!(names(&source), ["dir", "dir/file"], "the throw-away upper took the change");
    assert_eq!(names(upper(&root)), Vec::<String>::new());
}

fn secrets(ground: &Ground) {
    let root = ground.root();
    let secret = Mount {
        target: "/run/secrets/token".into(),
        source: MountSource::Secret { value: Secret::from("hunter2"), mode: 0o400, uid: 0, gid: 0 },
        read_only: true,
    };
    let process =
        Process { mounts: vec![secret], ..shell("cat /run/secrets/token; stat -c ' %a %u' /run/secrets/token") };
    assert_eq!(ground.run(&root, &process).success(), "hunter2 400 0\n");
    assert_eq!(names(upper(&root)), Vec::<String>::new());
}

pub fn users(ground: &Ground) {
    let root = ground.root();
    ground
        .run(&root, &shell("mkdir /home/mine && chown 1000:1000 /home/mine && echo s >/root/s && chmod 600 /root/s"))
        .success();
    let process = Process {
        uid: 1000,
        gid: 1000,
        groups: vec![1000, 27],
        cwd: "/home/app".into(),
        ulimits: vec![("nofile".into(), 100, 200)],
        ..shell(
            "id -u; id -G; pwd; ulimit -n; ulimit -Hn; touch /home/mine/f && stat -c %u:%g /home/mine/f; touch /bin/x 2>/dev/null || echo refused; cat /root/s 2>/dev/null || echo refused",
        )
    };
    let out = ground.run(&root, &process).success();
    let expected = "1000\n1000 27\n/home/app\n100\n200\n1000:1000\n";
    assert_eq!(out, format!("{expected}refused\nrefused\n"));
    let unknown = Process { ulimits: vec![("nothing".into(), 1, 1)], ..shell("true") };
    assert!(matches!(ground.run(&root, &unknown).result, Err(Error::Unsupported { .. })));
}

pub fn owners(ground: &Ground) {
    let script = "cd /home && touch a && chown 33:34 a && stat -c %u:%g a && mv a b && ln b c && chown 5 c && \
        stat -c %u:%g b && chmod 4755 b && chown :6 b && stat -c '%a %u:%g' b && ln -s b l && chown -h 7:8 l && \
        stat -c %u:%g l && stat -L -c %u:%g l && mkfifo p && chown 9:9 p && stat -c %u:%g p && mkdir d && \
        chown 10:11 d && ls -ld d | tr -s ' ' | cut -d' ' -f3,4 && cp -a b copy && stat -c %u:%g copy && \
        chown 0:0 b && stat -c %u:%g c && (chown 12 <copy missing 2>/dev/null; echo $?) && find . -user 10";
    let out = ground.shell(script);
    assert_eq!(out, "33:34\n5:34\n755 5:6\n7:8\n5:6\n9:9\n10 11\n5:6\n0:0\n1\n./d\n");
}

fn owners_of_lower_layers(ground: &Ground) {
    let first = ground.root();
    let script = "cd /home && mkdir d && touch f d/f && chown 33:33 f d && ln -s f l && chown -h 34:34 l && \
        ln -s f m && chown -h 35:35 m";
    ground.run(&first, &shell(script)).success();
    let again = ground.run(&first, &shell("stat -c %u /home/f /home/d /home/l")).success();
    assert_eq!(again, "33\n33\n34\n", "in the same layer");
    let second = ground.layered(&[upper(&first).to_owned(), ground.base.clone()]);
    let script = "cd /home && stat -c %u f d d/f l m && chown 40 f && chown -h 41 l && rm m && ln -s f m && \
        touch d/new && stat -c %u f d d/new l m && echo >>f && stat -c %u f";
    let out = ground.run(&second, &shell(script)).success();
    assert_eq!(out, "33\n33\n0\n34\n35\n40\n33\n0\n41\n0\n40\n");
    let third = ground.layered(&[upper(&second).to_owned(), upper(&first).to_owned(), ground.base.clone()]);
    let out = ground.run(&third, &shell("cd /home && stat -c %u f d l m")).success();
    assert_eq!(out, "40\n33\n41\n0\n");
}

pub fn setgid_directories(ground: &Ground) {
    let out = ground.shell(
        "cd /home && mkdir d && chown 0:50 d && chmod 2775 d && touch d/f && mkdir d/s && ln -s f d/l && \
         stat -c '%u:%g %a' d/f d/s && stat -c %u:%g d/l && echo x >d/g && stat -c %u:%g d/g",
    );
    assert_eq!(out, "0:50 644\n0:50 2755\n0:50\n0:50\n");
}

pub fn becoming_a_user(ground: &Ground) {
    let out = ground.shell(
        "chmod 777 /tmp && su app -c 'id -u; id -G; cd /tmp && echo x >f && mkdir d && ln -s f l && \
         stat -c %u:%g f d l; chown 0 f 2>/dev/null || echo kept; chown 1000:1000 f && echo own; \
         (umask 027; echo >g; stat -c %a g); grep CapEff /proc/self/status >/dev/null' && id -u",
    );
    assert_eq!(out, "1000\n1000\n1000:1000\n1000:1000\n1000:1000\nkept\nown\n640\n0\n");
}

/// Where users are emulated, a step that starts as root is looked at less closely: its users may look, not change.
fn protection_of_root(ground: &Ground) {
    let attempts = [
        "echo x >>/etc/passwd",
        ": >/etc/passwd",
        "touch /etc/new",
        "rm /bin/busybox",
        "mv /etc/passwd /tmp/p",
        "chmod 777 /etc",
        "chown 1000 /etc/passwd",
        "ln -s x /etc/l",
        "mkdir /bin/d",
        "touch -d @5 /etc/passwd",
        "mkfifo /etc/p",
    ];
    let script: String =
        attempts.iter().map(|attempt| format!("( {attempt} ) 2>/dev/null && echo \"{attempt}\"; ")).collect();
    let out = ground.shell(&format!("chmod 1777 /tmp && su app -c '{script} echo end'"));
    assert_eq!(out, "end\n", "what a user was allowed to do");
}

fn devices(ground: &Ground) {
    let out =
        ground.shell("cd /home && mknod n c 1 3 && stat -c '%F %t:%T' n; mknod b b 7 1 && stat -c '%F %t:%T' b; true");
    // Who made a disk's would have the disk.
    let opened = ground.shell("cd /dev && mknod n c 1 5 2>/dev/null; cd /home && mknod n c 1 5 2>/dev/null; cat n /dev/n 2>/dev/null | head -c 1 | wc -c");
    assert_eq!(opened, "0\n");
    if out.is_empty() {
        // With many ids in a user namespace the kernel itself refuses, to Docker's rootless containers too.
        assert_eq!(ground.choice.isolation, Isolation::Ns);
    } else {
        assert_eq!(out, "character special file 1:3\nblock special file 7:1\n");
    }
}

fn confinement(ground: &Ground) {
    let out = ground.shell(
        "grep CapEff /proc/self/status; mount -t tmpfs t /tmp 2>/dev/null; echo $?; unshare -U true 2>/dev/null; echo $?; \
         umount /proc 2>/dev/null; echo $?; grep -c ^ /proc/self/mountinfo >/dev/null; echo $?",
    );
    assert_eq!(out, "CapEff:\t00000000a80425fb\n255\n1\n1\n0\n".replace("255", out.lines().nth(1).unwrap()));
    assert_ne!(out.lines().nth(1), Some("0"), "{out}");
}

fn no_network(ground: &Ground) {
    let process = Process {
        network: Network::None,
        ..shell("ls /proc/self/net/dev_snmp6 2>/dev/null; grep -c : /proc/net/dev; ifconfig lo | grep -c UP; true")
    };
    let out = ground.run(&ground.root(), &process).success();
    let may_configure = rustix::thread::capabilities(None).unwrap().effective.contains(CapabilitySet::NET_ADMIN);
    assert!(out.ends_with(if may_configure { "1\n1\n" } else { "1\n0\n" }), "{out}");
}

fn daemons(ground: &Ground) {
    let dir = ground.fresh("shared");
    let mount = Mount { target: "/shared".into(), source: MountSource::Bind(dir.clone()), read_only: false };
    let process = Process {
        mounts: vec![mount],
        ..shell(
            "(setsid sh -c 'while :; do date >>/shared/log 2>&1; sleep 0.01; done' </dev/null >/dev/null 2>&1 &) ; sleep 0.1; echo started",
        )
    };
    assert_eq!(ground.run(&ground.root(), &process).success(), "started\n");
    let size = || fs::metadata(dir.join("log")).map(|meta| meta.len()).unwrap();
    let before = size();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(before, size(), "the daemon still writes");
}

pub fn cancelled(ground: &Ground) {
    let (root, cancel) = (ground.root(), Cancel::new());
    let raiser = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(400));
        raiser.cancel();
    });
    let started = Instant::now();
    let outcome = ground.run_until(&root, &shell("echo started; sleep 60 & sleep 60"), &cancel);
    thread.join().unwrap();
    assert!(matches!(outcome.result, Err(Error::Cancelled(_))), "{outcome:?}");
    assert_eq!(outcome.out, "started\n");
    assert!(started.elapsed() < Duration::from_secs(5));
}

/// Makes this program run an endless step that writes into this directory.
pub const VICTIM: &str = "DOCKLESS_TEST_VICTIM";

pub fn victim(shared: PathBuf) -> ExitCode {
    let dir = tempfile::tempdir_in(&shared).unwrap();
    let wanted = isolation(&std::env::var(crate::places::VARIABLE).unwrap_or_default());
    let choice = exec::probe(dir.path(), exec::THIS_PROGRAM.as_ref()).unwrap().choose(wanted).unwrap();
    let ground = Ground::new(dir, choice);
    if matches!(wanted, Isolation::Chroot | Isolation::Rewrite) {
        let _ = unmounted::victim(&ground);
        return ExitCode::FAILURE;
    }
    let mount = Mount { target: "/shared".into(), source: MountSource::Bind(shared), read_only: false };
    let script = "(setsid sh -c 'while :; do echo >>/shared/daemon; sleep 0.01; done' &); \
                  while :; do echo >>/shared/step; sleep 0.01; done";
    let _ = ground.run(&ground.root(), &Process { mounts: vec![mount], ..shell(script) });
    ExitCode::FAILURE
}

fn killed(ground: &Ground) {
    let shared = ground.fresh("shared");
    let mut victim = Command::new("/proc/self/exe").env(VICTIM, &shared).stderr(Stdio::null()).spawn().unwrap();
    let size = |name: &str| fs::metadata(shared.join(name)).map_or(0, |meta| meta.len());
    let started = Instant::now();
    while size("daemon") < 3 || size("step") < 3 {
        assert!(started.elapsed() < Duration::from_secs(30), "the step has not begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    // The sandbox hears of it when the kernel gets to it; after that, nothing may be left to write.
    std::thread::sleep(Duration::from_secs(1));
    let before = (size("daemon"), size("step"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(before, (size("daemon"), size("step")), "something still writes");
}

pub fn signals(ground: &Ground) {
    let (root, cancel) = (ground.root(), Cancel::new());
    let raiser = cancel.clone();
    let ready = upper(&root).join("tmp/ready");
    let thread = std::thread::spawn(move || {
        let started = Instant::now();
        while !ready.exists() && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(10));
        }
        raiser.cancel();
    });
    let script = "trap 'echo told; exit 3' TERM; touch /tmp/ready; while :; do sleep 0.05; done";
    let outcome = ground.run_until(&root, &shell(script), &cancel);
    thread.join().unwrap();
    assert_eq!(outcome.out, "told\n");
}

pub fn descriptors(ground: &Ground) {
    let open = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let out = ground.shell("ls /proc/self/fd | tr '\\n' ' '; env | sort | tr '\\n' ' '");
    assert_eq!(out, "0 1 2 3 HOME=/root PATH=/bin PWD=/ SHLVL=1 ", "3 is the listing's own");
}

/// Met as a hard link to a symbolic one that was another's: only one of the two was.
pub fn owners_of_linked_links(ground: &Ground) {
    let root = ground.root();
    let script = "cd /tmp && ln -s nowhere a && chown -h 3:4 a && mkdir d && ln a d/b && mkfifo e && chown 5 e && ln e f && ln f g && rm e";
    ground.run(&root, &shell(script)).success();
    let table = SideTable::load(upper(&root)).unwrap();
    let owners: Vec<_> = table.0.iter().map(|(path, it)| (path.to_str().unwrap(), it.uid, it.gid)).collect();
    let expected = match ground.choice.isolation {
        // The kernel keeps them.
        Isolation::Ns | Isolation::Chroot => vec![],
        _ => vec![("tmp/a", 3, 4), ("tmp/d/b", 3, 4), ("tmp/f", 5, 0), ("tmp/g", 5, 0)],
    };
    assert_eq!(owners, expected);
}

fn many_layers(ground: &Ground) {
    let layers: Vec<_> = (0..300)
        .map(|number| {
            let layer = ground.fresh("l:ay,er\\");
            fs::write(layer.join(format!("file{number}")), "").unwrap();
            layer
        })
        .chain([ground.base.clone()])
        .collect();
    let out = ground.run(&ground.layered(&layers), &shell("ls / | grep -c file")).success();
    assert_eq!(out, "300\n");
}

fn directory(ground: &Ground) {
    let dir = ground.fresh("directory");
    fs::create_dir(dir.join("bin")).unwrap();
    fs::copy("/bin/busybox", dir.join("bin/sh")).unwrap();
    let root = RootFs::Directory(dir.clone());
    let process = shell("echo $0 >/made; test -e /proc/self/status && echo x >/dev/null");
    ground.run(&root, &process).success();
    assert_eq!(names(&dir), ["bin", "bin/sh", "made"]);
    let process = Process { read_only_root: true, ..shell("echo x >/again") };
    assert_eq!(ground.run(&root, &process).result.unwrap(), Exit::Code(1));
    assert_eq!(names(&dir), ["bin", "bin/sh", "made"]);
}

pub fn ten_steps(ground: &Ground) {
    let root = ground.root();
    let mut times = BTreeMap::new();
    for _ in 0..10 {
        let started = Instant::now();
        ground.run(&root, &shell("true")).success();
        *times.entry(started.elapsed().as_millis()).or_insert(0) += 1;
    }
    println!("       milliseconds: {times:?}");
}
