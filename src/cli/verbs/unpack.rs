//! img's `unpack`: an image's files in a folder.

use std::path::PathBuf;

use crate::cli::exit::{Exit, usage};
use crate::cli::session::Session;
use crate::expand::{self, Formats};

/// Unpack an image's root file system into a folder that does not exist yet.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Folder to make
    #[arg(short, long, value_name = "DIR", default_value = "rootfs")]
    output: PathBuf,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let output = session.absolute(&args.output);
    if output.symlink_metadata().is_ok() {
        return Err(usage(format!("destination directory already exists: {}", args.output.display())));
    }
    let stored = session.image(&args.image)?;
    let store = session.images()?;
    let image = store.load(&stored.descriptor)?;
    let parent = output.parent().unwrap_or(&output);
    std::fs::create_dir_all(parent)?;
    // Beside its place: one rename makes it visible, and what was killed leaves a hidden name.
    let work = tempfile::Builder::new().prefix(".dockless-").tempdir_in(parent)?;
    let formats = Formats { rootfs: true, ..Formats::default() };
    let laid_out = work.path().join("image");
    let expanded =
        expand::expand(&image, &stored.references, &*store.blobs(), &formats, &laid_out, &session.cancel()?)?;
    std::fs::rename(laid_out.join("rootfs"), &output)?;
    expanded.warnings.iter().for_each(|warning| session.warn(warning));
    session.note(format!("Successfully unpacked rootfs for {} to: {}", args.image, args.output.display()));
    Ok(Exit::Success)
}
