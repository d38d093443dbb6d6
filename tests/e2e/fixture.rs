//! An image of our own with everything in it that a layer can say, and a plain description of a directory.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dockless::base::{DiffId, Digest, Platform, Reference};
use dockless::image::config::History;
use dockless::image::{Descriptor, Dialect, Image, ImageConfig, LayerBlob};
use dockless::layer::{Compression, Entry, LayerWriter};
use dockless::store::BlobStore;
use dockless::sys::{Kind, Meta, Mtime};

/// One layer being written.
pub struct Layer {
    writer: LayerWriter<Vec<u8>>,
    compression: Compression,
}

impl Layer {
    pub fn new(compression: Compression) -> Self {
        Self { writer: LayerWriter::new(Vec::new(), compression, None).unwrap(), compression }
    }

    pub fn entry(mut self, path: &str, kind: Kind, meta: Meta, content: &[u8]) -> Self {
        self.writer.append(&Entry { path: path.into(), kind, meta }, &mut &*content).unwrap();
        self
    }

    pub fn file(self, path: &str, mode: u32, content: &str) -> Self {
        self.entry(path, Kind::File { size: content.len() as u64 }, meta(mode), content.as_bytes())
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(path, Kind::Directory, meta(mode), b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Kind::Symlink { target: target.into() }, meta(0o777), b"")
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path, Kind::Hardlink { target: target.into() }, meta(0o644), b"")
    }

    pub fn whiteout(mut self, path: &str) -> Self {
        self.writer.whiteout(Path::new(path)).unwrap();
        self
    }

    pub fn opaque(mut self, dir: &str) -> Self {
        self.writer.opaque(Path::new(dir)).unwrap();
        self
    }

    pub fn store(self, blobs: &dyn BlobStore) -> LayerBlob {
        let written = self.writer.finish().unwrap();
        let digest = dockless::store::write_document(blobs, &written.out).unwrap();
        let media_type = Dialect::Oci.layer(self.compression);
        let descriptor = Descriptor::new(media_type, digest, written.out.len() as u64);
        LayerBlob { descriptor, diff_id: written.diff_id.unwrap_or(DiffId(digest)) }
    }
}

pub fn meta(mode: u32) -> Meta {
    let mtime = Mtime { seconds: 1_600_000_000, nanos: 0 };
    Meta { mode, uid: 0, gid: 0, mtime, xattrs: BTreeMap::new() }
}

/// An image of these layers.
pub fn image(blobs: &dyn BlobStore, layers: Vec<LayerBlob>) -> Image {
    let mut config = ImageConfig::new(Platform::host());
    config.created = Some("2020-09-13T12:26:40Z".to_owned());
    config.config.env = vec!["PATH=/usr/bin:/bin".to_owned(), "LANG=C".to_owned()];
    config.config.cmd = Some(vec!["/bin/sh".to_owned()]);
    config.config.user = "app".to_owned();
    config.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id).collect();
    let line = |n: usize| History {
        created: config.created.clone(),
        created_by: Some(format!("layer {n}")),
        ..History::default()
    };
    config.history = (0..layers.len()).map(line).collect();
    Image::write(blobs, &config.to_bytes(), layers, Dialect::Oci, BTreeMap::new()).unwrap()
}

