//! Where a build's files come from, as typed: a folder, an address, or standard input.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context as _;

use crate::engine::address::{is_archive, unpack};
use crate::engine::{Context, DockerfileSource};

use super::exit::{missing, usage};
use super::session::Session;

/// A Dockerfile is text that people write; more than this is something else.
const LARGEST_DOCKERFILE: u64 = 16 << 20;

/// Reads the context's and the Dockerfile's words: `PATH`, `URL` or `-`, and `-f FILE`, which may be `-` too.
pub fn resolve(session: &Session, context: &str, file: Option<&str>) -> anyhow::Result<(Context, DockerfileSource)> {
    if is_address(context) {
        let source = match file {
            Some("-") => stdin_dockerfile()?,
            Some(path) if is_address(path) => DockerfileSource::Remote(path.to_owned()),
            Some(path) if path.starts_with('/') => here(Path::new(path))?,
            // Inside the address, not here.
            file => DockerfileSource::Path(file.map(Into::into)),
        };
        return Ok((Context::Remote(context.to_owned()), source));
    }
    if context == "-" {
        return stdin_context(session, file);
    }
    let dir = session.absolute(context);
    let meta = fs::metadata(&dir).map_err(|error| missing(format!("build context {}: {error}", dir.display())))?;
    if !meta.is_dir() {
        return Err(usage(format!("build context {} is not a folder", dir.display())));
    }
    let source = match file {
        Some("-") => stdin_dockerfile()?,
        Some(path) if is_address(path) => DockerfileSource::Remote(path.to_owned()),
        Some(path) => {
            let path = session.absolute(path);
            match fs::metadata(&path) {
                Err(_) => return Err(missing(format!("Dockerfile {} does not exist", path.display()))),
                Ok(meta) if meta.is_dir() => {
                    return Err(usage(format!("Dockerfile {} is a folder", path.display())));
                }
                Ok(meta) if meta.is_file() => DockerfileSource::Path(Some(path)),
                // A pipe, `-f <(…)`, which is read once.
                Ok(_) => here(&path)?,
            }
        }
        None => {
            if !["Dockerfile", "dockerfile"].iter().any(|name| dir.join(name).exists()) {
                return Err(missing(format!("there is no Dockerfile in {}", dir.display())));
            }
            DockerfileSource::Path(None)
        }
    };
    Ok((Context::Directory(dir), source))
}

/// The context's words, where the Dockerfile is known already.
pub fn with_dockerfile(
    session: &Session,
    context: &str,
    source: DockerfileSource,
) -> anyhow::Result<(Context, DockerfileSource)> {
    if is_address(context) {
        return Ok((Context::Remote(context.to_owned()), source));
    }
    let dir = session.absolute(context);
    if !dir.is_dir() {
        return Err(missing(format!("build context {} is not a folder", dir.display())));
    }
    Ok((Context::Directory(dir), source))
}

/// Docker's rule for what is an address rather than a path.
fn is_address(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://", "git@", "github.com/"].iter().any(|start| text.starts_with(start))
}

/// A Dockerfile of this machine that is no file of the context.
fn here(path: &Path) -> anyhow::Result<DockerfileSource> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST_DOCKERFILE).read_to_string(&mut text));
    read.map_err(|error| missing(format!("Dockerfile {}: {error}", path.display())))?;
    Ok(DockerfileSource::Text { name: path.display().to_string(), text })
}

fn stdin_dockerfile() -> anyhow::Result<DockerfileSource> {
    let mut text = String::new();
    io::stdin().lock().take(LARGEST_DOCKERFILE).read_to_string(&mut text).context("Dockerfile from standard input")?;
    Ok(DockerfileSource::Text { name: "Dockerfile".to_owned(), text })
}

/// `-`: a tar, compressed or not, or a bare Dockerfile.
fn stdin_context(session: &Session, file: Option<&str>) -> anyhow::Result<(Context, DockerfileSource)> {
    if file == Some("-") {
        return Err(usage("context and Dockerfile cannot both come from standard input"));
    }
    let mut input = io::stdin();
    let mut head = Vec::with_capacity(512);
    input.by_ref().take(512).read_to_end(&mut head)?;
    if !is_archive(&head) {
        if let Some(file) = file {
            return Err(usage(format!("standard input is a Dockerfile, and -f {file} names another")));
        }
        let mut text = head;
        input.take(LARGEST_DOCKERFILE).read_to_end(&mut text)?;
        let text = String::from_utf8(text).context("Dockerfile from standard input")?;
        return Ok((Context::Empty, DockerfileSource::Text { name: "Dockerfile".to_owned(), text }));
    }
    let dir = tempfile::tempdir_in(session.state()?.tmp()?)?;
    unpack(io::Cursor::new(head).chain(input), dir.path(), &session.cancel()?)
        .context("context from standard input")?;
    let source = match file {
        Some(path) => DockerfileSource::Path(Some(dir.path().join(path))),
        None => DockerfileSource::Path(None),
    };
    Ok((Context::Unpacked(dir), source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for (text, address) in [
            ("https://h/r.git#main:sub", true),
            ("git@h:r.git", true),
            ("github.com/a/b", true),
            (".", false),
            ("git", false),
            ("./https", false),
        ] {
            assert_eq!(is_address(text), address, "{text}");
        }
    }
}
