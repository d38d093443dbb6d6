//! The export spec: what `-o`/`--output` says, and what `-t`, `--load` and `--push` add to it, as [`Export`]s.

use std::path::{Path, PathBuf};

use crate::base::Reference;
use crate::engine::{Dest, Export, LayerOptions};
use crate::layer::Compression;

use crate::base::csv;

/// What a `type=docker` without `dest` means: Docker's client loads it, BuildKit's and img's write it out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BareDocker {
    Load,
    Stdout,
}

/// What the exports of one build have in common.
pub struct Common<'a> {
    pub cwd: &'a Path,
    /// `-t`, in order: the names of every export that has none of its own.
    pub tags: &'a [Reference],
    pub bare_docker: BareDocker,
}

/// Reads one `-o`; none for `type=cacheonly`, which exports nothing.
pub fn parse(spec: &str, common: &Common<'_>) -> Result<Option<Export>, String> {
    let pairs = csv::pairs(spec)?;
    if let [(_, None)] = pairs.as_slice() {
        return Ok(Some(match spec {
            "" => return Err("an empty output".to_owned()),
            "-" => Export::Tar { dest: Dest::Stdout },
            dir => Export::Local { dest: common.cwd.join(dir) },
        }));
    }
    let mut raw = Raw::default();
    for (key, value) in &pairs {
        raw.set(key, value.as_deref()).map_err(|reason| format!("{spec:?}: {reason}"))?;
    }
    raw.mean(common).map_err(|reason| format!("{spec:?}: {reason}"))
}

/// The spec as typed.
#[derive(Default)]
struct Raw {
    kind: Option<String>,
    dest: Option<String>,
    names: Vec<String>,
    push: bool,
    tar: Option<bool>,
    options: LayerOptions,
    /// Keys that only image-like exports know, to be refused by name elsewhere.
    layered: Vec<String>,
}

impl Raw {
    fn set(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let text = || value.ok_or_else(|| format!("{key} has no value"));
        let switch = || csv::switch(key, value);
        if set_layer_option(&mut self.options, key, value)? {
            if matches!(key, "compression" | "compression-level") {
                self.layered.push(key.to_owned());
            }
            return Ok(());
        }
        match key {
            "type" => self.kind = Some(text()?.to_owned()),
            "dest" => self.dest = Some(text()?.to_owned()),
            "name" => {
                self.names.extend(text()?.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()));
                self.layered.push(key.to_owned());
            }
            "push" => self.push = switch()?,
            "tar" => self.tar = Some(switch()?),
            // What an image store of ours does anyway.
            "store" | "unpack" if switch()? => {}
            "mode" if value == Some("copy") => {}
            "platform-split" if !switch()? => {}
            "push-by-digest"
            | "name-canonical"
            | "registry.insecure"
            | "mode"
            | "platform-split"
            | "store"
            | "unpack"
            | "attestation-prefix"
            | "prefer-nondist-layers"
            | "dangling-name-prefix"
            | "context" => {
                if !matches!(value, Some("false" | "0")) {
                    return Err(format!("{key}={} is not supported", value.unwrap_or("true")));
                }
            }
            "rewrite-timestamp" => self.options.rewrite_timestamp = switch()?,
            _ => {
                let Some(name) = key.strip_prefix("annotation.").or_else(|| key.strip_prefix("annotation-manifest."))
                else {
                    return Err(format!("{key:?} is not known"));
                };
                self.options.annotations.insert(name.to_owned(), text()?.to_owned());
                self.layered.push(key.to_owned());
            }
        }
        Ok(())
    }

    fn mean(self, common: &Common<'_>) -> Result<Option<Export>, String> {
        let kind = self.kind.as_deref().ok_or("it has no type=")?;
        check_level(&self.options)?;
        let names = || -> Result<Vec<Reference>, String> {
            if self.names.is_empty() { Ok(common.tags.to_vec()) } else { self.names.iter().map(|n| name(n)).collect() }
        };
        let dest = || match self.dest.as_deref() {
            None | Some("-") => Dest::Stdout,
            Some(path) => Dest::File(common.cwd.join(path)),
        };
        let options = self.options.clone();
        let export = match kind {
            "image" | "registry" => {
                if self.dest.is_some() {
                    return Err(format!("type={kind} has no dest"));
                }
                Export::Image { names: names()?, push: self.push || kind == "registry", options }
            }
            "docker" if self.tar == Some(false) => return Err("tar=false needs type=oci".to_owned()),
            "docker" if self.dest.is_none() && common.bare_docker == BareDocker::Load => {
                Export::Image { names: names()?, push: false, options }
            }
            "docker" => Export::Docker { names: names()?, dest: dest(), options },
            "oci" => {
                let tar = self.tar.unwrap_or(true);
                if !tar && matches!(dest(), Dest::Stdout) {
                    return Err("tar=false needs a dest folder".to_owned());
                }
                Export::Oci { names: names()?, dest: dest(), tar, options }
            }
            "tar" => {
                self.only_files(kind)?;
                Export::Tar { dest: dest() }
            }
            "local" => {
                self.only_files(kind)?;
                let dest = self.dest.as_deref().ok_or("type=local needs a dest folder")?;
                Export::Local { dest: PathBuf::from(common.cwd).join(dest) }
            }
            "cacheonly" => return Ok(None),
            other => {
                return Err(format!("type={other} is not known (image, registry, docker, oci, tar, local, cacheonly)"));
            }
        };
        if self.push && !matches!(export, Export::Image { push: true, .. }) {
            return Err(format!("push=true needs type=image, not type={kind}"));
        }
        Ok(Some(export))
    }

    fn only_files(&self, kind: &str) -> Result<(), String> {
        match self.layered.first() {
            Some(key) => Err(format!("{key} has no meaning for type={kind}")),
            None => Ok(()),
        }
    }
}

