//! `export`: a container's files as docker has it, or an image as a root file system that a pipeline starts from.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::cli::exit::{Exit, usage};
use crate::cli::flags::OnePlatform;
use crate::cli::given::Given;
use crate::cli::session::Session;
use crate::engine::containers;
use crate::expand::{self, Formats};

/// Write a container's files as one flat tar, or an image as a root file system for a pipeline.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// With a format other than tar: an archive, a layout folder, or the name of an image in the local store
    #[arg(value_name = "CONTAINER | IMAGE")]
    name: String,
    /// Folder or file to make, with a format other than tar
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// The same; for a tar the file to write [default: standard output]
    #[arg(short, long, value_name = "PATH", conflicts_with = "path")]
    output: Option<PathBuf>,
    /// tar: of a container; rootfs: rootfs/ and metadata.json; rootfs-git: the same to be kept in git, with all that git
    /// forgets in rootfs.mtree; rootfs-tgz: the same as one file, for S3
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    wanted: OnePlatform,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    #[default]
    Tar,
    Rootfs,
    RootfsGit,
    RootfsTgz,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if args.format == Format::Tar {
        if args.path.is_some() {
            return Err(usage(
                "a folder or file to make is for --format=rootfs, rootfs-git or rootfs-tgz; a tar has -o",
            ));
        }
        return container(&args.name, args.output.as_deref(), session);
    }
    let Some(path) = args.path.or(args.output) else {
        return Err(usage("name the folder or file to make: dockless export --format=… IMAGE PATH"));
    };
    let path = session.absolute(path);
    if args.format == Format::Rootfs && path.join("rootfs.mtree").exists() {
        // `import` would believe it.
        return Err(usage(format!(
            "{} holds the rootfs.mtree of an earlier export; take another folder, or --format=rootfs-git",
            path.display()
        )));
    }
    let given = Given::new(&args.name, args.wanted.platform.as_ref(), session)?;
    let formats = match args.format {
        Format::RootfsTgz => {
            tgz(&given, &path, session).with_context(|| format!("export {}", args.name))?;
            return Ok(Exit::Success);
        }
        Format::RootfsGit => Formats { git: true, ..Formats::default() },
        Format::Rootfs | Format::Tar => Formats { rootfs: true, ..Formats::default() },
    };
    lay_out(&given, &formats, &path, session).with_context(|| format!("export {}", args.name))?;
    Ok(Exit::Success)
}

fn lay_out(given: &Given, formats: &Formats, path: &Path, session: &Session) -> anyhow::Result<()> {
    let Given { image, references, blobs } = given;
    let expanded = expand::expand(image, references, &**blobs, formats, path, &session.cancel()?)?;
    expanded.warnings.iter().for_each(|warning| session.warn(warning));
    Ok(())
}

/// Writes the tgz alone, beside its place and renamed.
pub fn tgz(given: &Given, path: &Path, session: &Session) -> anyhow::Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    let work = tempfile::Builder::new().prefix(".dockless-").tempdir_in(parent)?;
    let laid_out = work.path().join("image");
    lay_out(given, &Formats { tgz: true, ..Formats::default() }, &laid_out, session)?;
    fs::rename(laid_out.join("rootfs.tgz"), path).with_context(|| format!("make {}", path.display()))
}

fn container(name: &str, output: Option<&Path>, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let state = session.state()?;
    match output {
        None => {
            session.refuse_terminal()?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            containers::export(state, name, &mut out)?;
            out.flush()?;
        }
        Some(path) => {
            let path = session.absolute(path);
            let dir = path.parent().unwrap_or(&path);
            // Beside its place and renamed: nobody meets half a tar under that name.
            let mut file = tempfile::Builder::new()
                .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
                .tempfile_in(dir)?;
            let mut out = io::BufWriter::new(file.as_file_mut());
            containers::export(state, name, &mut out)?;
            out.flush()?;
            drop(out);
            file.persist(&path).map_err(|error| error.error)?;
        }
    }
    Ok(Exit::Success)
}
