//! Where files and base images come from: named contexts, layouts, archives, addresses.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use dockless::engine::{Context, Dest, DockerfilePlan, DockerfileSource, Export, LayerOptions};

use crate::fixture::{World, listing};

#[test]
fn a_named_context_is_a_directory_a_layout_or_an_archive() {
    let world = World::new();
    world.write("file", "from elsewhere");
    let export = |export: Export| {
        let outcome =
            world.build_with("FROM scratch\nCOPY file /inside\n", |_, request| request.exports = vec![export]);
        outcome.ok();
    };
    let path = |name: &str| world.dir.path().join(name);
    let names = vec!["x:1".parse().unwrap()];
    let (archive, layout) = (path("image.tar"), path("layout"));
    let options = LayerOptions::default;
    export(Export::Docker { names: names.clone(), dest: Dest::File(archive.clone()), options: options() });
    export(Export::Oci { names, dest: Dest::File(layout.clone()), tar: false, options: options() });
    let cases = [
        (world.context().display().to_string(), "file"),
        (format!("oci-layout://{}:1", layout.display()), "inside"),
        (format!("oci-layout://{}", layout.display()), "inside"),
        (format!("image-tar:{}", archive.display()), "inside"),
    ];
    for (value, file) in cases {
        // A state folder that never saw the image.
        let other = World::new();
        let text = format!("FROM scratch\nCOPY --from=other /{file} /copied\n");
        let files = other.files_with(&text, |plan| {
            plan.named_contexts.insert("other".to_owned(), value.clone());
        });
        assert_eq!(files["copied"], "644 0:0 from elsewhere", "{value}");
        if file == "inside" {
            let files = other.files_with("FROM other\nCOPY --from=other /inside /again\n", |plan| {
                plan.named_contexts.insert("other".to_owned(), value.clone());
            });
            assert_eq!(files.keys().collect::<Vec<_>>(), ["again", "inside"], "{value} as a base");
        }
    }
    let error = world
        .build_with("FROM scratch\nCOPY --from=other / /\n", |plan, _| {
            plan.named_contexts.insert("other".to_owned(), format!("oci-layout://{}:2", layout.display()));
        })
        .err();
    assert!(format!("{error:#}").contains("no such image in"), "{error:#}");
}

#[test]
fn a_root_file_system_is_a_base() {
    let world = World::new();
    let base = world.dir.path().join("base");
    for dir in ["rootfs/etc", "rootfs/usr/bin"] {
        fs::create_dir_all(base.join(dir)).unwrap();
    }
    fs::write(base.join("rootfs/etc/os-release"), "ID=test\n").unwrap();
    fs::hard_link(base.join("rootfs/etc/os-release"), base.join("rootfs/usr/bin/same")).unwrap();
    fs::write(base.join("metadata.json"), r#"{"user":"app:50","env":["A=b"],"entrypoint":null,"cmd":["sh","-l"]}"#)
        .unwrap();
    let tgz = world.dir.path().join("rootfs.tgz");
    let packed =
        Command::new("tar").args(["-czf"]).arg(&tgz).args(["-C"]).arg(&base).args(["metadata.json", "rootfs"]).status();
    assert!(packed.unwrap().success());
    for value in [format!("rootfs:{}", base.display()), format!("rootfs:{}", tgz.display())] {
        let named = |plan: &mut DockerfilePlan| {
            plan.named_contexts.insert("base".to_owned(), value.clone());
        };
        let files = world.files_with("FROM base\nCOPY --from=base /etc/os-release /copied\n", named);
        assert_eq!(
            files["copied"].split_once(' ').unwrap().1,
            files["etc/os-release"].split_once(' ').unwrap().1,
            "{value}"
        );
        assert!(files["usr/bin/same"].contains("= etc/os-release"), "one file with two names: {files:?}");
        let (outcome, _) = world.build_with("FROM base\n", |plan, _| named(plan)).ok();
        let image = world.state.images().load(&outcome.image.unwrap().manifest.unwrap()).unwrap();
        let config = image.config.config;
        assert_eq!((config.user.as_str(), config.cmd.unwrap().join(" ")), ("app:50", "sh -l".to_owned()), "{value}");
        assert!(config.env.contains(&"A=b".to_owned()));
    }
    fs::remove_file(base.join("metadata.json")).unwrap();
    let error = world
        .build_with("FROM base\n", |plan, _| {
            plan.named_contexts.insert("base".to_owned(), format!("rootfs:{}", base.display()));
        })
        .err();
    assert!(format!("{error:#}").contains("metadata.json, beside rootfs/"), "{error:#}");
}

/// Serves the files of a directory for as long as the test runs.
fn serve(dir: PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
                request.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let path = text
                .split_whitespace()
                .nth(1)
                .unwrap_or("/")
                .split('?')
                .next()
                .unwrap()
                .trim_start_matches('/')
                .to_owned();
            let answer = match fs::read(dir.join(path)) {
                Ok(body) => {
                    let mut answer =
                        format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len())
                            .into_bytes();
                    answer.extend(body);
                    answer
                }
                Err(_) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            };
            // A client that has seen enough may be gone.
            let _ = stream.write_all(&answer);
        }
    });
    address
}

