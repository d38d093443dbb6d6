//! What an image is expanded into, judged by tar, git and an ordinary user.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockless::base::Cancel;
use dockless::expand::{self, Archive, Artifact, Expanded, Formats};
use dockless::image::{self, Image};
use dockless::layer::Compression;
use dockless::store::{BlobStore, DiskBlobs, MemoryBlobs};
use dockless::sys::{Kind, Meta, Mtime};

use crate::fixture::{self, Layer, describe, differences, everything, reference};
use crate::oracle::{find, is_root, run, skip};

struct Case {
    dir: tempfile::TempDir,
    blobs: MemoryBlobs,
    image: Image,
}

impl Case {
    fn new(make: impl FnOnce(&dyn BlobStore) -> Image) -> Self {
        let blobs = MemoryBlobs::new();
        let image = make(&blobs);
        Self { dir: tempfile::tempdir().unwrap(), blobs, image }
    }

    fn everything() -> Self {
        Self::new(|blobs| everything(blobs, Compression::Gzip))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn expand(&self, formats: &Formats, output: &str) -> anyhow::Result<Expanded> {
        let names = [reference("acct/app:v1"), reference("app:v2")];
        expand::expand(&self.image, &names, &self.blobs, formats, &self.path(output), &Cancel::new())
    }

    fn rootfs(&self) -> PathBuf {
        let output = self.path("plain");
        if !output.exists() {
            self.expand(&Formats { rootfs: true, ..Formats::default() }, "plain").unwrap();
        }
        output.join("rootfs")
    }
}

fn artifact(from: &str, to: Option<&str>) -> Artifact {
    Artifact { from: from.to_owned(), to: to.map(PathBuf::from) }
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

#[test]
fn every_file_says_what_the_image_is() {
    let case = Case::everything();
    let formats = Formats {
        image_tar: Some(Archive::Docker),
        rootfs: true,
        tgz: true,
        oci: true,
        artifacts: vec![artifact("/etc/passwd", None), artifact("/lib/*.so", Some("libs"))],
        ..Formats::default()
    };
    let expanded = case.expand(&formats, "out").unwrap();
    let files: Vec<_> = expanded.files.iter().map(|path| path.display().to_string()).collect();
    let expected = [
        "digest",
        "image-id",
        "image.tar",
        "libs",
        "metadata.json",
        "oci",
        "passwd",
        "repository",
        "rootfs",
        "rootfs.tgz",
        "tag",
    ];
    assert_eq!(files, expected);
    if is_root() {
        let told = "Concourse's s3 resource does not unpack extended attributes: 1, the first is /usr/lib/capable";
        assert_eq!(expanded.warnings, [told]);
    }
    let out = case.path("out");
    assert_eq!(read(out.join("digest")), format!("{}\n", case.image.manifest_descriptor.digest));
    assert_eq!(read(out.join("image-id")), format!("{}\n", case.image.config_digest));
    assert_eq!((read(out.join("repository")), read(out.join("tag"))), ("acct/app\n".to_owned(), "v1\n".to_owned()));
    let metadata =
        "{\"user\":\"app\",\"env\":[\"PATH=/usr/bin:/bin\",\"LANG=C\"],\"entrypoint\":[],\"cmd\":[\"/bin/sh\"]}\n";
    assert_eq!(read(out.join("metadata.json")), metadata);
    assert!(read(out.join("passwd")).starts_with("root:x:0:0"));
    let libs: Vec<_> = fs::read_dir(out.join("libs")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(libs.len(), 3, "{libs:?}");
    for source in ["image.tar", "oci"] {
        let opened = image::open(&out.join(source), case.dir.path()).unwrap();
        let [(image, names)] = &opened.images[..] else { panic!("{source}") };
        assert_eq!(image.manifest_descriptor.digest, case.image.manifest_descriptor.digest, "{source}");
        assert_eq!(names[..], [reference("acct/app:v1"), reference("app:v2")], "{source}");
    }
}

#[test]
fn the_tgz_unpacks_to_the_same_files() {
    const TEST: &str = "the_tgz_unpacks_to_the_same_files";
    if !is_root() || find("tar").is_none() {
        return skip(TEST, "needs tar and root, to unpack owners and devices");
    }
    let case = Case::everything();
    case.expand(&Formats { tgz: true, ..Formats::default() }, "out").unwrap();
    let unpacked = case.path("unpacked");
    fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar")
        .args(["--extract", "--gzip", "--same-owner", "--same-permissions", "--numeric-owner"])
        .args(["--xattrs", "--xattrs-include=*", "--file"])
        .arg(case.path("out/rootfs.tgz"))
        .arg("--directory")
        .arg(&unpacked));
    assert!(unpacked.join("metadata.json").is_file());
    let mut expected = describe(&case.rootfs());
    expected.retain(|path, _| !path.starts_with("dev/null") && !path.starts_with("dev/loop0"));
    let differences = differences(&describe(&unpacked.join("rootfs")), &expected);
    assert!(differences.is_empty(), "unpacked / expanded:\n{}", differences.join("\n"));
}

#[test]
fn git_brings_the_files_and_restore_the_rest() {
    const TEST: &str = "git_brings_the_files_and_restore_the_rest";
    if !is_root() || find("git").is_none() {
        return skip(TEST, "needs git and root, to restore owners and devices");
    }
    let case = Case::everything();
    let expanded = case.expand(&Formats { git: true, ..Formats::default() }, "repository").unwrap();
    let told = expanded.warnings.join("\n");
    for class in ["owners other than root: 1", "modes other than", "extended attributes: 1", "hard links: 1", "devices"]
    {
        assert!(told.contains(class), "{class:?} in\n{told}");
    }
    let git = |dir: &str, args: &[&str]| {
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main"];
        run(Command::new("git").arg("-C").arg(case.path(dir)).args(identity).args(args))
    };
    git("repository", &["init", "--quiet"]);
    git("repository", &["add", "--force", "."]);
    git("repository", &["commit", "--quiet", "--message=rootfs"]);
    git(".", &["clone", "--quiet", "repository", "clone"]);
    let clone = case.path("clone");
    assert!(clone.join("rootfs/home/app/.keep").is_file());
    assert!(clone.join("metadata.json").is_file());

    assert_eq!(expand::restore(&clone).unwrap(), Vec::<String>::new());
    let differences = differences(&describe(&clone.join("rootfs")), &describe(&case.rootfs()));
    assert!(differences.is_empty(), "restored / expanded:\n{}", differences.join("\n"));
    expand::restore(&clone).expect("a second time is fine");

    fs::remove_file(clone.join("rootfs/bin/sh")).unwrap();
    let error = format!("{:#}", expand::restore(&clone).unwrap_err());
    assert_eq!(error, "restore rootfs/bin/sh: not there");
}

#[test]
fn artifacts_alone_unpack_nothing_else() {
    let file = |size: usize| Kind::File { size: size as u64 };
    let meta = |mode| Meta { mode, uid: 12, gid: 34, mtime: Mtime { seconds: 1_000, nanos: 5 }, ..Meta::default() };
    let case = Case::new(|blobs| {
        let first = Layer::new(Compression::Gzip)
            .dir("opt", 0o755)
            .dir("opt/app", 0o755)
            .entry("opt/app/tool", file(4), meta(0o755), b"tool")
            .file("opt/app/old", 0o644, "old")
            .hardlink("opt/app/link", "opt/app/old")
            .symlink("opt/app/conf", "../etc")
            .symlink("current", "/opt/app")
            .store(blobs);
        let second = Layer::new(Compression::Zstd)
            .whiteout("opt/app/old")
            .entry("opt/app/tool", file(5), meta(0o700), b"newer")
            .store(blobs);
        fixture::image(blobs, vec![first, second])
    });
    let artifacts = vec![
        artifact("/current/tool", None),
        artifact("/current", Some("app")),
        artifact("opt/app/li*", Some("linked/deep")),
    ];
    case.expand(&Formats { artifacts, ..Formats::default() }, "out").unwrap();
    let out = case.path("out");
    assert_eq!(read(out.join("tool")), "newer");
    assert_eq!(read(out.join("app/link")), "old", "a hard link whose other name is gone");
    assert_eq!(read(out.join("linked/deep/link")), "old");
    assert!(!out.join("app/old").exists());
    assert_eq!(fs::read_link(out.join("app/conf")).unwrap(), Path::new("../etc"));
    let metadata = fs::metadata(out.join("tool")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
    let own = nix::unistd::geteuid().as_raw();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), own, "artifacts belong to the caller");
    assert!(!out.join("rootfs").exists() && !out.join("metadata.json").exists());
}

#[test]
fn a_docker_archive_of_zstd_layers_gets_plain_ones_unless_told() {
    let case = Case::new(|blobs| everything(blobs, Compression::Zstd));
    let cases = [
        (Archive::Docker, None, Compression::Uncompressed),
        (Archive::Docker, Some(Compression::Gzip), Compression::Gzip),
        (Archive::Oci, None, Compression::Zstd),
    ];
    for (number, (form, compression, expected)) in cases.into_iter().enumerate() {
        let out = number.to_string();
        case.expand(&Formats { image_tar: Some(form), compression, ..Formats::default() }, &out).unwrap();
        let opened = image::open(&case.path(&out).join("image.tar"), case.dir.path()).unwrap();
        let [(image, _)] = &opened.images[..] else { panic!("not one image") };
        assert_eq!(image.config_digest, case.image.config_digest);
        for layer in &image.layers {
            assert_eq!(layer.compression(), expected, "{form:?} {compression:?}");
        }
    }
}

#[test]
fn a_plain_layer_whose_bytes_have_changed_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = DiskBlobs::open(dir.path());
    let image =
        fixture::image(&blobs, vec![Layer::new(Compression::Uncompressed).file("f", 0o644, "content").store(&blobs)]);
    let digest = image.layers[0].descriptor.digest;
    let path = dir.path().join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(7).position(|seven| seven == b"content").unwrap();
    bytes[at] ^= 1;
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
    let formats = Formats { rootfs: true, ..Formats::default() };
    let error = expand::expand(&image, &[], &blobs, &formats, &dir.path().join("out"), &Cancel::new()).unwrap_err();
    assert!(format!("{error:#}").contains(&digest.to_string()), "{error:#}");
    assert!(!dir.path().join("out/rootfs").exists());
}

