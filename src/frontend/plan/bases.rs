//! What stages stand on: images, named contexts, `scratch`.

use std::collections::{BTreeMap, BTreeSet};

use super::Planner;
use super::stage;
use crate::base::{Platform, Reference};
use crate::frontend::ResolvedImage;
use crate::frontend::error::{Error, Errors, Result};
use crate::frontend::go::quote;
use crate::frontend::lint::rules;
use crate::image::config::ImageConfig;
use crate::llb::source;

/// At a time; a registry that is asked for more slows down all of them.
const PARALLEL: usize = 8;

/// Image names in wide use, to suggest for a misspelt one.
const COMMON: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];

/// Images that were asked for already.
pub type Resolved = BTreeMap<(Reference, Platform), ResolvedImage>;

/// Key of the description that holds the instruction of an op.
pub const COMMAND: &str = "com.docker.dockerfile.v1.command";

impl Planner<'_> {
    /// Finds the images and contexts of stages that have none yet. Those that nothing needs are only looked at.
    pub fn resolve_bases(&mut self, reachable: &BTreeSet<usize>) -> Result<()> {
        self.fetch_images(reachable)?;
        let mut errors = Errors::default();
        for index in 0..self.states.len() {
            let state = &self.states[index];
            if state.base.is_some() || state.done || state.resolved {
                continue;
            }
            let place = self.source.place(state.stage.lines.clone());
            let name = state.stage.base.clone();
            let needed = reachable.contains(&index);
            let resolved = self.resolve_base(index, needed).map_err(|e| e.at_word(&place, &name));
            if errors.take(resolved).is_none() {
                continue;
            }
            let state = &mut self.states[index];
            state.resolved = needed;
            state.done |= state.implied && needed;
        }
        errors.finish()
    }

    /// Asks for all images at once that the next step will want.
    fn fetch_images(&mut self, reachable: &BTreeSet<usize>) -> Result<()> {
        let mut errors = Errors::default();
        let mut wanted = BTreeMap::new();
        for state in reachable.iter().map(|&i| &self.states[i]) {
            let plain = state.base.is_none() && !state.done && !state.resolved && state.replaced_by.is_none();
            if !plain || state.stage.base == "scratch" {
                continue;
            }
            let platform = state.platform.clone().unwrap_or_else(|| self.platforms.target.clone());
            let Ok(reference) = state.stage.base.parse::<Reference>().map(Reference::or_latest) else { continue };
            let key = (reference, platform);
            if self.named_context(&key.0.to_string(), &key.1).is_none() && !self.resolved.contains_key(&key) {
                wanted.insert(key, (state.stage.base.clone(), state.stage.lines.clone()));
            }
        }
        let wanted: Vec<_> = wanted.into_iter().collect();
        for chunk in wanted.chunks(PARALLEL) {
            let images = self.images;
            let answers: Vec<_> = if let [((reference, platform), _)] = chunk {
                vec![images.resolve(reference, platform)]
            } else {
                std::thread::scope(|scope| {
                    let threads: Vec<_> = chunk
                        .iter()
                        .map(|((reference, platform), _)| scope.spawn(move || images.resolve(reference, platform)))
                        .collect();
                    let lost = || Err(anyhow::anyhow!("the thread that resolved it panicked"));
                    threads.into_iter().map(|t| t.join().unwrap_or_else(|_| lost())).collect()
                })
            };
            for ((key, (name, lines)), answer) in chunk.iter().zip(answers) {
                let answer = answer.map_err(|e| {
                    let stages = self.stage_names();
                    let error = Error::new(format!("cannot resolve base image {name}")).because(e);
                    let error = error.did_you_mean(name, stages.into_iter().chain(COMMON));
                    error.at_word(&self.source.place(lines.clone()), name)
                });
                if let Some(image) = errors.take(answer) {
                    self.resolved.insert(key.clone(), image);
                }
            }
        }
        errors.finish()
    }

    /// The pinned name and the config of an image.
    pub fn resolve_image(&mut self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        let key = (reference.clone(), platform.clone());
        if let Some(known) = self.resolved.get(&key) {
            return Ok(known.clone());
        }
        let image = self
            .images
            .resolve(reference, platform)
            .map_err(|e| Error::new(format!("cannot resolve image {reference}")).because(e))?;
        self.resolved.insert(key, image.clone());
        Ok(image)
    }

    fn resolve_base(&mut self, index: usize, needed: bool) -> Result<()> {
        let target = self.platforms.target.clone();
        let state = &mut self.states[index];
        let name = state.stage.base.clone();
        if name == "scratch" && state.replaced_by.is_none() {
            state.image = stage::empty_image(&target);
            state.platform = Some(target);
            return Ok(());
        }
        let reference: Reference = name.parse().map_err(|e| {
            let error = Error::new(format!("failed to parse stage name {}: {e}", quote(&name)));
            error.did_you_mean(&name, self.stage_names())
        })?;
        let state = &self.states[index];
        if !needed {
            return Ok(());
        }
        let reference = reference.or_latest();
        let platform = state.platform.clone().unwrap_or(target);
        if let Some((key, context)) = state.replaced_by.clone() {
            let loaded = self.load_context(&key, &context, &platform)?;
            let state = &mut self.states[index];
            state.done = true;
            state.root = loaded.root;
            state.ground = loaded.root;
            state.platform = Some(platform);
            if let Some(image) = loaded.image {
                state.platform = Some(image.platform.clone());
                state.image = image;
            }
            return Ok(());
        }
        if let Some((key, context)) = self.named_context(&reference.to_string(), &platform) {
            let loaded = self.load_context(&key, &context, &platform)?;
            let state = &mut self.states[index];
            state.root = loaded.root;
            state.ground = loaded.root;
            state.image = loaded.image.unwrap_or_else(|| stage::empty_image(&platform));
            state.base_image = Some(state.image.clone());
            state.platform = Some(platform);
            return Ok(());
        }
        self.take_image(index, &name, &reference, platform)
    }

    fn take_image(&mut self, index: usize, name: &str, reference: &Reference, platform: Platform) -> Result<()> {
        let resolved = self.resolve_image(reference, &platform)?;
        let image = known_only(resolved.config);
        let implicit = self.platforms.implicit && self.states[index].platform.is_none();
        let platform = if implicit { self.detected(&image, platform) } else { platform };
        let lines = self.lines(&self.states[index].stage.lines);
        let multi = self.input.multi_platform.then_some(&platform);
        let state = &mut self.states[index];
        state.base_image = Some(image.clone());
        if !is_empty(&image) {
            let mut draft = source::image(&resolved.reference, &platform);
            draft.describe(COMMAND, state.stage.code.clone());
            draft.name(state.step_name(&format!("FROM {}", resolved.reference), multi));
            draft.lines = lines;
            state.root = Some(self.builder.output(draft));
            state.ground = state.root;
            if (&platform.os, &platform.arch) != (&image.platform.os, &image.platform.arch) {
                self.linter.report(&rules::INVALID_BASE_IMAGE_PLATFORM, &state.stage.lines, || {
                    let (is, wanted) = (quote(&image.platform.to_string()), quote(&platform.to_string()));
                    format!("Base image {name} was pulled with platform {is}, expected {wanted} for current build")
                });
            }
        }
        state.image = image;
        state.platform = Some(platform);
        Ok(())
    }

    /// Without a platform asked for, an image for another one that is built on here is taken as it is.
    fn detected(&self, image: &ImageConfig, wanted: Platform) -> Platform {
        let same = |p: &Platform| p.os == image.platform.os && p.arch == image.platform.arch;
        if !same(&wanted) && same(&self.platforms.build) { self.platforms.build.clone() } else { wanted }
    }
}

/// What BuildKit knows of an image config. Others (`container_config`, `docker_version`, `Hostname`) tell of the
/// build that made the base, and would be untrue of what is built on it.
pub fn known_only(mut image: ImageConfig) -> ImageConfig {
    image.created = None;
    image.extra.retain(|key, _| matches!(key.as_str(), "os.version" | "os.features"));
    image.config.extra.retain(|key, _| key == "ArgsEscaped");
    image.history.iter_mut().for_each(|line| line.extra.clear());
    image
}

/// An image without layers is `scratch` with a config.
fn is_empty(image: &ImageConfig) -> bool {
    image.rootfs.diff_ids.is_empty() && image.history.iter().all(|h| h.empty_layer)
}
