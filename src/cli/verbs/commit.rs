//! `commit`: a container's files as an image.

use crate::base::Reference;
use crate::cli::changes;
use crate::cli::exit::Exit;
use crate::cli::flags::ignored_flags;
use crate::cli::session::{Out, Session};
use crate::engine::containers::{self, Commit};
use crate::task::journal::Record;

/// Make an image of a container's files.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Name of the image
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Dockerfile instruction for the image's config, such as 'CMD ["sh"]'; may be repeated
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Comment for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

ignored_flags!(
    /// Only containers at rest are committed.
    Ignored { switches: ["pause", "no-pause"], values: [] }
);

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    session.warn_ignored(&args.ignored.0);
    let state = session.state()?;
    let config = changes::over(&args.changes, &containers::image_config(state, &args.container)?, session)?;
    let wanted = Commit {
        name: args.name.map(Reference::or_latest),
        config: Some(config),
        author: args.author,
        message: args.message,
    };
    let image = containers::commit(state, &args.container, &wanted, &session.epoch()?, &session.cancel()?)?;
    if let (Some(journal), Some(name)) = (session.journal(), &wanted.name) {
        journal.append(&Record::Tagged { name: name.clone(), image: image.config_digest })?;
    }
    let mut out = Out::new();
    out.line(image.config_digest.to_string())?;
    out.finish()?;
    Ok(Exit::Success)
}
