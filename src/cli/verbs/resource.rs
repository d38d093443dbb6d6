//! `check`, `in` and `out`: JSON on standard input, one JSON value on standard output, all talk on stderr.

use std::io::Read;
use std::path::PathBuf;

use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::resource::{self, World};

/// Concourse's resource protocol (docker-image-resource and its fork).
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Args {
    /// Find versions: the request is JSON on standard input
    Check,
    /// Fetch a version into a folder
    In {
        #[arg(value_name = "DIR")]
        destination: PathBuf,
    },
    /// Build or load an image and push it; paths are relative to the folder
    Out {
        #[arg(value_name = "DIR")]
        sources: PathBuf,
    },
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if matches!(args, Args::In { .. } | Args::Out { .. }) {
        session.enter_namespace()?;
    }
    let mut request = String::new();
    std::io::stdin().lock().read_to_string(&mut request)?;
    let cancel = session.cancel()?;
    let display = Display::start(Mode::Auto, &session.env);
    let progress = display.progress();
    let world = World {
        env: &session.env,
        epoch: session.epoch()?,
        settings: session.settings(),
        progress: &progress,
        cancel: &cancel,
    };
    let answer = match &args {
        Args::Check => resource::check(&request, &world).and_then(|versions| json(&versions)),
        Args::In { destination } => {
            resource::get(&request, &session.absolute(destination), &world).and_then(|outcome| json(&outcome))
        }
        Args::Out { sources } => {
            resource::put(&request, &session.absolute(sources), &world).and_then(|outcome| json(&outcome))
        }
    };
    display.finish();
    let mut out = Out::new();
    out.line(answer?)?;
    out.finish()?;
    Ok(Exit::Success)
}

fn json(value: &impl Serialize) -> anyhow::Result<String> {
    Ok(serde_json::to_string(value)?)
}
