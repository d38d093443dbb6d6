//! `cp`: files between a container and here. A container that never ran needs no namespace for it.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::base::Cancel;
use crate::cli::exit::{Exit, missing, usage};
use crate::cli::session::Session;
use crate::engine::containers;
use crate::layer::{self, DirOptions, DirTarget, TarWriter};
use crate::sys::Root;

/// Copy files between a container and here.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// CONTAINER:PATH, a path here, or - for a tar on standard input
    source: String,
    /// CONTAINER:PATH, a path here, or - for a tar on standard output
    destination: String,
    /// Keep owners
    #[arg(short, long)]
    archive: bool,
    /// Follow a symlink that the source itself is
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted; nothing is printed anyway
    #[arg(short, long, hide = true)]
    quiet: bool,
}

/// One side, as typed.
#[derive(Debug, PartialEq)]
enum Side {
    Container { name: String, path: String },
    Here(PathBuf),
    Stream,
}

fn side(text: &str) -> Side {
    if text == "-" {
        return Side::Stream;
    }
    // A colon after a slash is part of a path here, as in `./a:b`.
    match text.split_once(':') {
        Some((name, path)) if !name.is_empty() && !name.contains('/') && !name.starts_with('.') => {
            Side::Container { name: name.to_owned(), path: path.to_owned() }
        }
        _ => Side::Here(PathBuf::from(text)),
    }
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let state = session.state()?;
    match (side(&args.source), side(&args.destination)) {
        (Side::Container { name, path }, Side::Stream) => {
            session.refuse_terminal()?;
            let mut out = io::BufWriter::new(io::stdout().lock());
            containers::read_path(state, &name, &path, args.follow_link, &mut out)?;
            out.flush()?;
        }
        (Side::Container { name, path }, Side::Here(to)) => {
            let tmp = state.tmp()?;
            let mut tar = tempfile::tempfile_in(&tmp)?;
            containers::read_path(state, &name, &path, args.follow_link, &mut io::BufWriter::new(&mut tar))?;
            io::Seek::rewind(&mut tar)?;
            let contents = path.ends_with("/.");
            unpack(tar, contents, &session.absolute(&to), &to, args.archive, &session.cancel()?)?;
        }
        (Side::Stream, Side::Container { name, path }) => {
            containers::write_path(state, &name, &path, &mut io::stdin().lock())?;
        }
        (Side::Here(from), Side::Container { name, path }) => {
            let mut tar = tempfile::tempfile_in(state.tmp()?)?;
            let (dir, entry) = into_container(state, &name, &path, &from, session)?;
            pack(&session.absolute(&from), entry, args.follow_link, &mut tar)
                .with_context(|| from.display().to_string())?;
            io::Seek::rewind(&mut tar)?;
            containers::write_path(state, &name, &dir, &mut tar)?;
        }
        (Side::Container { .. }, Side::Container { .. }) => {
            return Err(usage("copying between containers is not supported"));
        }
        _ => return Err(usage("must specify at least one container source")),
    }
    Ok(Exit::Success)
}

/// Puts what a tar holds where `docker cp` does: into a folder that exists, or under the name that does not.
fn unpack(tar: fs::File, contents: bool, to: &Path, typed: &Path, owners: bool, cancel: &Cancel) -> anyhow::Result<()> {
    let typed = typed.to_string_lossy();
    let wants_folder = typed.ends_with('/') || typed.ends_with("/.") || typed == ".";
    let into = to.is_dir();
    if wants_folder && !into {
        return Err(missing(format!("destination {typed} is not a folder that exists")));
    }
    let parent = if into { to } else { to.parent().unwrap_or(Path::new("/")) };
    if !parent.is_dir() {
        return Err(missing(format!("destination folder {} does not exist", parent.display())));
    }
    // Beside the destination, so that the last step is a rename and nobody sees half of it.
    let work = tempfile::Builder::new().prefix(".dockless-").tempdir_in(parent)?;
    let mut target = DirTarget::new(Root::open(work.path())?, DirOptions { owners, devices: true, xattrs: true });
    let mut tar = io::BufReader::new(tar);
    layer::apply(&mut tar, None, &mut target, cancel)?;
    target.finish()?;
    let mut top: Vec<PathBuf> =
        fs::read_dir(work.path())?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    top.sort();
    let [source] = top.as_slice() else {
        anyhow::bail!("the archive has {} entries at its top, expected one", top.len())
    };
    if contents && source.is_dir() {
        fs::create_dir_all(to)?;
        return merge(source, to);
    }
    let place = match (into, source.file_name()) {
        (true, Some(name)) => to.join(name),
        _ => to.to_owned(),
    };
    if source.is_dir() && place.is_dir() { merge(source, &place) } else { replace(source, &place) }
}

