//! Images and containers by docker's and img's words.

use crate::cli::Place;
use crate::oracle::BUSYBOX;

#[test]
fn images_are_listed_named_inspected_and_removed_as_docker_does_it() {
    let test = "images_are_listed_named_inspected_and_removed_as_docker_does_it";
    let Some(place) = Place::with_base(test) else { return };
    let docker = |words: &str| place.run("docker", words.split_whitespace());
    assert!(docker("images").ok().starts_with("REPOSITORY "));
    docker(&format!("tag {BUSYBOX} acct/app:1")).ok();
    assert_eq!(docker("images -q absent").ok(), "");
    assert_eq!(docker("images --format {{.Repository}}:{{.Tag}} acct/*").ok(), "acct/app:1\n");
    assert_eq!(place.run("docker", ["inspect", "-f", "{{json .Config.Cmd}}", "acct/app:1"]).ok(), "[\"sh\"]\n");
    assert_eq!(
        place.run("docker", ["image", "inspect", "--format", "{{index .RepoTags 0}}", "acct/app:1"]).ok(),
        "acct/app:1\n"
    );
    let whole: serde_json::Value = serde_json::from_str(&docker("inspect acct/app:1").ok()).unwrap();
    assert_eq!(whole[0]["RepoTags"][0], "acct/app:1");
    let err = docker("image inspect absent").fails_with(1);
    assert!(err.contains("No such image: absent"), "{err}");
    assert!(docker("history --no-trunc acct/app:1").ok().contains("Imported from"));
    assert!(docker("rmi acct/app:1").ok().contains("Untagged: acct/app:1"));
    docker("rmi acct/app:1").fails_with(1);
    docker("rmi -f acct/app:1").ok();
}

#[test]
fn an_archive_is_saved_and_loaded_under_its_name() {
    let Some(place) = Place::with_base("an_archive_is_saved_and_loaded_under_its_name") else { return };
    let id = place.dockless(&format!("inspect -f {{{{.Id}}}} {BUSYBOX}")).ok();
    place.dockless(&format!("save -o base.tar {BUSYBOX}")).ok();
    place.run("img", ["save", "--format", "oci", "-o", "oci.tar", BUSYBOX]).ok();
    place.dockless(&format!("rmi {BUSYBOX}")).ok();
    assert_eq!(place.dockless("images -q").ok(), "");
    for archive in ["base.tar", "oci.tar"] {
        assert_eq!(place.dockless(&format!("load -i {archive}")).ok(), format!("Loaded image: {BUSYBOX}\n"));
        assert_eq!(place.dockless(&format!("inspect -f {{{{.Id}}}} {BUSYBOX}")).ok(), id);
    }
    std::fs::write(place.at("broken.tar"), &std::fs::read(place.at("base.tar")).unwrap()[..4096]).unwrap();
    place.dockless("load -i broken.tar").fails_with(7);
    place.dockless("save absent").fails_with(8);
}

#[test]
fn import_takes_a_config_and_refuses_what_is_none() {
    let Some(place) = Place::with_base("import_takes_a_config_and_refuses_what_is_none") else { return };
    place.write("root/bin/x", "");
    let tar = std::process::Command::new("tar")
        .args(["-C", "root", "-czf", "root.tgz", "."])
        .current_dir(place.work())
        .status();
    assert!(tar.unwrap().success());
    let changes = [
        "-c",
        "ENV PATH=/bin",
        "-c",
        "ENV A=b C=d",
        "-c",
        "ENTRYPOINT [\"/bin/x\"]",
        "-c",
        "LABEL k=v",
        "-c",
        "WORKDIR /bin",
    ];
    place.run("docker", ["import"].into_iter().chain(changes).chain(["root.tgz", "mine:1"])).ok();
    let config = place.run("docker", ["inspect", "-f", "{{json .Config}}", "mine:1"]).ok();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["Env"], serde_json::json!(["PATH=/bin", "A=b", "C=d"]));
    assert_eq!(config["Entrypoint"], serde_json::json!(["/bin/x"]));
    assert_eq!(config["Labels"]["k"], "v");
    assert_eq!(config["WorkingDir"], "/bin");
    let err = place.run("docker", ["import", "-c", "RUN true", "root.tgz", "mine:2"]).fails_with(125);
    assert!(err.contains("RUN is not a valid change command"), "{err}");
    place.write("text", "no tar");
    place.run("dockless", ["import", "text", "mine:3"]).fails_with(7);
}

