//! Docker's credential helpers: `docker-credential-NAME get|store|erase`.

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Credential;
use super::keychain::HUB_KEY;
use crate::base::{Env, Secret, reference::DOCKER_HUB};

/// A helper may ask a person or a network; one that hangs must not hang a pipeline.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// A credential is small; what is longer is no credential.
const HELPER_OUTPUT: u64 = 256 * 1024;

/// What a helper knows of a registry.
pub(super) fn ask(env: &Env, helper: &str, registry: &str) -> Result<Option<Credential>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    // Helpers look up the very string; for Docker Hub `docker login` stored the old address.
    let keys: &[&str] = if registry == DOCKER_HUB { &[HUB_KEY, registry] } else { &[registry] };
    for key in keys {
        let Some(answer) = run(env, helper, "get", key.as_bytes())? else { continue };
        // The parser's own message could show a piece of the secret.
        let answer: Answer = serde_json::from_slice(&answer).map_err(|_| "answered no JSON".to_owned())?;
        if answer.secret.is_empty() {
            continue;
        }
        return Ok(Some(if answer.username == "<token>" {
            Credential::IdentityToken(Secret::from(answer.secret))
        } else {
            Credential::Password { user: answer.username, password: Secret::from(answer.secret) }
        }));
    }
    Ok(None)
}

/// Runs one verb of a helper. None when it says that it has nothing.
pub(super) fn run(env: &Env, helper: &str, verb: &str, input: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let program = format!("docker-credential-{helper}");
    let path =
        which::which_in(&program, Some(env.path()), env.cwd()).map_err(|_| format!("{program} is not in PATH"))?;
    let mut child = Command::new(path)
        .arg(verb)
        .env_clear()
        .envs(env.vars())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // One that does not read its input may still answer.
        let _ = stdin.write_all(input);
    }
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        if let Some(stdout) = stdout {
            let _ = stdout.take(HELPER_OUTPUT).read_to_end(&mut output);
        }
        output
    });
    let deadline = Instant::now() + HELPER_TIME;
    let status = loop {
        match child.try_wait().map_err(|error| error.to_string())? {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("no answer within {} s", HELPER_TIME.as_secs()));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let output = reader.join().map_err(|_| "its output could not be read".to_owned())?;
    if status.success() {
        return Ok(Some(output));
    }
    let words = String::from_utf8_lossy(&output);
    if words.contains("credentials not found") || words.contains("no credentials server URL") {
        return Ok(None);
    }
    // Only the first line, and only of a failure: a success would be the secret.
    Err(format!("{status}: {}", words.lines().next().unwrap_or("").trim()))
}
