//! The cache specs of `--cache-from` and `--cache-to` (buildctl: `--import-cache`, `--export-cache`).

use std::path::Path;

use super::exit::usage;
use super::output::{self, compression};
use super::session::Session;
use crate::base::{Reference, csv};
use crate::engine::SharedCaches;
use crate::engine::shared::{CacheMode, CachePlace, CacheSource, CacheTarget, Pick};

/// Kinds of cache that BuildKit has and dockless has not: without one the build is slower, not wrong.
const ABSENT: [&str; 3] = ["gha", "s3", "azblob"];

/// Reads both lists. `flags` are what they are called where they were typed.
pub fn read(from: &[String], to: &[String], flags: [&str; 2], session: &Session) -> anyhow::Result<SharedCaches> {
    let cwd = session.env.cwd();
    let mut caches = SharedCaches::default();
    for spec in from {
        match source(spec, cwd).map_err(|reason| usage(format!("{} {spec:?}: {reason}", flags[0])))? {
            Some(sources) => caches.from.extend(sources),
            None => session.warn(format!("{} {spec} has no effect: there is no such cache in dockless", flags[0])),
        }
    }
    for spec in to {
        match target(spec, cwd).map_err(|reason| usage(format!("{} {spec:?}: {reason}", flags[1])))? {
            Some(target) => caches.to.push(target),
            None => session.warn(format!("{} {spec} has no effect: there is no such cache in dockless", flags[1])),
        }
    }
    Ok(caches)
}

/// None for a kind that is absent.
fn source(spec: &str, cwd: &Path) -> Result<Option<Vec<CacheSource>>, String> {
    let pairs = csv::pairs(spec)?;
    // `docker build` of old: names of images.
    if pairs.iter().all(|(_, value)| value.is_none()) {
        let names = spec.split(',').map(|name| reference(name.trim()).map(CacheSource::Registry));
        return names.collect::<Result<_, _>>().map(Some);
    }
    let mut kind = None;
    let (mut name, mut src, mut tag, mut digest) = (None, None, None, None);
    for (key, value) in &pairs {
        let text = value.clone().ok_or_else(|| format!("{key} has no value"))?;
        match key.as_str() {
            "type" => kind = Some(text),
            "ref" => name = Some(text),
            "src" => src = Some(text),
            "tag" => tag = Some(text),
            "digest" => digest = Some(text),
            // Another kind's, which is not read.
            _ if kind.as_deref().is_some_and(|kind| ABSENT.contains(&kind)) => {}
            _ => return Err(format!("{key:?} is not known")),
        }
    }
    match kind.as_deref().unwrap_or("registry") {
        "registry" => {
            let name = name.ok_or("it has no ref=")?;
            Ok(Some(vec![CacheSource::Registry(reference(&name)?)]))
        }
        "local" => {
            let path = cwd.join(src.ok_or("it has no src=")?);
            let pick = match digest {
                Some(digest) => Pick::Digest(digest.parse().map_err(|error| format!("digest={digest}: {error}"))?),
                None => Pick::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
            };
            Ok(Some(vec![CacheSource::Directory { path, pick }]))
        }
        kind if ABSENT.contains(&kind) => Ok(None),
        kind => Err(format!("type={kind} is not known (registry, local)")),
    }
}

/// None for a kind that is absent.
fn target(spec: &str, cwd: &Path) -> Result<Option<CacheTarget>, String> {
    let pairs = csv::pairs(spec)?;
    if let [(_, None)] = &pairs[..] {
        return match spec {
            "inline" => Ok(Some(CacheTarget::new(CachePlace::Inline))),
            name => Ok(Some(CacheTarget::new(CachePlace::Registry(reference(name)?)))),
        };
    }
    let kind = pairs.iter().find(|(key, _)| key == "type").and_then(|(_, kind)| kind.as_deref()).unwrap_or("registry");
    if ABSENT.contains(&kind) {
        return Ok(None);
    }
    let mut target = CacheTarget::new(CachePlace::Inline);
    let (mut name, mut dest, mut tag) = (None, None, None);
    for (key, value) in &pairs {
        let value = value.as_deref();
        let text = || value.ok_or_else(|| format!("{key} has no value"));
        match key.as_str() {
            "type" => {}
            "ref" => name = Some(text()?),
            "dest" => dest = Some(text()?),
            "tag" => tag = Some(text()?.to_owned()),
            "mode" => {
                target.mode = match text()? {
                    "min" => CacheMode::Min,
                    "max" => CacheMode::Max,
                    other => return Err(format!("mode={other} is not known (min, max)")),
                }
            }
            "ignore-error" => target.ignore_error = csv::switch(key, value)?,
            "compression" => target.options.compression = Some(compression(text()?)?),
            "compression-level" => {
                let level = text()?;
                target.options.level = Some(level.parse().map_err(|_| format!("{key}={level} is not a number"))?);
            }
            "force-compression" => target.options.force = csv::switch(key, value)?,
            "oci-mediatypes" => target.options.oci_media_types = Some(csv::switch(key, value)?),
            "image-manifest" if csv::switch(key, value)? => {}
            "image-manifest" => {
                return Err("image-manifest=false is not supported: a cache is an image manifest".to_owned());
            }
            _ => return Err(format!("{key:?} is not known")),
        }
    }
    output::check_level(&target.options)?;
    target.place = match kind {
        "inline" => CachePlace::Inline,
        "registry" => CachePlace::Registry(reference(name.ok_or("it has no ref=")?)?),
        "local" => CachePlace::Directory {
            path: cwd.join(dest.ok_or("it has no dest=")?),
            tag: tag.unwrap_or_else(|| "latest".to_owned()),
        },
        kind => return Err(format!("type={kind} is not known (inline, registry, local)")),
    };
    Ok(Some(target))
}