/// A name of an image, as it is typed.
pub fn name(text: &str) -> Result<Reference, String> {
    text.parse::<Reference>().map(Reference::or_latest).map_err(|e| e.to_string())
}

/// Takes a key that says how layers are stored, which images and step caches have in common. False for every other.
pub fn set_layer_option(options: &mut LayerOptions, key: &str, value: Option<&str>) -> Result<bool, String> {
    let text = || value.ok_or_else(|| format!("{key} has no value"));
    match key {
        "compression" => options.compression = Some(compression(text()?)?),
        "compression-level" => {
            let level = text()?;
            options.level = Some(level.parse().map_err(|_| format!("{key}={level} is not a number"))?);
        }
        "force-compression" => options.force = csv::switch(key, value)?,
        "oci-mediatypes" => options.oci_media_types = Some(csv::switch(key, value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

pub fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "uncompressed" | "none" => Ok(Compression::Uncompressed),
        "gzip" => Ok(Compression::Gzip),
        "zstd" => Ok(Compression::Zstd),
        "estargz" => Err("compression=estargz is not supported (uncompressed, gzip, zstd)".to_owned()),
        other => Err(format!("compression={other} is not known (uncompressed, gzip, zstd)")),
    }
}

/// Levels as BuildKit bounds them.
pub fn check_level(options: &LayerOptions) -> Result<(), String> {
    let Some(level) = options.level else { return Ok(()) };
    let highest = match options.compression {
        Some(Compression::Zstd) => 22,
        _ => 9,
    };
    if (0..=highest).contains(&level) {
        Ok(())
    } else {
        Err(format!("compression-level={level} is out of range (0 to {highest})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(spec: &str) -> Result<Option<Export>, String> {
        let tags = [name("app:1").unwrap()];
        parse(spec, &Common { cwd: Path::new("/w"), tags: &tags, bare_docker: BareDocker::Load })
    }

    #[test]
    fn means_what_buildx_means() {
        let app = vec![name("app:1").unwrap()];
        let options = LayerOptions::default();
        let file = |p: &str| Dest::File(p.into());
        let cases = [
            ("out", Export::Local { dest: "/w/out".into() }),
            ("/abs", Export::Local { dest: "/abs".into() }),
            ("-", Export::Tar { dest: Dest::Stdout }),
            ("type=local,dest=out", Export::Local { dest: "/w/out".into() }),
            ("type=tar", Export::Tar { dest: Dest::Stdout }),
            ("type=tar,dest=x.tar", Export::Tar { dest: file("/w/x.tar") }),
            ("type=docker", Export::Image { names: app.clone(), push: false, options: options.clone() }),
            (
                "type=docker,dest=x.tar",
                Export::Docker { names: app.clone(), dest: file("/w/x.tar"), options: options.clone() },
            ),
            (
                "type=oci,dest=x",
                Export::Oci { names: app.clone(), dest: file("/w/x"), tar: true, options: options.clone() },
            ),
            (
                "type=oci,dest=x,tar=false",
                Export::Oci { names: app.clone(), dest: file("/w/x"), tar: false, options: options.clone() },
            ),
            (
                "type=image,\"name=a,b:2\",push=true",
                Export::Image {
                    names: vec![name("a").unwrap(), name("b:2").unwrap()],
                    push: true,
                    options: options.clone(),
                },
            ),
            ("type=registry", Export::Image { names: app.clone(), push: true, options: options.clone() }),
            (
                "type=image,compression=zstd,compression-level=22,force-compression=true",
                Export::Image {
                    names: app,
                    push: false,
                    options: LayerOptions {
                        compression: Some(Compression::Zstd),
                        level: Some(22),
                        force: true,
                        ..LayerOptions::default()
                    },
                },
            ),
        ];
        for (spec, expected) in cases {
            assert_eq!(read(spec), Ok(Some(expected)), "{spec}");
        }
        assert_eq!(read("type=cacheonly"), Ok(None));
    }

    #[test]
    fn refuses_by_name() {
        let cases = [
            ("dest=x", "\"dest=x\": it has no type="),
            ("type=local", "\"type=local\": type=local needs a dest folder"),
            ("type=tar,name=x", "\"type=tar,name=x\": name has no meaning for type=tar"),
            ("type=oci,tar=false", "\"type=oci,tar=false\": tar=false needs a dest folder"),
            ("type=oci,dest=x,push=true", "\"type=oci,dest=x,push=true\": push=true needs type=image, not type=oci"),
            ("type=image,colour=red", "\"type=image,colour=red\": \"colour\" is not known"),
            (
                "type=image,compression=gzip,compression-level=10",
                "\"type=image,compression=gzip,compression-level=10\": compression-level=10 is out of range (0 to 9)",
            ),
            ("type=local,dest=x,mode=delete", "\"type=local,dest=x,mode=delete\": mode=delete is not supported"),
        ];
        for (spec, message) in cases {
            assert_eq!(read(spec), Err(message.to_owned()), "{spec}");
        }
    }

    proptest! {
        #[test]
        fn no_spec_panics(spec in "(type=(oci|local|image|tar),)?.{0,40}") {
            let _ = read(&spec);
        }
    }
}
