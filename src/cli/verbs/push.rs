//! `push`: an image of the store to its registry.

use crate::base::{Platform, Reference};
use crate::cli::exit::{Exit, missing};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
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
        if !args.quiet {
            out.line(format!("The push refers to repository [{}]", name.name()))?;
        }
        // Other names of the image on the same registry: there its layers may be mounted from.
        let mount: Vec<_> = stored
            .references
            .iter()
            .filter(|other| other.registry() == name.registry() && other.repository() != name.repository())
            .cloned()
            .collect();
        let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
        let pushed = display.progress().step(&format!("push {}", name.familiar()), |step| {
            Ok::<_, anyhow::Error>(registry.push(&root, &*store.blobs(), &name, &mount, step, &cancel)?)
        });
        display.finish();
        let pushed = pushed?;
        // docker-image-resource and others read this line.
        let tag = name.tag().unwrap_or("latest");
        out.line(match args.quiet {
            true => name.to_string(),
            false => format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size),
        })?;
    }
    out.finish()?;
    Ok(Exit::Success)
}
