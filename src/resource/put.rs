//! `out`: an image of a build, a file or another repository, pushed under its tags.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};

use super::params::Put;
use super::source::Source;
use super::{Outcome, Version, World, aliases, build, fields, say, shown_id};
use crate::base::patterns::glob;
use crate::base::{Digest, Reference};
use crate::engine::shared::{CachePlace, CacheSource, CacheTarget};
use crate::engine::{SharedCaches, State};
use crate::export;
use crate::image::{self, Descriptor, ImageConfig};

pub fn put(source: &Source, params: &Put, sources: &Path, world: &World<'_>) -> anyhow::Result<Outcome> {
    let name = source.name()?;
    let mut settings = source.registry(true)?;
    settings.patience = world.settings.registry.patience;
    let state = world.state(settings)?;
    let _pin = state.images().pin(world.cancel)?;
    let putter = Putter { source, params, sources, state, world, name };
    let tag = putter.tag()?;
    let mut additional = putter.additional_tags()?;
    additional.extend(putter.aliases()?);
    let reference = putter.name.with_tag(&tag)?;
    let stored = putter.obtain(&reference)?;
    let pushed = putter.push(&stored, &reference)?;
    if params.tag_as_latest && tag != LATEST {
        let latest = putter.name.with_tag(LATEST)?;
        putter.state.images().tag(&pushed, &latest)?;
        world.progress.step(&format!("tag {latest}"), |step| {
            say(step, format!("{}:{tag} tagged as latest", source.repository));
            anyhow::Ok(())
        })?;
        putter.push(&pushed, &latest)?;
    }
    for tag in additional {
        let reference = putter.name.with_tag(&tag)?;
        putter.state.images().tag(&pushed, &reference)?;
        putter.push(&pushed, &reference)?;
    }
    let id = putter.state.images().load_for(&pushed, &source.platform())?.config_digest;
    // registry-image names the tag with the digest, where its shape is what was asked for.
    let tag = (params.image.is_some() || params.version.is_some()).then_some(tag);
    Ok(Outcome {
        version: Version { tag, digest: pushed.digest.to_string() },
        metadata: fields(&[("image", shown_id(&id))]),
    })
}

const LATEST: &str = "latest";

struct Putter<'a> {
    source: &'a Source,
    params: &'a Put,
    sources: &'a Path,
    state: Arc<State>,
    world: &'a World<'a>,
    name: Reference,
}

