//! What we write is read by skopeo, umoci, buildah and dockerd; what they write is read by us.

use std::process::Command;
use std::sync::Arc;

use dockless::base::{Cancel, Digest, Epoch, Platform, Reference};
use dockless::expand::{self, Formats};
use dockless::export::{self, Dest, LayerOptions};
use dockless::image::config::RunConfig;
use dockless::image::{self, Image, ImageConfig, ImageStore};
use dockless::layer::Compression;
use dockless::store::MemoryBlobs;
use serde_json::Value;

use crate::fixture::{describe, differences, everything, reference};
use crate::oracle::{Dockerd, busybox_tar, find, is_root, run, skip};

fn needs(test: &str, programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| find(program).is_none()).collect();
    if !missing.is_empty() {
        skip(test, &format!("needs {missing:?}"));
    }
    missing.is_empty()
}

struct Written {
    dir: tempfile::TempDir,
    blobs: Arc<MemoryBlobs>,
    image: Image,
    names: Vec<Reference>,
}

impl Written {
    fn new(compression: Compression) -> Self {
        let blobs = Arc::new(MemoryBlobs::new());
        let image = everything(&*blobs, compression);
        let names = vec![reference("acct/app:v1"), reference("registry.example:5000/app:v2")];
        Self { dir: tempfile::tempdir().unwrap(), blobs, image, names }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// All three forms, as `docker.tar`, `oci.tar` and `layout/`.
    fn write(&self, options: &LayerOptions) {
        let images = [(&self.image, &self.names[..])];
        let (tmp, cancel) = (self.dir.path(), Cancel::new());
        export::docker(&images, &*self.blobs, &Dest::File(self.path("docker.tar")), options, tmp, &cancel).unwrap();
        export::oci(&images, &*self.blobs, &Dest::File(self.path("oci.tar")), options, tmp, &cancel).unwrap();
        export::oci_dir(&images, &*self.blobs, &self.path("layout"), options, tmp, &cancel).unwrap();
    }

    fn expand(&self, formats: &Formats) -> std::path::PathBuf {
        let output = self.path("expanded");
        expand::expand(&self.image, &self.names, &*self.blobs, formats, &output, &Cancel::new()).unwrap();
        output
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

const ALL: [Compression; 3] = [Compression::Uncompressed, Compression::Gzip, Compression::Zstd];

#[test]
fn skopeo_reads_every_form_and_we_read_what_it_writes() {
    if !needs("skopeo_reads_every_form_and_we_read_what_it_writes", &["skopeo"]) {
        return;
    }
    for compression in ALL {
        let written = Written::new(compression);
        written.write(&LayerOptions::default());
        let id = written.image.config_digest;
        let sources = [
            format!("docker-archive:{}", written.path("docker.tar").display()),
            format!("docker-archive:{}:acct/app:v1", written.path("docker.tar").display()),
            format!("oci-archive:{}:v1", written.path("oci.tar").display()),
            format!("oci:{}:v2", written.path("layout").display()),
        ];
        for (number, source) in sources.iter().enumerate() {
            let config = run(Command::new("skopeo").args(["inspect", "--config", "--raw", source]));
            assert_eq!(Digest::of(&config), id, "{source}");
            let inspected = json(&run(Command::new("skopeo").args(["inspect", source])));
            assert_eq!(inspected["Layers"].as_array().unwrap().len(), 4, "{source}");

            for form in ["docker-archive", "oci-archive", "oci"] {
                if compression == Compression::Zstd && form == "docker-archive" {
                    // Which skopeo does not write.
                    continue;
                }
                let copy = written.path(&format!("copy-{number}-{form}"));
                let target = match form {
                    "docker-archive" => format!("{form}:{}:acct/app:v1", copy.display()),
                    _ => format!("{form}:{}:docker.io/acct/app:v1", copy.display()),
                };
                run(Command::new("skopeo").args(["copy", "--insecure-policy", "--quiet", source, &target]));
                let opened = image::open(&copy, written.dir.path()).unwrap();
                let [(image, names)] = &opened.images[..] else { panic!("{target}: not one image") };
                // Between Docker's and OCI's form, skopeo writes the config anew.
                if source.starts_with(form) {
                    assert_eq!(image.config_digest, id, "{target}");
                }
                let diff_ids = |image: &Image| image.layers.iter().map(|layer| layer.diff_id).collect::<Vec<_>>();
                assert_eq!(diff_ids(image), diff_ids(&written.image), "{target}");
                assert_eq!(image.config.config, written.image.config.config, "{target}");
                assert_eq!(names[..], [reference("acct/app:v1")], "{target}");
                for descriptor in image.blobs() {
                    dockless::store::copy(&*opened.blobs, &MemoryBlobs::new(), &descriptor.digest).unwrap();
                }
            }
        }
    }
}

#[test]
fn our_root_file_system_is_umoci_s_entry_by_entry() {
    const TEST: &str = "our_root_file_system_is_umoci_s_entry_by_entry";
    if !needs(TEST, &["umoci"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "umoci keeps owners and devices only as root");
    }
    for compression in [Compression::Uncompressed, Compression::Gzip] {
        let written = Written::new(compression);
        written.write(&LayerOptions::default());
        let bundle = written.path("bundle");
        let image = format!("{}:v1", written.path("layout").display());
        run(Command::new("umoci").args(["unpack", "--image", &image]).arg(&bundle));
        let output = written.expand(&Formats { rootfs: true, ..Formats::default() });
        let (ours, theirs) = (describe(&output.join("rootfs")), describe(&bundle.join("rootfs")));
        assert!(ours.len() > 35, "{} entries", ours.len());
        let differences = differences(&ours, &theirs);
        assert!(differences.is_empty(), "ours / umoci's:\n{}", differences.join("\n"));
    }
}

#[test]
fn buildah_starts_from_our_archives() {
    const TEST: &str = "buildah_starts_from_our_archives";
    if !needs(TEST, &["buildah"]) {
        return;
    }
    if !is_root() {
        return skip(TEST, "buildah's vfs driver keeps owners only as root");
    }
    let written = Written::new(Compression::Gzip);
    written.write(&LayerOptions::default());
    let buildah = |args: &[&str]| {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(written.path("storage")).arg("--runroot").arg(written.path("run"));
        command.args(["--storage-driver", "vfs"]).args(args);
        run(&mut command)
    };
    for source in [
        format!("docker-archive:{}", written.path("docker.tar").display()),
        format!("oci-archive:{}:v1", written.path("oci.tar").display()),
    ] {
        let name = String::from_utf8(buildah(&["from", "--pull-never", &source])).unwrap();
        let name = name.trim();
        let inspected = json(&buildah(&["inspect", name]));
        let id = inspected["FromImageID"].as_str().unwrap().to_owned();
        assert_eq!(id, written.image.config_digest.hex(), "{source}");
        buildah(&["rm", name]);
    }
}

#[test]
fn dockerd_loads_what_we_save_and_we_open_what_it_saves() {
    let Some(dockerd) = Dockerd::start("dockerd_loads_what_we_save_and_we_open_what_it_saves") else { return };
    for compression in ALL {
        let written = Written::new(compression);
        written.write(&LayerOptions::default());
        let id = written.image.config_digest.to_string();
        run(dockerd.docker(&["load", "--quiet", "-i"]).arg(written.path("docker.tar")));
        for name in ["acct/app:v1", "registry.example:5000/app:v2"] {
            let loaded = run(&mut dockerd.docker(&["image", "inspect", "--format", "{{.Id}}", name]));
            assert_eq!(String::from_utf8(loaded).unwrap().trim(), id, "{compression:?}");
        }
        let saved = written.path("saved.tar");
        run(dockerd.docker(&["save", "acct/app:v1", "-o"]).arg(&saved));
        let opened = image::open(&saved, written.dir.path()).unwrap();
        let [(image, names)] = &opened.images[..] else { panic!("not one image") };
        assert_eq!(image.config_digest, written.image.config_digest);
        assert_eq!(names[..], [reference("acct/app:v1")]);

        let output = written.path("from-docker");
        let formats = Formats { image_tar: Some(expand::Archive::Docker), rootfs: is_root(), ..Formats::default() };
        expand::expand(image, names, &*opened.blobs, &formats, &output, &Cancel::new()).unwrap();
        if is_root() {
            let ours = written.expand(&Formats { rootfs: true, ..Formats::default() });
            let differences = differences(&describe(&output.join("rootfs")), &describe(&ours.join("rootfs")));
            assert!(differences.is_empty(), "docker's / ours:\n{}", differences.join("\n"));
        }
        run(&mut dockerd.docker(&["rmi", "-f", &id]));
        run(dockerd.docker(&["load", "--quiet", "-i"]).arg(output.join("image.tar")));
        run(&mut dockerd.docker(&["image", "inspect", "acct/app:v1"]));
        run(&mut dockerd.docker(&["rmi", "-f", &id]));
    }
}

#[test]
fn the_store_is_a_layout_that_skopeo_and_umoci_read_by_name() {
    if !needs("the_store_is_a_layout_that_skopeo_and_umoci_read_by_name", &["skopeo", "umoci"]) {
        return;
    }
    let written = Written::new(Compression::Uncompressed);
    let store = ImageStore::open(&written.path("images"));
    store.adopt(&written.image, &*written.blobs).unwrap();
    for name in &written.names {
        store.tag(&written.image.manifest_descriptor, name).unwrap();
    }
    let layout = store.dir().display().to_string();
    let source = format!("oci:{layout}:acct/app:v1");
    let config = run(Command::new("skopeo").args(["inspect", "--config", "--raw", &source]));
    assert_eq!(Digest::of(config), written.image.config_digest);
    let listed = String::from_utf8(run(Command::new("umoci").args(["list", "--layout", &layout]))).unwrap();
    assert_eq!(listed.lines().collect::<Vec<_>>(), ["acct/app:v1", "registry.example:5000/app:v2"]);
}

#[test]
fn writing_twice_gives_the_same_bytes() {
    let written = Written::new(Compression::Gzip);
    let bytes = |name: &str| std::fs::read(written.path(name)).unwrap();
    let formats = Formats { image_tar: Some(expand::Archive::Docker), tgz: true, oci: true, ..Formats::default() };
    let mut seen = Vec::new();
    for _ in 0..2 {
        written.write(&LayerOptions { compression: Some(Compression::Zstd), ..LayerOptions::default() });
        let output = written.expand(&formats);
        let files = ["docker.tar", "oci.tar", "layout/index.json", "expanded/image.tar", "expanded/rootfs.tgz"];
        seen.push(files.map(|name| Digest::of(bytes(name))));
        std::fs::remove_dir_all(output).unwrap();
        std::fs::remove_dir_all(written.path("layout")).unwrap();
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn wrapped_archives_are_read_by_what_they_are() {
    let written = Written::new(Compression::Gzip);
    written.write(&LayerOptions::default());
    for (program, suffix) in [("gzip", "gz"), ("zstd", "zst")] {
        if find(program).is_none() {
            skip("wrapped_archives_are_read_by_what_they_are", &format!("needs {program}"));
            continue;
        }
        for name in ["docker.tar", "oci.tar"] {
            let wrapped = written.path(&format!("{name}.{suffix}"));
            std::fs::write(&wrapped, run(Command::new(program).args(["-c"]).arg(written.path(name)))).unwrap();
            let opened = image::open(&wrapped, written.dir.path()).unwrap();
            assert_eq!(opened.images[0].0.manifest_descriptor.digest, written.image.manifest_descriptor.digest);
            assert_eq!(opened.images[0].1, written.names);
        }
    }
    let output = written.expand(&Formats { tgz: true, ..Formats::default() });
    for path in [output.join("rootfs.tgz"), "/etc/passwd".into()] {
        let opened = image::open(&path, written.dir.path());
        assert!(matches!(opened, Err(image::Error::NotAnImage(_))), "{}", path.display());
    }
}

#[test]
fn an_imported_root_file_system_is_docker_s() {
    let Some(dockerd) = Dockerd::start("an_imported_root_file_system_is_docker_s") else { return };
    let dir = tempfile::tempdir().unwrap();
    let tar = busybox_tar(&dir.path().join("cache"));
    run(dockerd.docker(&["import"]).arg(&tar).arg("acct/base:1"));
    let saved = dir.path().join("saved.tar");
    run(dockerd.docker(&["save", "acct/base:1", "-o"]).arg(&saved));
    let opened = image::open(&saved, dir.path()).unwrap();
    let theirs = &opened.images[0].0.config;

    let blobs = MemoryBlobs::new();
    let epoch = Epoch::new(std::time::SystemTime::now(), None).unwrap();
    let config = ImageConfig::new(Platform::host());
    let mut file = std::fs::File::open(&tar).unwrap();
    let cancel = Cancel::new();
    let ours = image::import(&mut file, config, "Imported from -", &epoch, &blobs, &cancel).unwrap().config;
    assert_eq!(ours.rootfs, theirs.rootfs, "the archive is the layer, byte for byte");
    assert_eq!(ours.history.len(), theirs.history.len());
    assert_eq!(ours.history[0].comment, theirs.history[0].comment);
    assert_eq!(ours.platform, theirs.platform);
    // Docker writes a container's empty fields into it, which no one reads.
    let theirs = RunConfig { extra: Default::default(), ..theirs.config.clone() };
    assert_eq!(ours.config, theirs);

    for broken in [&b"no tar at all, and long enough to be taken for the header of one".repeat(20)[..], b"x"] {
        let config = ImageConfig::new(Platform::host());
        let refused = image::import(&mut &*broken, config, "Imported from -", &epoch, &blobs, &cancel);
        assert!(refused.is_err());
    }
}
