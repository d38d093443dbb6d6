//! `import`: a root file system as an image: a flat tar, or the forms that `export` writes.

use std::fs::File;
use std::io::{self, Read};

use anyhow::Context as _;

use crate::base::{Platform, Reference};
use crate::cli::changes;
use crate::cli::exit::{Exit, Unsupported, missing};
use crate::cli::session::{Out, Session};
use crate::expand;
use crate::image::config::RunConfig;
use crate::image::{self, Image, ImageConfig};

/// Make an image of a root file system: a base image without any registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Flat tar of a root file system, or one with rootfs/ and metadata.json in it, compressed or not (- for standard
    /// input); or a folder with rootfs/, metadata.json and, out of git, rootfs.mtree
    #[arg(value_name = "FILE | DIR | -")]
    source: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Form of the source; auto looks at it, and takes standard input for a flat tar
    #[arg(long, value_enum, default_value_t)]
    format: Format,
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

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Auto,
    Tar,
    Rootfs,
    RootfsGit,
    RootfsTgz,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if args.source.starts_with("http://") || args.source.starts_with("https://") {
        return Err(Unsupported::instead(
            "import from an address",
            "fetch it first, or pipe it: curl … | dockless import -",
        ));
    }
    let platform = args.platform.unwrap_or_else(Platform::host);
    let config = changes::of_nothing(&args.changes, platform, session)?;
    let message = args.message.unwrap_or_else(|| format!("Imported from {}", args.source));
    let store = session.images()?;
    let _pin = store.pin(&session.cancel()?)?;
    let image = import(&args.source, args.format, config, &message, session)
        .with_context(|| format!("import {}", args.source))?;
    match args.name {
        Some(name) => store.tag(&image.manifest_descriptor, &name.or_latest())?,
        None => store.add(&image.manifest_descriptor)?,
    }
    let mut out = Out::new();
    out.line(image.config_digest.to_string())?;
    out.finish()?;
    Ok(Exit::Success)
}

/// Makes the image in the local store, which the caller has pinned: it has no name yet.
pub fn import(
    source: &str,
    format: Format,
    said: ImageConfig,
    message: &str,
    session: &Session,
) -> anyhow::Result<Image> {
    let (store, cancel, epoch) = (session.images()?, session.cancel()?, session.epoch()?);
    let blobs = store.blobs();
    let path = session.absolute(source);
    let found = match format {
        Format::Auto if source == "-" => Format::Tar,
        Format::Auto if path.is_dir() => Format::Rootfs,
        // What can be read only once is not looked into.
        Format::Auto if !path.is_file() => Format::Tar,
        Format::Auto if expand::is_rootfs_archive(&mut open(source, session)?)? => Format::RootfsTgz,
        Format::Auto => Format::Tar,
        given => given,
    };
    let imported = match found {
        Format::Tar | Format::Auto => {
            let image = image::import(&mut *open(source, session)?, said, message, &epoch, &*blobs, &cancel)?;
            return Ok(image);
        }
        Format::RootfsTgz => expand::import_archive(&mut *open(source, session)?, &*blobs, &cancel)?,
        Format::Rootfs | Format::RootfsGit => {
            if !expand::is_rootfs_folder(&path) {
                return Err(missing(format!("{source} has no rootfs/")));
            }
            if found == Format::RootfsGit && !path.join("rootfs.mtree").is_file() {
                return Err(missing(format!(
                    "{source} has no rootfs.mtree: it was not exported with --format=rootfs-git"
                )));
            }
            expand::import_folder(&path, &session.env, &*blobs, &cancel)?
        }
    };
    imported.warnings.iter().for_each(|warning| session.warn(warning));
    let config = ImageConfig { config: changed(imported.config, said.config), ..said };
    Ok(image::of_layer(imported.layer, config, message, &epoch, &*blobs)?)
}

fn open(source: &str, session: &Session) -> anyhow::Result<Box<dyn Read + Send>> {
    if source == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let path = session.absolute(source);
    Ok(Box::new(File::open(&path).map_err(|error| missing(format!("{}: {error}", path.display())))?))
}

/// What metadata.json says, with the changes that were asked for.
fn changed(mut config: RunConfig, said: RunConfig) -> RunConfig {
    let name = |line: &str| line.split('=').next().unwrap_or_default().to_owned();
    for line in said.env {
        match config.env.iter_mut().find(|known| name(known) == name(&line)) {
            Some(known) => *known = line,
            None => config.env.push(line),
        }
    }
    // As in a Dockerfile: a new entrypoint does not get the old one's arguments.
    if said.entrypoint.is_some() {
        config.cmd = None;
    }
    RunConfig {
        user: if said.user.is_empty() { config.user } else { said.user },
        env: config.env,
        entrypoint: said.entrypoint.or(config.entrypoint),
        cmd: said.cmd.or(config.cmd),
        ..said
    }
}