impl Putter<'_> {
    fn tag(&self) -> anyhow::Result<String> {
        let Some(path) = self.params.tag_file() else {
            return Ok(match &self.params.version {
                Some(version) => aliases::tag(version, self.source.variant.as_deref()),
                _ => self.source.tag().to_owned(),
            });
        };
        let file = self.sources.join(path);
        if !file.is_file() {
            bail!("tag file '{path}' does not exist");
        }
        let text = read_line(&file)?;
        Ok(format!("{}{text}", self.params.tag_prefix.as_deref().unwrap_or("")))
    }

    fn additional_tags(&self) -> anyhow::Result<Vec<String>> {
        let Some(path) = self.params.additional_tags.as_deref().filter(|path| !path.is_empty()) else {
            return Ok(Vec::new());
        };
        let file = self.sources.join(path);
        if !file.is_file() {
            bail!("additional tags file '{path}' does not exist");
        }
        let text = fs::read_to_string(&file).with_context(|| format!("read {path}"))?;
        // registry-image puts its prefix here; docker-image keeps it for the tag file alone.
        let prefix = match (&self.params.image, &self.params.tag_prefix) {
            (Some(_), Some(prefix)) => prefix.as_str(),
            _ => "",
        };
        Ok(text.split_whitespace().map(|tag| format!("{prefix}{tag}")).collect())
    }

    /// The floating tags of the version, where they are wanted.
    fn aliases(&self) -> anyhow::Result<Vec<String>> {
        let version = match &self.params.version {
            Some(version) if self.params.bump_aliases => version,
            None if self.params.bump_aliases => bail!("bump_aliases needs version"),
            _ => return Ok(Vec::new()),
        };
        let existing = match self.state.registry()?.tags(&self.name, self.world.cancel) {
            Ok(tags) => tags,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        aliases::aliases(version, self.source.variant.as_deref(), &existing)
    }

    /// Gets the image into the store under its name, from the first place that the params name.
    fn obtain(&self, reference: &Reference) -> anyhow::Result<Descriptor> {
        let params = self.params;
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(dir) = given(&params.load) {
            let id = self.read_id(&dir)?;
            return self.load(&Path::new(&dir).join("image"), &Wanted::Id(id), reference);
        }
        if let Some(context) = given(&params.build) {
            let input = build::Input {
                params,
                context: &context,
                sources: self.sources,
                platform: self.source.platform(),
                caches: self.caches(reference)?,
            };
            return build::build(input, reference, &self.state, self.world);
        }
        if let Some(file) = given(&params.load_file) {
            let repository = given(&params.load_repository).context("must specify load_repository param")?;
            let tag = given(&params.load_tag).unwrap_or_else(|| LATEST.to_owned());
            let name =
                repository.parse::<Reference>().and_then(|name| name.with_tag(&tag)).context("load_repository")?;
            return self.load(Path::new(&file), &Wanted::Name(name), reference);
        }
        if let Some(file) = given(&params.import_file) {
            return self.import(&file, reference);
        }
        if let Some(repository) = given(&params.pull_repository) {
            let tag = given(&params.pull_tag).unwrap_or_else(|| LATEST.to_owned());
            let from =
                repository.parse::<Reference>().and_then(|name| name.with_tag(&tag)).context("pull_repository")?;
            let pulled = self.pull(&from)?;
            self.state.images().tag(&pulled, reference)?;
            return Ok(pulled);
        }
        if let Some(pattern) = given(&params.image) {
            return self.load(&self.only_match(&pattern)?, &Wanted::Only, reference);
        }
        bail!("must specify build, load, load_file, import_file, or pull_repository params");
    }

    fn read_id(&self, dir: &str) -> anyhow::Result<Digest> {
        let path = self.sources.join(dir).join("image-id");
        read_line(&path)?.parse().with_context(|| format!("{dir}/image-id"))
    }

    /// Loads from an archive or a layout, and names what was wanted.
    fn load(&self, path: &Path, wanted: &Wanted, reference: &Reference) -> anyhow::Result<Descriptor> {
        self.world.progress.step(&format!("load {}", path.display()), |_| {
            let opened = image::open(&self.sources.join(path), &self.state.tmp()?)?;
            let mut fitting = opened.images.iter().filter(|(image, names)| match wanted {
                Wanted::Id(id) => image.config_digest == *id || image.manifest_descriptor.digest == *id,
                Wanted::Name(name) => names.contains(name),
                Wanted::Only => true,
            });
            let Some((image, _)) = fitting.next() else {
                let names = opened.images.iter().flat_map(|(image, names)| {
                    std::iter::once(image.config_digest.to_string()).chain(names.iter().map(Reference::familiar))
                });
                let names: Vec<String> = names.collect();
                bail!("{} holds no image {wanted}, only {}", path.display(), names.join(", "));
            };
            if matches!(wanted, Wanted::Only) && fitting.next().is_some() {
                bail!("{} holds more than one image", path.display());
            }
            self.state.images().adopt(image, opened.blobs.as_ref())?;
            self.state.images().tag(&image.manifest_descriptor, reference)?;
            Ok(image.manifest_descriptor.clone())
        })
    }

    /// A base image that the build's `FROM` lines find here and need not pull; its name.
    fn load_base(&self, dir: &str) -> anyhow::Result<Reference> {
        let base = |file: &str| read_line(&self.sources.join(dir).join(file));
        let name =
            base("repository")?.parse::<Reference>().and_then(|name| name.with_tag(&base("tag").unwrap_or_default()));
        let name = name.with_context(|| format!("{dir}: repository and tag"))?;
        self.load(&Path::new(dir).join("image"), &Wanted::Id(self.read_id(dir)?), &name)?;
        Ok(name)
    }

    /// Makes all images ready that the build may stand on. Those that are caches carry a step cache, where dockless
    /// built them for a `put` with a cache; this build's image will.
    fn caches(&self, reference: &Reference) -> anyhow::Result<SharedCaches> {
        let mut caches = SharedCaches::default();
        for dir in self.params.load_base.iter().filter(|dir| !dir.is_empty()).chain(&self.params.load_bases) {
            self.load_base(dir)?;
        }
        for dir in &self.params.cache_from {
            caches.from.push(CacheSource::Registry(self.load_base(dir)?));
        }
        if self.params.wants_cache() {
            let from = match self.params.cache_tag.as_deref().filter(|tag| !tag.is_empty()) {
                Some(tag) => self.name.with_tag(tag)?,
                None => reference.clone(),
            };
            // As the original's code, not as its README: without a cache the build is slower, not wrong.
            if let Err(error) = self.pull(&from) {
                self.world.cancel.check()?;
                self.world.progress.warn(format!("cache: {error:#}; building without it"));
            } else {
                caches.from.push(CacheSource::Registry(from));
            }
        }
        if self.params.wants_cache() || !self.params.cache_from.is_empty() {
            caches.to.push(CacheTarget::new(CachePlace::Inline));
        }
        Ok(caches)
    }

    fn import(&self, path: &str, reference: &Reference) -> anyhow::Result<Descriptor> {
        self.world.progress.step(&format!("import {path}"), |_| {
            let mut file = File::open(self.sources.join(path)).with_context(|| format!("open {path}"))?;
            let config = ImageConfig::new(self.source.platform());
            let blobs = self.state.blobs()?;
            let image = image::import(
                &mut file,
                config,
                "Imported from -",
                &self.world.epoch,
                blobs.as_ref(),
                self.world.cancel,
            )?;
            self.state.images().tag(&image.manifest_descriptor, reference)?;
            Ok(image.manifest_descriptor)
        })
    }

    fn pull(&self, from: &Reference) -> anyhow::Result<Descriptor> {
        self.world.progress.step(&format!("pull {}", from.familiar()), |step| {
            let blobs = self.state.blobs()?;
            let pulled =
                self.state.registry()?.pull(from, &self.source.platform(), blobs.as_ref(), step, self.world.cancel);
            let pulled = pulled.map_err(|error| {
                let text = format!("Failed to pull image {}.", from.familiar());
                anyhow::Error::new(error).context(text)
            })?;
            self.state.images().tag(&pulled.image.manifest_descriptor, from)?;
            Ok(pulled.image.manifest_descriptor)
        })
    }

    fn only_match(&self, pattern: &str) -> anyhow::Result<PathBuf> {
        let mut found = matching(self.sources, pattern).with_context(|| format!("image: {pattern}"))?;
        match found.len() {
            0 => bail!("no files match glob: {pattern}"),
            1 => Ok(found.remove(0)),
            count => bail!("too many files/directories match glob: {pattern} ({count})"),
        }
    }

    fn push(&self, stored: &Descriptor, to: &Reference) -> anyhow::Result<Descriptor> {
        self.world.progress.step(&format!("push {}", to.familiar()), |step| {
            say(step, format!("The push refers to repository [{}]", to.name()));
            let images = self.state.images();
            let pushed = export::push(images, self.state.registry()?, stored, to, step, self.world.cancel)?;
            // Pipelines read this line.
            say(step, format!("{}: digest: {} size: {}", to.tag().unwrap_or(LATEST), pushed.digest, pushed.size));
            Ok(pushed)
        })
    }
}

