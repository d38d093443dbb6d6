//! The configuration that git is run with: the user's own, and over it what a request brings. It is a file that only
//! we can read, because arguments and environments of processes are seen by others, and because git passes its
//! location on to the processes that fetch submodules.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine;

use super::GitRequest;
use crate::base::Env;

/// What the remote is called. Not `origin`, for git uses this file for submodules too, which have an origin of their
/// own.
pub const REMOTE: &str = "dockless";

/// System certificates, wherever distributions keep them as one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The text of the file; further files that it names go to `dir`.
pub fn text(request: &GitRequest, env: &Env, dir: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    for own in own_files(env) {
        let _ = writeln!(text, "[include]\n\tpath = {}", quote(&own.to_string_lossy()));
    }
    // Files come out as the repository has them, whatever this machine prefers.
    text.push_str(
        "[core]\n\tautocrlf = false\n\teol = lf\n\tsymlinks = true\n\tfileMode = true\n\thooksPath = /dev/null\n",
    );
    text.push_str("[gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[advice]\n\tdetachedHead = false\n");
    text.push_str("[init]\n\tdefaultBranch = main\n\ttemplateDir =\n[safe]\n\tdirectory = *\n");
    let _ = writeln!(text, "[remote {}]\n\turl = {}", quote(REMOTE), quote(&request.remote));
    if let Some(origin) = http_origin(&request.remote) {
        let _ = writeln!(text, "[http {}]", quote(&origin));
        for header in headers(request) {
            let _ = writeln!(text, "\textraHeader = {}", quote(&header));
        }
    }
    if let Some(pem) = env.nonempty("LOCAL_CA_CERTIFICATE")
        && env.nonempty("GIT_SSL_CAINFO").is_none()
    {
        // Git takes one file instead of the system's, so it holds both.
        let mut bundle = BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        bundle.push('\n');
        bundle.push_str(pem);
        let path = dir.join("authorities.pem");
        std::fs::write(&path, bundle)?;
        let _ = writeln!(text, "[http]\n\tsslCAInfo = {}", quote(&path.to_string_lossy()));
    }
    Ok(text)
}

/// What git would read if its global configuration were not ours.
fn own_files(env: &Env) -> Vec<PathBuf> {
    if let Some(global) = env.var_os("GIT_CONFIG_GLOBAL") {
        return if global.is_empty() { Vec::new() } else { vec![env.absolute(global)] };
    }
    let xdg = match env.nonempty("XDG_CONFIG_HOME") {
        Some(dir) => Some(PathBuf::from(dir)),
        None => env.home().map(|home| home.join(".config")),
    };
    [xdg.map(|dir| dir.join("git/config")), env.home().map(|home| home.join(".gitconfig"))]
        .into_iter()
        .flatten()
        .filter(|path| path.is_absolute())
        .collect()
}

fn headers(request: &GitRequest) -> Vec<String> {
    let token = request.auth_token.as_ref().and_then(|token| token.expose_str()).map(|token| {
        // The user name that GitHub and GitLab both take for tokens.
        let pair = format!("x-access-token:{}", token.trim());
        format!("Authorization: basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
    });
    let header = request.auth_header.as_ref().and_then(|header| header.expose_str());
    // Who brings a whole header means that one.
    header.map(|header| format!("Authorization: {}", header.trim())).or(token).into_iter().collect()
}

/// `https://host:port/` of a remote that speaks http: the only place that its credentials may go to.
fn http_origin(remote: &str) -> Option<String> {
    let url = url::Url::parse(remote).ok()?;
    matches!(url.scheme(), "http" | "https").then(|| format!("{}/", url.origin().ascii_serialization()))
}

/// A value of git's configuration format.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            letter if letter.is_control() => {}
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_go_to_their_host_alone_and_cannot_break_out() {
        let request = GitRequest {
            remote: "https://user@h.org:8443/a/b.git".into(),
            auth_token: Some("to\"ken\n[core]\n".into()),
            ..GitRequest::default()
        };
        let text = text(&request, &Env::of([("HOME", "/home/u")]), Path::new("/nowhere")).unwrap();
        assert!(
            text.contains(
                "[http \"https://h.org:8443/\"]\n\textraHeader = \"Authorization: basic eC1hY2Nlc3MtdG9rZW46"
            ),
            "{text}"
        );
        assert!(
            text.contains("path = \"/home/u/.config/git/config\"") && text.contains("path = \"/home/u/.gitconfig\"")
        );
        assert_eq!(quote("a\"b\\c\nd\r"), r#""a\"b\\c\nd""#);
        assert_eq!(http_origin("git@h.org:a/b.git"), None);
        assert_eq!(http_origin("ssh://h.org/a"), None);
        let header = GitRequest { auth_header: Some("bearer x\n".into()), auth_token: Some("t".into()), ..request };
        assert_eq!(headers(&header), ["Authorization: bearer x"]);
    }
}
