//! `pull`: an image from its registry, or out of a bucket, into the store.

use crate::base::{Platform, Reference};
use crate::cli::exit::{Exit, Unsupported, usage};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::registry::ObjectAddress;

use super::bucket;

/// Fetch an image from its registry, or from an S3 bucket.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the image, or an object: an image archive, or a tgz of a root file system
    #[arg(value_name = "IMAGE | s3://BUCKET/KEY")]
    image: String,
    /// Name for the image of an object
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<Reference>,
    /// Print the name only
    #[arg(short, long)]
    quiet: bool,
    /// Which platform's image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    #[arg(short, long, hide = true)]
    all_tags: bool,
    #[command(flatten)]
    flags: bucket::Flags,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if args.all_tags {
        return Err(Unsupported::instead("pull --all-tags", "name the tags"));
    }
    if ObjectAddress::is_meant(&args.image) {
        let Args { image: from, name, quiet, platform, flags, .. } = &args;
        let pull = bucket::Pull { from, name: name.as_ref(), platform: platform.as_ref(), quiet: *quiet, flags };
        return bucket::pull(&pull, session);
    }
    args.flags.refuse()?;
    if args.name.is_some() {
        return Err(usage("a second name is for what comes out of a bucket; others are given with `tag`"));
    }
    let reference = args.image.parse::<Reference>()?.or_latest();
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
