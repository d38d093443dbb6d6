//! img's command line. Where img has no verb of a name, docker's is taken: Makefiles that are given `DOCKER=img`
//! expect both. `inspect` and `rm`, which both have, are img's.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::exit::Exit;
use crate::cli::session::Session;
use crate::cli::verbs::{disk, images, unpack, version};

use super::docker;

/// img without privileges: dockless.
#[derive(Debug, Parser)]
#[command(name = "img", version = version::VERSION, disable_version_flag = true, disable_help_subcommand = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Img {
    /// State folder
    // The short forms stand before the verb only: after it, they are the verb's.
    #[arg(short, long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Accepted: dockless finds out by itself what works
    #[arg(short, long, value_name = "NAME", hide = true)]
    pub backend: Option<String>,
    /// Log what dockless does
    #[arg(short, long)]
    pub debug: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    #[command(visible_alias = "list")]
    Ls(images::Args),
    Du(disk::DuArgs),
    Prune(disk::PruneArgs),
    Unpack(unpack::Args),
    #[command(flatten)]
    Docker(docker::Verb),
}

pub fn run(img: Img, session: &Session) -> anyhow::Result<Exit> {
    if let Some(backend) = &img.backend {
        session.warn(format!("--backend {backend} has no effect: dockless finds out by itself what works"));
    }
    match img.verb {
        Verb::Ls(args) => images::run(args, session),
        Verb::Du(args) => disk::du(args, session),
        Verb::Prune(args) => disk::prune(args, session),
        Verb::Unpack(args) => unpack::run(args, session),
        Verb::Docker(verb) => docker::verb(verb, session),
    }
}
