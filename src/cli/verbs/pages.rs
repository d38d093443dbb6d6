//! `man` and `completion`: pages and scripts that packages install, made from the same words as `--help`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::cli::exit::Exit;
use crate::cli::session::{Out, Session};

/// Write the manual pages into a folder.
#[derive(Debug, Clone, clap::Args)]
pub struct ManArgs {
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Print a completion script.
#[derive(Debug, Clone, clap::Args)]
pub struct CompletionArgs {
    shell: clap_complete::Shell,
}

pub fn man(args: ManArgs, command: clap::Command, session: &Session) -> anyhow::Result<Exit> {
    let dir = session.absolute(args.dir);
    fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    clap_mangen::generate_to(command, &dir).with_context(|| dir.display().to_string())?;
    Ok(Exit::Success)
}

pub fn completion(args: CompletionArgs, mut command: clap::Command) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "dockless", &mut script);
    let mut out = Out::new();
    std::io::Write::write_all(&mut out, &script)?;
    out.finish()?;
    Ok(Exit::Success)
}
