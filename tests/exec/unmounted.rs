//! What steps must find, and must not, where nothing can be mounted: by chroot, and with every path rewritten.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use dockless::base::Secret;
use dockless::exec::{Exit, Isolation, Mount, MountSource, Network, Process};
use dockless::sys::RootFs;

use crate::ground::{Ground, names, shell, upper};
use crate::suite::{self, Case};

/// With those of the common suite that need no layers.
pub const CASES: &[Case] = &[
    ("output comes whole, each stream by itself", suite::output),
    ("exit codes and signals come through", suite::exits),
    ("a missing program is named", suite::missing),
    ("a program that cannot run is named", suite::not_executable),
    ("users, groups and limits", suite::users),
    ("owners are kept, shown and passed on", suite::owners),
    ("what is made in a setgid directory is its group's", suite::setgid_directories),
    ("root becomes a user and cannot come back", suite::becoming_a_user),
    ("a cancelled step ends, with what it started", suite::cancelled),
    ("a step may answer a cancellation before it ends", suite::signals),
    ("a step does not see what dockless has open", suite::descriptors),
    ("every name of a link is its owner's", suite::owners_of_linked_links),
    ("ten steps in a row", suite::ten_steps),
    ("kernel files are where they belong", kernel_files),
    ("links lead to kernel files", links),
    ("realpath finds what is not on disk", real_paths),
    ("names come from outside", names_of_the_machine),
    ("mounts of every kind are seen and leave nothing", mounts),
    ("what is mounted is no part of the root's file system", boundaries),
    ("what is mounted read-only stays as it is", read_only_mounts),
    ("a secret is never on disk", secrets),
    ("a secret is whose it was said to be", owners_of_secrets),
    ("a user cannot change what is root's", protection),
    ("a step cannot leave its root", escapes),
    ("a device that a step made opens for nobody", devices),
    ("a step signals nobody but its own", foreign_signals),
    ("fifos, deleted directories and many processes do not stop the supervisor", hard_to_answer),
    ("scripts and programs of all kinds run", programs),
    ("what was written a moment ago can be run", fresh_programs),
    ("a program that cannot run here is refused by name", strange_programs),
    ("no network but this machine's sockets", no_network),
    ("daemons end with the step", daemons),
    ("a dockless that is killed leaves no process behind", killed),
];

fn kernel_files(ground: &Ground) {
    let out = ground.shell(
        "echo x >/dev/null && head -c 4 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c; echo x 2>/dev/null >/dev/full; echo $?; \
         stat -c '%F %t:%T' /dev/null; ls /dev | tr '\\n' ' '; echo; readlink /proc/self | grep -c '^[0-9]*$'; \
         readlink /proc/self/root; readlink /proc/self/cwd; grep -c overlay /proc/mounts; grep -c CapEff:.*a80425fb /proc/self/status; cat /proc/self/comm >/dev/null && echo comm; test -d /sys/class && echo sys; \
         echo 1 2>/dev/null >/proc/sys/kernel/printk; echo $?; touch /sys/x 2>/dev/null; echo $?; touch /proc/x 2>/dev/null; echo $?",
    );
    let expected = "4\n4\n1\ncharacter special file 1:3\n\
        core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero \n1\n/\n/\n1\n1\ncomm\nsys\n1\n1\n1\n";
    assert_eq!(out, expected);
}

/// Met as "Text file busy" on a busy machine: the supervisor, which had opened the file, was not quick to close its own
/// descriptor.
fn fresh_programs(ground: &Ground) {
    let script = "for i in 1 2 3; do (while :; do :; done) & done; \
        for i in $(seq 60); do cp /bin/busybox /tmp && /tmp/busybox true 2>&1; done";
    assert_eq!(ground.shell(script), "");
}

fn links(ground: &Ground) {
    let out = ground.shell(
        "ln -s /dev/null /tmp/log && echo gone >/tmp/log && test ! -s /tmp/log && ln -s ../proc/self/comm /tmp/comm && \
         cat /tmp/comm >/dev/null && echo in | cat /dev/stdin && echo x >/tmp/f && exec 3</tmp/f && rm /tmp/f && cat /dev/fd/3 && \
         ln -s loop /tmp/loop && ! cat /tmp/loop 2>/dev/null && ln -s /tmp/nowhere /tmp/dangling && echo new >/tmp/dangling && \
         cat /tmp/nowhere && cd /etc && cat ../proc/self/comm >/dev/null && cat hostname",
    );
    assert_eq!(out, "in\nx\nnew\nbuildkitsandbox\n");
}

