//! Images that travel without a registry: `export` in every form, through git's own clone, and `import` of what came.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use dockless::base::Cancel;
use dockless::image;
use dockless::layer::Compression;
use dockless::store::{BlobStore, MemoryBlobs};
use dockless::sys::{Kind, Meta};

use crate::cli::{Place, tree};
use crate::fixture::{self, Layer, meta, reference};
use crate::oracle::{find, is_root, run, skip};

/// All that git forgets but devices, and what it would ignore: an archive of it in the place's folder.
fn archive(place: &Place) {
    let blobs = MemoryBlobs::new();
    let owned = |mode| Meta { uid: 1000, gid: 1001, ..meta(mode) };
    let mut noted = meta(0o644);
    noted.xattrs.insert("user.note".into(), b"a\nb".to_vec());
    let first = Layer::new(Compression::Gzip)
        .dir("", 0o755)
        .dir("bin", 0o755)
        .file("bin/sh", 0o755, "#!")
        .file("bin/su", 0o4755, "su")
        .hardlink("bin/sudo", "bin/su")
        .dir("etc", 0o755)
        .file("etc/.gitignore", 0o644, "*\n")
        .file("etc/.keep", 0o600, "the image's own")
        .entry("etc/note", Kind::File { size: 1 }, noted, b"x")
        .entry("etc/shadow", Kind::File { size: 6 }, owned(0o640), b"secret")
        .dir("gone", 0o755)
        .dir("home", 0o755)
        .entry("home/app", Kind::Directory, owned(0o2750), b"")
        .symlink("lib", "usr/lib")
        .dir("run", 0o755)
        .entry("run/fifo", Kind::Fifo, meta(0o600), b"")
        .dir("tmp", 0o1777)
        .store(&blobs);
    let second = Layer::new(Compression::Gzip).whiteout("gone").store(&blobs);
    let image = fixture::image(&blobs, vec![first, second]);
    let mut out = File::create(place.at("app.tar")).unwrap();
    let names = [reference("acct/app:1")];
    image::docker_archive(&[(&image, &names[..])], &blobs as &dyn BlobStore, &mut out, &Cancel::new()).unwrap();
}

fn git(place: &Place, dir: &str, args: &[&str]) {
    let identity = ["-c", "user.name=t", "-c", "user.email=t@example", "-c", "init.defaultBranch=main"];
    run(Command::new("git").arg("-C").arg(place.at(dir)).args(identity).args(args));
}

/// The one layer of an image, which is its tree's digest.
fn layer(place: &Place, name: &str) -> String {
    let layers = place.run("dockless", ["inspect", "-f", "{{json .RootFS.Layers}}", name]).ok();
    assert_eq!(layers.matches("sha256:").count(), 1, "{layers}");
    layers
}

#[test]
fn a_tree_is_the_same_whichever_way_it_came() {
    const TEST: &str = "a_tree_is_the_same_whichever_way_it_came";
    if find("git").is_none() {
        return skip(TEST, "needs git");
    }
    let place = Place::empty();
    archive(&place);
    let told = place.dockless("export --format=rootfs-git app.tar repository");
    for class in
        ["owners other than root: 2", "modes other than 644 and 755", "extended attributes: 1", "hard links: 1"]
    {
        assert!(told.err.contains(class), "{class:?} in\n{}", told.err);
    }
    told.ok();
    git(&place, "repository", &["init", "--quiet"]);
    git(&place, "repository", &["add", "--force", "."]);
    git(&place, "repository", &["commit", "--quiet", "--message=rootfs"]);
    git(&place, ".", &["clone", "--quiet", "repository", "clone"]);
    assert!(place.at("clone/rootfs/tmp/.keep").is_file(), "{:?}", tree(&place.at("clone/rootfs")));
    place.dockless("import --format=rootfs-git clone out-of-git:1").ok();

    let told = place.dockless("export --format=rootfs-tgz app.tar tgz/app-1.tgz");
    assert!(
        told.err.contains("s3 resource does not unpack extended attributes: 1, the first is /etc/note"),
        "{}",
        told.err
    );
    told.ok();
    assert_eq!(tree(&place.at("tgz")), ["app-1.tgz"], "nothing beside it");
    // Told by its content.
    place.dockless("import tgz/app-1.tgz out-of-tgz:1").ok();
    assert_eq!(layer(&place, "out-of-git:1"), layer(&place, "out-of-tgz:1"));
    let config = |name: &str| {
        let config = place.run("dockless", ["inspect", "-f", "{{json .Config}}", name]).ok();
        serde_json::from_str::<serde_json::Value>(&config).unwrap()
    };
    for name in ["out-of-git:1", "out-of-tgz:1"] {
        let config = config(name);
        assert_eq!(config["User"], "app");
        assert_eq!(config["Env"], serde_json::json!(["PATH=/usr/bin:/bin", "LANG=C"]));
        assert_eq!(config["Cmd"], serde_json::json!(["/bin/sh"]));
    }
    let changes = ["-c", "ENV LANG=de EXTRA=1", "-c", "ENTRYPOINT [\"/bin/su\"]"];
    place.run("dockless", ["import"].into_iter().chain(changes).chain(["clone", "changed:1"])).ok();
    assert_eq!(config("changed:1")["Env"], serde_json::json!(["PATH=/usr/bin:/bin", "LANG=de", "EXTRA=1"]));
    assert_eq!(config("changed:1")["Cmd"], serde_json::Value::Null, "arguments of another program");
    assert_eq!(layer(&place, "changed:1"), layer(&place, "out-of-git:1"));

    if !is_root() {
        return skip(TEST, "the forms that keep owners on the disk need root");
    }
    place.dockless("export --format=rootfs app.tar plain").ok();
    place.dockless("import plain out-of-folder:1").ok();
    assert_eq!(layer(&place, "out-of-folder:1"), layer(&place, "out-of-git:1"));
    place.dockless("rootfs restore clone").ok();
    fs::remove_file(place.at("clone/rootfs.mtree")).unwrap();
    place.dockless("import clone restored:1").ok();
    assert_eq!(layer(&place, "restored:1"), layer(&place, "out-of-git:1"));
}

