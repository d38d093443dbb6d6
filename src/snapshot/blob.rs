//! A delta as a layer: the tar that BuildKit would make of the same change, hashed and stored in one pass.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::delta::{Answer, Delta, Name, Stack};
use super::diff::same;
use super::disk::DiskDelta;
use super::error::{At, Error, Result};
use super::stack::{DeltaId, Snapshot};
use super::store::{LayerSpec, Snapshots};
use super::tree::{FileData, Node, Tree};
use crate::base::{Cancel, DiffId, Digest};
use crate::image::{Descriptor, LayerBlob};
use crate::layer::{self, Compression, Encoder, Entry, LayerWriter, Target};
use crate::store::{BlobStore, BlobWrite};
use crate::sys::{Kind, Mtime, quiet};

/// The delta as a layer blob, made now or found beside the delta.
pub(super) fn of_delta(snapshots: &Snapshots, id: &DeltaId, spec: &LayerSpec, cancel: &Cancel) -> Result<LayerBlob> {
    let inner = &snapshots.0;
    let dir = inner.delta_dir(id);
    let note = dir.join(note_name(spec));
    if let Some(blob) = read_note(&note)?
        && inner.blobs.size(&blob.descriptor.digest)? == Some(blob.descriptor.size)
    {
        return Ok(blob);
    }
    let delta = match inner.open_delta(&dir) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(Error::MissingDelta { id: id.clone() });
        }
        other => other?,
    };
    let base = base_of(snapshots, &dir)?;
    let mut writer = LayerWriter::new(Blob(inner.blobs.create()?), spec.compression, spec.level).at(&dir)?;
    let mut layer = Layer {
        delta: &delta,
        base: &*base,
        out: &mut writer,
        clamp: spec.clamp_mtime,
        links: HashMap::new(),
        unchanged: HashMap::new(),
        parents: Vec::new(),
        cancel,
    };
    let base_root = base.lookup(Path::new("")).at(&dir)?.is_some();
    match layer.dir(Path::new(""), base_root, false, false) {
        Ok(()) => {}
        Err(error) => {
            cancel.check()?;
            return Err(error).at(&dir.join("fs"));
        }
    }
    let written = writer.finish().at(&dir)?;
    let (digest, size) = written.out.0.complete()?;
    let diff_id = written.diff_id.unwrap_or(DiffId(digest));
    let blob = LayerBlob { descriptor: descriptor(spec.compression, digest, size), diff_id };
    inner.write_file(&note, &serde_json::to_vec(&blob).map_err(io::Error::from).at(&note)?)?;
    Ok(blob)
}

/// An image's layer in another compression; its content, and so its diff ID, stay.
pub(super) fn recompress(
    blobs: &dyn BlobStore,
    layer: &LayerBlob,
    spec: &LayerSpec,
    cancel: &Cancel,
) -> Result<LayerBlob> {
    if compression_of(&layer.descriptor.media_type) == Some(spec.compression) {
        return Ok(layer.clone());
    }
    let digest = layer.descriptor.digest;
    let stored = blobs.open(&digest)?;
    let recode = || -> io::Result<Blob> {
        let mut plain = layer::decompress(stored)?;
        let mut encoder = Encoder::new(Blob(blobs.create().map_err(io::Error::other)?), spec.compression, spec.level)?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            cancel.check().map_err(io::Error::other)?;
            match plain.read(&mut buffer)? {
                0 => return encoder.finish(),
                n => encoder.write_all(&buffer[..n])?,
            }
        }
    };
    let out = recode().map_err(|error| Error::Layer { digest, cause: error.into() })?;
    let (digest, size) = out.0.complete()?;
    Ok(LayerBlob { descriptor: descriptor(spec.compression, digest, size), diff_id: layer.diff_id })
}

/// A layer of an image with no time later than `limit`, written as it would be had it been made here.
pub(super) fn redate(
    blobs: &dyn BlobStore,
    layer: &LayerBlob,
    limit: i64,
    spec: &LayerSpec,
    cancel: &Cancel,
) -> Result<LayerBlob> {
    let digest = layer.descriptor.digest;
    let mut stored = blobs.open(&digest)?;
    let layer_error = |cause: anyhow::Error| Error::Layer { digest, cause };
    let writer = LayerWriter::new(Blob(blobs.create()?), spec.compression, spec.level);
    let mut redated = Redated { limit, out: writer.map_err(|error| layer_error(error.into()))? };
    let applied = layer::apply(&mut stored, Some(&layer.diff_id), &mut redated, cancel);
    cancel.check()?;
    applied.map_err(|error| layer_error(error.into()))?;
    let written = redated.out.finish().map_err(|error| layer_error(error.into()))?;
    let (digest, size) = written.out.0.complete()?;
    let diff_id = written.diff_id.unwrap_or(DiffId(digest));
    Ok(LayerBlob { descriptor: descriptor(spec.compression, digest, size), diff_id })
}

