//! Agents of OpenSSH, asked from inside of steps by its own ssh-add: here, and through the session of an engine elsewhere.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli::{Place, ended};
use crate::oracle::{self, BUSYBOX, find};

/// So many, and each with so long a comment, that all of them fill several messages of a session.
const KEYS: usize = 60;
const COMMENT: usize = 1_000;

struct SshAgent {
    child: Child,
    socket: PathBuf,
}

impl SshAgent {
    fn start(socket: PathBuf, keys: &[PathBuf]) -> Self {
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { child, socket };
        let end = Instant::now() + Duration::from_secs(20);
        while !agent.socket.exists() {
            assert!(Instant::now() < end, "ssh-agent does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        oracle::run(agent.add().arg("-q").args(keys));
        agent
    }

    fn add(&self) -> Command {
        let mut command = Command::new("ssh-add");
        command.env("SSH_AUTH_SOCK", &self.socket);
        command
    }

    /// Fails where it has none.
    fn keys(&self) -> String {
        String::from_utf8(oracle::run(self.add().arg("-L"))).unwrap()
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// This machine's ssh-add, with what it needs to run anywhere.
fn copy_client(program: &Path, root: &Path) {
    let needed = String::from_utf8(oracle::run(Command::new("ldd").arg(program))).unwrap();
    let libraries = needed.split_whitespace().filter(|word| word.starts_with('/')).map(Path::new);
    for file in libraries.chain([program]) {
        let copy = root.join(file.strip_prefix("/").unwrap());
        std::fs::create_dir_all(copy.parent().unwrap()).unwrap();
        std::fs::copy(file, copy).unwrap();
    }
}

/// Several steps' worth of clients at once; an agent that is gone; keys in a file; and what a step must not ask.
pub fn agents_answer_steps(place: &Place, engines: &[&str]) {
    let [Some(client), Some(_), Some(keygen)] = ["ssh-add", "ssh-agent", "ssh-keygen"].map(find) else {
        return oracle::skip("agents_answer_steps", "needs ssh-add, ssh-agent and ssh-keygen");
    };
    copy_client(&client, &place.at("agents/root"));
    std::fs::create_dir_all(place.at("keys")).unwrap();
    let key = |number: usize| {
        let (path, comment) = (place.at(&format!("keys/{number}")), format!("{number}{}", "x".repeat(COMMENT)));
        oracle::run(Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-C", &comment, "-f"]).arg(&path));
        path
    };
    let keys: Vec<PathBuf> = (0..KEYS).map(key).collect();
    let agent = SshAgent::start(place.at("agent-of-many"), &keys);
    let raw = SshAgent::start(place.at("agent-as-it-is"), &keys[..1]);
    let gone = SshAgent::start(place.at("agent-that-goes"), &keys[..1]).socket.clone();
    let all = agent.keys();
    assert!(all.len() > 32 << 10 && all.lines().count() == KEYS, "{} bytes", all.len());

    place.write("agents/all", &all);
    place.write("agents/one", &place.read("keys/0.pub"));
    place.write(
        "agents/Dockerfile",
        &format!(
            "FROM {BUSYBOX}\nCOPY root /\nCOPY all one /\n\
             RUN --mount=type=ssh set -e; for n in 1 2 3 4 5 6 7 8; do ssh-add -L >/out.$n & done; wait; \
             for n in 1 2 3 4 5 6 7 8; do cmp /all /out.$n; done; \
             if ssh-add -D; then exit 1; fi; if ssh-add -X </dev/null; then exit 1; fi; ssh-add -L | cmp - /all\n\
             RUN --mount=type=ssh,id=file ssh-add -L | cmp - /one\n\
             RUN --mount=type=ssh,id=gone if ssh-add -l; then exit 1; fi\n\
             RUN --mount=type=ssh,id=raw,mode=0666,uid=7 ls -ln $SSH_AUTH_SOCK | grep '^srw-rw-rw-. *1 7 ' && ssh-add -D\n"
        ),
    );
    for engine in engines {
        oracle::run(raw.add().arg("-q").arg(&keys[0]));
        let mut build = place.command("dockless");
        build.env("DOCKLESS_ENGINE", engine).env("SSH_AUTH_SOCK", &agent.socket);
        build.args(["build", "--network=host", "--no-cache", "--ssh", "default"]);
        for (id, given) in [("file", "keys/0".into()), ("gone", gone.display().to_string())] {
            build.args(["--ssh", &format!("{id}={given}")]);
        }
        build.args(["--ssh", &format!("raw={},raw=true", raw.socket.display()), "agents"]);
        ended(&mut build).ok();
        assert_eq!(agent.keys(), all, "a step has changed what its user's agent holds");
        assert!(!raw.add().arg("-L").output().unwrap().status.success(), "emptied, as it was allowed to");
    }
}
