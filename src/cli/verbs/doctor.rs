//! `doctor`: what this place allows, and which isolation a RUN step would get.

use std::path::Path;

use crate::cli::exit::Exit;
use crate::cli::session::{Out, Session};
use crate::exec;

/// Try what RUN steps need, by real calls, and say which isolation they get here and why.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {}

pub fn run(_args: Args, session: &Session) -> anyhow::Result<Exit> {
    let dir = session.state_dir();
    session.enter_namespace()?;
    std::fs::create_dir_all(&dir)?;
    let report = exec::probe(&dir, Path::new(exec::THIS_PROGRAM))?;
    let mut out = Out::new();
    out.line(format!("state folder: {}", dir.display()))?;
    for check in &report.checks {
        match &check.refusal {
            None => out.line(format!("  yes  {}", check.trial))?,
            Some(refusal) => out.line(format!("  no   {}: {refusal}", check.trial))?,
        }
    }
    let chosen = report.choose(session.settings().isolation);
    match &chosen {
        Ok(choice) => {
            out.line(format!("isolation: {}", choice.isolation))?;
            out.line(format!("  because {}", choice.reason))?;
            if let Some(better) = &choice.better {
                out.line(format!("  better: {better}"))?;
            }
        }
        Err(_) => out.line("isolation: none")?,
    }
    out.finish()?;
    chosen?;
    Ok(Exit::Success)
}