fn merge(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place = to.join(entry.file_name());
        if entry.file_type()?.is_dir() && place.is_dir() {
            merge(&entry.path(), &place)?;
        } else {
            replace(&entry.path(), &place)?;
        }
    }
    Ok(())
}

fn replace(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| to.display().to_string())
}

/// The folder in the container that is written to, and the name that the source gets there.
fn into_container(
    state: &crate::engine::State,
    name: &str,
    path: &str,
    from: &Path,
    session: &Session,
) -> anyhow::Result<(String, String)> {
    let own = session
        .absolute(from)
        .canonicalize()
        .map_err(|error| missing(format!("{}: {error}", from.display())))?
        .file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default();
    let path = if path.is_empty() { "/" } else { path };
    let trimmed = path.trim_end_matches('/');
    let exists_as_folder = path.ends_with('/') || is_folder(state, name, path)?;
    if exists_as_folder {
        let contents = from.to_string_lossy().ends_with("/.");
        return Ok((
            if trimmed.is_empty() { "/".to_owned() } else { trimmed.to_owned() },
            if contents { String::new() } else { own },
        ));
    }
    let (dir, last) = trimmed.rsplit_once('/').unwrap_or(("", trimmed));
    Ok((if dir.is_empty() { "/".to_owned() } else { dir.to_owned() }, last.to_owned()))
}

/// Whether a path of the container is a folder: the first entry of its tar says so.
fn is_folder(state: &crate::engine::State, name: &str, path: &str) -> anyhow::Result<bool> {
    /// Keeps the first header and refuses the rest: nobody needs the files.
    struct First(Vec<u8>);
    impl Write for First {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.0.len() >= 512 {
                return Err(io::Error::other("enough"));
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut first = First(Vec::new());
    let read = containers::read_path(state, name, path, true, &mut first);
    match (first.0.get(156), read) {
        (Some(kind), _) => Ok(*kind == b'5'),
        // Where nothing is, the source gets that name.
        (None, Err(error)) if error.is::<containers::Error>() => Err(error),
        (None, _) => Ok(false),
    }
}

/// A file or folder here as a tar whose top entry is called `name`; with no name, the folder's content.
fn pack(from: &Path, name: String, follow: bool, output: &mut dyn Write) -> anyhow::Result<()> {
    let mut writer = TarWriter::new(output);
    let from = if follow { from.canonicalize()? } else { from.to_owned() };
    add(&from, Path::new(&name), &mut writer)?;
    writer.finish()?;
    Ok(())
}

fn add(from: &Path, name: &Path, writer: &mut TarWriter<&mut dyn Write>) -> anyhow::Result<()> {
    use crate::sys::{Kind, Meta, Mtime};
    use std::os::unix::fs::MetadataExt;
    let own = fs::symlink_metadata(from)?;
    let kind = if own.is_dir() {
        Kind::Directory
    } else if own.is_symlink() {
        Kind::Symlink { target: fs::read_link(from)? }
    } else if own.is_file() {
        Kind::File { size: own.len() }
    } else {
        anyhow::bail!("{} is neither file, folder nor link", from.display());
    };
    let meta = Meta {
        mode: own.mode() & 0o7777,
        uid: 0,
        gid: 0,
        mtime: Mtime { seconds: own.mtime(), nanos: u32::try_from(own.mtime_nsec()).unwrap_or(0) },
        xattrs: Default::default(),
    };
    let entry = layer::Entry { path: name.to_owned(), kind, meta };
    let mut data: Box<dyn Read> = if own.is_file() { Box::new(fs::File::open(from)?) } else { Box::new(io::empty()) };
    if !name.as_os_str().is_empty() {
        writer.append(&entry, &mut data)?;
    }
    if own.is_dir() {
        let mut names = fs::read_dir(from)?.map(|e| Ok(e?.file_name())).collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for child in names {
            add(&from.join(&child), &name.join(&child), writer)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_a_container_only_before_any_slash() {
        let container = |name: &str, path: &str| Side::Container { name: name.into(), path: path.into() };
        assert_eq!(side("c:/x"), container("c", "/x"));
        assert_eq!(side("c:x:y"), container("c", "x:y"));
        assert_eq!(side("./a:b"), Side::Here("./a:b".into()));
        assert_eq!(side("/a:b"), Side::Here("/a:b".into()));
        assert_eq!(side("a"), Side::Here("a".into()));
        assert_eq!(side("-"), Side::Stream);
    }
}