/// Where a step has a root of its own, realpath asks the kernel, and must be sent on for what only the supervisor knows.
fn real_paths(ground: &Ground) {
    let out = ground.shell(
        "mkdir -p /a/b && cd /a/b && ln -s b /a/link && ln -s /proc/self/comm /a/comm && ln -s ../sys/class /a/class && ln -s no /a/dead
         of() { for path; do echo \"$path $(readlink -f $path || echo -)\" | tr -s 0-9 N; done; }
         of /a/link/.. /a/comm /a/class /a/dead /a/none/x /proc /proc/self /proc/self/exe /proc/$$/cwd /proc/mounts
         of /proc/sys/kernel/hostname /proc/none /sys/class /sys/none /dev/fd/9 /dev/null /dev/pts/none
         cd /dev && of null && cd /dev/shm && of ../../a && cd /a/b && of ../link
         sleep 9 & of /proc/$!/exe; kill $!
         (sh -c 'readlink -f /proc/$PPID/cwd'; :)
         find / -maxdepth 1 -type d -name '[ps][ry]*' | sort; ls -d /proc/self /sys/class",
    );
    // What is not there has no file, and in the end a path all the same.
    let expected = "/a/link/.. /a\n/a/comm /proc/N/comm\n/a/class /sys/class\n/a/dead /a/b/no\n/a/none/x -\n\
        /proc /proc\n/proc/self /proc/N\n/proc/self/exe /bin/busybox\n/proc/N/cwd /a/b\n/proc/mounts /proc/N/mounts\n\
        /proc/sys/kernel/hostname /proc/sys/kernel/hostname\n/proc/none /proc/none\n/sys/class /sys/class\n/sys/none /sys/none\n\
        /dev/fd/N /proc/N/fd/N\n/dev/null /dev/null\n/dev/pts/none /dev/pts/none\nnull /dev/null\n../../a /a\n../link /a/b\n\
        /proc/N/exe /bin/busybox\n/a/b\n/proc\n/sys\n/proc/self\n/sys/class\n";
    assert_eq!(out, expected);
}

fn names_of_the_machine(ground: &Ground) {
    let process = Process {
        hostname: Some("builder".into()),
        extra_hosts: vec![("db.example".into(), "192.0.2.7".into())],
        ..shell("hostname; cat /etc/hostname; grep db.example /etc/hosts; cat /etc/resolv.conf")
    };
    let root = ground.root();
    let before = names(upper(&root));
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let out = ground.run(&root, &process).success();
    assert_eq!(out, format!("builder\nbuilder\n192.0.2.7\tdb.example\n{resolv}"));
    assert_eq!(names(upper(&root)), before);
}

fn mounts(ground: &Ground) {
    let cache = ground.lent("cache/mounts/x");
    let source = ground.fresh("source");
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "from a stage").unwrap();
    let mount = |target: &str, source| Mount { target: target.into(), source, read_only: false };
    let view = |subpath: &str| MountSource::RootFs { root: RootFs::Directory(source.clone()), subpath: subpath.into() };
    let process = Process {
        mounts: vec![
            mount("/var/cache", MountSource::Bind(cache.clone())),
            mount("/deep/view", view("dir")),
            mount("/memory", MountSource::Tmpfs { size: None, mode: Some(0o700) }),
        ],
        ..shell(
            "cd /var/cache && echo kept >f && pwd && cat /deep/view/file && cp /bin/busybox /memory/true && /memory/true && \
             stat -c %a /memory && touch /deep/view/new && cd /deep/view && ls ..",
        )
    };
    let root = ground.root();
    let (before, time) = (names(upper(&root)), fs::metadata(upper(&root)).unwrap().mtime_nsec());
    let out = ground.run(&root, &process).success();
    let shown = if ground.choice.isolation == Isolation::Chroot { "view\n" } else { "" };
    assert!(out.starts_with("/var/cache\nfrom a stage700\n") && out.ends_with(shown), "{out}");
    assert_eq!(fs::read_to_string(cache.join("f")).unwrap(), "kept\n");
    assert_eq!(names(upper(&root)), before);
    assert_eq!(fs::metadata(upper(&root)).unwrap().mtime_nsec(), time, "no time tells of a mount");
    let again = Process { mounts: vec![mount("/c", MountSource::Bind(cache))], ..shell("cat /c/f") };
    assert_eq!(ground.run(&root, &again).success(), "kept\n");
}

