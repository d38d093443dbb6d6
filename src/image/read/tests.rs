use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::base::Cancel;
use crate::image::{Manifest, docker_archive, media_type, oci_archive, oci_layout};
use crate::layer::{Encoder, Entry, LayerWriter};
use crate::store::{self, read_document, write_document};
use crate::sys::{Kind, Meta};

/// One layer with one file: its stored bytes and its diff ID.
fn layer_bytes(name: &str, compression: Compression) -> (Vec<u8>, DiffId) {
    let mut writer = LayerWriter::new(Vec::new(), compression, None).unwrap();
    let entry =
        Entry { path: name.into(), kind: Kind::File { size: 3 }, meta: Meta { mode: 0o644, ..Meta::default() } };
    writer.append(&entry, &mut &b"abc"[..]).unwrap();
    let written = writer.finish().unwrap();
    let diff_id = written.diff_id.unwrap_or_else(|| DiffId(Digest::of(&written.out)));
    (written.out, diff_id)
}

fn config(author: &str, diff_ids: &[DiffId]) -> Vec<u8> {
    let mut config = ImageConfig::new(Platform::host());
    config.author = Some(author.to_owned());
    config.rootfs.diff_ids = diff_ids.to_vec();
    config.to_bytes()
}

fn image(blobs: &dyn BlobStore, author: &str) -> Image {
    let (bytes, diff_id) = layer_bytes(author, Compression::Gzip);
    let digest = write_document(blobs, &bytes).unwrap();
    let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, digest, bytes.len() as u64);
    let layers = vec![LayerBlob { descriptor, diff_id }];
    Image::write(blobs, &config(author, &[diff_id]), layers, Dialect::Oci, BTreeMap::new()).unwrap()
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, bytes: &[u8]) -> Result<Opened> {
        open(&self.put("x.tar", bytes), self.0.path())
    }

    fn error(&self, bytes: &[u8]) -> String {
        let path = self.put("x.tar", bytes);
        let message = open(&path, self.0.path()).err().expect("refused").to_string();
        message.replace(&path.display().to_string(), "x.tar")
    }
}

enum Member<'a> {
    File(&'a str, Vec<u8>),
    Symlink(&'a str, &'a str),
}

use Member::{File as F, Symlink as S};

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        match member {
            F(name, bytes) => {
                header.set_size(bytes.len() as u64);
                builder.append_data(&mut header, name, &bytes[..]).unwrap();
            }
            S(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_size(0);
                builder.append_link(&mut header, name, target).unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

fn names(opened: &Opened) -> Vec<Vec<String>> {
    opened.images.iter().map(|(_, names)| names.iter().map(Reference::familiar).collect()).collect()
}

/// Reads every blob to its end.
fn all_there(opened: &Opened) -> store::Result<()> {
    for (image, _) in &opened.images {
        for descriptor in image.blobs() {
            store::copy(&*opened.blobs, &MemoryBlobs::new(), &descriptor.digest)?;
        }
    }
    Ok(())
}

fn manifest(config: &str, tags: &[&str], layers: &[&str]) -> serde_json::Value {
    json!({"Config": config, "RepoTags": tags, "Layers": layers})
}

#[test]
fn docker_s_old_form_with_layers_that_are_symlinks() {
    let (one, first) = layer_bytes("one", Compression::Uncompressed);
    let config = config("old", &[first, first]);
    let id = Digest::of(&config);
    let name = format!("{}.json", id.hex());
    let bytes = archive(&[
        F("aaaa/VERSION", b"1.0".to_vec()),
        F("aaaa/json", b"{}".to_vec()),
        F("aaaa/layer.tar", one),
        S("bbbb/layer.tar", "../aaaa/layer.tar"),
        F(&name, config),
        F(
            "manifest.json",
            json!([manifest(&name, &["app:1", "registry.example/app:2"], &["aaaa/layer.tar", "bbbb/layer.tar"])])
                .to_string()
                .into_bytes(),
        ),
        F("repositories", b"{}".to_vec()),
    ]);
    let folder = Folder::new();
    let opened = folder.open(&bytes).unwrap();
    assert_eq!(names(&opened), [["app:1", "registry.example/app:2"]]);
    let image = &opened.images[0].0;
    assert_eq!(image.config_digest, id);
    assert_eq!(image.layers[0].descriptor.digest, first.0, "a plain layer's digest is its diff ID");
    all_there(&opened).unwrap();
    let manifest: Manifest =
        serde_json::from_slice(&read_document(&*opened.blobs, &image.manifest_descriptor.digest).unwrap()).unwrap();
    assert_eq!(manifest, image.manifest, "the manifest that the archive did not have can be read like any other");
}

#[test]
fn kaniko_s_form_with_compressed_layers_and_names_that_say_so() {
    let (one, first) = layer_bytes("one", Compression::Gzip);
    let (two, second) = layer_bytes("two", Compression::Zstd);
    let config = config("kaniko", &[first, second]);
    let name = Digest::of(&config).to_string();
    let layers = ["1f".repeat(32) + ".tar.gz", "2e".repeat(32) + ".tar.gz"];
    let bytes = archive(&[
        F(&name, config),
        F(&layers[0], one.clone()),
        F(&layers[1], two),
        F("manifest.json", json!([manifest(&name, &["app:1"], &[&layers[0], &layers[1]])]).to_string().into_bytes()),
    ]);
    let folder = Folder::new();
    let opened = folder.open(&bytes).unwrap();
    let layers = &opened.images[0].0.layers;
    assert_eq!(layers[0].descriptor.digest, Digest::of(&one), "by its bytes, whatever its name");
    assert_eq!(layers.iter().map(LayerBlob::compression).collect::<Vec<_>>(), [Compression::Gzip, Compression::Zstd]);
    all_there(&opened).unwrap();
}

#[test]
fn several_images_in_one_archive_each_with_its_names() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let (one, two) = (image(&blobs, "one"), image(&blobs, "two"));
    let tags: Vec<Reference> = ["a:1", "a:2", "b:1"].map(|name| name.parse().unwrap()).to_vec();
    for write in [docker_archive, oci_archive] {
        let mut bytes = Vec::new();
        write(&[(&one, &tags[..2]), (&two, &tags[2..])], &blobs, &mut bytes, &Cancel::new()).unwrap();
        let opened = folder.open(&bytes).unwrap();
        assert_eq!(names(&opened), [vec!["a:1", "a:2"], vec!["b:1"]]);
        assert_eq!(opened.images[1].0, two);
        all_there(&opened).unwrap();
    }
}

#[test]
fn an_image_without_a_name_in_every_form() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    for write in [docker_archive, oci_archive] {
        let mut bytes = Vec::new();
        write(&[(&one, &[])], &blobs, &mut bytes, &Cancel::new()).unwrap();
        assert_eq!(names(&folder.open(&bytes).unwrap()), [Vec::<String>::new()]);
    }
    let dir = folder.0.path().join("layout");
    oci_layout(&[(&one, &[])], &blobs, &dir, &Cancel::new()).unwrap();
    let opened = open(&dir, folder.0.path()).unwrap();
    assert_eq!(opened.images[0].0, one);
    let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["blobs", "index.json", "oci-layout"], "a layout and nothing else");
}