#[test]
fn a_context_on_the_web_is_an_archive_or_a_dockerfile() {
    let world = World::new();
    let web = world.dir.path().join("web");
    fs::create_dir(&web).unwrap();
    let mut tar = tar::Builder::new(fs::File::create(web.join("context.tar")).unwrap());
    for (name, text) in [("Dockerfile", "FROM scratch\nCOPY data /\n"), ("data", "packed")] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        header.set_uid(1234);
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap();
    fs::write(web.join("Alone"), "FROM scratch\nADD data /added\n".replace("data", "%/data")).unwrap();
    fs::write(web.join("data"), "fetched").unwrap();
    let address = serve(web.clone());
    let alone = fs::read_to_string(web.join("Alone")).unwrap().replace('%', &address);
    fs::write(web.join("Alone"), alone).unwrap();
    // The Dockerfile may be elsewhere than the files.
    let files = world.files_with("", |plan| {
        plan.dockerfile = DockerfileSource::Remote(format!("{address}/Alone"));
    });
    assert_eq!(files["added"].rsplit(' ').next(), Some("fetched"));
    let build = |path: &str| {
        let dest = world.dir.path().join("out.tar");
        let outcome = world.build_with("", |plan, request| {
            plan.context = Context::Remote(format!("{address}/{path}"));
            plan.dockerfile = DockerfileSource::Path(None);
            request.exports = vec![Export::Tar { dest: Dest::File(dest.clone()) }];
        });
        outcome.ok();
        listing(&dest)
    };
    assert_eq!(build("context.tar")["data"], "644 0:0 packed");
    // The server tells no date; the newest file of the archive does.
    let created = created_by_context(&world, format!("{address}/context.tar"));
    assert_eq!(created, "2001-09-09T01:46:40Z");
    assert_eq!(build("Alone")["added"], "600 0:0 fetched");
}

/// When an image is from whose date is that of its context.
fn created_by_context(world: &World, address: String) -> String {
    let (outcome, _) = world
        .build_with("", |plan, _| {
            plan.context = Context::Remote(address);
            plan.dockerfile = DockerfileSource::Path(None);
            plan.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), "context".to_owned());
        })
        .ok();
    let image = world.state.images().load(&outcome.image.unwrap().manifest.unwrap()).unwrap();
    image.config.created.unwrap()
}

fn git(dir: &Path, words: &[&str]) {
    let output = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"])
        .args(words)
        .current_dir(dir)
        .env("GIT_COMMITTER_DATE", "1300000000 +0000")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_context_in_a_git_repository() {
    if Command::new("git").arg("--version").output().is_err() {
        eprintln!("skip: needs git");
        return;
    }
    let world = World::new();
    let (work, web) = (world.dir.path().join("work"), world.dir.path().join("web"));
    fs::create_dir_all(work.join("sub")).unwrap();
    fs::create_dir(&web).unwrap();
    fs::write(work.join("sub/Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(work.join("sub/.dockerignore"), "Dockerfile\n").unwrap();
    fs::write(work.join("sub/data"), "committed").unwrap();
    git(&work, &["init", "-q"]);
    git(&work, &["add", "."]);
    git(&work, &["commit", "-qm", "one"]);
    git(&work, &["clone", "-q", "--bare", ".", web.join("repo.git").to_str().unwrap()]);
    // What a plain web server needs to serve it.
    git(&web.join("repo.git"), &["update-server-info"]);
    let address = serve(web);
    let dest = world.dir.path().join("out.tar");
    let outcome = world.build_with("", |plan, request| {
        plan.context = Context::Remote(format!("{address}/repo.git#main:sub"));
        plan.dockerfile = DockerfileSource::Path(None);
        request.exports = vec![Export::Tar { dest: Dest::File(dest.clone()) }];
    });
    outcome.ok();
    let files = listing(&dest);
    assert_eq!(files["data"], "644 0:0 committed");
    assert!(!files.contains_key(".git"), "{files:?}");
    let created = created_by_context(&world, format!("{address}/repo.git#main:sub"));
    assert_eq!(created, "2011-03-13T07:06:40Z", "the commit's date");
}
