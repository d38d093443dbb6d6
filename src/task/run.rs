//! Runs the native build: its streams are ours, signals that we are sent go on to it, its exit code is ours, and
//! nothing that it started is still running when it is over.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;

use super::config;
use crate::exec::Exit;
use crate::sys::signals;

/// The variable by which a task tells its faces where it runs: sources are the same from run to run by their place in it.
pub const DIR: &str = "DOCKLESS_TASK_DIR";

/// What is run unless something else is said.
pub const DEFAULT: [&str; 2] = ["make", "release"];

/// Signals that are for the build rather than for us.
const PASSED_ON: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// What is left running after the build has this long to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// A build, meant.
pub struct NativeBuild {
    pub argv: Vec<OsString>,
    pub dir: PathBuf,
    /// Beside those that we have ourselves.
    pub variables: Vec<(OsString, OsString)>,
    /// Where its program is looked for: with our faces in front.
    pub path: OsString,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{program}: no such program in PATH")]
    NotFound { program: String },
    #[error("{program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("{what}: {source}")]
    System { what: &'static str, source: io::Error },
}

/// The words to run: those typed, else those of the file, else `make release`.
pub fn argv(typed: &[OsString], file: Option<&config::Command>) -> Vec<OsString> {
    if !typed.is_empty() {
        return typed.to_vec();
    }
    match file {
        Some(config::Command::Words(words)) => words.iter().map(OsString::from).collect(),
        Some(config::Command::Line(line)) => ["/bin/sh", "-c", line].map(OsString::from).to_vec(),
        None => DEFAULT.map(OsString::from).to_vec(),
    }
}

impl NativeBuild {
    /// Runs it to its end.
    pub fn run(&self) -> Result<Exit, Error> {
        let system = |what| move |error: Errno| Error::System { what, source: error.into() };
        // What a killed make leaves behind becomes our child instead of init's, so that we can end it.
        nix::sys::prctl::set_child_subreaper(true).map_err(system("become a subreaper"))?;
        let mut arriving =
            signals::watch(&PASSED_ON).map_err(|source| Error::System { what: "catch signals", source })?;

        let program = self.program()?;
        let mut command = Command::new(&program);
        command.args(&self.argv[1..]).current_dir(&self.dir).env("PATH", &self.path);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let mut child =
            command.spawn().map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let pid = Pid::from_raw(child.id().cast_signed());

        // None once the child is reaped: its number may then be another's.
        let running = Arc::new(Mutex::new(Some(pid)));
        let target = running.clone();
        std::thread::spawn(move || {
            while let Ok(arrived) = arriving.wait() {
                // A terminal has told the whole foreground group already; twice would be a second Ctrl-C.
                if arrived.from_kernel {
                    continue;
                }
                if let Some(pid) = *target.lock().unwrap_or_else(PoisonError::into_inner) {
                    // It may be gone this instant, which is what the signal wanted.
                    let _ = kill(pid, arrived.signal);
                }
            }
        });

        loop {
            match waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Err(Errno::EINTR) => {}
                Err(error) => return Err(system("wait for the build")(error)),
                Ok(_) => break,
            }
        }
        *running.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let status = child.wait().map_err(|source| Error::System { what: "wait for the build", source })?;
        end_the_rest();
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(0)),
        })
    }

    /// The program's file: by its path, or found on the `PATH` that the build will have.
    fn program(&self) -> Result<PathBuf, Error> {
        let name = self.argv.first().ok_or(Error::NotFound { program: String::new() })?;
        which::which_in(name, Some(&self.path), &self.dir)
            .map_err(|_| Error::NotFound { program: Path::new(name).display().to_string() })
    }
}

/// Ends what the build left running: what is collected now must not change under the collector.
fn end_the_rest() {
    let started = Instant::now();
    loop {
        let killed = started.elapsed() >= GRACE;
        let children = children();
        if children.is_empty() {
            return;
        }
        for pid in children {
            let _ = kill(pid, if killed { Signal::SIGKILL } else { Signal::SIGTERM });
        }
        // Reaps all that have ended; those of them that had children hand them to us for the next round.
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(_) => break,
                Ok(_) => {}
            }
        }
        std::thread::sleep(Duration::from_millis(10));
        if started.elapsed() > GRACE * 2 {
            // Stuck in the kernel; it holds nothing that we could take from it.
            return;
        }
    }
}

/// Our children: field four of `/proc/PID/stat` is the parent.
fn children() -> Vec<Pid> {
    let own = std::process::id().to_string();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // The name, in brackets, may hold spaces and brackets; the last bracket ends it.
            let (_, fields) = stat.rsplit_once(')')?;
            (fields.split_whitespace().nth(1)? == own).then_some(Pid::from_raw(pid))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_words_come_before_the_file_and_make_release_last() {
        let words = |argv: Vec<OsString>| argv.iter().map(|w| w.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        let line = config::Command::Line("make x".into());
        assert_eq!(words(argv(&["a".into()], Some(&line))), ["a"]);
        assert_eq!(words(argv(&[], Some(&line))), ["/bin/sh", "-c", "make x"]);
        assert_eq!(words(argv(&[], None)), ["make", "release"]);
    }
}
