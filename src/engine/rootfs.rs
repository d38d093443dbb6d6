//! A root file system as Concourse hands it on, `rootfs/` beside `metadata.json` or both in an archive, as a base image
//! of one layer.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::base::{Cancel, DiffId, Platform};
use crate::image::config::History;
use crate::image::{Descriptor, Dialect, Image, ImageConfig, LayerBlob};
use crate::layer::{self, Compression, LayerWriter};
use crate::snapshot::{FileData, Node, Tree, walk};
use crate::store::{BlobStore, BlobWrite};
use crate::sys::{Kind, Root, meta};

const ROOTFS: &str = "rootfs";
const METADATA: &str = "metadata.json";
/// Beside it the folder is in the form that git keeps: owners and modes are in there.
const MTREE: &str = "rootfs.mtree";
const MAX_METADATA: u64 = 1 << 20;

/// What Concourse starts a container of it with. Resources write it in several dialects; all have a part of this.
#[derive(Debug, Default, serde::Deserialize)]
struct Metadata {
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    workdir: Option<String>,
}

/// Makes an image of the folder or archive at a path, in the store and without a name. The same files give the same
/// image.
pub fn image(path: &Path, blobs: &dyn BlobStore, cancel: &Cancel) -> anyhow::Result<Image> {
    let mut layer = LayerWriter::new(blobs.create()?, Compression::Uncompressed, None)?;
    let metadata =
        if path.is_dir() { of_folder(path, &mut layer, cancel) } else { of_archive(path, &mut layer, cancel) };
    let metadata = metadata.with_context(|| format!("read the root file system {}", path.display()))?;
    let written = layer.finish()?;
    let (digest, size) = written.out.complete()?;
    let descriptor = Descriptor::new(Dialect::Oci.layer(Compression::Uncompressed), digest, size);
    let mut config = ImageConfig::new(Platform::host());
    // Root is who runs where nobody is named.
    config.config.user = metadata.user.filter(|user| user != "root").unwrap_or_default();
    config.config.env = metadata.env.unwrap_or_default();
    config.config.entrypoint = metadata.entrypoint.filter(|words| !words.is_empty());
    config.config.cmd = metadata.cmd.filter(|words| !words.is_empty());
    config.config.working_dir = metadata.workdir.unwrap_or_default();
    let diff_id = written.diff_id.unwrap_or(DiffId(digest));
    config.rootfs.diff_ids = vec![diff_id];
    config.history = vec![History { created_by: Some("a root file system".to_owned()), ..History::default() }];
    let layers = vec![LayerBlob { descriptor, diff_id }];
    Ok(Image::write(blobs, &config.to_bytes(), layers, Dialect::Oci, BTreeMap::new())?)
}

type Layer = LayerWriter<Box<dyn BlobWrite>>;

fn of_folder(dir: &Path, layer: &mut Layer, cancel: &Cancel) -> anyhow::Result<Metadata> {
    if dir.join(MTREE).exists() {
        bail!("it is in the form that git keeps ({MTREE}), which has no owners; hand on rootfs/ or rootfs.tgz instead");
    }
    let text = fs::read(dir.join(METADATA)).with_context(|| format!("{METADATA}, beside {ROOTFS}/"))?;
    let tree = Folder(Root::open(&dir.join(ROOTFS)).with_context(|| format!("{ROOTFS}/"))?);
    walk(&tree, cancel, &mut |entry, data| {
        // Nothing can be archived of a socket, and nothing is lost: its listener is gone.
        if entry.kind == Kind::Socket {
            return Ok(());
        }
        layer.append(&entry, &mut &mut *data).with_context(|| format!("archive {:?}", entry.path))
    })?;
    parse(&text)
}

fn of_archive(path: &Path, layer: &mut Layer, cancel: &Cancel) -> anyhow::Result<Metadata> {
    let file = File::open(path)?;
    let mut plain = layer::decompress_any(BufReader::new(file))?;
    let mut metadata = None;
    let below = |path: &Path| path.strip_prefix(ROOTFS).ok().map(PathBuf::from);
    layer::tar::read(&mut plain, &mut |entry, data| {
        cancel.check()?;
        if entry.path == Path::new(METADATA) {
            let mut text = Vec::new();
            data.take(MAX_METADATA).read_to_end(&mut text)?;
            metadata = Some(parse(&text)?);
            return Ok(());
        }
        let Some(path) = below(&entry.path).filter(|path| !path.as_os_str().is_empty()) else { return Ok(()) };
        let mut entry = entry.clone();
        if let Kind::Hardlink { target } = &mut entry.kind {
            *target = below(target).with_context(|| format!("{path:?} is a link to {target:?}, outside {ROOTFS}/"))?;
        }
        entry.path = path;
        Ok(layer.append(&entry, &mut &mut *data)?)
    })?;
    metadata.with_context(|| format!("there is no {METADATA} in it"))
}

fn parse(text: &[u8]) -> anyhow::Result<Metadata> {
    serde_json::from_slice(text).context(METADATA)
}

/// A folder of the host with owners as they are: what is a user of the host elsewhere is one of the image here.
struct Folder(Root);

impl Tree for Folder {
    fn lookup(&self, path: &Path) -> io::Result<Option<Node>> {
        let found = if path.as_os_str().is_empty() {
            Some(meta::read_fd(self.0.fd())?)
        } else {
            let (dir, name) = self.0.parent(path)?;
            meta::read(&dir, &name)?
        };
        Ok(found.map(|found| Node {
            inode: (found.links > 1 && found.kind != Kind::Directory).then_some(found.inode),
            kind: found.kind,
            meta: found.meta,
        }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = self.0.read_dir(path)?;
        names.sort();
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<FileData> {
        self.0.open_file(path).map(FileData::File)
    }
}
