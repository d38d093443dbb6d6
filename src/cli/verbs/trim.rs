//! `trim`: a state folder that goes from run to run, brought within its limits. A task does it when it is done.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::base::Reference;
use crate::cli::exit::Exit;
use crate::cli::limits::{self, LimitArgs};
use crate::cli::progress::bytes;
use crate::cli::session::Session;
use crate::engine::{self, Limits};

/// Bring the state folder within its limits: what was used longest ago goes.
///
/// A task does so when it is done; this is for pipelines that keep a state folder without one. Images that were pulled
/// or built outside of tasks stay under their names.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Images that this run made; those of earlier runs go when they are old
    #[arg(value_name = "IMAGE")]
    images: Vec<Reference>,
    #[command(flatten)]
    limits: LimitArgs,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let names: Vec<Reference> = args.images.into_iter().map(Reference::or_latest).collect();
    trim(&args.limits.read(session)?, &names, session)?;
    Ok(Exit::Success)
}

/// For a process that is in its namespace.
pub fn trim(limits: &Limits, names: &[Reference], session: &Session) -> anyhow::Result<()> {
    let trimmed = engine::trim(session.state()?, limits, names).context("trim the state folder")?;
    if let Some(pruned) = trimmed.filter(|pruned| pruned.bytes > 0) {
        session.note(format!("trimmed the state folder: {} went", bytes(pruned.bytes)));
    }
    Ok(())
}

/// For a process that is not, and did what it was to do: what stands in the way is a warning.
pub fn apart(limits: &Limits, names: &[Reference], session: &Session) {
    let child = || -> anyhow::Result<()> {
        let mut command = Command::new(std::env::current_exe().context("find dockless's own file")?);
        command
            .arg("--state")
            .arg(session.state_dir())
            .args(["--isolation", &session.isolation(), "trim"])
            .args(limits::words(limits));
        command.args(names.iter().map(ToString::to_string)).stdin(Stdio::null()).stdout(Stdio::null());
        let status = command.status()?;
        anyhow::ensure!(status.success(), "{status}");
        Ok(())
    };
    if let Err(error) = child() {
        session.warn(format!("the state folder is not trimmed: {error:#}"));
    }
}
