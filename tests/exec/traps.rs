//! What has tripped emulations of root before, each a case: docs/isolation.md says where the others are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dockless::exec::{Exit, Isolation, Process};
use dockless::sys::RootFs;

use crate::ground::{Ground, shell, upper};
use crate::suite::Case;

/// Those that every isolation must pass.
pub const CASES: &[Case] = &[
    ("trap 6: signals do not interrupt what does not wait, nor have it done twice", signals),
    ("trap 10: a process that nobody may read is answered", unreadable_memory),
    ("trap 11: a setuid program is its owner's", setuid_programs),
    ("trap 12: capabilities can be kept, and root does not come back", kept_capabilities),
    ("trap 14: a new file with an old number is nobody's but its maker's", reused_numbers),
    ("trap 15: what would pass a filter is refused", passing_calls),
    ("trap 16: calls by other numbers are refused", other_numbers),
    ("trap 17: file capabilities read as they were written, and go with their owner", file_capabilities),
    ("a step can debug its own, where it is not traced for its life", debuggers),
    ("trap 23: root reads what nobody may", closed_files),
    ("what moves is found where it is, and nowhere else", moving),
    ("a user's new directory is never root's", making),
    ("links lead to the step's own /proc and /dev", links_to_the_kernels),
    ("what cannot be done is refused as the kernel refuses it", refusals),
    ("no link leads from one mount into another", links_across),
];

/// Those of steps that are supervised by a process of their own.
pub const SUPERVISED: &[Case] = &[("trap 7: a step whose supervisor dies ends", without_supervisor)];

/// A C program of this folder, built once; none, told by name, where it cannot be.
fn program(ground: &Ground, name: &'static str) -> Option<PathBuf> {
    static BUILT: Mutex<BTreeMap<&str, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let build = || {
        let program = ground.fresh("program").join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/exec").join(name).with_extension("c");
        let built = Command::new("cc").args(["-static", "-o"]).arg(&program).arg(source).status();
        if built.is_ok_and(|status| status.success()) {
            return Some(program);
        }
        eprintln!("skip: part of traps: {name}: needs cc and a static C library");
        None
    };
    BUILT.lock().unwrap().entry(name).or_insert_with(build).clone()
}

/// A root with a C program in its /bin.
fn root_with(ground: &Ground, name: &'static str) -> Option<RootFs> {
    let root = ground.root();
    fs::create_dir_all(upper(&root).join("bin")).unwrap();
    fs::copy(program(ground, name)?, upper(&root).join("bin").join(name)).unwrap();
    Some(root)
}

/// Runs `traps NAME` as root; what it tells.
fn tell(ground: &Ground, trap: &str) -> Option<String> {
    Some(ground.run(&root_with(ground, "traps")?, &shell(&format!("cd /home && traps {trap}"))).success())
}

fn check(ground: &Ground, trap: &str, expected: &str) {
    if let Some(told) = tell(ground, trap) {
        assert_eq!(told, expected, "{trap}");
    }
}

/// Met as a shell whose trap could not write its file, since a child's end interrupted the opening.
fn signals(ground: &Ground) {
    let Some(root) = root_with(ground, "interrupted") else { return };
    assert_eq!(ground.run(&root, &shell("cd /tmp && interrupted")).success(), "0 failed\n");
}

fn unreadable_memory(ground: &Ground) {
    check(ground, "undumpable", "works\n");
}

fn setuid_programs(ground: &Ground) {
    let Some(root) = root_with(ground, "traps") else { return };
    let make = "cp /bin/traps /bin/setuid && chown 33:34 /bin/setuid && chmod 6755 /bin/setuid && cp /bin/traps /bin/plain && \
                cp /bin/traps /bin/root && chmod 4755 /bin/root";
    ground.run(&root, &shell(make)).success();
    let user =
        Process { uid: 1000, gid: 1000, ..shell("plain ids; setuid ids; root ids; sh -c 'setuid ids'; plain ids") };
    let own = "1000 1000 1000 1000\n";
    let expected = format!("{own}1000 33 1000 34\n1000 0 1000 1000\n1000 33 1000 34\n{own}");
    assert_eq!(ground.run(&root, &user).success(), expected);
}

