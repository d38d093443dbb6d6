//! The cache specs of `--cache-from` and `--cache-to` (buildctl: `--import-cache`, `--export-cache`).

mod bucket;

use super::exit::usage;
use super::output::{self, name, set_layer_option};
use super::session::Session;
use crate::base::{Env, csv};
use crate::engine::SharedCaches;
use crate::engine::shared::{CacheMode, CachePlace, CacheSource, CacheTarget, Pick};
use bucket::BucketSpec;

/// Kinds of cache that BuildKit has and dockless has not: without one the build is slower, not wrong.
const ABSENT: [&str; 2] = ["gha", "azblob"];

/// Reads both lists. `flags` are what they are called where they were typed.
pub fn read(from: &[String], to: &[String], flags: [&str; 2], session: &Session) -> anyhow::Result<SharedCaches> {
    let env = &session.env;
    let mut caches = SharedCaches::default();
    // A secret key may be in it.
    let shown = |spec: &str| match csv::pairs(spec) {
        Ok(pairs) if kind(&pairs) == Some("s3") => "type=s3".to_owned(),
        _ => spec.to_owned(),
    };
    let wrong = |flag: &str, spec: &str, reason: String| usage(format!("{flag} {:?}: {reason}", shown(spec)));
    let absent = |flag: &str, spec: &str| {
        session.warn(format!("{flag} {spec} has no effect: there is no such cache in dockless"));
    };
    for spec in from {
        match source(spec, env).map_err(|reason| wrong(flags[0], spec, reason))? {
            Some(sources) => caches.from.extend(sources),
            None => absent(flags[0], spec),
        }
    }
    for spec in to {
        match target(spec, env).map_err(|reason| wrong(flags[1], spec, reason))? {
            Some(target) => caches.to.push(target),
            None => absent(flags[1], spec),
        }
    }
    Ok(caches)
}

type Pairs = [(String, Option<String>)];

fn kind(pairs: &Pairs) -> Option<&str> {
    pairs.iter().find(|(key, _)| key == "type").and_then(|(_, kind)| kind.as_deref())
}

/// None for a kind that is absent.
fn source(spec: &str, env: &Env) -> Result<Option<Vec<CacheSource>>, String> {
    let pairs = csv::pairs(spec)?;
    // `docker build` of old: names of images.
    if pairs.iter().all(|(_, value)| value.is_none()) {
        let names = spec.split(',').map(|text| name(text.trim()).map(CacheSource::Registry));
        return names.collect::<Result<_, _>>().map(Some);
    }
    let kind = kind(&pairs).unwrap_or("registry");
    if ABSENT.contains(&kind) {
        return Ok(None);
    }
    let (mut reference, mut src, mut tag, mut digest) = (None, None, None, None);
    let mut bucket = BucketSpec::default();
    for (key, value) in &pairs {
        let text = value.as_deref().ok_or_else(|| format!("{key} has no value"))?;
        match (kind, key.as_str()) {
            (_, "type") => {}
            ("registry", "ref") => reference = Some(name(text)?),
            ("local", "src") => src = Some(text),
            ("local", "tag") => tag = Some(text.to_owned()),
            ("local", "digest") => digest = Some(text),
            ("s3", key) if bucket.set(key, text)? => {}
            ("registry" | "local" | "s3", _) => return Err(format!("{key:?} is not known")),
            _ => return Err(format!("type={kind} is not known (registry, local, s3)")),
        }
    }
    let source = match kind {
        "registry" => CacheSource::Registry(reference.ok_or("it has no ref=")?),
        "local" => {
            let path = env.cwd().join(src.ok_or("it has no src=")?);
            let pick = match digest {
                Some(digest) => Pick::Digest(digest.parse().map_err(|error| format!("digest={digest}: {error}"))?),
                None => Pick::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
            };
            CacheSource::Directory { path, pick }
        }
        _ => CacheSource::Bucket(bucket.cache(env)?),
    };
    Ok(Some(vec![source]))
}

