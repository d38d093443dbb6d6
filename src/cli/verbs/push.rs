//! `push`: an image of the store to its registry.

use crate::base::{Platform, Reference};
use crate::cli::exit::{Exit, missing};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::export;
use crate::registry::{Registry, Settings};

/// Send an image to its registry.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    /// Which platform's image, where there are several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Speak plain HTTP, or TLS with any certificate
    #[arg(long)]
    insecure_registry: bool,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let store = session.images()?;
    let mut names: Vec<Reference> = Vec::new();
    if args.all_tags {
        for stored in store.list()? {
            names.extend(stored.references.into_iter().filter(|name| name.name() == args.image.name()));
        }
        if names.is_empty() {
            return Err(missing(format!("No such image: {}", args.image.familiar())));
        }
    } else {
        names.push(args.image.clone().or_latest());
    }
    let cancel = session.cancel()?;
    let registry = match args.insecure_registry {
        true => {
            let insecure = vec![args.image.registry().to_owned()];
            Registry::new(&session.env, Settings { insecure, ..Settings::default() })?
        }
        false => session.state()?.registry()?.clone(),
    };
    let mut out = Out::new();
    for name in names {
        let stored = session.image(&name.to_string())?;
        let root = match &args.platform {
            Some(platform) => store.load_for(&stored.descriptor, platform)?.manifest_descriptor,
            None => stored.descriptor.clone(),
        };
        let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
        let pushed = display.progress().step(&format!("push {}", name.familiar()), |step| {
            export::push(store, &registry, &root, &name, step, &cancel)
        });
        display.finish();
        let pushed = pushed?;
        let tag = name.tag().unwrap_or("latest");
        if args.quiet {
            out.line(name.to_string())?;
        } else {
            // docker-image-resource and others read these lines.
            out.line(format!("The push refers to repository [{}]", name.name()))?;
            out.line(format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size))?;
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}
