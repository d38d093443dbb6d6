//! The way back: a root file system with its `metadata.json`, as a folder, a git work tree or a tgz, to one layer and
//! what it says of a config. The same files make the same layer whichever form they came in.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::mtree::Line;
use super::warn::Tally;
use super::{METADATA, ROOTFS, git, metadata};
use crate::base::{Cancel, DiffId, Env};
use crate::image::config::RunConfig;
use crate::image::{self, Descriptor, Dialect, LayerBlob};
use crate::layer::{self, Compression, Entry, LayerWriter};
use crate::store::{BlobStore, BlobWrite};
use crate::sys::{Kind, Meta, Root, dir, meta};

/// A config is some kilobytes; labels have made some of them a megabyte.
const METADATA_LIMIT: u64 = 16 << 20;

/// One layer, stored plain, and what stood beside it.
#[derive(Debug)]
pub struct Imported {
    pub layer: LayerBlob,
    pub config: RunConfig,
    pub warnings: Vec<String>,
}

/// Whether a folder holds the form that [`import_folder`] reads.
pub fn is_rootfs_folder(folder: &Path) -> bool {
    folder.join(ROOTFS).is_dir()
}

/// Reads `rootfs/` and `metadata.json`. With a `rootfs.mtree` beside them, files have what that says of them, and what
/// git could not keep is there again; without one they have what the disk says, and what is the caller's own is root's.
pub fn import_folder(folder: &Path, env: &Env, blobs: &dyn BlobStore, cancel: &Cancel) -> anyhow::Result<Imported> {
    let mut warnings = Vec::new();
    let config = match File::open(folder.join(METADATA)) {
        Ok(file) => read_metadata(file)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            warnings.push(format!("there is no {METADATA}: the image gets no user, environment or command"));
            RunConfig::default()
        }
        Err(error) => return Err(error).with_context(|| format!("open {}", folder.join(METADATA).display())),
    };
    let path = folder.join(ROOTFS);
    let root = Root::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut lines = scan(&root, cancel)?;
    match git::read_mtree(folder)? {
        Some(known) => lines = completed(lines, known, &mut warnings)?,
        None => lines.values_mut().for_each(|line| adopt(&mut line.meta, env)),
    }
    let mut writer = Writer::new(blobs)?;
    let mut firsts: HashMap<u64, &Path> = HashMap::new();
    for (path, line) in &lines {
        cancel.check()?;
        let mut append = || match (&line.kind, line.file.and_then(|file| firsts.get(&file))) {
            (_, Some(first)) => writer.append(line, Kind::Hardlink { target: (*first).to_owned() }, &mut io::empty()),
            (kind @ Kind::File { .. }, None) => writer.append(line, kind.clone(), &mut root.open_known_file(path)?),
            (kind, None) => writer.append(line, kind.clone(), &mut io::empty()),
        };
        append().with_context(|| format!("read {ROOTFS}/{}", path.display()))?;
        if let Some(file) = line.file {
            firsts.entry(file).or_insert(path);
        }
    }
    Ok(Imported { layer: writer.finish()?, config, warnings })
}

/// Gives what belongs to an ordinary user to root: so it is in an image that this user builds.
fn adopt(meta: &mut Meta, env: &Env) {
    if meta.uid == env.uid() {
        meta.uid = 0;
    }
    if meta.gid == env.gid() {
        meta.gid = 0;
    }
}

/// All that is in a folder, as the disk has it.
fn scan(root: &Root, cancel: &Cancel) -> anyhow::Result<BTreeMap<PathBuf, Line>> {
    let mut lines = BTreeMap::new();
    let mut files: HashMap<(u64, u64), u64> = HashMap::new();
    let mut add = |path: PathBuf, found: meta::Found| {
        let next = files.len() as u64;
        let has_names = found.links > 1 && found.kind != Kind::Directory;
        let file = has_names.then(|| *files.entry(found.inode).or_insert(next));
        lines.insert(path.clone(), Line { path, kind: found.kind, meta: found.meta, file });
    };
    add(PathBuf::new(), meta::read_fd(root.fd())?);
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        cancel.check()?;
        let fd = root.open_dir(&folder).with_context(|| format!("open {ROOTFS}/{}", folder.display()))?;
        for name in dir::names(&fd)? {
            let path = folder.join(&name);
            let found = meta::read(&fd, &name).with_context(|| format!("read {ROOTFS}/{}", path.display()))?;
            let Some(found) = found else { continue };
            if found.kind == Kind::Directory {
                folders.push(path.clone());
            }
            add(path, found);
        }
    }
    Ok(lines)
}

