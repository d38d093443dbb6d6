//! `tag`: one more name for an image.

use crate::base::Reference;
use crate::cli::exit::Exit;
use crate::cli::session::{Face, Session};
use crate::task::journal::Record;

/// Give an image one more name.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE")]
    source: String,
    #[arg(value_name = "NAME[:TAG]")]
    target: Reference,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let stored = session.image(&args.source)?;
    let store = session.images()?;
    let target = args.target.or_latest();
    store.tag(&stored.descriptor, &target)?;
    if let Some(journal) = session.journal() {
        let image = store.load(&stored.descriptor)?.config_digest;
        journal.append(&Record::Tagged { image, name: target.clone() })?;
    }
    if session.face == Face::Img {
        session.note(format!("Successfully tagged {} as {}", args.source, target.familiar()));
    }
    Ok(Exit::Success)
}
