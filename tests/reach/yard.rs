//! The folder that all places share: the program under test, base images as tars, the corpus, and what comes out.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// One for the whole run; removed by the next run's, since statics are never dropped.
pub struct Yard {
    pub dir: PathBuf,
}

/// Whether the long half was asked for.
pub fn all() -> bool {
    std::env::var("DOCKLESS_REACH").is_ok_and(|value| value == "all")
}

pub fn skip(test: &str, reason: &str) {
    eprintln!("skip: {test}: {reason}");
}

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn find(program: &str) -> Option<PathBuf> {
    which::which(program).or_else(|_| which::which_in(program, Some("/usr/sbin:/sbin"), "/")).ok()
}

/// The yard; none, said by name, where this machine cannot simulate places.
pub fn yard(test: &str) -> Option<&'static Yard> {
    static YARD: OnceLock<Result<Yard, String>> = OnceLock::new();
    match YARD.get_or_init(Yard::make) {
        Ok(yard) => Some(yard),
        Err(reason) => {
            skip(test, reason);
            None
        }
    }
}

impl Yard {
    fn make() -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("the simulator of places needs root".into());
        }
        let missing: Vec<_> =
            ["runc", "jq", "perl", "busybox"].into_iter().filter(|name| find(name).is_none()).collect();
        if !missing.is_empty() {
            return Err(format!("needs {missing:?}"));
        }
        // Not below /tmp, which may be in memory: layers are on a disk in real life.
        let dir = PathBuf::from(format!("/var/tmp/dockless-reach-{}", std::process::id()));
        sweep();
        let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
        fs::create_dir_all(dir.join("bases")).map_err(failed)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        fs::copy(program(), dir.join("dockless")).map_err(failed)?;
        let reach = repository().join("tests/reach");
        for name in ["corpus", "jail", "inside"] {
            run(Command::new("cp").arg("-R").arg(reach.join(name)).arg(dir.join(name)));
        }
        let yard = Self { dir };
        let trial = yard.jail("privileged", &["true"]);
        if !trial.status.success() {
            return Err(format!("no place can be simulated here: {}", String::from_utf8_lossy(&trial.stderr).trim()));
        }
        Ok(yard)
    }

    /// A base image's tar, made once and kept for later runs.
    pub fn base(&self, name: &str) -> Result<(), String> {
        let tar = format!("{name}.tar");
        if self.dir.join("bases").join(&tar).exists() {
            return Ok(());
        }
        let cache = repository().join("target/bases");
        if name != "busybox" && !cache.join(&tar).exists() && find("mmdebstrap").is_none() {
            return Err("needs mmdebstrap".into());
        }
        let state = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut command = Command::new(repository().join("ci/bases"));
        command.arg(program()).arg(&cache).env("DOCKLESS_STATE", state.path());
        if name != "busybox" {
            command.arg(name);
        }
        run(&mut command);
        fs::copy(cache.join(&tar), self.dir.join("bases").join(&tar)).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Runs a command in a place, in this folder and with no network, to its end.
    pub fn jail(&self, place: &str, command: &[&str]) -> Output {
        self.command(place, &["--net", "none"], command).stdin(Stdio::null()).output().expect("start bash")
    }

    /// The same with options of the simulator's, not started yet.
    pub fn command(&self, place: &str, options: &[&str], command: &[&str]) -> Command {
        // A place that hangs is a failure of its own, and takes all in it along.
        let mut jail = Command::new("timeout");
        jail.args(["--kill-after=10", "900", "bash"])
            .arg(self.dir.join("jail/jail"))
            .arg(place)
            .args(options)
            .arg("--")
            .args(command)
            .current_dir(&self.dir);
        jail
    }
}

/// What to test: a release build, where one is named.
fn program() -> PathBuf {
    std::env::var_os("DOCKLESS_UNDER_TEST")
        .map_or_else(|| env!("CARGO_BIN_EXE_dockless").into(), |path| repository().join(path))
}

/// Removes what earlier runs left.
fn sweep() {
    let Ok(entries) = fs::read_dir("/var/tmp") else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix("dockless-reach-") else { continue };
        if !Path::new("/proc").join(pid).exists() {
            // Another run may be at it as well.
            let _ = fs::remove_dir_all(path);
        }
    }
}

pub fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&both));
    output.stdout
}