/// Which image of an archive.
enum Wanted {
    Id(Digest),
    Name(Reference),
    Only,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) => f.write_str(&name.familiar()),
            Self::Only => f.write_str("at all"),
        }
    }
}

/// The paths below a folder that a shell's pattern means, relative to it and sorted.
fn matching(folder: &Path, pattern: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty() && *part != ".") {
        let mut next = Vec::new();
        for dir in &found {
            if !glob::is_pattern(part) {
                next.extend(Some(dir.join(part)).filter(|path| folder.join(path).exists()));
                continue;
            }
            let Ok(entries) = fs::read_dir(folder.join(dir)) else { continue };
            for entry in entries {
                let name = entry?.file_name();
                let Some(name) = name.to_str() else { continue };
                if glob::matches(part, name)? {
                    next.push(dir.join(name));
                }
            }
        }
        found = next;
    }
    found.sort();
    Ok(found)
}

/// As `$(cat FILE)` reads: without the newlines at its end.
fn read_line(path: &Path) -> anyhow::Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    Ok(text.trim_end_matches('\n').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_paths() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/x.tar", "a/y.tar", "b/x.tar", "b/z"] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), "").unwrap();
        }
        let cases: [(&str, &[&str]); 6] = [
            ("a/x.tar", &["a/x.tar"]),
            ("*/x.tar", &["a/x.tar", "b/x.tar"]),
            ("b/*.tar", &["b/x.tar"]),
            ("./b/?", &["b/z"]),
            ("c/*", &[]),
            ("a/none", &[]),
        ];
        for (pattern, expected) in cases {
            let found = matching(dir.path(), pattern).unwrap();
            assert_eq!(found, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{pattern}");
        }
    }
}
