//! `rootfs`: root file systems that were kept somewhere other than in a registry.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::exit::{Exit, missing};
use crate::cli::session::Session;
use crate::expand;

/// Root file systems that were kept in git.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Args {
    /// Give a checked-out rootfs/ back what git forgot: owners, modes, attributes, devices, empty folders
    Restore {
        /// Folder with rootfs/ and rootfs.mtree
        #[arg(value_name = "DIR", default_value = ".")]
        folder: PathBuf,
    },
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let Args::Restore { folder } = args;
    let path = session.absolute(&folder);
    if !expand::is_rootfs_folder(&path) {
        return Err(missing(format!("{} has no rootfs/", folder.display())));
    }
    let warnings = expand::restore(&path).with_context(|| format!("restore {}", folder.display()))?;
    warnings.iter().for_each(|warning| session.warn(warning));
    Ok(Exit::Success)
}
