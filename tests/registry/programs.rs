//! `/opt/resource/check`, `in` and `out`, and `dockless resource`, as Concourse calls them.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::command::{said, succeeds, with};
use crate::docker_registry::{DockerRegistry, PASSWORD, USER, has};

/// Runs one of the three names.
fn program(home: &Path, name: &str, folder: Option<&Path>, request: &serde_json::Value) -> Output {
    use std::io::Write;
    let bin = home.join("opt/resource");
    std::fs::create_dir_all(&bin).unwrap();
    let path = bin.join(name);
    if !path.exists() {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dockless"), &path).unwrap();
    }
    let mut child = Command::new(path)
        .args(folder)
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("BUILD_ID", "7")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn the_programs_of_the_resource_do_what_concourse_asks_of_them() {
    use serde_json::{Value, json};
    if !has(&["docker-registry", "htpasswd"]) {
        return;
    }
    let server = DockerRegistry::htpasswd();
    let home = tempfile::tempdir().unwrap();
    let sources = home.path().join("sources");
    let write = |path: &str, text: &str| {
        let path = sources.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "src/Dockerfile",
        "FROM scratch\nARG BUILD\nLABEL build=$BUILD\nCOPY passwd /etc/passwd\nENV PATH=/bin A=b\nUSER app\n",
    );
    write("src/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n");
    write("version/version", "1.0\n");
    write("tags", "one two\n");
    let repository = format!("{}/acct/app", server.host());
    let source = json!({ "repository": repository, "tag": "v1.0", "username": USER, "password": PASSWORD });
    let answer = |output: &Output| -> Value {
        assert!(output.status.success(), "{}", said(output));
        assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1, "one line of JSON");
        serde_json::from_slice(&output.stdout).unwrap()
    };

    let empty = program(home.path(), "check", None, &json!({ "source": source, "version": null }));
    assert_eq!(String::from_utf8_lossy(&empty.stdout), "[]\n", "{}", said(&empty));

    let params = json!({
        "build": "src", "tag_file": "version/version", "tag_prefix": "v", "tag_as_latest": true,
        "additional_tags": "tags", "build_args": { "BUILD": "$BUILD_ID" }, "labels": { "k": "v" },
    });
    let put = program(home.path(), "out", Some(&sources), &json!({ "source": source, "params": params }));
    let version = answer(&put)["version"].clone();
    let digest = version["digest"].as_str().unwrap().to_owned();
    let log = String::from_utf8_lossy(&put.stderr).into_owned();
    assert!(log.contains(&format!("The push refers to repository [{repository}]")), "{log}");
    for tag in ["v1.0", "latest", "one", "two"] {
        assert!(log.contains(&format!("{tag}: digest: {digest} size: ")), "{tag}: {log}");
    }
    assert!(log.contains(&format!("{repository}:v1.0 tagged as latest")) && !log.contains(PASSWORD), "{log}");

    let check = program(home.path(), "check", None, &json!({ "source": source, "version": null }));
    assert_eq!(String::from_utf8_lossy(&check.stdout), format!("[{{\"digest\":\"{digest}\"}}]\n"));

    let dest = home.path().join("dest");
    let params = json!({ "save": true, "rootfs": true });
    let request = json!({ "source": source, "version": version, "params": params });
    let got = answer(&program(home.path(), "in", Some(&dest), &request));
    let read = |name: &str| std::fs::read_to_string(dest.join(name)).unwrap();
    let id = read("image-id");
    assert_eq!(got["metadata"][2], json!({ "name": "image", "value": &id[..12] }));
    assert_eq!(read("repository"), format!("{repository}\n"));
    assert_eq!(read("tag"), "v1.0\n");
    assert_eq!(read("digest"), format!("{digest}\n"));
    assert_eq!(read("metadata.json"), "{\"user\":\"app\",\"env\":[\"PATH=/bin\",\"A=b\",\"HOME=/home/app\"]}\n");
    assert!(read("rootfs/etc/passwd").starts_with("root:"));
    let inspected: Value = serde_json::from_str(&read("docker_inspect.json")).unwrap();
    assert_eq!(inspected[0]["Id"], id.trim_end());
    assert_eq!(inspected[0]["Config"]["Labels"], json!({ "build": "7", "k": "v" }));
    assert_eq!(inspected[0]["RepoDigests"], json!([format!("{repository}@{digest}")]));
    // What `docker load` would say of it, said by the verb that does the same.
    let loaded =
        with(home.path(), &[("DOCKLESS_STATE", home.path().join("other").to_str().unwrap())], "load -i dest/image");
    assert_eq!(
        String::from_utf8_lossy(&loaded.stdout),
        format!("Loaded image: {repository}:v1.0\n"),
        "{}",
        said(&loaded)
    );

    for (name, request, expected) in [
        ("check", json!({ "source": {} }), "must specify repository"),
        ("in", json!({ "source": source }), "must specify version"),
        (
            "out",
            json!({ "source": source, "params": {} }),
            "must specify build, load, load_file, import_file, or pull_repository params",
        ),
        (
            "out",
            json!({ "source": source, "params": { "build": "none" } }),
            "It doesn't appear that given Dockerfile: \"none/Dockerfile\" is a file",
        ),
        (
            "out",
            json!({ "source": source, "params": { "build": "src", "tag_file": "none" } }),
            "tag file 'none' does not exist",
        ),
        ("out", json!({ "source": source, "params": { "buidl": "src" } }), "unknown field `buidl`"),
    ] {
        let folder = (name != "check").then(|| if name == "in" { dest.as_path() } else { sources.as_path() });
        let failed = program(home.path(), name, folder, &request);
        assert_eq!(failed.status.code(), Some(1), "{name}: {}", said(&failed));
        assert!(failed.stdout.is_empty() && said(&failed).contains(expected), "{name}: {}", said(&failed));
        assert!(!said(&failed).contains(PASSWORD));
    }
}

#[test]
fn the_resources_names_speak_its_protocol() {
    if !has(&["docker-registry"]) {
        return;
    }
    let server = DockerRegistry::open();
    let home = tempfile::tempdir().unwrap();
    let request = format!(r#"{{"source":{{"repository":"{}/none"}},"version":null}}"#, server.host());
    assert_eq!(succeeds(home.path(), &["resource", "check"], &request), "[]\n");
    std::fs::create_dir(home.path().join("src")).unwrap();
    std::fs::write(home.path().join("src/Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
    let source = format!(r#"{{"repository":"{}/made"}}"#, server.host());
    let folder = home.path().to_str().unwrap();
    let put = format!(r#"{{"source":{source},"params":{{"build":"src"}}}}"#);
    let out: serde_json::Value =
        serde_json::from_str(&succeeds(home.path(), &["resource", "out", folder], &put)).unwrap();
    let dest = home.path().join("dest");
    let get = format!(r#"{{"source":{source},"version":{}}}"#, out["version"]);
    succeeds(home.path(), &["resource", "in", dest.to_str().unwrap()], &get);
    assert_eq!(std::fs::read_to_string(dest.join("rootfs/Dockerfile")).unwrap(), "FROM scratch\nCOPY Dockerfile /\n");
    // As Concourse calls it: by the name in /opt/resource.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dockless"), home.path().join("check")).unwrap();
    let check = Command::new(home.path().join("check"))
        .env_clear()
        .env("HOME", home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut check = check.unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), format!(r#"{{"source":{source}}}"#).as_bytes())
        .unwrap();
    let output = check.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("[{}]\n", out["version"]));
}
