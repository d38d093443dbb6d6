//! A way to the caller's ssh agent for one step: a socket of our own, with the owner that the step asks for, whose
//! connections are passed on.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::base::Env;
use crate::llb::pb;

/// How long a started agent may take to open its socket: it does nothing else.
const AGENT_START: Duration = Duration::from_secs(10);

/// A forwarded agent; dropping it ends the forwarding.
pub struct Agent {
    socket: PathBuf,
    closing: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
    // Ends with its standard input, so it cannot outlive dockless however that ends.
    own: Option<Child>,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// Forwards to a socket, or to an agent started here that holds the given keys.
    pub fn forward(
        sources: &[PathBuf],
        option: &pb::SshOpt,
        dir: tempfile::TempDir,
        env: &Env,
    ) -> anyhow::Result<Self> {
        let (agent, own) = match sources {
            [] => match env.nonempty("SSH_AUTH_SOCK") {
                Some(socket) => (PathBuf::from(socket), None),
                None => bail!("SSH_AUTH_SOCK is not set, and neither a socket nor a key was given"),
            },
            [socket] if is_socket(socket) => (socket.clone(), None),
            keys => {
                let socket = dir.path().join("keys");
                let child = start(&socket, keys, env)?;
                (socket, Some(child))
            }
        };
        let socket = dir.path().join("agent");
        let listener = UnixListener::bind(&socket).with_context(|| format!("open {}", socket.display()))?;
        fs::set_permissions(&socket, fs::Permissions::from_mode(option.mode & 0o7777))?;
        if let Err(error) = std::os::unix::fs::chown(&socket, Some(option.uid), Some(option.gid)) {
            // With one id there is nobody else to give it to: the step's user is the same to the kernel.
            tracing::debug!(%error, "the agent's socket keeps its owner");
        }
        let closing = Arc::new(AtomicBool::new(false));
        let told = closing.clone();
        let listener = std::thread::spawn(move || accept(&listener, &agent, &told));
        Ok(Self { socket, closing, listener: Some(listener), own, _dir: dir })
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.closing.store(true, Ordering::Release);
        // An empty connection wakes the listener, which then finds that it is over.
        if let (Ok(_), Some(listener)) = (UnixStream::connect(&self.socket), self.listener.take()) {
            // A panic of the listener has already been printed.
            let _ = listener.join();
        }
        if let Some(child) = &mut self.own {
            drop(child.stdin.take());
            if let Err(error) = child.wait() {
                tracing::debug!(%error, "ssh-agent is not waited for");
            }
        }
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
}

fn accept(listener: &UnixListener, agent: &Path, closing: &AtomicBool) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { return };
        if closing.load(Ordering::Acquire) {
            return;
        }
        let agent = agent.to_owned();
        // An agent that is gone ends the connection; ssh in the step then says so better than we could.
        std::thread::spawn(move || UnixStream::connect(agent).and_then(|agent| pass(connection, agent)));
    }
}

fn pass(step: UnixStream, agent: UnixStream) -> io::Result<()> {
    let (from_step, to_agent) = (step.try_clone()?, agent.try_clone()?);
    let forth = std::thread::spawn(move || copy(from_step, to_agent));
    copy(agent, step);
    // A panic of the other direction has already been printed.
    let _ = forth.join();
    Ok(())
}

/// Copies until either side ends, and ends the other.
fn copy(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // Fails where the other side is gone already, which is what it is for.
    let _ = to.shutdown(Shutdown::Write);
}

/// Starts an agent on a socket and gives it the keys.
fn start(socket: &Path, keys: &[PathBuf], env: &Env) -> anyhow::Result<Child> {
    let program = |name: &str| {
        which::which_in(name, Some(env.path()), env.cwd()).with_context(|| {
            format!("{name} is needed for --ssh with a key file; install openssh-client, or pass an agent's socket")
        })
    };
    let (agent, add) = (program("ssh-agent")?, program("ssh-add")?);
    // The shell waits for the end of its input, which comes with our own end at the latest, and takes the agent along.
    let mut child = Command::new("/bin/sh")
        .args(["-c", r#""$0" -D -a "$1" & cat; kill $!"#])
        .args([agent.as_os_str(), socket.as_os_str()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start ssh-agent")?;
    let began = Instant::now();
    while !is_socket(socket) {
        if child.try_wait()?.is_some() || began.elapsed() > AGENT_START {
            bail!("ssh-agent did not open its socket");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for key in keys {
        let output = Command::new(&add)
            .arg("-q")
            .arg(key)
            .env("SSH_AUTH_SOCK", socket)
            .stdin(Stdio::null())
            .output()
            .context("start ssh-add")?;
        if !output.status.success() {
            bail!("ssh-add refused {}: {}", key.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_says_reaches_the_agent_and_back() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("real");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut text = String::new();
                connection.read_to_string(&mut text).unwrap();
                connection.write_all(text.to_uppercase().as_bytes()).unwrap();
            }
        });
        let option = pb::SshOpt { mode: 0o600, uid: 0, gid: 0, ..pb::SshOpt::default() };
        let forwarded = Agent::forward(&[socket], &option, tempfile::tempdir().unwrap(), &Env::of([])).unwrap();
        let path = forwarded.socket().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for _ in 0..2 {
            let mut step = UnixStream::connect(&path).unwrap();
            step.write_all(b"hello").unwrap();
            step.shutdown(Shutdown::Write).unwrap();
            let mut answer = String::new();
            step.read_to_string(&mut answer).unwrap();
            assert_eq!(answer, "HELLO");
        }
        drop(forwarded);
        assert!(!path.exists());
    }

    #[test]
    fn nothing_to_forward_is_said() {
        let error = Agent::forward(&[], &pb::SshOpt::default(), tempfile::tempdir().unwrap(), &Env::of([]));
        let message = error.err().unwrap().to_string();
        assert_eq!(message, "SSH_AUTH_SOCK is not set, and neither a socket nor a key was given");
    }

    #[test]
    fn an_agent_started_for_keys_ends_with_the_step() {
        let env = Env::of([]);
        let tools = ["ssh-agent", "ssh-add", "ssh-keygen"].map(|name| which::which_in(name, Some(env.path()), "/"));
        let [Ok(_), Ok(_), Ok(keygen)] = tools else {
            eprintln!("skip: needs ssh-agent, ssh-add and ssh-keygen");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        let made = Command::new(keygen).args(["-q", "-N", "", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        let option = pb::SshOpt { mode: 0o600, ..pb::SshOpt::default() };
        let agent = Agent::forward(&[key], &option, tempfile::tempdir().unwrap(), &env).unwrap();
        let listed = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stdout));
        let socket = agent._dir.path().join("keys");
        drop(agent);
        assert!(UnixStream::connect(socket).is_err(), "the agent is gone");
    }
}