/// By the numbers that `find -xdev` and the like go by: the same by name, by a link, and by what is open.
fn boundaries(ground: &Ground) {
    let cache = ground.lent("cache/boundaries/x");
    fs::write(cache.join("file"), "").unwrap();
    let process = Process {
        mounts: vec![Mount { target: "/c".into(), source: MountSource::Bind(cache), read_only: false }],
        ..shell(
            "ln -s /c/file /link; of() { echo $(stat -L -c %d \"$@\" | uniq | wc -l); }; exec 3</c/file 4</etc
             of / /etc /bin/busybox /proc/self/fd/4; of /c /c/file /link /proc/self/fd/3; of /dev /dev/shm
             of / /c; of / /dev; of / /etc/hosts; of /c /dev; ls -l /proc/self/ /sys/class >/dev/null && echo all",
        )
    };
    let across = if ground.choice.isolation == Isolation::Chroot { 1 } else { 2 };
    let expected = format!("1\n1\n1\n{across}\n{across}\n{across}\n{across}\nall\n");
    assert_eq!(ground.run(&ground.root(), &process).success(), expected);
}

fn read_only_mounts(ground: &Ground) {
    let source = ground.fresh("source");
    fs::create_dir(source.join("dir")).unwrap();
    fs::write(source.join("dir/file"), "as it was").unwrap();
    let cache = ground.lent("cache/read-only/x");
    let attempts = [
        "echo x >>/ro/dir/file",
        "touch /ro/new",
        "mkdir /ro/d",
        "rm /ro/dir/file",
        "mv /ro/dir/file /taken",
        "mv /ro /elsewhere",
        "chmod 777 /ro/dir/file",
        "chown 7 /ro/dir",
        "touch -d @5 /ro/dir/file",
        "ln /ro/dir/file /linked",
        "ln -s x /ro/link",
        "cd /ro/dir && echo x >file",
        "cd /ro/dir && chmod 700 .",
        "cd / && rm -r ro/dir",
    ];
    let script: String =
        attempts.iter().map(|attempt| format!("( {attempt} ) 2>/dev/null && echo '{attempt}'; ")).collect();
    let whole = MountSource::RootFs { root: RootFs::Directory(source.clone()), subpath: "/".into() };
    let process = Process {
        mounts: vec![
            Mount { target: "/ro".into(), source: whole, read_only: true },
            Mount { target: "/kept".into(), source: MountSource::Bind(cache.clone()), read_only: false },
        ],
        ..shell(&format!("{script} cat /ro/dir/file && cd /ro && cat dir/file && echo y >/kept/y && ls /kept"))
    };
    assert_eq!(ground.run(&ground.root(), &process).success(), "as it wasas it wasy\n", "what was possible");
    assert_eq!(fs::read_to_string(source.join("dir/file")).unwrap(), "as it was");
    assert_eq!(names(&source), ["dir", "dir/file"]);
}

fn owners_of_secrets(ground: &Ground) {
    let secret = |uid, mode| Process {
        uid: 1000,
        gid: 1000,
        mounts: vec![Mount {
            target: "/run/token".into(),
            source: MountSource::Secret { value: Secret::from("hunter2"), mode, uid, gid: 0 },
            read_only: true,
        }],
        ..shell("stat -c '%u %a' /run/token; cat /run/token 2>/dev/null || echo refused")
    };
    for (uid, mode, expected) in [(1000, 0o400, "1000 400\nhunter2"), (0, 0o400, "0 400\nrefused\n")] {
        assert_eq!(ground.run(&ground.root(), &secret(uid, mode)).success(), expected);
    }
}

fn secrets(ground: &Ground) {
    let root = ground.root();
    let before = names(upper(&root));
    let process = Process {
        mounts: vec![Mount {
            target: "/run/secrets/token".into(),
            source: MountSource::Secret { value: Secret::from("hunter2"), mode: 0o400, uid: 0, gid: 0 },
            read_only: true,
        }],
        ..shell(
            "cat /run/secrets/token; cat /run/secrets/token; stat -c ' %a %u' /run/secrets/token; ls /run/secrets; \
             echo x 2>/dev/null >/run/secrets/token || echo kept; sleep 0.5",
        )
    };
    let disk = Path::new(upper(&root)).parent().unwrap().to_owned();
    let reader = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(250));
        Command::new("grep").args(["-rlsF", "--devices=skip", "hunter2"]).arg(disk).output().unwrap().stdout
    });
    assert_eq!(ground.run(&root, &process).success(), "hunter2hunter2 400 0\ntoken\nkept\n");
    assert_eq!(String::from_utf8_lossy(&reader.join().unwrap()), "", "a file on disk holds the secret");
    assert_eq!(names(upper(&root)), before);
}

