//! Where kaniko's build context comes from, and its Dockerfile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;

use super::Kaniko;
use crate::base::{Env, Secret};
use crate::cli::exit::{Unsupported, missing, usage};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::Session;
use crate::engine::address::unpack;
use crate::registry::{self, Addressing, BucketSettings, ObjectAddress};

/// What is built, in `build`'s words.
pub struct Found {
    pub context: String,
    pub dockerfile: Option<String>,
    /// For the source of the context, by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Holds an archive's files until the build is over.
    _unpacked: Option<tempfile::TempDir>,
}

/// A context as it was typed.
#[derive(Debug, PartialEq, Eq)]
enum Typed<'a> {
    Folder(&'a str),
    Archive(&'a str),
    Stdin,
    Bucket,
    /// What fetches itself: an archive on the web, a repository.
    Address(String),
}

pub fn find(kaniko: &Kaniko, session: &Session) -> anyhow::Result<Found> {
    let sub = kaniko.context_sub_path.trim_start_matches('/');
    let (folder, unpacked) = match typed(&kaniko.context, &kaniko.git, sub, &session.env)? {
        Typed::Folder(path) => (session.absolute(path), None),
        Typed::Archive(path) => {
            let path = session.absolute(path);
            let file = File::open(&path).map_err(|error| missing(format!("{}: {error}", path.display())))?;
            let dir = unpacked(file, session).with_context(|| format!("context {}", path.display()))?;
            (dir.path().to_owned(), Some(dir))
        }
        Typed::Stdin => {
            let dir = unpacked(io::stdin(), session).context("context from standard input")?;
            (dir.path().to_owned(), Some(dir))
        }
        Typed::Bucket => {
            let dir = fetched(&kaniko.context, session).with_context(|| format!("context {}", kaniko.context))?;
            (dir.path().to_owned(), Some(dir))
        }
        Typed::Address(context) => {
            return Ok(Found {
                context,
                dockerfile: Some(kaniko.dockerfile.clone()),
                secrets: git_secrets(&session.env),
                _unpacked: None,
            });
        }
    };
    let folder = folder.join(sub);
    let dockerfile = dockerfile(&kaniko.dockerfile, &folder, session)?;
    let context = folder.to_str().context("the context's name is not UTF-8")?.to_owned();
    Ok(Found { context, dockerfile: Some(dockerfile), secrets: BTreeMap::new(), _unpacked: unpacked })
}

fn typed<'a>(context: &'a str, git: &str, sub: &str, env: &Env) -> anyhow::Result<Typed<'a>> {
    let Some((scheme, rest)) = context.split_once("://") else { return Ok(Typed::Folder(context)) };
    match scheme {
        "dir" => Ok(Typed::Folder(rest)),
        "tar" if rest == "stdin" => Ok(Typed::Stdin),
        "tar" => Ok(Typed::Archive(rest)),
        "s3" => Ok(Typed::Bucket),
        "git" => Ok(Typed::Address(repository(rest, git, sub, env)?)),
        "http" | "https" if sub.is_empty() => Ok(Typed::Address(context.to_owned())),
        "http" | "https" => Err(Unsupported::refuse(format!("--context-sub-path of {scheme}://"))),
        "gs" => {
            let instead = "fetch it first, and give it as tar://FILE or tar://stdin";
            Err(Unsupported::instead(format!("--context {scheme}://"), instead))
        }
        _ => Err(usage(format!("--context {context}: {scheme}:// is not known (dir, tar, git, s3, https)"))),
    }
}

/// `HOST/REPOSITORY[#REF[#COMMIT]]`, fetched over HTTPS whatever its scheme says: in the form that BuildKit knows.
fn repository(address: &str, git: &str, sub: &str, env: &Env) -> anyhow::Result<String> {
    let mut parts = address.split('#');
    let path = parts.next().unwrap_or_default().trim_end_matches('/');
    let (reference, commit) = (parts.next().unwrap_or_default(), parts.next());
    let mut branch = None;
    for field in git.split(',').filter(|field| !field.is_empty()) {
        match field.split_once('=') {
            Some(("branch", name)) => branch = Some(name),
            // A checkout is shallow and has its submodules.
            Some(("single-branch" | "recurse-submodules", _)) => {}
            _ => return Err(Unsupported::refuse(format!("--git {field}"))),
        }
    }
    let scheme = if env.nonempty("GIT_PULL_METHOD") == Some("http") { "http" } else { "https" };
    let end = if path.ends_with(".git") { "" } else { ".git" };
    let wanted = commit.or(branch).unwrap_or(reference);
    let sub = if sub.is_empty() { String::new() } else { format!(":{sub}") };
    let fragment = if wanted.is_empty() && sub.is_empty() { String::new() } else { format!("#{wanted}{sub}") };
    Ok(format!("{scheme}://{path}{end}{fragment}"))
}

