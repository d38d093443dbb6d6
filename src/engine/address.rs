//! A build context at an address: a git repository, an archive on the web, or a Dockerfile alone.

use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::{DockerfilePlan, SolveRequest, State};
use crate::base::Cancel;
use crate::frontend;
use crate::layer::{self, DirOptions, DirTarget};
use crate::llb::pb;
use crate::ops::Machine;
use crate::snapshot::Tree;
use crate::source::{HttpRequest, http};
use crate::sys::Root;

/// What was at the address.
pub enum Fetched {
    /// It is a source of its own in the graph; the tree is for reading the Dockerfile.
    Repository(Arc<dyn Tree>),
    /// With the date that the server gives it.
    Archive(PathBuf, Option<i64>),
    Dockerfile(String),
}

/// Looks at what is at an address. `empty` makes directories that live as long as the build.
pub fn fetch(
    state: &State,
    request: &SolveRequest,
    plan: &DockerfilePlan,
    address: &str,
    empty: &mut dyn FnMut() -> anyhow::Result<PathBuf>,
    solve: &dyn Fn(pb::Definition) -> anyhow::Result<Arc<dyn Tree>>,
) -> anyhow::Result<Fetched> {
    if let Some(definition) = frontend::git_context(address, &plan.build_args)? {
        return solve(definition).map(Fetched::Repository);
    }
    let (mut file, modified) = download(state, request, address, "context")?;
    let mut head = Vec::new();
    (&mut file).take(HEAD).read_to_end(&mut head)?;
    file.rewind()?;
    if !is_archive(&head) {
        let mut text = String::new();
        file.take(MAX_DOCKERFILE).read_to_string(&mut text).with_context(|| format!("{address} as a Dockerfile"))?;
        return Ok(Fetched::Dockerfile(text));
    }
    let dir = empty()?;
    unpack(file, &dir, &request.cancel).with_context(|| format!("unpack {address}"))?;
    Ok(Fetched::Archive(dir, modified))
}

/// The Dockerfile at an address (`-f https://…`).
pub fn dockerfile(state: &State, request: &SolveRequest, address: &str) -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    download(state, request, address, "Dockerfile")?.0.take(MAX_DOCKERFILE).read_to_end(&mut text)?;
    Ok(text)
}

fn download(state: &State, request: &SolveRequest, address: &str, what: &str) -> anyhow::Result<(File, Option<i64>)> {
    let http = HttpRequest { url: address.to_owned(), ..HttpRequest::default() };
    let fetched = request.progress.step(&format!("[internal] load remote build {what} {address}"), |step| {
        http::fetch(&http, &state.source_cache("http"), Machine::env(state), step, &request.cancel)
    })?;
    let file = File::open(&fetched.path).with_context(|| format!("open {}", fetched.path.display()))?;
    Ok((file, fetched.modified))
}

/// Where the mark of a tar is found.
const HEAD: u64 = 512;

const MAX_DOCKERFILE: u64 = 16 << 20;

/// Whether a stream that starts like this is a tar, plain or compressed, and not a Dockerfile.
pub fn is_archive(head: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"];
    compressed.iter().any(|magic| head.starts_with(magic)) || head.get(257..262) == Some(b"ustar")
}

/// Unpacks a context. Its files belong to nobody in particular: COPY makes them root's.
pub fn unpack(archive: impl Read + Send, dir: &Path, cancel: &Cancel) -> anyhow::Result<()> {
    let options = DirOptions { owners: false, devices: false, xattrs: false };
    let mut target = DirTarget::new(Root::open(dir)?, options);
    let mut plain = layer::decompress_any(BufReader::new(archive))?;
    layer::apply(&mut plain, None, &mut target, cancel)?;
    target.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_archive;

    #[test]
    fn archives_are_told_from_text() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert!(is_archive(&tar) && is_archive(b"\x1f\x8b\x08") && is_archive(b"BZh9"));
        assert!(!is_archive(b"FROM scratch\n") && !is_archive(b""));
    }
}