#[test]
fn files_are_copied_out_of_a_container_that_never_ran() {
    let Some(place) = Place::with_base("files_are_copied_out_of_a_container_that_never_ran") else { return };
    let docker = |words: &str| place.run("docker", words.split_whitespace());
    let id = docker(&format!("create --name c1 {BUSYBOX}")).ok();
    assert_eq!(id.trim().len(), 64);
    docker("cp c1:/etc/passwd .").ok();
    assert!(place.read("passwd").starts_with("root:"));
    docker("cp c1:/etc/passwd renamed").ok();
    docker("cp c1:/etc ./copied").ok();
    assert_eq!(place.read("copied/passwd"), place.read("renamed"));
    docker("cp c1:/etc copied").ok();
    assert!(place.at("copied/etc/group").is_file(), "into a folder that is there");
    place.write("new.txt", "new\n");
    docker("cp new.txt c1:/etc/").ok();
    docker("cp new.txt c1:/etc/named.txt").ok();
    docker("cp c1:/etc/named.txt back").ok();
    assert_eq!(place.read("back"), "new\n");
    let tar = place.command("docker").args(["cp", "c1:/etc/new.txt", "-"]).output().unwrap();
    std::fs::write(place.at("one.tar"), tar.stdout).unwrap();
    let names = std::process::Command::new("tar").args(["-tf", "one.tar"]).current_dir(place.work()).output().unwrap();
    assert_eq!(names.stdout, b"new.txt\n");
    docker("cp c1:/nowhere .").fails_with(1);
    docker(&format!("create --name c1 {BUSYBOX}")).fails_with(1);
    assert!(docker("ps -a --format {{.Names}}").ok().contains("c1"));
    docker("rm -f c1").ok();
    docker("rm -f c1").ok();
    docker("rm c1").fails_with(1);
}

#[test]
fn a_run_ends_as_its_process_does() {
    let Some(place) = Place::with_base("a_run_ends_as_its_process_does") else { return };
    let run = |words: &[&str]| place.run("docker", ["run", "--rm"].iter().chain(words));
    assert_eq!(run(&[BUSYBOX, "echo", "hi"]).ok(), "hi\n");
    assert_eq!(run(&[BUSYBOX, "sh", "-c", "exit 7"]).code, Some(7));
    assert_eq!(run(&[BUSYBOX, "nope"]).code, Some(127));
    assert_eq!(run(&[BUSYBOX, "/etc/passwd"]).code, Some(126));
    assert_eq!(run(&["absent.invalid/x"]).code, Some(125));
    assert_eq!(run(&["--bogus", BUSYBOX]).code, Some(125));
    assert_eq!(run(&["-e", "A=b", "-w", "/tmp", BUSYBOX, "sh", "-c", "echo $A $PWD"]).ok(), "b /tmp\n");
    assert_eq!(run(&["--entrypoint", "cat", BUSYBOX, "/etc/hostname"]).code, Some(0));
    // It printed the help, and succeeded.
    assert_eq!(run(&["-h", "builder", BUSYBOX, "cat", "/etc/hostname"]).ok(), "builder\n");
    place.write("xfer/in", "in\n");
    let volume = format!("{}:/xfer", place.at("xfer").display());
    run(&["-v", &volume, BUSYBOX, "sh", "-c", "cat /xfer/in > /xfer/out"]).ok();
    assert_eq!(place.read("xfer/out"), "in\n");
    assert_eq!(place.run("docker", ["ps", "-aq"]).ok(), "", "--rm leaves nothing");
}

#[test]
fn a_detached_run_goes_on_and_can_be_waited_for() {
    let Some(place) = Place::with_base("a_detached_run_goes_on_and_can_be_waited_for") else { return };
    let docker = |words: &[&str]| place.run("docker", words);
    docker(&["run", "-d", "--name", "bg", BUSYBOX, "sh", "-c", "echo out > /made; echo said; exit 3"]).ok();
    assert_eq!(docker(&["wait", "bg"]).ok(), "3\n");
    assert_eq!(docker(&["logs", "bg"]).ok(), "said\n");
    docker(&["cp", "bg:/made", "made"]).ok();
    assert_eq!(place.read("made"), "out\n");
    docker(&["rm", "bg"]).ok();
}

#[test]
fn probes_for_a_daemon_succeed() {
    let place = Place::empty();
    for words in [
        &["info"][..],
        &["version", "--format", "{{.Server.Version}}"],
        &["buildx", "version"],
        &["buildx", "create", "--use", "--name", "x", "--bootstrap"],
        &["buildx", "inspect", "--bootstrap"],
        &["network", "create", "n"],
        &["volume", "rm", "--force", "v"],
        &["system", "df"],
        &["ps"],
        &["--host", "tcp://x", "images"],
    ] {
        place.run("docker", words).ok();
    }
    for words in [&["version"][..], &["ls"], &["du"]] {
        place.run("img", words).ok();
    }
    place.run("buildctl", ["debug", "workers"]).ok();
    place.run("buildctl-daemonless.sh", ["--version"]).ok();
}
