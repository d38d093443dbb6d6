//! `--change`: Dockerfile instructions that only speak about an image's config, for `import` and `commit`.

use crate::base::{Digest, Platform, Reference};
use crate::frontend::{self, ImageConfigs, Input, ResolvedImage};
use crate::image::ImageConfig;
use crate::image::config::RunConfig;

use super::exit::usage;
use super::session::Session;

const ALLOWED: [&str; 11] = [
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The config that the changes make of an empty one: what a Dockerfile of them would have.
pub fn of_nothing(changes: &[String], platform: Platform, session: &Session) -> anyhow::Result<ImageConfig> {
    let empty = ImageConfig::new(platform.clone());
    if changes.is_empty() {
        return Ok(empty);
    }
    let words = checked(changes)?;
    let mut run = built("FROM scratch", changes, platform, &NoImage, session)?;
    // A Dockerfile's scratch brings a PATH and a working directory; an imported image has what was said, no more.
    let names_path = |change: &str| change.split([' ', '\t', '=']).any(|word| word == "PATH");
    if !words.iter().any(|(word, change)| word == "ENV" && names_path(change)) {
        run.env.retain(|line| !line.starts_with("PATH="));
    }
    if !words.iter().any(|(word, _)| word == "WORKDIR") {
        run.working_dir.clear();
    }
    Ok(ImageConfig { config: run, ..empty })
}

/// What the changes make of an image's config.
pub fn over(changes: &[String], image: &ImageConfig, session: &Session) -> anyhow::Result<RunConfig> {
    if changes.is_empty() {
        return Ok(image.config.clone());
    }
    checked(changes)?;
    // Its triggers are for builds on it; this is none.
    let mut base = image.clone();
    let triggers = std::mem::take(&mut base.config.on_build);
    let mut run = built("FROM image", changes, image.platform.clone(), &OneImage(base), session)?;
    run.on_build.splice(0..0, triggers);
    Ok(run)
}

/// Each change with its instruction's name.
fn checked(changes: &[String]) -> anyhow::Result<Vec<(String, &str)>> {
    let words = changes.iter().map(|change| {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if ALLOWED.contains(&word.as_str()) {
            return Ok((word, change.as_str()));
        }
        Err(usage(format!("{word} is not a valid change command ({})", ALLOWED.join(", "))))
    });
    words.collect()
}

fn built(
    from: &str,
    changes: &[String],
    platform: Platform,
    images: &dyn ImageConfigs,
    session: &Session,
) -> anyhow::Result<RunConfig> {
    let mut input = Input::new("--change", format!("{from}\n{}\n", changes.join("\n")), session.epoch()?);
    input.platform = Some(platform);
    Ok(frontend::build(&input, images)?.config.config)
}

struct NoImage;

impl ImageConfigs for NoImage {
    fn resolve(&self, reference: &Reference, _platform: &Platform) -> anyhow::Result<ResolvedImage> {
        anyhow::bail!("a change cannot name an image ({reference})")
    }
}

/// Whatever is asked for.
struct OneImage(ImageConfig);

impl ImageConfigs for OneImage {
    fn resolve(&self, reference: &Reference, _platform: &Platform) -> anyhow::Result<ResolvedImage> {
        let digest = Digest::of(self.0.to_bytes());
        Ok(ResolvedImage { reference: reference.clone().with_digest(digest), config: self.0.clone() })
    }
}
