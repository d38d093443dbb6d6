//! The git repository whose head an image follows (`git_repo`), asked through the `git` command.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::base::{Cancel, Env, Secret};

/// A server that neither answers nor hangs up.
const LIMIT: Duration = Duration::from_secs(120);
/// `ls-remote` of one name, or fifty commit ids.
const OUTPUT: u64 = 1024 * 1024;
/// The branch that the fork began with.
const DEFAULT_BRANCH: &str = "master";

/// A remote repository, and a folder for the key and for what is fetched of its history.
pub struct Repository<'a> {
    address: &'a str,
    env: &'a Env,
    cancel: &'a Cancel,
    dir: tempfile::TempDir,
    key: Option<PathBuf>,
    authorities: Option<PathBuf>,
}

/// Where a branch stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub commit: String,
    /// The name on the remote.
    reference: String,
}

impl<'a> Repository<'a> {
    pub fn open(address: &'a str, key: Option<&Secret>, env: &'a Env, cancel: &'a Cancel) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("dockless-git-").tempdir().context("make a temporary folder")?;
        let key = match key {
            None => None,
            Some(key) => {
                let path = dir.path().join("key");
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&path)
                    .context("keep the git key")?;
                file.write_all(key.expose())?;
                // OpenSSH refuses a key whose last line does not end; YAML blocks often lose that.
                file.write_all(b"\n")?;
                Some(path)
            }
        };
        let authorities = match env.nonempty("LOCAL_CA_CERTIFICATE") {
            None => None,
            Some(own) => {
                let path = dir.path().join("authorities.pem");
                let system = SYSTEM_ROOTS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
                fs::write(&path, format!("{system}\n{own}\n")).context("keep LOCAL_CA_CERTIFICATE for git")?;
                Some(path)
            }
        };
        Ok(Self { address, env, cancel, dir, key, authorities })
    }

    /// The head of a branch; without one of `master`, or where there is none of that name, of the repository's HEAD.
    pub fn head(&self, branch: Option<&str>) -> anyhow::Result<Head> {
        let reference = format!("refs/heads/{}", branch.unwrap_or(DEFAULT_BRANCH));
        let listed = self.git(&["ls-remote", "--", self.address, &reference, "HEAD"])?;
        let find = |name: &str| {
            let line = listed.lines().find(|line| line.split('\t').nth(1) == Some(name))?;
            Some(Head { commit: line.split('\t').next()?.to_owned(), reference: name.to_owned() })
        };
        match (find(&reference), branch) {
            (Some(head), _) => Ok(head),
            (None, None) => find("HEAD").with_context(|| format!("{} has no commit yet", self.address)),
            (None, Some(branch)) => bail!("{} has no branch {branch:?}", self.address),
        }
    }

    /// The commits before a head, newest first, along first parents.
    pub fn first_parents(&self, head: &Head, limit: usize) -> anyhow::Result<Vec<String>> {
        let bare = self.dir.path().join("history");
        let bare = bare.to_str().context("the temporary folder's name is not UTF-8")?;
        self.git(&["init", "-q", "--bare", bare])?;
        let depth = format!("--depth={}", limit + 1);
        let fetch = ["-C", bare, "fetch", "-q", "--no-tags", &depth];
        let lean = [&fetch[..], &["--filter=tree:0", "--", self.address, &head.reference]].concat();
        // Old servers know no filter: then the trees come along.
        if self.git(&lean).is_err() {
            self.git(&[&fetch[..], &["--", self.address, &head.reference]].concat())?;
        }
        let count = format!("--max-count={limit}");
        let listed = self.git(&["-C", bare, "rev-list", "--first-parent", "--skip=1", &count, "FETCH_HEAD"])?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    fn git(&self, args: &[&str]) -> anyhow::Result<String> {
        let program = which::which_in("git", Some(self.env.path()), self.env.cwd())
            .context("source.git_repo needs the git command, which is not in PATH")?;
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(self.env.vars());
        // Nobody is there to be asked.
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh");
        let mut ssh =
            "ssh -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
                .to_owned();
        if let Some(key) = &self.key {
            ssh += &format!(" -o IdentitiesOnly=yes -i '{}'", key.display());
        }
        command.env("GIT_SSH_COMMAND", ssh);
        if let Some(authorities) = &self.authorities {
            command.env("GIT_SSL_CAINFO", authorities);
        }
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("start git")?;
        let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
        let end = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = child.try_wait().context("wait for git")? {
                break status;
            }
            let late = Instant::now() > end;
            if late || self.cancel.wait(Duration::from_millis(10)) {
                let _ = child.kill();
                let _ = child.wait();
                self.cancel.check()?;
                bail!("git {}: {}: no answer within {} s", args[0], self.address, LIMIT.as_secs());
            }
        };
        let stderr = stderr.join().unwrap_or_default();
        if !status.success() {
            bail!("git {}: {}: {}", args[0], self.address, String::from_utf8_lossy(&stderr).trim());
        }
        String::from_utf8(stdout.join().unwrap_or_default()).context("git's answer is not UTF-8")
    }
}

const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reads on its own thread: git blocks when nobody takes what it says.
fn drain(stream: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut output = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(OUTPUT).read_to_end(&mut output);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
        output
    })
}