#[test]
fn adding_to_a_layout_moves_names_and_keeps_the_rest() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let (one, two) = (image(&blobs, "one"), image(&blobs, "two"));
    let tags: Vec<Reference> = ["a:1", "b:1"].map(|name| name.parse().unwrap()).to_vec();
    let dir = folder.0.path().join("layout");
    oci_layout(&[(&one, &tags[..])], &blobs, &dir, &Cancel::new()).unwrap();
    oci_layout(&[(&two, &tags[1..])], &blobs, &dir, &Cancel::new()).unwrap();
    let opened = open(&dir, folder.0.path()).unwrap();
    assert_eq!(names(&opened), [["a:1"], ["b:1"]]);
    assert_eq!(opened.images[1].0, two);
}

#[test]
fn of_several_platforms_the_host_s_and_of_one_foreign_that_one() {
    let blobs = MemoryBlobs::new();
    let (host, foreign) = (image(&blobs, "host"), image(&blobs, "foreign"));
    let of = |image: &Image, platform: Platform| Descriptor {
        platform: Some(platform),
        ..image.manifest_descriptor.clone()
    };
    let s390x = Platform::new("linux", "s390x", "");
    let both = Index::new(vec![of(&foreign, s390x.clone()), of(&host, Platform::host())]);
    let pick = |index: &Index| of_index(&blobs, index).unwrap().into_iter().map(|(image, _)| image).collect::<Vec<_>>();
    assert_eq!(pick(&both)[0].config_digest, host.config_digest, "side by side in the layout's index");

    let nested = |index: &Index| {
        let bytes = index.to_bytes();
        let digest = write_document(&blobs, &bytes).unwrap();
        Index::new(vec![Descriptor::new(media_type::OCI_INDEX, digest, bytes.len() as u64)])
    };
    assert_eq!(pick(&nested(&both))[0].config_digest, host.config_digest, "in an index of their own");
    let lone = Index::new(vec![of(&foreign, s390x)]);
    assert_eq!(pick(&lone)[0].config_digest, foreign.config_digest);
    assert_eq!(pick(&nested(&lone))[0].config_digest, foreign.config_digest);
    let mut deep = both;
    for _ in 0..6 {
        deep = nested(&deep);
    }
    assert!(of_index(&blobs, &deep).unwrap_err().to_string().contains("more than 4 indexes inside one another"));
}