#[test]
fn a_work_tree_may_be_edited_but_not_lose_what_it_had() {
    let place = Place::empty();
    archive(&place);
    place.dockless("export --format=rootfs-git app.tar repository").ok();
    // Into the checkout that is there: what was is replaced, the rest stays.
    place.write("repository/README", "mine");
    place.write("repository/rootfs/old", "of the last export");
    place.dockless("export --format=rootfs-git app.tar repository").ok();
    assert!(place.at("repository/README").is_file() && !place.at("repository/rootfs/old").exists());

    let err = place.dockless("export --format=rootfs app.tar repository").fails_with(2);
    assert!(err.contains("holds the rootfs.mtree of an earlier export"), "{err}");

    place.write("repository/rootfs/etc/added", "new");
    place.write("repository/rootfs/bin/sh", "#!longer");
    let told = place.dockless("import repository edited:1");
    assert!(
        told.err.contains("rootfs.mtree does not know files (they become root's): 1, the first is /etc/added"),
        "{}",
        told.err
    );
    told.ok();
    fs::remove_file(place.at("repository/rootfs/etc/note")).unwrap();
    let err = place.dockless("import repository edited:2").fails_with(1);
    assert!(err.contains("rootfs/etc/note is in rootfs.mtree and not here: did git ignore it"), "{err}");
    fs::remove_file(place.at("repository/rootfs.mtree")).unwrap();
    let err = place.dockless("import --format=rootfs-git repository edited:2").fails_with(8);
    assert!(err.contains("has no rootfs.mtree"), "{err}");
    let err = place.dockless("rootfs restore repository").fails_with(1);
    assert!(err.contains("has no rootfs.mtree, which would say what to restore"), "{err}");
    place.dockless("rootfs restore .").fails_with(8);
}

#[test]
fn archives_of_other_makers_are_told_by_their_content() {
    let place = Place::empty();
    place.write("made/rootfs/bin/x", "x");
    place.write("made/metadata.json", r#"{"env":["A=b"],"user":""}"#);
    place.write("made/repository", "acct/app\n");
    place.write("flat/rootfs/x", "a folder of that name");
    place.write("flat/etc/x", "x");
    let tar = |dir: &str, file: &str, what: &[&str]| {
        run(Command::new("tar").arg("-C").arg(place.at(dir)).arg("-czf").arg(place.at(file)).args(what));
    };
    // As the recipe of the rootfs-in-S3 pipelines has it, and with the names in another order.
    tar("made", "dot.tgz", &["."]);
    tar("made", "last.tgz", &["rootfs", "metadata.json"]);
    tar("made", "alone.tgz", &["rootfs"]);
    tar("flat", "flat.tgz", &["."]);
    let files = |name: &str| {
        let id = place.dockless(&format!("create {name} x")).ok();
        place.dockless(&format!("export -o files.tar {}", id.trim())).ok();
        let listed = run(Command::new("tar").arg("-tf").arg(place.at("files.tar")));
        String::from_utf8(listed).unwrap()
    };
    for file in ["dot.tgz", "last.tgz"] {
        place.dockless(&format!("import {file} made:1")).ok();
        assert!(files("made:1").lines().any(|line| line.ends_with("bin/x")), "{file}");
        assert!(!files("made:1").contains("rootfs"), "{file}");
        let env = place.run("dockless", ["inspect", "-f", "{{json .Config.Env}}", "made:1"]).ok();
        assert_eq!(env, "[\"A=b\"]\n");
    }
    place.dockless("import flat.tgz flat:1").ok();
    assert!(files("flat:1").contains("rootfs/x"));
    let told = place.dockless("import --format=rootfs-tgz alone.tgz alone:1");
    assert!(told.err.contains("there is no metadata.json"), "{}", told.err);
    told.ok();
    let err = place.dockless("import --format=rootfs-tgz flat.tgz wrong:1");
    assert!(err.err.contains("beside rootfs/ and metadata.json there are files (they are left out): "), "{}", err.err);
    assert!(Path::new(&place.at("files.tar")).is_file());
}