fn kept_capabilities(ground: &Ground) {
    check(ground, "keep", "permitted 1 effective 0 back refused\n");
}

fn reused_numbers(ground: &Ground) {
    let out = ground.shell(
        "cd /home && for i in 1 2 3 4 5 6; do touch a && chown 5:6 a && rm a && touch b && stat -c %u:%g b && rm b && \
         mkfifo p && chown 7:8 p && rm p && mkfifo q && stat -c %u:%g q && rm q && \
         ln -s x l && chown -h 9:9 l && rm l && ln -s y m && stat -c %u:%g m && rm m; done | sort | uniq",
    );
    assert_eq!(out, "0:0\n");
}

fn passing_calls(ground: &Ground) {
    let Some(told) = tell(ground, "passing") else { return };
    match ground.choice.isolation {
        // The kernel's answers pass nobody by.
        Isolation::Ns => assert!(told.starts_with("ring refused, "), "{told}"),
        _ => assert_eq!(told, "ring refused, setxattrat refused\n"),
    }
}

fn other_numbers(ground: &Ground) {
    let Some(told) = tell(ground, "narrow") else { return };
    match ground.choice.isolation {
        // Where names are the kernel's, so may the numbers be.
        Isolation::Ns | Isolation::Ns1 => assert!(told.starts_with("x32 refused, "), "{told}"),
        _ => assert_eq!(told, "x32 refused, i386 refused\n"),
    }
}

fn file_capabilities(ground: &Ground) {
    check(ground, "capabilities", "20 2000001 2000, No data available\n");
}

fn debuggers(ground: &Ground) {
    let expected = match ground.choice.isolation {
        Isolation::Rewrite => "attach: Operation not permitted, traceme: Operation not permitted\n",
        _ => "attach: works, traceme: works\n",
    };
    check(ground, "traced", expected);
}

fn closed_files(ground: &Ground) {
    let out = ground.shell(
        "cd /home && echo x >f && chmod 0 f && cat f && echo y >>f && cat f && mkdir d && echo z >d/g && chmod 0 d/g d && \
         cat d/g && touch d/new && ls d && stat -c %a f d d/g && cp -a d copy && stat -c %a copy copy/g",
    );
    assert_eq!(out, "x\nx\ny\nz\ng\nnew\n0\n0\n0\n0\n0\n");
}

fn without_supervisor(ground: &Ground) {
    let root = ground.root();
    fs::set_permissions(upper(&root).join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let begun = upper(&root).join("tmp/begun");
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| sender.send(ground.run(&root, &shell("echo >/tmp/begun; while :; do test -e /tmp; done"))));
        let started = Instant::now();
        let supervisor = loop {
            assert!(started.elapsed() < Duration::from_secs(30), "the step has not begun");
            match stages().first() {
                Some(stage) if begun.exists() => break *stage,
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(supervisor), nix::sys::signal::Signal::SIGKILL).unwrap();
        let outcome = receiver.recv_timeout(Duration::from_secs(30)).expect("the step hangs");
        assert!(!matches!(outcome.result, Ok(Exit::Code(0))), "{outcome:?}");
    });
}

/// The sandboxes' first processes: this one's children.
fn stages() -> Vec<i32> {
    let own = std::process::id();
    let threads = fs::read_dir("/proc/self/task").unwrap();
    let children = threads.map(|thread| {
        let thread = thread.unwrap().file_name().into_string().unwrap();
        fs::read_to_string(format!("/proc/{own}/task/{thread}/children")).unwrap_or_default()
    });
    children.flat_map(|list| list.split_whitespace().map(|it| it.parse().unwrap()).collect::<Vec<_>>()).collect()
}