/// Every kind of entry, and every way in which a second layer changes a first.
pub fn everything(blobs: &dyn BlobStore, compression: Compression) -> Image {
    let long = format!("long/{}/{}", "d".repeat(120), "f".repeat(200));
    let mut owned = meta(0o640);
    (owned.uid, owned.gid) = (1000, 1001);
    let capability = vec![1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut capable = meta(0o755);
    capable.xattrs.insert(OsString::from("security.capability"), capability);
    capable.xattrs.insert(OsString::from("user.note"), b"a\nb\0c".to_vec());
    let precise = Meta { mtime: Mtime { seconds: 1_500_000_000, nanos: 123_456_789 }, ..meta(0o600) };

    let first = Layer::new(compression)
        .dir("", 0o755)
        .dir("bin", 0o755)
        .file("bin/sh", 0o755, "#!")
        .file("bin/su", 0o4755, "su")
        .dir("dev", 0o755)
        .entry("dev/null", Kind::CharDevice { major: 1, minor: 3 }, meta(0o666), b"")
        .entry("dev/loop0", Kind::BlockDevice { major: 7, minor: 0 }, meta(0o660), b"")
        .dir("etc", 0o755)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
        .file("etc/shadow", 0o000, "secret")
        .entry("etc/owned", Kind::File { size: 5 }, owned.clone(), b"owned")
        .dir("home", 0o755)
        .entry("home/app", Kind::Directory, Meta { mode: 0o2750, ..owned }, b"")
        .dir("run", 0o755)
        .entry("run/fifo", Kind::Fifo, meta(0o644), b"")
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .file("usr/lib/a.so", 0o644, "a")
        .hardlink("usr/lib/b.so", "usr/lib/a.so")
        .symlink("lib", "usr/lib")
        .symlink("absolute", "/usr/lib")
        .symlink("dangling", "nowhere/at/all")
        .symlink("escape", "../../../etc/passwd")
        .entry("usr/lib/capable", Kind::File { size: 1 }, capable, b"x")
        .entry("usr/lib/precise", Kind::File { size: 0 }, precise, b"")
        .dir("long", 0o755)
        .dir(&format!("long/{}", "d".repeat(120)), 0o755)
        .file(&long, 0o644, "long")
        .file("name with spaces and \u{fc}\u{f1}\u{ee}\u{e7}\u{f6}d\u{e9}", 0o644, "u")
        .file("usr/lib/big", 0o644, &"0123456789abcdef".repeat(20_000))
        .dir("gone", 0o755)
        .file("gone/a", 0o644, "a")
        .dir("opaque", 0o755)
        .file("opaque/old", 0o644, "old")
        .dir("opaque/sub", 0o755)
        .file("opaque/sub/old", 0o644, "old")
        .dir("becomes-file", 0o755)
        .file("becomes-file/x", 0o644, "x")
        .file("becomes-dir", 0o644, "x")
        .store(blobs);
    let second = Layer::new(compression)
        .dir("opaque", 0o700)
        .opaque("opaque")
        .file("opaque/new", 0o644, "new")
        .whiteout("gone")
        .whiteout("usr/lib/a.so")
        .file("becomes-file", 0o644, "file")
        .dir("becomes-dir", 0o755)
        .file("becomes-dir/y", 0o644, "y")
        .file("usr/lib/d.so", 0o644, "d")
        .hardlink("usr/lib/c.so", "usr/lib/d.so")
        .file("usr/lib/big", 0o600, "small now")
        .store(blobs);
    // A layer that says nothing of the directories that it changes, and one that is empty.
    let third = Layer::new(compression).file("usr/lib/added", 0o644, "added").whiteout("etc/owned").store(blobs);
    let fourth = Layer::new(compression).store(blobs);
    image(blobs, vec![first, second, third, fourth])
}

pub fn reference(text: &str) -> Reference {
    text.parse::<Reference>().unwrap().or_latest()
}

/// Everything that a directory's files are, a line each.
pub fn describe(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut lines = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    walk(dir, dir, &mut lines, &mut inodes);
    lines
}

fn walk(root: &Path, path: &Path, lines: &mut BTreeMap<PathBuf, String>, inodes: &mut BTreeMap<u64, PathBuf>) {
    let metadata = fs::symlink_metadata(path).unwrap();
    let name = path.strip_prefix(root).unwrap().to_owned();
    let kind = metadata.file_type();
    let what = if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_symlink() {
        format!("link {}", fs::read_link(path).unwrap().display())
    } else if kind.is_file() {
        format!("file {} {}", metadata.size(), Digest::of(fs::read(path).unwrap()))
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {} {:x}", kind.is_block_device(), metadata.rdev())
    } else {
        format!("other {kind:?}")
    };
    let first = inodes.entry(metadata.ino()).or_insert_with(|| name.clone());
    let same = if *first == name { String::new() } else { format!(" = {}", first.display()) };
    let line = format!(
        "{what} {:o} {}:{} {}.{:09}{same} {:?}",
        metadata.mode() & 0o7777,
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        xattrs(path).unwrap()
    );
    lines.insert(name, line);
    if kind.is_dir() {
        let mut children: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        children.sort();
        children.iter().for_each(|child| walk(root, child, lines, inodes));
    }
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let mut names = vec![0; 4096];
    let count = rustix::fs::llistxattr(path, &mut names[..])?;
    let mut values = BTreeMap::new();
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; 4096];
        let size = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..])?;
        value.truncate(size);
        values.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    Ok(values)
}

/// What two directories differ in, for an assertion that says so.
pub fn differences(one: &BTreeMap<PathBuf, String>, two: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = one.keys().chain(two.keys()).collect();
    let differing = names.into_iter().filter(|name| one.get(*name) != two.get(*name));
    differing.map(|name| format!("{}: {:?} / {:?}", name.display(), one.get(name), two.get(name))).collect()
}