pub fn protection(ground: &Ground) {
    let root = ground.root();
    let made = "echo s >/etc/shadow && chmod 600 /etc/shadow && chmod 700 /root && echo s >/root/s && chmod 1777 /tmp && touch /tmp/root && chmod 644 /etc/passwd";
    ground.run(&root, &shell(made)).success();
    let attempts = [
        "echo x >>/etc/passwd",
        "touch /etc/new",
        "rm /bin/busybox",
        "mv /etc/passwd /tmp/p",
        "mv /tmp/root /tmp/mine",
        "rm -f /tmp/root",
        "chmod 777 /etc",
        "chown 1000 /etc/passwd",
        "ln -s x /etc/l",
        "mkdir /bin/d",
        "cat /etc/shadow",
        "cat /root/s",
        "cd /root",
        "touch -d @5 /etc/passwd",
        "mkfifo /etc/p",
    ];
    let script: String =
        attempts.iter().map(|attempt| format!("( {attempt} ) 2>/dev/null && echo '{attempt}'; ")).collect();
    let process = Process { uid: 1000, gid: 1000, groups: vec![1000], ..shell(&format!("{script} echo end")) };
    assert_eq!(ground.run(&root, &process).success(), "end\n", "what a user was allowed to do");
    let own = Process {
        uid: 1000,
        gid: 1000,
        ..shell(
            "cd /tmp && echo x >f && chmod 600 f && mv f g && ln g h && rm g && mkdir d && rmdir d && cat h && stat -c %u:%g h",
        )
    };
    assert_eq!(ground.run(&root, &own).success(), "x\n1000:1000\n");
}

fn devices(ground: &Ground) {
    let script = "cd /home && (mknod n c 1 5 && mknod b b 7 0 && stat -c %F n b) 2>/dev/null; cat n b 2>/dev/null | head -c 1 | wc -c";
    let out = ground.shell(script);
    assert!(out == "0\n" || out == "character special file\nblock special file\n0\n", "{out}");
}

fn escapes(ground: &Ground) {
    let root = ground.root();
    let outside = upper(&root).parent().unwrap().join("outside");
    fs::write(&outside, "the host's").unwrap();
    let path = outside.display();
    let script = format!(
        "cat {path}; cat ../outside; cat /../outside; cd /tmp; cat ../../outside; cat /proc/self/root{path}; \
         cat /proc/self/root/../outside; cat /proc/self/cwd/../../outside; ln -s {path} l; cat l; ln -s ../../outside m; cat m; \
         cat /proc/1/root{path}; cat /proc/{}/environ; ls /proc/{}/fd; cat /proc/self/task/../../1/environ; \
         cat /dev/shm/../../../outside; cat /sys/../../outside; echo x >{path}; rm {path}; cp /bin/busybox {path}; \
         exec 5</proc; cat /proc/self/fd/5/../{path}; echo end",
        std::process::id(),
        std::process::id()
    );
    let outcome = ground.run(&root, &shell(&script));
    assert_eq!(outcome.success(), "end\n", "what a step saw of the host");
    assert_eq!(fs::read_to_string(&outside).unwrap(), "the host's");
    fs::remove_file(outside).unwrap();
}

fn foreign_signals(ground: &Ground) {
    let own = std::process::id();
    let out = ground.shell(&format!(
        "kill -0 {own} 2>/dev/null && echo reached; kill -9 -1; sleep 60 & kill $!; wait $!; echo $?; kill -0 $$ && echo here"
    ));
    assert_eq!(out, "143\nhere\n");
}

fn hard_to_answer(ground: &Ground) {
    let script = "cd /tmp && mkfifo a b c && (for f in a b c; do (cat $f >/dev/null &); done; sleep 0.2; for f in a b c; do echo x >$f; done) && \
        mkdir gone && cd gone && rmdir ../gone && ! touch x 2>/dev/null && cd /tmp && \
        for i in 1 2 3 4 5 6 7 8; do (for j in 1 2 3 4 5; do cat /proc/self/comm >/dev/null; echo $j >f$i$j; done) & done; wait; ls f* | wc -l";
    assert_eq!(ground.shell(script), "40\n");
}

