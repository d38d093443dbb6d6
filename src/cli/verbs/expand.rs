//! `expand`: the last step of a task alone: one image into what a pipeline wants next.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::exit::{Exit, usage};
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::expand::{self, Archive, Artifact, Formats};
use crate::task::config;

/// Lay out an image: image.tar, digest, root file system, picked files.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Archive (docker or OCI, plain, gzip or zstd), OCI layout folder, or the name of an image in the local store
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Folder to make
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    /// Lay out rootfs/ and metadata.json
    #[arg(long)]
    rootfs: bool,
    /// Pack both into rootfs.tgz, for S3
    #[arg(long)]
    tgz: bool,
    /// Lay out rootfs/ in the form that survives git
    #[arg(long)]
    git: bool,
    /// Lay out oci/, an OCI layout folder
    #[arg(long)]
    oci: bool,
    /// Form of image.tar
    #[arg(long, value_enum, default_value_t)]
    archive: ArchiveArg,
    /// Compression of all layers [default: as they are]
    #[arg(long, value_name = "NAME", value_parser = crate::cli::output::compression)]
    compression: Option<crate::layer::Compression>,
    /// Files to pick out: a path or glob in the image, and where it goes
    #[arg(long = "artifact", value_name = "FROM[:TO]")]
    artifacts: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ArchiveArg {
    #[default]
    Docker,
    Oci,
    None,
}

impl ArchiveArg {
    pub fn archive(self) -> Option<Archive> {
        match self {
            Self::Docker => Some(Archive::Docker),
            Self::Oci => Some(Archive::Oci),
            Self::None => None,
        }
    }
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let formats = Formats {
        image_tar: args.archive.archive(),
        rootfs: args.rootfs,
        tgz: args.tgz,
        git: args.git,
        oci: args.oci,
        artifacts: args.artifacts.iter().map(|text| artifact(text)).collect::<anyhow::Result<_>>()?,
        compression: args.compression,
    };
    let (output, cancel) = (session.absolute(&args.output), session.cancel()?);
    let Given { image, references, blobs } = Given::new(&args.image, None, session)?;
    let expanded = expand::expand(&image, &references, &*blobs, &formats, &output, &cancel)
        .with_context(|| format!("expand {}", args.image))?;
    expanded.warnings.iter().for_each(|warning| session.warn(warning));
    Ok(Exit::Success)
}

/// `FROM[:TO]`; a colon in a path of the image is not worth an escape.
pub fn artifact(text: &str) -> anyhow::Result<Artifact> {
    let (from, to) = match text.split_once(':') {
        Some((from, to)) => (from, Some(PathBuf::from(to))),
        None => (text, None),
    };
    if from.is_empty() {
        return Err(usage(format!("--artifact {text:?} names no path in the image")));
    }
    if to.as_ref().is_some_and(|to| !config::stays_inside(to)) {
        return Err(usage(format!("--artifact {text:?} leaves the output folder")));
    }
    Ok(Artifact { from: from.to_owned(), to })
}