/// A layer that is written again, member by member.
struct Redated {
    limit: i64,
    out: LayerWriter<Blob>,
}

impl Target for Redated {
    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let mut entry = entry.clone();
        entry.meta.mtime = dated(entry.meta.mtime, Some(self.limit));
        Ok(self.out.append(&entry, data)?)
    }

    fn whiteout(&mut self, path: &Path) -> anyhow::Result<()> {
        Ok(self.out.whiteout(path)?)
    }

    fn opaque(&mut self, dir: &Path) -> anyhow::Result<()> {
        Ok(self.out.opaque(dir)?)
    }
}

/// The compression that an OCI or Docker media type speaks of.
fn compression_of(media_type: &str) -> Option<Compression> {
    if media_type.ends_with("gzip") {
        Some(Compression::Gzip)
    } else if media_type.ends_with("zstd") {
        Some(Compression::Zstd)
    } else if media_type.ends_with(".tar") {
        Some(Compression::Uncompressed)
    } else {
        None
    }
}

fn descriptor(compression: Compression, digest: Digest, size: u64) -> Descriptor {
    let media_type = match compression {
        Compression::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
    };
    Descriptor::new(media_type, digest, size)
}

fn note_name(spec: &LayerSpec) -> String {
    let compression = match spec.compression {
        Compression::Uncompressed => "tar",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
    };
    let level = spec.level.map_or(String::new(), |level| format!("-level{level}"));
    let clamp = spec.clamp_mtime.map_or(String::new(), |clamp| format!("-clamp{clamp}"));
    format!("blob-{compression}{level}{clamp}")
}

fn read_note(path: &Path) -> Result<Option<LayerBlob>> {
    match quiet::read(path) {
        // Damaged by a power cut: as if it were not there.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).at(path),
    }
}

/// What the delta was made on. Where that was pruned, nothing can be compared, and all of the delta is in its layer.
fn base_of(snapshots: &Snapshots, dir: &Path) -> Result<Arc<dyn Tree>> {
    let path = dir.join("base");
    let base = match quiet::read_to_string(&path) {
        Ok(text) => snapshots.load(&text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error).at(&path),
    };
    Ok(base.map_or_else(|| Arc::new(Stack::new(Vec::new())) as Arc<_>, |base: Snapshot| snapshots.tree(&base)))
}

/// A blob being written, as a plain sink.
struct Blob(Box<dyn BlobWrite>);

impl Write for Blob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What the delta has of a name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Has {
    /// A regular file, or what such a file stands for.
    File,
    Entry,
    Whiteout,
}

struct Layer<'a> {
    delta: &'a DiskDelta,
    base: &'a dyn Tree,
    out: &'a mut LayerWriter<Blob>,
    clamp: Option<i64>,
    links: HashMap<(u64, u64), PathBuf>,
    /// Names of files that are as below, and so are not written, unless the file has got a name that is.
    unchanged: HashMap<(u64, u64), Vec<(PathBuf, Node)>>,
    /// Directories on the way down that are in no change yet: written when something in them is.
    parents: Vec<Option<(PathBuf, Node)>>,
    cancel: &'a Cancel,
}