fn reference(text: &str) -> Result<Reference, String> {
    text.parse::<Reference>().map(Reference::or_latest).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Compression;

    #[test]
    fn sources() {
        let image = |name: &str| CacheSource::Registry(reference(name).unwrap());
        let dir = |pick| CacheSource::Directory { path: "/w/c".into(), pick };
        let digest = format!("sha256:{}", "a".repeat(64));
        for (spec, expected) in [
            ("app", vec![image("app:latest")]),
            ("app:1, other:2", vec![image("app:1"), image("other:2")]),
            ("type=registry,ref=r.example/c", vec![image("r.example/c:latest")]),
            ("ref=r.example/c:2", vec![image("r.example/c:2")]),
            ("type=local,src=c", vec![dir(Pick::Tag("latest".into()))]),
            ("type=local,src=/w/c,tag=x", vec![dir(Pick::Tag("x".into()))]),
            (&format!("type=local,src=c,digest={digest}"), vec![dir(Pick::Digest(digest.parse().unwrap()))]),
        ] {
            assert_eq!(source(spec, Path::new("/w")).unwrap().unwrap(), expected, "{spec}");
        }
        assert_eq!(source("type=gha,scope=x", Path::new("/w")), Ok(None));
        for (spec, reason) in [
            ("type=registry", "it has no ref="),
            ("type=local", "it has no src="),
            ("type=nfs,src=x", "type=nfs is not known (registry, local)"),
            ("type=registry,ref=x,when=now", "\"when\" is not known"),
            ("type=registry,ref", "ref has no value"),
        ] {
            assert_eq!(source(spec, Path::new("/w")).unwrap_err(), reason, "{spec}");
        }
    }

    #[test]
    fn targets() {
        let place = |spec: &str| target(spec, Path::new("/w")).unwrap().unwrap();
        assert_eq!(place("type=inline"), CacheTarget::new(CachePlace::Inline));
        assert_eq!(place("inline"), CacheTarget::new(CachePlace::Inline));
        let registry = CachePlace::Registry(reference("r.example/c").unwrap());
        assert_eq!(place("r.example/c"), CacheTarget::new(registry.clone()));
        let max = place(
            "type=registry,ref=r.example/c,mode=max,compression=zstd,compression-level=19,ignore-error=true,image-manifest=true",
        );
        assert_eq!((max.place, max.mode, max.ignore_error), (registry, CacheMode::Max, true));
        assert_eq!((max.options.compression, max.options.level), (Some(Compression::Zstd), Some(19)));
        let local = CachePlace::Directory { path: "/w/c".into(), tag: "latest".into() };
        assert_eq!(place("type=local,dest=c"), CacheTarget::new(local));
        assert_eq!(target("type=s3,bucket=b", Path::new("/w")), Ok(None));
        for (spec, reason) in [
            ("type=local", "it has no dest="),
            ("type=registry,mode=max", "it has no ref="),
            ("type=inline,mode=most", "mode=most is not known (min, max)"),
            ("type=registry,ref=x,compression-level=99", "compression-level=99 is out of range (0 to 9)"),
            (
                "type=registry,ref=x,image-manifest=false",
                "image-manifest=false is not supported: a cache is an image manifest",
            ),
        ] {
            assert_eq!(target(spec, Path::new("/w")).unwrap_err(), reason, "{spec}");
        }
    }
}
