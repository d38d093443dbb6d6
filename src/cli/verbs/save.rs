//! `save`: images of the store into an archive.

use std::path::PathBuf;

use crate::base::{Platform, Reference};
use crate::cli::exit::Exit;
use crate::cli::flags::OnePlatform;
use crate::cli::session::Session;
use crate::export::{self, Dest, LayerOptions};
use crate::task::journal::Record;

/// Write images to an archive that `docker load`, `podman load` and skopeo read.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// File to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    wanted: OnePlatform,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Docker,
    Oci,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let dest = match &args.output {
        Some(path) => Dest::File(session.absolute(path)),
        None => {
            session.refuse_terminal()?;
            Dest::Stdout
        }
    };
    let platform = args.wanted.platform.unwrap_or_else(Platform::host);
    let store = session.images()?;
    let mut images: Vec<(crate::image::Image, Vec<Reference>)> = Vec::new();
    for text in &args.images {
        let stored = session.image(text)?;
        let image = store.load_for(&stored.descriptor, &platform)?;
        // A name saves under that name; a bare repository saves all its tags, an id none.
        let names: Vec<Reference> = match text.parse::<Reference>() {
            Ok(typed) if stored.references.contains(&typed.clone().or_latest()) => vec![typed.or_latest()],
            Ok(typed) => stored
                .references
                .iter()
                .filter(|r| r.name() == typed.name() && typed.tag().is_none())
                .cloned()
                .collect(),
            Err(_) => Vec::new(),
        };
        match images.iter_mut().find(|(known, _)| known.manifest_descriptor == image.manifest_descriptor) {
            Some((_, known)) => known.extend(names),
            None => images.push((image, names)),
        }
    }
    let named: Vec<_> = images.iter().map(|(image, names)| (image, names.as_slice())).collect();
    let (blobs, tmp, cancel) = (store.blobs(), session.state()?.tmp()?, session.cancel()?);
    let options = LayerOptions::default();
    match args.format {
        Format::Docker => export::docker(&named, &*blobs, &dest, &options, &tmp, &cancel)?,
        Format::Oci => export::oci(&named, &*blobs, &dest, &options, &tmp, &cancel)?,
    }
    if let (Some(journal), Dest::File(path)) = (session.journal(), dest) {
        journal.append(&Record::Saved { path })?;
    }
    Ok(Exit::Success)
}
