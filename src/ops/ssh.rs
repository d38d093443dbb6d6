//! A way to the caller's ssh agent for one step: a socket of our own, with the owner that the step asks for, whose
//! connections are passed on. A step may look at the keys and have something signed, and that is all: what it says
//! must not empty the agent that its user goes on working with.

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

/// What a step asks an agent: for its keys (SSH_AGENTC_REQUEST_IDENTITIES), and for a signature (SSH_AGENTC_SIGN_REQUEST).
const PERMITTED: [u8; 2] = [11, 13];

/// SSH_AGENT_FAILURE, as a whole message.
const REFUSAL: [u8; 5] = [0, 0, 0, 1, 5];

/// What OpenSSH takes of a message, from either side.
const MAX_MESSAGE: usize = 256 << 10;

/// Where ssh keys are: in an agent, or in files, for which one is started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keys {
    /// One socket, or files; none for the socket that `SSH_AUTH_SOCK` names.
    pub paths: Vec<PathBuf>,
    /// Steps may say to the socket whatever they like.
    pub raw: bool,
}

impl Keys {
    /// The agent's socket, where it is one.
    pub fn socket(&self) -> Option<&Path> {
        match self.paths.as_slice() {
            [path] if is_socket(path) => Some(path),
            _ => None,
        }
    }
}

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
    pub fn forward(keys: &Keys, option: &pb::SshOpt, dir: tempfile::TempDir, env: &Env) -> anyhow::Result<Self> {
        let (agent, own) = match (keys.socket(), keys.paths.as_slice()) {
            (Some(socket), _) => (socket.to_owned(), None),
            (None, []) => match env.nonempty("SSH_AUTH_SOCK") {
                Some(socket) => (PathBuf::from(socket), None),
                None => bail!("SSH_AUTH_SOCK is not set, and neither a socket nor a key was given"),
            },
            (None, files) => {
                if let Some(socket) = files.iter().find(|path| is_socket(path)) {
                    bail!("{} is a socket, beside which nothing else can be given", socket.display());
                }
                if keys.raw {
                    bail!("raw=true needs the socket of an agent, and {} is none", files[0].display());
                }
                let socket = dir.path().join("keys");
                let child = start(&socket, files, env)?;
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
        let (told, converse) = (closing.clone(), if keys.raw { pass } else { ask });
        let listener = std::thread::spawn(move || accept(&listener, &agent, converse, &told));
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

/// How a connection of a step is answered by one to the agent.
type Converse = fn(UnixStream, UnixStream) -> io::Result<()>;

fn accept(listener: &UnixListener, agent: &Path, converse: Converse, closing: &AtomicBool) {
    for connection in listener.incoming() {
        let Ok(connection) = connection else { return };
        if closing.load(Ordering::Acquire) {
            return;
        }
        let agent = agent.to_owned();
        // An agent that is gone ends the connection; ssh in the step then says so better than we could.
        std::thread::spawn(move || UnixStream::connect(agent).and_then(|agent| converse(connection, agent)));
    }
}

/// Passes on, one by one, what a step may ask, and the agent's answers.
fn ask(mut step: UnixStream, mut agent: UnixStream) -> io::Result<()> {
    while let Some(question) = message(&mut step)? {
        if !question.get(LENGTH).is_some_and(|kind| PERMITTED.contains(kind)) {
            step.write_all(&REFUSAL)?;
            continue;
        }
        agent.write_all(&question)?;
        match message(&mut agent)? {
            Some(answer) => step.write_all(&answer)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// What the length of a message is written in, before it.
const LENGTH: usize = 4;

/// The next message with its length; none where the other side has no more to say.
fn message(from: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut message = vec![0; LENGTH];
    if from.read(&mut message[..1])? == 0 {
        return Ok(None);
    }
    from.read_exact(&mut message[1..])?;
    let length = message.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    message.resize(LENGTH + length, 0);
    from.read_exact(&mut message[LENGTH..])?;
    Ok(Some(message))
}

/// Passes everything on, both ways.
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
    // The socket is there a moment before anybody listens.
    while UnixStream::connect(socket).is_err() {
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

    /// An agent that answers each message with its own, read backwards.
    fn agent(dir: &Path) -> PathBuf {
        let socket = dir.join("real");
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                while let Ok(Some(mut answer)) = message(&mut connection) {
                    answer[LENGTH..].reverse();
                    connection.write_all(&answer).unwrap();
                }
            }
        });
        socket
    }

    fn forward(socket: PathBuf, raw: bool) -> Agent {
        let option = pb::SshOpt { mode: 0o600, uid: 0, gid: 0, ..pb::SshOpt::default() };
        let keys = Keys { paths: vec![socket], raw };
        Agent::forward(&keys, &option, tempfile::tempdir().unwrap(), &Env::of([])).unwrap()
    }

    fn framed(body: &[u8]) -> Vec<u8> {
        [&u32::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
    }

    #[test]
    fn what_a_step_may_ask_reaches_the_agent_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let socket = agent(dir.path());
        let forwarded = forward(socket.clone(), false);
        let path = forwarded.socket().to_owned();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let large = [&[13][..], &vec![7; MAX_MESSAGE - 2], &[1]].concat();
        let backwards = |body: &[u8]| body.iter().rev().copied().collect::<Vec<u8>>();
        for _ in 0..2 {
            let mut step = UnixStream::connect(&path).unwrap();
            // All at once, as a client may: answers come in the order of the questions.
            let asked: [&[u8]; 6] = [&[11], &[19], b"", &large, &[17, 1, 2], &[11]];
            step.write_all(&asked.map(framed).concat()).unwrap();
            step.shutdown(Shutdown::Write).unwrap();
            let mut answers = Vec::new();
            step.read_to_end(&mut answers).unwrap();
            let refusal = REFUSAL.to_vec();
            let expected =
                [framed(&[11]), refusal.clone(), refusal.clone(), framed(&backwards(&large)), refusal, framed(&[11])];
            assert!(answers == expected.concat(), "{} bytes", answers.len());
        }
        let mut step = UnixStream::connect(&path).unwrap();
        step.write_all(&[0, 4, 0, 1, 13]).unwrap();
        assert!(!matches!(step.read(&mut [0]), Ok(1)), "no agent takes so much");
        drop(forwarded);
        assert!(!path.exists());

        let forwarded = forward(socket, true);
        let mut step = UnixStream::connect(forwarded.socket()).unwrap();
        step.write_all(&framed(&[19, 1])).unwrap();
        assert_eq!(message(&mut step).unwrap().unwrap(), framed(&[1, 19]));
    }

    #[test]
    fn nothing_to_forward_is_said() {
        let error =
            Agent::forward(&Keys::default(), &pb::SshOpt::default(), tempfile::tempdir().unwrap(), &Env::of([]));
        let message = error.err().unwrap().to_string();
        assert_eq!(message, "SSH_AUTH_SOCK is not set, and neither a socket nor a key was given");
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (agent(dir.path()), dir.path().join("key"));
        for (paths, raw, part) in [
            (vec![socket, file.clone()], false, "real is a socket, beside which nothing else"),
            (vec![file], true, "raw=true needs the socket of an agent, and"),
        ] {
            let keys = Keys { paths, raw };
            let error = Agent::forward(&keys, &pb::SshOpt::default(), tempfile::tempdir().unwrap(), &Env::of([]));
            let message = error.err().unwrap().to_string();
            assert!(message.contains(part), "{message}");
        }
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
        let agent = Agent::forward(&Keys { paths: vec![key], raw: false }, &option, tempfile::tempdir().unwrap(), &env)
            .unwrap();
        let listed = Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", agent.socket()).output().unwrap();
        assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stdout));
        let socket = agent._dir.path().join("keys");
        drop(agent);
        assert!(UnixStream::connect(socket).is_err(), "the agent is gone");
    }
}
