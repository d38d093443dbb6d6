//! Everything that reads layers: into a plain directory, into a snapshot, through a snapshot's index without
//! unpacking. What one takes the others take, and all see the same files.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use dockless::base::{Cancel, DiffId, Digest};
use dockless::image::{Descriptor, LayerBlob};
use dockless::layer::{DirOptions, DirTarget, apply, decompress};
use dockless::snapshot::{Driver, Snapshot, Snapshots, Tree};
use dockless::store::{BlobStore, MemoryBlobs};
use dockless::sys::{Kind, Root};

pub type Listing = BTreeMap<String, String>;

/// A folder with a `root` to unpack into, and things beside it that must stay as they are.
pub struct Place {
    tmp: tempfile::TempDir,
    before: Listing,
}

impl Place {
    pub fn new() -> Self {
        let tmp = tempfile::tempdir().unwrap();
        fs::create_dir_all(tmp.path().join("outside/dir")).unwrap();
        fs::write(tmp.path().join("outside/secret"), "host").unwrap();
        fs::write(tmp.path().join("secret"), "host").unwrap();
        fs::create_dir(tmp.path().join("root")).unwrap();
        let before = listing(tmp.path());
        Self { tmp, before }
    }

    /// Where symlinks of the archives aim at.
    pub fn outside(&self) -> String {
        self.tmp.path().join("outside").to_str().unwrap().to_owned()
    }

    pub fn to_directory(&self, layers: &[Vec<u8>]) -> Result<Listing, String> {
        let root = self.tmp.path().join("root");
        let mut target = DirTarget::new(Root::open(&root).unwrap(), DirOptions::default());
        let result = layers
            .iter()
            .try_for_each(|layer| apply(&mut &layer[..], None, &mut target, &Cancel::new()).map(drop))
            .map_err(anyhow::Error::from)
            .and_then(|()| target.finish());
        let found = result.map(|_| listing(&root)).map_err(|error| format!("{error:#}"));
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        assert_eq!(listing(self.tmp.path()), self.before, "something outside of the target changed");
        found
    }

    /// By the index alone, and unpacked.
    pub fn to_snapshot(&self, layers: &[Vec<u8>]) -> (Result<Listing, String>, Result<Listing, String>) {
        let root = self.tmp.path().join("root");
        let blobs = MemoryBlobs::new();
        let layers: Vec<_> = layers.iter().map(|layer| blob(&blobs, layer)).collect();
        let run = |name: &str, unpack: bool| {
            let snapshots = Snapshots::open(&root.join(name), Arc::new(blobs.clone()), Driver::Native).unwrap();
            let image = Snapshot::image(&layers);
            if unpack {
                snapshots.view(&image, &Cancel::new()).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
            }
            let mut found = Listing::new();
            walk(&*snapshots.tree(&image), Path::new(""), &mut found).map_err(|error| error.to_string())?;
            Ok(found)
        };
        let both = (run("lazy", false), run("unpacked", true));
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
        assert_eq!(listing(self.tmp.path()), self.before, "something outside of the snapshots changed");
        both
    }
}

fn blob(blobs: &MemoryBlobs, stored: &[u8]) -> LayerBlob {
    let mut writer = blobs.create().unwrap();
    writer.write_all(stored).unwrap();
    let (digest, size) = writer.complete().unwrap();
    let mut plain = Vec::new();
    // Of a broken stream the diff ID is anybody's guess.
    let _ = decompress(stored).unwrap().read_to_end(&mut plain);
    let descriptor = Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest,
        size,
        annotations: BTreeMap::new(),
        platform: None,
        extra: serde_json::Map::new(),
    };
    LayerBlob { descriptor, diff_id: DiffId(Digest::of(plain)) }
}

/// Type, mode, target or content of everything below a folder. Devices and owners are left out: who runs this may
/// not be allowed to make them.
fn listing(dir: &Path) -> Listing {
    fn walk(dir: &Path, base: &Path, found: &mut Listing) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let kind = stat.file_type();
            let what = if kind.is_dir() {
                walk(&path, base, found);
                "dir".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_file() {
                format!("file {}", short(&fs::read(&path).unwrap_or_default()))
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                continue;
            };
            let mode = if kind.is_symlink() { 0 } else { stat.mode() & 0o7777 };
            found.insert(name(path.strip_prefix(base).unwrap()), format!("{mode:o} {what}"));
        }
    }
    let mut found = Listing::new();
    walk(dir, dir, &mut found);
    found
}

fn walk(tree: &dyn Tree, dir: &Path, found: &mut Listing) -> std::io::Result<()> {
    for entry in tree.read_dir(dir)? {
        let path = dir.join(entry);
        let Some(node) = tree.lookup(&path)? else { return Err(std::io::Error::other("listed, but not there")) };
        let what = match &node.kind {
            Kind::Directory => {
                walk(tree, &path, found)?;
                "dir".to_owned()
            }
            Kind::Symlink { target } => format!("-> {}", target.display()),
            Kind::File { .. } => {
                let mut content = Vec::new();
                tree.open(&path)?.read_to_end(&mut content)?;
                format!("file {}", short(&content))
            }
            Kind::Fifo => "fifo".to_owned(),
            _ => continue,
        };
        let mode = if matches!(node.kind, Kind::Symlink { .. }) { 0 } else { node.meta.mode };
        found.insert(name(&path), format!("{mode:o} {what}"));
    }
    Ok(())
}

fn name(path: &Path) -> String {
    String::from_utf8_lossy(path.as_os_str().as_bytes()).into_owned()
}

fn short(content: &[u8]) -> String {
    match std::str::from_utf8(content) {
        Ok(text) if text.len() <= 40 => format!("{text:?}"),
        _ => Digest::of(content).short(),
    }
}