/// What the mtree says of what the disk has. Content, sizes and link targets are the disk's: a work tree may be edited.
fn completed(
    mut disk: BTreeMap<PathBuf, Line>,
    known: Vec<Line>,
    warnings: &mut Vec<String>,
) -> anyhow::Result<BTreeMap<PathBuf, Line>> {
    let mut lines = BTreeMap::new();
    for mut line in known {
        let found = disk.remove(&line.path);
        match (&mut line.kind, found.map(|found| found.kind)) {
            (Kind::File { size }, Some(Kind::File { size: actual })) => *size = actual,
            (Kind::Symlink { target }, Some(Kind::Symlink { target: actual })) => *target = actual,
            (Kind::File { .. } | Kind::Symlink { .. }, None) => bail!(
                "{ROOTFS}/{} is in {} and not here: did git ignore it (`git add -f`)? Remove its line where that is meant",
                line.path.display(),
                git::MTREE
            ),
            (wanted, Some(found)) if std::mem::discriminant(wanted) != std::mem::discriminant(&found) => {
                bail!("{ROOTFS}/{} is {found:?} here, {wanted:?} in {}", line.path.display(), git::MTREE)
            }
            // Git has no empty folders, no devices and nothing below /dev; the mtree has.
            _ => {}
        }
        lines.insert(line.path.clone(), line);
    }
    let mut tally = Tally::default();
    for (path, mut line) in disk {
        if git::is_placeholder(&path, |path| lines.contains_key(path)) {
            continue;
        }
        tally.note("files (they become root's)", &path);
        // Who made a checkout says nothing about an image.
        (line.meta.uid, line.meta.gid) = (0, 0);
        // Its other names, if it has any, are of the disk's numbering.
        line.file = None;
        lines.insert(path, line);
    }
    warnings.extend(tally.lines(&format!("{} does not know", git::MTREE)));
    Ok(lines)
}

/// Names that stand beside `rootfs/` where Concourse's resources or dockless wrote it.
const BESIDE: [&str; 8] =
    ["digest", "docker_inspect.json", "image-id", "labels.json", "repository", "tag", git::MTREE, METADATA];

/// Whether an archive is of the form that [`import_archive`] reads: `rootfs/` and `metadata.json` at its top and
/// nothing else of weight. A flat root file system is told by its first names.
pub fn is_rootfs_archive(archive: &mut (dyn Read + Send)) -> anyhow::Result<bool> {
    let mut plain = layer::decompress_any(archive)?;
    let (mut rootfs, mut described, mut other) = (false, false, false);
    // What cannot be read at all is refused by who wants it, with the reason.
    let _ = layer::tar::read(&mut plain, &mut |entry, _| {
        let mut parts = entry.path.iter();
        match parts.next() {
            None => {}
            Some(top) if top == ROOTFS => rootfs = true,
            Some(top) if top == METADATA => described = true,
            Some(top) if BESIDE.iter().any(|name| top == *name) => {}
            Some(_) => other = true,
        }
        // Nothing that follows would change the answer.
        if other || rootfs && described { Err(io::Error::other("known").into()) } else { Ok(()) }
    });
    Ok(rootfs && described && !other)
}

/// Reads `rootfs/` and `metadata.json` out of a tar, compressed in any known way.
pub fn import_archive(
    archive: &mut (dyn Read + Send),
    blobs: &dyn BlobStore,
    cancel: &Cancel,
) -> anyhow::Result<Imported> {
    let mut plain = layer::decompress_any(archive)?;
    let mut writer = Writer::new(blobs)?;
    let (mut found, mut config) = (false, None);
    let mut tally = Tally::default();
    let read = layer::tar::read(&mut plain, &mut |entry, data| {
        cancel.check()?;
        if let Ok(path) = entry.path.strip_prefix(ROOTFS) {
            found = true;
            let kind = match &entry.kind {
                Kind::Hardlink { target } => {
                    let target = target.strip_prefix(ROOTFS);
                    Kind::Hardlink { target: target.with_context(|| format!("link out of {ROOTFS}/"))?.to_owned() }
                }
                kind => kind.clone(),
            };
            let line = Line { path: path.to_owned(), kind: kind.clone(), meta: entry.meta.clone(), file: None };
            return writer.append(&line, kind, data).with_context(|| entry.path.display().to_string());
        }
        if entry.path == Path::new(METADATA) {
            config = Some(read_metadata(data)?);
        } else if !entry.path.as_os_str().is_empty() && !BESIDE.iter().any(|name| entry.path == Path::new(name)) {
            tally.note("files (they are left out)", &entry.path);
        }
        Ok(())
    });
    cancel.check()?;
    read.map_err(|error| image::Error::Malformed { name: "root file system".to_owned(), problem: error.to_string() })?;
    if !found {
        bail!("the archive holds no {ROOTFS}/; a flat root file system is imported with --format=tar");
    }
    let mut warnings = tally.lines(&format!("beside {ROOTFS}/ and {METADATA} there are"));
    if config.is_none() {
        warnings.push(format!("there is no {METADATA}: the image gets no user, environment or command"));
    }
    Ok(Imported { layer: writer.finish()?, config: config.unwrap_or_default(), warnings })
}

fn read_metadata(input: impl Read) -> anyhow::Result<RunConfig> {
    let mut json = Vec::new();
    input.take(METADATA_LIMIT).read_to_end(&mut json).context(METADATA)?;
    metadata::parse(&json).context(METADATA)
}

/// The layer on its way into the store, plain as all that dockless makes.
struct Writer(LayerWriter<Box<dyn BlobWrite>>);

impl Writer {
    fn new(blobs: &dyn BlobStore) -> anyhow::Result<Self> {
        Ok(Self(LayerWriter::new(blobs.create()?, Compression::Uncompressed, None)?))
    }

    fn append(&mut self, line: &Line, kind: Kind, data: &mut dyn Read) -> anyhow::Result<()> {
        Ok(self.0.append(&Entry { path: line.path.clone(), kind, meta: line.meta.clone() }, data)?)
    }

    fn finish(self) -> anyhow::Result<LayerBlob> {
        let written = self.0.finish()?;
        let (digest, size) = written.out.complete()?;
        let descriptor = Descriptor::new(Dialect::Oci.layer(Compression::Uncompressed), digest, size);
        Ok(LayerBlob { descriptor, diff_id: written.diff_id.unwrap_or(DiffId(digest)) })
    }
}