fn programs(ground: &Ground) {
    let root = ground.root();
    let script = "cd /tmp && printf '#!/bin/sh -e\\necho \"$0 $*\"\\n' >s && chmod 755 s && ./s a 'b c' && \
        printf '#!./s x\\n' >t && chmod 755 t && ./t y && mkdir p && cp s p/found && PATH=/tmp/p:$PATH found z && (cd p && ../s up) && \
        printf 'echo plain' >u && chmod 755 u && sh ./u && ! ./missing 2>/dev/null && printf '#!/no/such\\n' >v && chmod 755 v && \
        ! ./v 2>/dev/null && readlink /proc/self/exe | grep -c bin && chmod 644 s && ! ./s 2>/dev/null";
    let out = ground.run(&root, &shell(script)).success();
    assert_eq!(out, "./s a b c\n./s x ./t y\n/tmp/p/found z\n../s up\nplain\n1\n");
    // With a loader, if this machine has such a program: its loader and libraries come along.
    let Ok(listed) = Command::new("ldd").arg("/bin/cat").output() else {
        eprintln!("skip: part of programs: needs ldd");
        return;
    };
    for file in String::from_utf8_lossy(&listed.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = upper(&root).join(&file[1..]);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file, to).unwrap();
    }
    fs::copy("/bin/cat", upper(&root).join("bin/dynamic")).unwrap();
    let out = ground
        .run(&root, &shell("echo x | dynamic; cat /proc/self/comm >/dev/null; dynamic /proc/self/comm"))
        .success();
    assert_eq!(out, "x\ndynamic\n");
}

fn strange_programs(ground: &Ground) {
    let root = ground.root();
    let mut kinds = vec![(1, 3, "32-bit programs cannot run here")];
    if ground.choice.isolation == Isolation::Rewrite {
        kinds.push((2, 243, "programs for another processor cannot run here"));
    }
    for (class, machine, expected) in kinds {
        let program = upper(&root).join("bin/strange");
        let mut header = b"\x7fELF\x01\x01\x01".to_vec();
        header.resize(128, 0);
        (header[4], header[18]) = (class, machine);
        fs::write(&program, header).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let outcome = ground.run(&root, &Process { args: vec!["/bin/strange".into()], ..shell("") });
        assert!(outcome.result.is_err(), "{outcome:?}");
        assert!(outcome.err.contains(&format!("dockless: /bin/strange: {expected}")), "{outcome:?}");
    }
}

fn no_network(ground: &Ground) {
    let process = Process { network: Network::None, ..shell("ifconfig lo 2>/dev/null || echo refused") };
    assert_eq!(ground.run(&ground.root(), &process).success(), "refused\n");
}

fn daemons(ground: &Ground) {
    let root = ground.root();
    let script = "(setsid sh -c 'while :; do echo >>/tmp/log; sleep 0.01; done' </dev/null >/dev/null 2>&1 &) ; sleep 0.2; echo started";
    assert_eq!(ground.run(&root, &shell(script)).success(), "started\n");
    let size = || fs::metadata(upper(&root).join("tmp/log")).map(|meta| meta.len()).unwrap();
    let before = size();
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(before, size(), "the daemon still writes");
}

fn killed(ground: &Ground) {
    let shared = ground.fresh("shared");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o777)).unwrap();
    let mut victim = Command::new("/proc/self/exe").env(suite::VICTIM, &shared).spawn().unwrap();
    // While somebody writes there, a name may be gone when it is looked at.
    let find = |name: &str| {
        let found = Command::new("find").arg(&shared).args(["-path", &format!("*/tmp/{name}")]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().lines().next().map(str::to_owned)
    };
    let started = Instant::now();
    while find("daemon").is_none() || find("step").is_none() {
        assert!(started.elapsed() < Duration::from_secs(30), "the step has not begun");
        std::thread::sleep(Duration::from_millis(10));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let size = |name: &str| fs::metadata(find(name).unwrap()).unwrap().len();
    let before = (size("daemon"), size("step"));
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(before, (size("daemon"), size("step")), "something still writes");
}

/// The step of a dockless that will be killed.
pub fn victim(ground: &Ground) -> Result<Exit, dockless::exec::Error> {
    let script = "(setsid sh -c 'while :; do echo >>/tmp/daemon; sleep 0.01; done' &); \
                  while :; do echo >>/tmp/step; sleep 0.01; done";
    ground.run(&ground.root(), &shell(script)).result
}
