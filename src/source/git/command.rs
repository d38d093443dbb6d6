//! Running git: quietly, without questions, killed when the work is cancelled.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::{GitError, GitRequest, config};
use crate::base::cancel::Cancelled;
use crate::base::progress::Stream;
use crate::base::{Cancel, Env, Secret, progress::Step};
use crate::sys::Mtime;

/// Network protocols only: a submodule must not name a folder of this machine, nor a program (`ext::`).
const PROTOCOLS: &str = "git:http:https:ssh";
/// Where the address is the user's own, and no submodule will be fetched.
const OWN_PROTOCOLS: &str = "file:git:http:https:ssh";

/// What is kept of what git says, for the error.
const MESSAGE: usize = 4096;

/// Variables that would turn git to another repository.
const MISLEADING: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_PREFIX",
];

/// Git with the configuration of one request.
pub struct Git {
    program: PathBuf,
    env: Vec<(OsString, OsString)>,
    /// Holds the configuration; gone with this.
    dir: tempfile::TempDir,
    remote: String,
    secrets: Vec<String>,
    /// How long one run may take; none: as long as it takes.
    limit: Option<Duration>,
}

impl Git {
    pub fn new(request: &GitRequest, env: &Env) -> Result<Self, GitError> {
        let remote = shown(&request.remote);
        let program = which::which_in("git", Some(env.path()), env.cwd())
            .map_err(|_| GitError::NoGit { remote: remote.clone() })?;
        let dir = tempfile::Builder::new().prefix("dockless-git-").tempdir();
        let io = |source| GitError::Io { path: "configuration of git".into(), source };
        let dir = dir.map_err(io)?;
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            write_private(&path, text.as_bytes())?;
            Ok(path)
        };
        let config = write("config", &config::text(request, env, dir.path()).map_err(io)?).map_err(io)?;
        let mut vars: Vec<(OsString, OsString)> = env
            .vars()
            .filter(|(name, _)| !MISLEADING.iter().any(|misleading| name == misleading))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut set = |name: &str, value: &OsStr| vars.push((name.into(), value.to_owned()));
        set("GIT_CONFIG_GLOBAL", config.as_os_str());
        set("GIT_TERMINAL_PROMPT", "0".as_ref());
        set("GIT_ASKPASS", "".as_ref());
        set("SSH_ASKPASS", "".as_ref());
        set("LC_ALL", "C".as_ref());
        set("GIT_ALLOW_PROTOCOL", PROTOCOLS.as_ref());
        if let Some(hosts) = &request.known_hosts {
            let hosts = write("known_hosts", hosts).map_err(io)?;
            let ssh =
                format!("ssh -o BatchMode=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}", hosts.display());
            set("GIT_SSH_COMMAND", ssh.as_ref());
        } else if env.nonempty("GIT_SSH_COMMAND").is_none() {
            set("GIT_SSH_COMMAND", "ssh -o BatchMode=yes -o StrictHostKeyChecking=accept-new".as_ref());
        }
        if let Some(socket) = &request.ssh_socket {
            set("SSH_AUTH_SOCK", socket.as_os_str());
        }
        let secrets = [&request.auth_token, &request.auth_header]
            .into_iter()
            .flatten()
            .filter_map(|secret| secret.expose_str().map(|text| text.trim().to_owned()))
            .chain(url::Url::parse(&request.remote).ok().and_then(|url| url.password().map(str::to_owned)))
            .filter(|secret| !secret.is_empty())
            .collect();
        Ok(Self { program, env: vars, dir, remote, secrets, limit: None })
    }

    /// For questions: bounded, of this machine's own folders too, by ssh with a key and to any host.
    pub fn asking(mut self, key: Option<&Secret>, limit: Duration) -> Result<Self, GitError> {
        let mut ssh =
            "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
                .to_owned();
        if let Some(key) = key {
            let path = self.dir.path().join("key");
            // OpenSSH refuses a key whose last line does not end; YAML blocks often lose that.
            let text = [key.expose(), b"\n"].concat();
            write_private(&path, &text).map_err(|source| GitError::Io { path: "the git key".into(), source })?;
            ssh += &format!(" -o IdentitiesOnly=yes -i '{}'", path.display());
        }
        self.env.push(("GIT_SSH_COMMAND".into(), ssh.into()));
        self.env.push(("GIT_ALLOW_PROTOCOL".into(), OWN_PROTOCOLS.into()));
        self.limit = Some(limit);
        Ok(self)
    }

    /// The remote's address as it may be shown.
    pub fn remote(&self) -> &str {
        &self.remote
    }

    /// What git wrote to its standard output. What it says on the other goes to the step's log.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        dir: Option<&Path>,
        args: impl IntoIterator<Item = A>,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, GitError> {
        let mut command = self.command(dir);
        command.args(args);
        self.wait(command, step, cancel)
    }

    /// Whether a commit, or a path in it, is in a bare copy.
    pub fn has(&self, bare: &Path, commit: &str, path: &str, cancel: &Cancel) -> Result<bool, GitError> {
        let object = if path.is_empty() { format!("{commit}^{{commit}}") } else { format!("{commit}:{path}") };
        match self.run(Some(bare), ["cat-file", "-e", &object], &Step::none(), cancel) {
            Ok(_) => Ok(true),
            Err(GitError::Failed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// When a commit was made.
    pub fn date(&self, bare: &Path, commit: &str, cancel: &Cancel) -> Result<Mtime, GitError> {
        let told = self.run(Some(bare), ["show", "--no-patch", "--format=%ct", commit], &Step::none(), cancel)?;
        let told = String::from_utf8_lossy(&told);
        let seconds = told.trim().parse().map_err(|_| GitError::Failed {
            remote: self.remote.clone(),
            reason: format!("commit {commit} has the date {:?}", told.trim()),
        })?;
        Ok(Mtime { seconds, nanos: 0 })
    }

    /// Writes the files of a commit, and no `.git`.
    pub fn export(&self, bare: &Path, commit: &str, tree: &Path, step: &Step, cancel: &Cancel) -> Result<(), GitError> {
        let mut command = self.command(Some(bare));
        command.env("GIT_DIR", bare).env("GIT_WORK_TREE", tree).env("GIT_INDEX_FILE", self.dir.path().join("index"));
        command.args(["read-tree", "-m", "-u", commit]);
        self.wait(command, step, cancel).map(drop)
    }

    /// Makes a repository of one commit out of the bare copy, with its files.
    pub fn clone_from(
        &self,
        bare: &Path,
        commit: &str,
        tree: &Path,
        step: &Step,
        cancel: &Cancel,
    ) -> Result<(), GitError> {
        self.run(Some(tree), ["init", "--quiet", "."], step, cancel)?;
        let mut fetch = self.command(Some(tree));
        // The one folder of this machine that git is sent to.
        fetch
            .env("GIT_ALLOW_PROTOCOL", "file")
            .args(["fetch", "--quiet", "--no-tags", "--depth=1"])
            .arg(bare)
            .arg(commit);
        self.wait(fetch, step, cancel)?;
        self.run(Some(tree), ["checkout", "--quiet", "--detach", commit], step, cancel)?;
        self.run(Some(tree), ["config", "remote.origin.url", &self.remote], step, cancel)?;
        for left in ["FETCH_HEAD", "ORIG_HEAD"] {
            let _ = std::fs::remove_file(tree.join(".git").join(left));
        }
        // It tells when, by whom and from which folder; the next build would differ.
        let _ = std::fs::remove_dir_all(tree.join(".git/logs"));
        Ok(())
    }

    fn command(&self, dir: Option<&Path>) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(dir.unwrap_or(self.dir.path()));
        // A group of its own, so that its helpers can be ended with it.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        command
    }

    fn wait(&self, mut command: Command, step: &Step, cancel: &Cancel) -> Result<Vec<u8>, GitError> {
        let failed = |reason: String| GitError::Failed { remote: self.remote.clone(), reason };
        cancel.check()?;
        let mut child = command.spawn().map_err(|error| failed(format!("cannot start git: {error}")))?;
        let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(failed("git has no output".to_owned()));
        };
        std::thread::scope(|scope| {
            let output = scope.spawn(move || {
                let mut bytes = Vec::new();
                stdout.read_to_end(&mut bytes).map(|_| bytes)
            });
            let message = scope.spawn(|| self.listen(stderr, step));
            let status = ended(&mut child, self.limit, cancel);
            let (output, message) = (output.join(), message.join());
            let (Ok(output), Ok(message)) = (output, message) else {
                return Err(failed("git's output was not read".to_owned()));
            };
            match status {
                Ok(Some(status)) if status.success() => output.map_err(|error| failed(error.to_string())),
                Ok(Some(status)) if message.is_empty() => Err(failed(format!("git ended with {status}"))),
                Ok(Some(_)) => Err(failed(message)),
                Ok(None) if !cancel.is_cancelled() => {
                    let seconds = self.limit.unwrap_or_default().as_secs();
                    Err(failed(format!("no answer within {seconds} s")))
                }
                Ok(None) => Err(Cancelled.into()),
                Err(error) => Err(failed(error.to_string())),
            }
        })
    }

    /// Passes on what git says; the end of it, on one line, is for the error.
    fn listen(&self, mut stderr: impl Read, step: &Step) -> String {
        let mut kept = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            kept.extend_from_slice(&buffer[..count]);
            if kept.len() > 2 * MESSAGE {
                kept.drain(..kept.len() - MESSAGE);
            }
            step.log(Stream::Stderr, self.redact(&String::from_utf8_lossy(&buffer[..count])));
        }
        let text = self.redact(&String::from_utf8_lossy(&kept));
        let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    }

    fn redact(&self, text: &str) -> String {
        self.secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "xxxxx"))
    }
}

fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)
}

/// None when it was killed because the work is cancelled, or because it took too long.
fn ended(child: &mut Child, limit: Option<Duration>, cancel: &Cancel) -> io::Result<Option<std::process::ExitStatus>> {
    const LONGEST: Duration = Duration::from_millis(20);
    let began = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if cancel.wait(pause) || limit.is_some_and(|limit| began.elapsed() > limit) {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            child.wait()?;
            return Ok(None);
        }
        pause = (pause * 2).min(LONGEST);
    }
}

/// A remote as it may be shown: without the password.
pub fn shown(remote: &str) -> String {
    match url::Url::parse(remote) {
        Ok(mut url) if url.password().is_some() || (!url.username().is_empty() && url.scheme().starts_with("http")) => {
            let _ = url.set_password(None);
            let _ = url.set_username("");
            url.to_string()
        }
        _ => remote.to_owned(),
    }
}