#[test]
fn a_failure_leaves_what_was_there() {
    let case = Case::everything();
    let out = case.path("out");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("image.tar"), "old").unwrap();
    let listed = || {
        let mut names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let formats = |from: &str| Formats {
        image_tar: Some(Archive::Docker),
        rootfs: true,
        artifacts: vec![artifact(from, None)],
        ..Formats::default()
    };
    let error = case.expand(&formats("/no/such"), "out").unwrap_err();
    assert_eq!(format!("{error:#}"), "artifact \"/no/such\": not in the image");
    assert_eq!((listed().len(), read(out.join("image.tar"))), (1, "old".to_owned()));
    let error = case.expand(&formats("/etc/passwd"), "out").map(drop);
    error.unwrap();
    assert_eq!(listed().len(), 8);

    // The last layer's bytes are damaged: all that was unpacked before is gone again.
    let digest = case.image.layers[2].descriptor.digest;
    case.blobs.remove(&digest).unwrap();
    for formats in [formats("/etc/passwd"), Formats { git: true, ..Formats::default() }] {
        let error = format!("{:#}", case.expand(&formats, "fresh").unwrap_err());
        assert!(error.contains(&format!("blob {digest} is not in the store")), "{error}");
        assert!(!case.path("fresh").exists());
    }
    let left: Vec<_> = fs::read_dir(case.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["out"]);
}

#[test]
fn artifacts_do_not_take_the_names_of_the_rest() {
    let case = Case::everything();
    for to in ["image.tar", "rootfs/etc/passwd", "digest"] {
        let formats = Formats { artifacts: vec![artifact("/etc/passwd", Some(to))], ..Formats::default() };
        let error = format!("{:#}", case.expand(&formats, "out").unwrap_err());
        assert_eq!(error, format!("artifact /etc/passwd cannot go to {to}: that name is taken"));
    }
}

#[test]
fn an_image_without_layers_is_expanded_too() {
    let case = Case::new(|blobs| fixture::image(blobs, Vec::new()));
    let formats = Formats { image_tar: Some(Archive::Docker), rootfs: true, tgz: true, ..Formats::default() };
    case.expand(&formats, "out").unwrap();
    assert_eq!(fs::read_dir(case.path("out/rootfs")).unwrap().count(), 0);
    case.expand(&Formats { git: true, ..Formats::default() }, "git").unwrap();
    assert!(case.path("git/rootfs/.keep").is_file());
}
