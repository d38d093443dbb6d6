//! `pull`: an image from its registry into the store.

use crate::base::{Platform, Reference};
use crate::cli::exit::{Exit, Unsupported};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};

/// Fetch an image from its registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// Print the name only
    #[arg(short, long)]
    quiet: bool,
    /// Which platform's image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[arg(short, long, hide = true)]
    all_tags: bool,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if args.all_tags {
        return Err(Unsupported::instead("pull --all-tags", "name the tags"));
    }
    let reference = args.image.or_latest();
    let platform = args.platform.unwrap_or_else(Platform::host);
    let (state, cancel) = (session.state()?, session.cancel()?);
    let store = session.images()?;
    let _pin = store.pin(&cancel)?;
    let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
    let pulled = display.progress().step(&format!("pull {}", reference.familiar()), |step| {
        Ok::<_, anyhow::Error>(state.registry()?.pull(&reference, &platform, &*store.blobs(), step, &cancel)?)
    });
    display.finish();
    let resolved = pulled?;
    store.tag(&resolved.image.manifest_descriptor, &reference)?;
    let mut out = Out::new();
    if !args.quiet {
        out.line(format!("Digest: {}", resolved.root.digest))?;
        out.line(format!("Status: Downloaded image for {}", reference.familiar()))?;
    }
    out.line(reference.to_string())?;
    out.finish()?;
    Ok(Exit::Success)
}
