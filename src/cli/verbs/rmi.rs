//! `rmi`: names, and images that have lost their last one.

use crate::base::Reference;
use crate::cli::exit::{Exit, usage};
use crate::cli::session::{Face, Out, Session};
use crate::task::journal::Record;

/// Remove names of images, and images without a name; their blobs go with the next prune.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
    /// Remove an image by id with all its names; do not fail where there is none
    #[arg(short, long)]
    force: bool,
    /// Accepted; nothing above an image is ever removed with it
    #[arg(long, hide = true)]
    no_prune: bool,
    #[arg(long, hide = true)]
    platform: Vec<String>,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if let Some(platform) = args.platform.first() {
        return Err(crate::cli::exit::Unsupported::refuse(format!("rmi --platform {platform}")));
    }
    let mut exit = Exit::Success;
    let mut out = Out::new();
    for text in &args.images {
        match remove(text, args.force, session, &mut out) {
            Ok(()) => {}
            Err(error) if args.force && error.is::<crate::cli::exit::Missing>() => {}
            Err(error) if args.images.len() > 1 => {
                session.note(format!("{}: {error:#}", session.face.name()));
                exit = Exit::Failure;
            }
            Err(error) => return Err(error),
        }
    }
    out.finish()?;
    Ok(exit)
}

/// Removes one image or name, in the words of the face.
pub fn remove(text: &str, force: bool, session: &Session, out: &mut Out) -> anyhow::Result<()> {
    let img = session.face == Face::Img;
    if img {
        session.note(format!("Removing {text}..."));
    }
    let stored = session.image(text)?;
    let store = session.images()?;
    let typed = text.parse::<Reference>().ok().map(Reference::or_latest);
    let names: Vec<Reference> = match typed.filter(|typed| stored.references.contains(typed)) {
        Some(name) => vec![name],
        // By id: all names go, which takes force where there are several.
        None if stored.references.len() > 1 && !force => {
            let names: Vec<_> = stored.references.iter().map(Reference::familiar).collect();
            return Err(usage(format!(
                "image {text} has several names ({}); remove them, or use --force",
                names.join(", ")
            )));
        }
        None => stored.references.clone(),
    };
    let id = store.load(&stored.descriptor).map(|image| image.config_digest);
    let last = names.len() == stored.references.len();
    for name in &names {
        store.untag(name)?;
        if let Some(journal) = session.journal() {
            journal.append(&Record::Removed { name: name.clone() })?;
        }
        if !img {
            out.line(format!("Untagged: {}", name.familiar()))?;
        }
    }
    if last {
        store.remove(&stored.descriptor.digest)?;
        if let (false, Ok(id)) = (img, id) {
            out.line(format!("Deleted: {id}"))?;
        }
    }
    if img {
        session.note(format!("Successfully removed {text}"));
    }
    Ok(())
}
