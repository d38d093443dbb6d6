//! `--build-context NAME=…`: folders, images of many kinds, addresses.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::dockerfile::{CONTEXT, Files, ignore_file};
use super::{SolveRequest, State, rootfs};
use crate::base::{Env, Reference};
use crate::frontend::NamedContext;
use crate::image::{self, Image};
use crate::ops::Machine;

/// What a context's value says it is.
#[derive(Debug, PartialEq, Eq)]
enum Value<'a> {
    /// `docker-image://REF`
    Image(&'a str),
    /// `oci-layout://DIR[:TAG|@DIGEST]`
    Layout {
        dir: &'a str,
        wanted: &'a str,
    },
    /// `image-tar:FILE`: an archive, as `docker save` or an OCI tool writes it.
    Archive(&'a str),
    /// `rootfs:DIR|FILE`: a root file system as Concourse hands it on.
    Rootfs(&'a str),
    /// A git repository, or a file on the web.
    Address(&'a str),
    Folder(&'a str),
}

impl<'a> Value<'a> {
    fn parse(text: &'a str) -> anyhow::Result<Self> {
        let plain = |rest: &'a str| rest.strip_prefix("//").unwrap_or(rest);
        Ok(match text.split_once(':') {
            Some(("docker-image", rest)) => Self::Image(plain(rest)),
            Some(("oci-layout", rest)) => {
                let (dir, wanted) = layout_place(plain(rest));
                Self::Layout { dir, wanted: wanted.unwrap_or_default() }
            }
            Some(("image-tar", rest)) => Self::Archive(plain(rest)),
            Some(("rootfs", rest)) => Self::Rootfs(plain(rest)),
            Some(("target", name)) => {
                bail!("target:{name} means a target of a bake file; a stage of the Dockerfile itself needs no context")
            }
            Some(("http" | "https" | "git" | "ssh", rest)) if rest.starts_with("//") => Self::Address(text),
            Some((user, _)) if user.starts_with("git@") => Self::Address(text),
            Some((scheme, rest)) if rest.starts_with("//") => bail!(
                "{scheme}:// is no kind of build context: there are folders, docker-image://, oci-layout://, \
                 image-tar:, rootfs:, and addresses"
            ),
            _ => Self::Folder(text),
        })
    }
}

/// The value with its path made absolute, for whoever reads it in another place.
pub fn absolute(text: &str, env: &Env) -> anyhow::Result<String> {
    let path = |path: &str| env.absolute(path).display().to_string();
    Ok(match Value::parse(text)? {
        Value::Image(_) | Value::Address(_) => text.to_owned(),
        Value::Layout { dir, wanted } => {
            let mark = if wanted.contains(':') { "@" } else { ":" };
            let wanted = if wanted.is_empty() { String::new() } else { format!("{mark}{wanted}") };
            format!("oci-layout://{}{wanted}", path(dir))
        }
        Value::Archive(file) => format!("image-tar:{}", path(file)),
        Value::Rootfs(place) => format!("rootfs:{}", path(place)),
        Value::Folder(dir) => path(dir),
    })
}

/// Makes a context ready: folders get a name among the request's, images that are files come into the store.
pub fn named(
    state: &State,
    name: &str,
    value: &str,
    request: &SolveRequest,
    locals: &mut BTreeMap<String, PathBuf>,
) -> anyhow::Result<NamedContext> {
    let env = Machine::env(state);
    match Value::parse(value)? {
        Value::Image(reference) => Ok(NamedContext::Image(reference.parse()?)),
        Value::Layout { dir, wanted } => {
            archived(state, name, &env.absolute(dir), wanted, request).map(NamedContext::Image)
        }
        Value::Archive(file) => archived(state, name, &env.absolute(file), "", request).map(NamedContext::Image),
        Value::Rootfs(place) => {
            let path = env.absolute(place);
            let image = request.progress.step(&format!("[context {name}] load {}", path.display()), |_| {
                rootfs::image(&path, state.images().blobs().as_ref(), &request.cancel)
            })?;
            pinned(&image).map(NamedContext::Image)
        }
        Value::Address(address) => Ok(NamedContext::Url(address.to_owned())),
        Value::Folder(dir) => {
            let dir = env.absolute(dir);
            if !dir.is_dir() {
                bail!("{} is not a directory", dir.display());
            }
            let ignore = ignore_file(None, &Files::Directory(dir.clone()))?;
            // As buildx does: a context called as the main one must not take its place.
            let source = if matches!(name, CONTEXT | "dockerfile") { format!("_{name}") } else { name.to_owned() };
            locals.insert(source.clone(), dir);
            Ok(NamedContext::Local { source, ignore })
        }
    }
}

/// A layout's folder and the tag or digest in it.
fn layout_place(place: &str) -> (&str, Option<&str>) {
    if let Some((dir, digest)) = place.split_once('@') {
        return (dir, Some(digest));
    }
    match place.rsplit_once(':') {
        // A colon before a slash is part of the folder's name.
        Some((dir, tag)) if !tag.contains('/') => (dir, Some(tag)),
        _ => (place, None),
    }
}

/// Brings an image from an archive or a layout into the store's blobs, without naming it there; a build pins them.
fn archived(state: &State, name: &str, path: &Path, wanted: &str, request: &SolveRequest) -> anyhow::Result<Reference> {
    let tmp = Machine::tmp(state)?;
    let opened = request
        .progress
        .step(&format!("[context {name}] load {}", path.display()), |_| image::open(path, tmp.path()))?;
    let answers = |image: &Image, names: &[Reference]| {
        wanted.is_empty()
            || image.manifest_descriptor.digest.to_string() == wanted
            || names.iter().any(|name| name.tag() == Some(wanted))
    };
    let mut found = opened.images.iter().filter(|(image, names)| answers(image, names));
    let Some((image, _)) = found.next() else { bail!("no such image in {}", path.display()) };
    if found.next().is_some() {
        bail!("{} holds several images; say which, as DIR:TAG or DIR@DIGEST", path.display());
    }
    state.images().adopt(image, opened.blobs.as_ref())?;
    pinned(image)
}

/// What images of the store are called that have no name there.
const UNNAMED: &str = "dockless-context/image";

/// Whether a reference means an image that was taken into the store for a build.
pub fn is_unnamed(reference: &Reference) -> bool {
    reference.familiar_name() == UNNAMED
}

/// An image of the store that has no name there.
fn pinned(image: &Image) -> anyhow::Result<Reference> {
    let plain: Reference = UNNAMED.parse().context("a name for an image without one")?;
    Ok(plain.with_digest(image.manifest_descriptor.digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_what_it_is() {
        let cases = [
            ("dir", Value::Folder("dir")),
            ("./a:b", Value::Folder("./a:b")),
            ("docker-image://debian:13", Value::Image("debian:13")),
            ("oci-layout:///a/b:1.2", Value::Layout { dir: "/a/b", wanted: "1.2" }),
            ("oci-layout:///a:b/c", Value::Layout { dir: "/a:b/c", wanted: "" }),
            ("oci-layout://a@sha256:00", Value::Layout { dir: "a", wanted: "sha256:00" }),
            ("image-tar:x.tar", Value::Archive("x.tar")),
            ("image-tar:///x.tar", Value::Archive("/x.tar")),
            ("rootfs:base", Value::Rootfs("base")),
            ("https://h/x.git#main", Value::Address("https://h/x.git#main")),
            ("git@h:x.git", Value::Address("git@h:x.git")),
        ];
        for (text, expected) in cases {
            assert_eq!(Value::parse(text).unwrap(), expected, "{text}");
        }
        for (text, part) in
            [("ftp://x", "ftp:// is no kind of build context"), ("target:app", "a target of a bake file")]
        {
            let error = Value::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn paths_become_absolute_and_the_rest_stays() {
        let env = Env::of([]);
        let at = |path: &str| env.absolute(path).display().to_string();
        let cases = [
            ("dir", at("dir")),
            ("oci-layout://l:1", format!("oci-layout://{}:1", at("l"))),
            ("oci-layout://l@sha256:00", format!("oci-layout://{}@sha256:00", at("l"))),
            ("image-tar:x", format!("image-tar:{}", at("x"))),
            ("rootfs:r", format!("rootfs:{}", at("r"))),
            ("docker-image://a", "docker-image://a".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(absolute(text, &env).unwrap(), expected, "{text}");
        }
    }
}