impl Layer<'_> {
    /// `base_has`: there is a directory at the path below the delta. `opaque`: it does not show through. `timeless`: it
    /// kept its time, whatever was done in it, as with COPY, so that the same files make the same layer at any time.
    /// On BuildKit the file system dates such a folder, which a pinned date makes the same again.
    fn dir(&mut self, dir: &Path, base_has: bool, opaque: bool, timeless: bool) -> io::Result<()> {
        self.cancel.check().map_err(io::Error::other)?;
        let mut names: BTreeMap<OsString, Has> = BTreeMap::new();
        for (name, file) in self.delta.listing(dir)? {
            match name {
                Name::Entry(name) if file => names.insert(name, Has::File),
                Name::Entry(name) => names.insert(name, Has::Entry),
                Name::Whiteout(name) => names.insert(name, Has::Whiteout),
            };
        }
        if base_has && opaque {
            // Written out name by name, as BuildKit does: every reader understands that.
            for name in self.base.read_dir(dir)? {
                names.entry(name).or_insert(Has::Whiteout);
            }
        }
        if let Some(clamp) = self.clamp
            && timeless
            && self.renames(dir, &names)?
            && let Some(Some((_, node))) = self.parents.last_mut()
        {
            node.meta.mtime = Mtime { seconds: clamp, nanos: 0 };
        }
        for (name, has) in names {
            let path = dir.join(name);
            let below = if base_has { self.base.lookup(&path)? } else { None };
            if has == Has::Whiteout {
                if below.is_some() {
                    self.write_parents()?;
                    self.out.whiteout(&path)?;
                }
                continue;
            }
            let opened = if has == Has::File { self.delta.open_file(&path)? } else { None };
            let (node, alone, file) = match opened {
                Some((node, file)) => (node, true, Some(file)),
                None => match self.delta.find(&path)? {
                    Answer { node: Some(node), alone } => (node, alone, None),
                    Answer { node: None, .. } => continue,
                },
            };
            let open = || self.delta.open(&path);
            let changed = match &below {
                None => true,
                Some(below) => !same(below, &node, || self.base.open(&path), open)?,
            };
            if node.is_dir() {
                let below = below.filter(Node::is_dir);
                let timeless = below.as_ref().is_some_and(|below| below.meta.mtime == node.meta.mtime);
                self.parents.push(Some((path.clone(), node)));
                if changed {
                    self.write_parents()?;
                }
                self.dir(&path, below.is_some(), alone, timeless)?;
                self.parents.pop();
            } else if changed || node.inode.is_some_and(|inode| self.links.contains_key(&inode)) {
                self.write_parents()?;
                self.leaf(path, node, file)?;
            } else if let Some(inode) = node.inode {
                self.unchanged.entry(inode).or_default().push((path, node));
            }
        }
        Ok(())
    }

    /// Whether a directory has names that it does not have below, or lacks some that it has there.
    fn renames(&self, dir: &Path, names: &BTreeMap<OsString, Has>) -> io::Result<bool> {
        for (name, has) in names {
            if self.base.lookup(&dir.join(name))?.is_some() != (*has != Has::Whiteout) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn write_parents(&mut self) -> io::Result<()> {
        for parent in &mut self.parents {
            if let Some((path, node)) = parent.take() {
                let entry = entry(path, node, self.clamp);
                self.out.append(&entry, &mut io::empty())?;
            }
        }
        Ok(())
    }

    /// `file`: it is open already.
    fn leaf(&mut self, path: PathBuf, mut node: Node, file: Option<File>) -> io::Result<()> {
        // No archive can hold one; nobody would be listening.
        if node.kind == Kind::Socket {
            return Ok(());
        }
        let mut data = FileData::Stream(Box::new(io::empty()));
        if let Some(first) = node.inode.and_then(|inode| self.links.get(&inode)) {
            node.kind = Kind::Hardlink { target: first.clone() };
        } else {
            if let Some(inode) = node.inode {
                self.links.insert(inode, path.clone());
            }
            if matches!(node.kind, Kind::File { size } if size > 0) {
                data = file.map_or_else(|| self.delta.open(&path), |file| Ok(FileData::File(file)))?;
            }
        }
        let inode = node.inode;
        self.out.append(&entry(path, node, self.clamp), &mut data)?;
        for (path, node) in inode.and_then(|inode| self.unchanged.remove(&inode)).unwrap_or_default() {
            self.leaf(path, node, None)?;
        }
        Ok(())
    }
}

fn entry(path: PathBuf, node: Node, clamp: Option<i64>) -> Entry {
    let Node { kind, mut meta, .. } = node;
    meta.mtime = dated(meta.mtime, clamp);
    meta.xattrs.retain(|name, _| travels(&name.to_string_lossy()));
    Entry { path, kind, meta }
}

/// Whole seconds, as Docker and BuildKit write them: a fraction would cost each file a header of its own, a KiB.
fn dated(mtime: Mtime, clamp: Option<i64>) -> Mtime {
    let seconds = clamp.map_or(mtime.seconds, |clamp| mtime.seconds.min(clamp));
    Mtime { seconds, nanos: 0 }
}

/// Attributes that mean something on another machine: not this host's SELinux labels or access lists.
fn travels(xattr: &str) -> bool {
    xattr == "security.capability" || xattr.starts_with("user.")
}