/// Directories that have been found are remembered: until one of them, or a link, moves.
fn moving(ground: &Ground) {
    let script = "look() { cat $1 2>/dev/null || echo none; }
        mkdir -p a/b && echo one >a/b/f && ln -s a l && look /tmp/m/l/b/f && look l/b/f
        mv a c; look /tmp/m/l/b/f; look /tmp/m/c/b/f
        mkdir -p a/b; echo two >a/b/f; look /tmp/m/l/b/f
        ln -sfn c l; look /tmp/m/l/b/f
        rm l; look /tmp/m/l/b/f; mkdir -p l/b; look /tmp/m/l/b/f
        rm -r c/b; look /tmp/m/c/b/f; echo three >c/b; look /tmp/m/c/b/f; look c/b
        cd a; mv ../a ../d; look b/f; mkdir ../a; echo four >../a/f; look f; look ../a/f; look /tmp/m/a/b/f
        look ../d/b/../../a/f; ln -s ../d/b e; look e/f; look /tmp/m/d/e/../../a/f; ls -d /tmp/m/d/e/..";
    let expected = "one\none\nnone\none\ntwo\none\nnone\nnone\nnone\nnone\nthree\ntwo\nnone\nfour\nnone\n\
                    four\ntwo\nfour\n/tmp/m/d/e/..\n";
    let root = ground.root();
    let start = "chmod 1777 /tmp; rm -rf /tmp/m; mkdir /tmp/m && chown app:app /tmp/m && cd /tmp/m";
    assert_eq!(ground.run(&root, &shell(&format!("{start}; {script}"))).success(), expected);
    assert_eq!(ground.run(&root, &shell(&format!("{start}; su app -c '{script}'"))).success(), expected);
}

/// Met as npm, whose threads make folders for each other, on a machine that was busy.
fn making(ground: &Ground) {
    check(ground, "making", "0 refused\n");
}

/// Met as a log file that is a link to /dev/stdout, and was not there for whoever looked.
fn links_to_the_kernels(ground: &Ground) {
    let out = ground.shell(
        "cd /tmp && ln -s /proc/self/status s && ln -s /dev/null n && ln -s /proc p && ln -s /dev/stdout o && ln -s s s2
         stat -L -c %F s /tmp/s s2; test -e s && test -e /tmp/s2 && echo there; test -c n && test -c /tmp/n && echo device
         test -d p/self && test -d /tmp/p/self/task && echo directory; test -e p/nothing || echo nothing; test -L p && echo link
         head -c 5 s2; echo; echo lost >n; echo kept >o; wc -c <n; test -r /tmp/p/self/environ && echo readable",
    );
    let status = "regular empty file\n".repeat(3);
    assert_eq!(out, format!("{status}there\ndevice\ndirectory\nnothing\nlink\nName:\nkept\n0\nreadable\n"));
}

/// What a step changes through a name in /dev would be seen by nobody.
fn links_across(ground: &Ground) {
    let script = "cd /home && echo f >f && ln f g && cd /dev && echo d >shm/d && ln shm/d shm/e && \
        for to in /dev/shm/f shm/f /dev/f f; do ln /home/f $to 2>&1; done; cd /home; ln /dev/shm/d d 2>&1; ls";
    let told = ground.run(&ground.root(), &shell(script)).success();
    assert_eq!(told.matches("Invalid cross-device link").count(), 5, "{told}");
    assert!(told.ends_with("\nf\ng\n"), "{told}");
}

fn refusals(ground: &Ground) {
    check(
        ground,
        "refusals",
        "fstat: Bad file descriptor\ncreate a directory: Is a directory\ncreate what is there: File exists\n\
         create a link: File exists\nby a link to nothing: made\nread no link: Invalid argument\n\
         open a link itself: Too many levels of symbolic links\nremove a directory: Is a directory\n\
         remove dots: Invalid argument\nbelow a file: Not a directory\nrun a directory: Permission denied\n\
         run no program: Permission denied\nnew in nothing: No such file or directory\n",
    );
}
