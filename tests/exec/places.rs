//! The places: as whoever started the test; from root, as an ordinary user with and without subordinate ids; and those
//! without mounts, by asking for an isolation that needs none.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Names the place to the process that runs the suite in it.
pub const VARIABLE: &str = "DOCKLESS_TEST_PLACE";

/// A user that every machine has, and that owns nothing.
const NOBODY: &str = "65534";

const NOTHING: &str = "true";

/// Traps 3 and 4: what container runtimes hide of /proc keeps a new one from being mounted, and the old one has to be
/// taken with all that is mounted on it. Another one anywhere, of somebody's chroot, would do for the kernel: it goes.
const MASK: &str = "while read -r _ at kind _; do \
    if [ \"$kind\" = proc ] && [ \"$at\" != /proc ]; then umount -l \"$at\" || exit; fi; done </proc/mounts && \
    mount --bind /dev/null /proc/timer_list";
/// The cases that this matters to: what /proc shows, and how processes end that have no process table of their own.
const MASKED: [&str; 2] = ["kernel file systems", "daemons"];

/// Runs the suite in every place; a place that cannot be made is skipped by name.
pub fn run_all(args: &[String]) -> ExitCode {
    let mut failed = run("here", Command::new("/proc/self/exe"), args);
    failed |= run("rewrite", Command::new("/proc/self/exe"), args);
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skip: places chroot, rewrite-user, user, single: needs root to become somebody else");
        return code(failed);
    }
    failed |= run("chroot", Command::new("/proc/self/exe"), args);
    let missing: Vec<_> = ["unshare", "setpriv"].into_iter().filter(|tool| which::which(tool).is_err()).collect();
    if !missing.is_empty() {
        eprintln!("skip: places rewrite-user, user, single: needs {missing:?}");
        return code(failed);
    }
    let shared = Shared::new();
    let few = MASKED.map(String::from);
    let masked = if args.is_empty() { &few[..] } else { args };
    let lent = "nobody:200000:65536\n";
    failed |= if which::which("newuidmap").is_ok() {
        run("user", shared.as_nobody(lent, NOTHING), args) | run("masked", shared.as_nobody(lent, MASK), masked)
    } else {
        eprintln!("skip: places user, masked: needs newuidmap");
        false
    };
    failed |= run("single", shared.as_nobody("", NOTHING), args);
    failed |= run("rewrite-user", shared.as_nobody("", NOTHING), args);
    code(failed)
}

fn code(failed: bool) -> ExitCode {
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn run(place: &str, mut command: Command, args: &[String]) -> bool {
    println!("\nplace {place}:");
    !command.args(args).env(VARIABLE, place).status().unwrap().success()
}

/// What another user needs of us: this program where anybody can start it.
struct Shared(tempfile::TempDir);

impl Shared {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(crate::ground::disk()).unwrap();
        open_to_all(dir.path());
        fs::copy("/proc/self/exe", dir.path().join("program")).unwrap();
        Self(dir)
    }

    /// This program as nobody, on a machine that lends nobody these ids, after a command of root's.
    fn as_nobody(&self, subordinate: &str, before: &str) -> Command {
        let table: PathBuf = self.0.path().join(format!("subid-{}", subordinate.len()));
        fs::write(&table, subordinate).unwrap();
        let script = format!(
            "mount --bind \"$0\" /etc/subuid && mount --bind \"$0\" /etc/subgid && {before} && \
             user=$1 && shift && exec setpriv --reuid \"$user\" --regid \"$user\" --clear-groups \"$@\""
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]).arg(table).arg(NOBODY).arg(self.0.path().join("program"));
        command.env_remove("HOME").current_dir("/");
        command
    }
}

fn open_to_all(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