#[test]
fn signatures_beside_an_image_are_passed_over() {
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    let mut manifest = one.manifest.clone();
    manifest.layers[0].media_type = "application/vnd.dev.cosign.simplesigning.v1+json".to_owned();
    let bytes = manifest.to_bytes();
    let digest = write_document(&blobs, &bytes).unwrap();
    let signature = Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64);
    let index = Index::new(vec![signature.clone(), one.manifest_descriptor.clone()]);
    assert_eq!(of_index(&blobs, &index).unwrap().len(), 1);
    assert!(of_index(&blobs, &Index::new(vec![signature])).is_err(), "a signature alone is no image");
}

#[test]
fn what_is_no_image_is_told_from_what_is_a_broken_one() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    let mut good = Vec::new();
    docker_archive(&[(&one, &[])], &blobs, &mut good, &Cancel::new()).unwrap();
    let lone = |name: &str, bytes: &[u8]| archive(&[F(name, bytes.to_vec())]);
    let (layer, diff_id) = layer_bytes("x", Compression::Uncompressed);
    let entry = |config: &str, layers: &[&str]| json!([manifest(config, &[], layers)]).to_string().into_bytes();
    let config = config("x", &[diff_id]);
    let cases: &[(&[u8], &str)] = &[
        (b"just some text", "x.tar is neither a docker-archive nor an OCI image layout"),
        (b"", "x.tar is neither a docker-archive nor an OCI image layout"),
        (&lone("etc/passwd", b"root"), "x.tar is neither a docker-archive nor an OCI image layout"),
        (&lone("repositories", b"{}"), "x.tar: an archive from before Docker 1.10, without manifest.json"),
        (&lone("manifest.json", b"[]"), "x.tar: no image in it"),
        (&lone("manifest.json", b"[{]"), "x.tar: manifest.json: key must be a string at line 1 column 3"),
        (&lone("index.json", b"[]"), "x.tar: index.json: invalid type: sequence, expected struct Index"),
        (
            &archive(&[F("manifest.json", entry("../../etc/passwd", &[]))]),
            "x.tar: manifest.json names \"../../etc/passwd\", which is not there",
        ),
        (
            &archive(&[F("c.json", config.clone()), F("manifest.json", entry("c.json", &["l.tar"]))]),
            "x.tar: manifest.json names \"l.tar\", which is not there",
        ),
        (
            &archive(&[
                F("c.json", config.clone()),
                F("manifest.json", entry("c.json", &[])),
                F("l.tar", layer.clone()),
            ]),
            &format!("image {} has 0 layers and 1 diff IDs", Digest::of(&config)),
        ),
        (&good[..good.len() - 1024 - 500], "x.tar: truncated: the member at byte "),
    ];
    for (bytes, message) in cases {
        let said = folder.error(bytes);
        assert!(said.starts_with(message), "{said:?} does not start with {message:?}");
    }
    let dir = folder.0.path().join("empty");
    fs::create_dir(&dir).unwrap();
    assert!(matches!(open(&dir, folder.0.path()), Err(Error::NotAnImage(_))));
}

#[test]
fn bytes_that_are_not_their_digest_s_are_found_out() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    let mut bytes = Vec::new();
    docker_archive(&[(&one, &[])], &blobs, &mut bytes, &Cancel::new()).unwrap();
    for descriptor in one.blobs() {
        let content = read_document(&blobs, &descriptor.digest).unwrap();
        let mut tampered = bytes.clone();
        let at = bytes.windows(content.len()).position(|window| window == content).unwrap();
        tampered[at + content.len() / 2] ^= 1;
        let found = folder
            .open(&tampered)
            .map_err(|error| error.to_string())
            .and_then(|opened| all_there(&opened).map_err(|error| error.to_string()));
        let message = found.unwrap_err();
        assert!(message.starts_with(&format!("blob {}: content has digest", descriptor.digest)), "{message}");
    }
}

#[test]
fn a_compressed_archive_that_is_cut_is_refused() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut encoder = Encoder::new(Vec::new(), compression, None).unwrap();
        let mut plain = Vec::new();
        docker_archive(&[(&one, &[])], &blobs, &mut plain, &Cancel::new()).unwrap();
        encoder.write_all(&plain).unwrap();
        let bytes = encoder.finish().unwrap();
        assert_eq!(folder.open(&bytes).unwrap().images.len(), 1);
        assert!(folder.open(&bytes[..bytes.len() - 9]).is_err());
    }
}

#[test]
fn reading_writes_nothing_into_a_layout() {
    let folder = Folder::new();
    let blobs = MemoryBlobs::new();
    let one = image(&blobs, "one");
    let dir = folder.0.path().join("layout");
    oci_layout(&[(&one, &[])], &blobs, &dir, &Cancel::new()).unwrap();
    let opened = open(&dir, folder.0.path()).unwrap();
    let digest = write_document(&*opened.blobs, b"document").unwrap();
    assert_eq!(read_document(&*opened.blobs, &digest).unwrap(), b"document");
    assert_eq!(fs::read_dir(dir.join("blobs/sha256")).unwrap().count(), 3);
}
