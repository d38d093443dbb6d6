//! `push`: an image of the store to its registry, or into a bucket.

use crate::base::Reference;
use crate::cli::exit::{Exit, missing, usage};
use crate::cli::flags::OnePlatform;
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::export;
use crate::registry::{ObjectAddress, Registry, Settings};

use super::bucket;

/// Send an image to its registry, or to an S3 bucket.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Name of the image; for a bucket, also an archive or a layout folder
    #[arg(value_name = "IMAGE")]
    image: String,
    /// s3://BUCKET/KEY instead of the registry that the name says
    #[arg(value_name = "s3://BUCKET/KEY")]
    bucket: Option<String>,
    /// What the object in the bucket is [default: by the key's ending: .tgz rootfs-tgz, .tar docker]
    #[arg(long, value_enum, requires = "bucket")]
    format: Option<bucket::Format>,
    /// All tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Print nothing but the result
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    wanted: OnePlatform,
    /// Speak plain HTTP, or TLS with any certificate
    #[arg(long)]
    insecure_registry: bool,
    #[command(flatten)]
    flags: bucket::Flags,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if ObjectAddress::is_meant(&args.image) {
        return Err(usage("name the image too: push IMAGE s3://BUCKET/KEY"));
    }
    if let Some(to) = &args.bucket {
        if args.all_tags || args.insecure_registry {
            return Err(usage("--all-tags and --insecure-registry are for registries"));
        }
        let Args { image, format, wanted, quiet, flags, .. } = &args;
        let push =
            bucket::Push { image, to, format: *format, platform: wanted.platform.as_ref(), quiet: *quiet, flags };
        return bucket::push(&push, session);
    }
    args.flags.refuse()?;
    let image: Reference = args.image.parse()?;
    let store = session.images()?;
    let mut names: Vec<Reference> = Vec::new();
    if args.all_tags {
        for stored in store.list()? {
            names.extend(stored.references.into_iter().filter(|name| name.name() == image.name()));
        }
        if names.is_empty() {
            return Err(missing(format!("No such image: {}", image.familiar())));
        }
    } else {
        names.push(image.clone().or_latest());
    }
    let cancel = session.cancel()?;
    let registry = match args.insecure_registry {
        true => {
            let insecure = vec![image.registry().to_owned()];
            Registry::new(&session.env, Settings { insecure, ..Settings::default() })?
        }
        false => session.state()?.registry()?.clone(),
    };
    let mut out = Out::new();
    for name in names {
        let stored = session.image(&name.to_string())?;
        let root = match &args.wanted.platform {
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