/// None for a kind that is absent.
fn target(spec: &str, env: &Env) -> Result<Option<CacheTarget>, String> {
    let pairs = csv::pairs(spec)?;
    if let [(_, None)] = &pairs[..] {
        return match spec {
            "inline" => Ok(Some(CacheTarget::new(CachePlace::Inline))),
            text => Ok(Some(CacheTarget::new(CachePlace::Registry(name(text)?)))),
        };
    }
    let kind = kind(&pairs).unwrap_or("registry");
    if ABSENT.contains(&kind) {
        return Ok(None);
    }
    let mut target = CacheTarget::new(CachePlace::Inline);
    let (mut reference, mut dest, mut tag) = (None, None, None);
    let mut bucket = BucketSpec::default();
    for (key, value) in &pairs {
        let value = value.as_deref();
        if set_layer_option(&mut target.options, key, value)? {
            continue;
        }
        let text = || value.ok_or_else(|| format!("{key} has no value"));
        match (kind, key.as_str()) {
            (_, "type") => {}
            (_, "mode") => {
                target.mode = match text()? {
                    "min" => CacheMode::Min,
                    "max" => CacheMode::Max,
                    other => return Err(format!("mode={other} is not known (min, max)")),
                }
            }
            (_, "ignore-error") => target.ignore_error = csv::switch(key, value)?,
            ("registry", "ref") => reference = Some(name(text()?)?),
            ("local", "dest") => dest = Some(text()?),
            ("local", "tag") => tag = Some(text()?.to_owned()),
            ("registry" | "local", "image-manifest") if csv::switch(key, value)? => {}
            ("registry" | "local", "image-manifest") => {
                return Err("image-manifest=false is not supported: a cache is an image manifest".to_owned());
            }
            ("s3", key) if bucket.set(key, text()?)? || bucket.set_written(key, text()?)? => {}
            ("inline" | "registry" | "local" | "s3", _) => return Err(format!("{key:?} is not known")),
            _ => return Err(format!("type={kind} is not known (inline, registry, local, s3)")),
        }
    }
    output::check_level(&target.options)?;
    target.place = match kind {
        "inline" => CachePlace::Inline,
        "registry" => CachePlace::Registry(reference.ok_or("it has no ref=")?),
        "local" => CachePlace::Directory {
            path: env.cwd().join(dest.ok_or("it has no dest=")?),
            tag: tag.unwrap_or_else(|| "latest".to_owned()),
        },
        _ => {
            let (refresh, at_once) = (bucket.refresh, bucket.at_once);
            CachePlace::Bucket { cache: bucket.cache(env)?, refresh, at_once }
        }
    };
    Ok(Some(target))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Compression;

    fn env() -> Env {
        Env::new([], "/w".into(), 0, 0)
    }

    #[test]
    fn sources() {
        let image = |text: &str| CacheSource::Registry(name(text).unwrap());
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
            assert_eq!(source(spec, &env()).unwrap().unwrap(), expected, "{spec}");
        }
        assert_eq!(source("type=gha,scope=x", &env()), Ok(None));
        for (spec, reason) in [
            ("type=registry", "it has no ref="),
            ("type=local", "it has no src="),
            ("type=nfs,src=x", "type=nfs is not known (registry, local, s3)"),
            ("type=registry,ref=x,src=y", "\"src\" is not known"),
            ("type=s3,bucket=b,touch_refresh=1h", "\"touch_refresh\" is not known"),
            ("type=registry,ref=x,when=now", "\"when\" is not known"),
            ("type=registry,ref", "ref has no value"),
        ] {
            assert_eq!(source(spec, &env()).unwrap_err(), reason, "{spec}");
        }
    }

    #[test]
    fn targets() {
        let place = |spec: &str| target(spec, &env()).unwrap().unwrap();
        assert_eq!(place("type=inline"), CacheTarget::new(CachePlace::Inline));
        assert_eq!(place("inline"), CacheTarget::new(CachePlace::Inline));
        let registry = CachePlace::Registry(name("r.example/c").unwrap());
        assert_eq!(place("r.example/c"), CacheTarget::new(registry.clone()));
        let max = place(
            "type=registry,ref=r.example/c,mode=max,compression=zstd,compression-level=19,ignore-error=true,image-manifest=true",
        );
        assert_eq!((max.place, max.mode, max.ignore_error), (registry, CacheMode::Max, true));
        assert_eq!((max.options.compression, max.options.level), (Some(Compression::Zstd), Some(19)));
        let local = CachePlace::Directory { path: "/w/c".into(), tag: "latest".into() };
        assert_eq!(place("type=local,dest=c"), CacheTarget::new(local));
        assert_eq!(target("type=gha,mode=max", &env()), Ok(None));
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
            assert_eq!(target(spec, &env()).unwrap_err(), reason, "{spec}");
        }
    }
}