/// kaniko's variables for private repositories, as the header that git sends.
fn git_secrets(env: &Env) -> BTreeMap<String, Secret> {
    let (user, password) = match env.nonempty("GIT_TOKEN") {
        Some(token) => (token, ""),
        None => (env.nonempty("GIT_USERNAME").unwrap_or_default(), env.nonempty("GIT_PASSWORD").unwrap_or_default()),
    };
    if user.is_empty() && password.is_empty() {
        return BTreeMap::new();
    }
    let header = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    BTreeMap::from([("GIT_AUTH_HEADER".to_owned(), Secret::from(format!("basic {header}").as_str()))])
}

/// A path from here when there is such a file, else from the context.
fn dockerfile(typed: &str, context: &Path, session: &Session) -> anyhow::Result<String> {
    if typed.starts_with("http://") || typed.starts_with("https://") {
        return Ok(typed.to_owned());
    }
    let places: [PathBuf; 2] = [session.absolute(typed), context.join(typed)];
    let found = places.iter().find(|path| path.is_file()).ok_or_else(|| {
        missing(format!("there is no Dockerfile {}, and none {}", places[0].display(), places[1].display()))
    })?;
    Ok(found.to_str().context("the Dockerfile's name is not UTF-8")?.to_owned())
}

fn unpacked(archive: impl Read + Send, session: &Session) -> anyhow::Result<tempfile::TempDir> {
    let dir = tempfile::tempdir_in(session.state()?.tmp()?)?;
    unpack(archive, dir.path(), &session.cancel()?)?;
    Ok(dir)
}

fn fetched(address: &str, session: &Session) -> anyhow::Result<tempfile::TempDir> {
    let place: ObjectAddress = address.parse().map_err(|error: registry::Error| usage(error.to_string()))?;
    let settings = BucketSettings {
        endpoint: session.env.nonempty("S3_ENDPOINT").map(str::to_owned),
        addressing: match session.env.nonempty("S3_FORCE_PATH_STYLE") {
            Some("true") => Addressing::Path,
            _ => Addressing::Auto,
        },
        ..BucketSettings::default()
    };
    let (state, cancel) = (session.state()?, session.cancel()?);
    let object = state.registry()?.object(&place, &settings, &session.env)?;
    let mut file = tempfile::tempfile_in(state.tmp()?)?;
    let display = Display::start(Mode::Auto, &session.env);
    let got = display.progress().step(&format!("[internal] load remote build context {address}"), |step| {
        object.download(&mut |bytes| file.write_all(bytes), step, &cancel)
    });
    display.finish();
    got?;
    file.rewind()?;
    unpacked(file, session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        let env = Env::of([]);
        let address = |text: &str| Typed::Address(text.to_owned());
        let commit = "0123456789012345678901234567890123456789";
        for (context, git, sub, expected) in [
            ("/w", "", "", Typed::Folder("/w")),
            ("dir:///w", "", "", Typed::Folder("/w")),
            ("tar://stdin", "", "", Typed::Stdin),
            ("tar:///c.tgz", "", "x", Typed::Archive("/c.tgz")),
            ("s3://b/c.tgz", "", "", Typed::Bucket),
            ("https://h/c.tgz", "", "", address("https://h/c.tgz")),
            ("git://h/a/b", "", "", address("https://h/a/b.git")),
            ("git://h/a/b.git#refs/heads/m", "", "s/d", address("https://h/a/b.git#refs/heads/m:s/d")),
            (
                &format!("git://h/a/b.git#refs/heads/m#{commit}"),
                "",
                "",
                address(&format!("https://h/a/b.git#{commit}")),
            ),
            ("git://h/a/b.git", "branch=x,single-branch=true", "", address("https://h/a/b.git#x")),
        ] {
            assert_eq!(typed(context, git, sub, &env).unwrap(), expected, "{context}");
        }
        for (context, git, sub, message) in [
            (
                "gs://b/c",
                "",
                "",
                "--context gs:// is not supported; fetch it first, and give it as tar://FILE or tar://stdin",
            ),
            ("ftp://b/c", "", "", "--context ftp://b/c: ftp:// is not known (dir, tar, git, s3, https)"),
            ("https://h/c.tgz", "", "x", "--context-sub-path of https:// is not supported"),
            ("git://h/a", "insecure-skip-tls=true", "", "--git insecure-skip-tls=true is not supported"),
        ] {
            assert_eq!(typed(context, git, sub, &env).unwrap_err().to_string(), message, "{context}");
        }
    }
}
