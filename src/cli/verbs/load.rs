//! `load`: an archive or layout into the store.

use std::fs;
use std::io;
use std::path::PathBuf;

use anyhow::Context as _;

use crate::base::Platform;
use crate::cli::exit::{Exit, usage};
use crate::cli::session::{Out, Session};
use crate::image;

/// Read images from an archive (docker or OCI, plain, gzip or zstd) or an OCI layout folder.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// File or folder to read [default: standard input]
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    /// Load this platform's images only
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let tmp = session.state()?.tmp()?;
    let path = match &args.input {
        Some(path) => session.absolute(path),
        None => {
            if io::IsTerminal::is_terminal(&io::stdin()) {
                return Err(usage("requested load from stdin, but stdin is empty"));
            }
            // An archive is read from several places; a pipe only once.
            let path = tmp.join("load.tar");
            let mut file = fs::File::create(&path).with_context(|| path.display().to_string())?;
            io::copy(&mut io::stdin().lock(), &mut file).context("read standard input")?;
            path
        }
    };
    let store = session.images()?;
    let _pin = store.pin(&session.cancel()?)?;
    let opened = image::open(&path, &tmp).with_context(|| format!("load {}", path.display()))?;
    let mut out = Out::new();
    for (image, references) in &opened.images {
        if args.platform.as_ref().is_some_and(|wanted| !wanted.accepts(&image.config.platform)) {
            continue;
        }
        store.adopt(image, &*opened.blobs)?;
        if references.is_empty() {
            store.add(&image.manifest_descriptor)?;
            if !args.quiet {
                out.line(format!("Loaded image ID: {}", image.config_digest))?;
            }
        }
        for reference in references {
            store.tag(&image.manifest_descriptor, reference)?;
            if !args.quiet {
                out.line(format!("Loaded image: {}", reference.familiar()))?;
            }
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}
