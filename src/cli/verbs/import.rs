//! `import`: a flat root file system as an image.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;

use crate::base::{Platform, Reference};
use crate::cli::exit::{Exit, Unsupported, missing, usage};
use crate::cli::session::{Out, Session};
use crate::frontend::{self, ImageConfigs, Input, ResolvedImage};
use crate::image::{self, ImageConfig};

/// Make an image of a root file system's tar: a base image without any registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Tar of a root file system, compressed or not; - for standard input
    #[arg(value_name = "FILE | -")]
    file: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Dockerfile instruction for the image's config, such as 'CMD ["sh"]'; may be repeated
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What the files were made for [default: this machine]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let platform = args.platform.unwrap_or_else(Platform::host);
    let config = config(&args.changes, platform, session)?;
    let mut input: Box<dyn Read + Send> = match args.file.as_str() {
        "-" => Box::new(io::stdin()),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            return Err(Unsupported::instead(
                "import from an address",
                "fetch it first, or pipe it: curl … | dockless import -",
            ));
        }
        path => {
            let path = session.absolute(path);
            Box::new(File::open(&path).map_err(|error| missing(format!("{}: {error}", path.display())))?)
        }
    };
    let message = args.message.unwrap_or_else(|| format!("Imported from {}", args.file));
    let (store, cancel) = (session.images()?, session.cancel()?);
    let _pin = store.pin(&cancel)?;
    let image = image::import(&mut *input, config, &message, &session.epoch()?, &*store.blobs(), &cancel)
        .with_context(|| format!("import {}", args.file))?;
    match args.name {
        Some(name) => store.tag(&image.manifest_descriptor, &name.or_latest())?,
        None => store.add(&image.manifest_descriptor)?,
    }
    let mut out = Out::new();
    out.line(image.config_digest.to_string())?;
    out.finish()?;
    Ok(Exit::Success)
}

/// Instructions that only speak about the config.
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
fn config(changes: &[String], platform: Platform, session: &Session) -> anyhow::Result<ImageConfig> {
    let empty = ImageConfig::new(platform.clone());
    if changes.is_empty() {
        return Ok(empty);
    }
    let mut words = BTreeMap::new();
    for change in changes {
        let word = change.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
        if !ALLOWED.contains(&word.as_str()) {
            return Err(usage(format!("{word} is not a valid change command ({})", ALLOWED.join(", "))));
        }
        words.insert(word, change);
    }
    let mut input = Input::new("--change", format!("FROM scratch\n{}\n", changes.join("\n")), session.epoch()?);
    input.platform = Some(platform);
    let built = frontend::build(&input, &NoImages)?;
    let mut run = built.config.config;
    // A Dockerfile's scratch brings a PATH and a working directory; an imported image has what was said, no more.
    if !words.get("ENV").is_some_and(|change| change.contains("PATH")) {
        run.env.retain(|line| !line.starts_with("PATH="));
    }
    if !words.contains_key("WORKDIR") {
        run.working_dir.clear();
    }
    Ok(ImageConfig { config: run, ..empty })
}

struct NoImages;

impl ImageConfigs for NoImages {
    fn resolve(&self, reference: &Reference, _platform: &Platform) -> anyhow::Result<ResolvedImage> {
        anyhow::bail!("a change cannot name an image ({reference})")
    }
}
