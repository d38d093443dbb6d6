//! Records what the `buildkit-llb` crate of 2020 makes of a few graphs: `cargo run -- ..` writes a file for each into the
//! folder beside. It is run by hand; the tests read what was recorded. The crate puts the attributes of a source into a
//! random order, so that a second record may differ in bytes from the first and mean the same.

use std::fs::{self, File};
use std::path::Path;

use buildkit_llb::prelude::*;

fn main() {
    let out = std::env::args().nth(1).expect("a folder to write to");
    record(&out, "run", run());
    record(&out, "files", files());
    record(&out, "sources", sources());
}

fn record(out: &str, name: &str, output: OperationOutput<'_>) {
    let dir = Path::new(out).join(name);
    fs::create_dir_all(&dir).unwrap();
    Terminal::with(output).write_definition(File::create(dir.join("definition.pb")).unwrap()).unwrap();
}

/// A process with every mount that the crate has; two of them are results.
fn run() -> OperationOutput<'static> {
    let base = Source::image("library/busybox:latest").custom_name("the base").ref_counted();
    let context = Source::local("context").add_include_pattern("*.txt").add_exclude_pattern("b*").ref_counted();
    let script = "test -f /in/a.txt && ! test -e /in/b.txt && ! test -e /in/c.md && test \"$(cat /one)\" = from-a && \
                  test \"$WORD\" = hi && test \"$(pwd)\" = /work && echo kept >/cache/k && cp /in/a.txt /out/copied && \
                  echo \"$WORD\" >/base/added";
    let work = FileSystem::mkdir(OutputIdx(0), LayerPath::Other(base.output(), "/work")).into_operation().ref_counted();
    let mounts = FileSystem::mkdir(OutputIdx(0), LayerPath::Scratch("/below")).into_operation().ref_counted();
    let command = Command::run("/bin/sh")
        .args(&["-c", script])
        .env("PATH", "/bin")
        .env("WORD", "hi")
        .cwd("/work")
        .user("root")
        .mount(Mount::Layer(OutputIdx(0), work.output(0), "/"))
        .mount(Mount::ReadOnlyLayer(context.output(), "/in"))
        .mount(Mount::ReadOnlySelector(context.output(), "/one", "a.txt"))
        .mount(Mount::Scratch(OutputIdx(1), "/out"))
        .mount(Mount::Layer(OutputIdx(2), mounts.output(0), "/base"))
        .mount(Mount::SharedCache("/cache"))
        .mount(Mount::OptionalSshAgent("/agent"))
        .custom_name("work")
        .ref_counted();
    FileSystem::sequence()
        .custom_name("results")
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(command.output(1), "/copied"))
                .to(OutputIdx(0), LayerPath::Scratch("/copied")),
        )
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(command.output(2), "/"))
                .to(OutputIdx(1), LayerPath::Own(OwnOutputIdx(0), "/base/"))
                .recursive(true)
                .create_path(true),
        )
        .ref_counted()
        .output(1)
}

/// Every action on files, on scratch and on each other's results.
fn files() -> OperationOutput<'static> {
    let context = Source::local("context").ref_counted();
    FileSystem::sequence()
        .append(FileSystem::mkdir(OutputIdx(0), LayerPath::Scratch("/a/b")).make_parents(true))
        .append(
            FileSystem::mkfile(OutputIdx(1), LayerPath::Own(OwnOutputIdx(0), "/a/b/made")).data(b"content".to_vec()),
        )
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(context.output(), "/*.txt"))
                .to(OutputIdx(2), LayerPath::Own(OwnOutputIdx(1), "/texts/"))
                .wildcard(true)
                .create_path(true),
        )
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(context.output(), "/link"))
                .to(OutputIdx(3), LayerPath::Own(OwnOutputIdx(2), "/followed"))
                .follow_symlinks(true),
        )
        .ref_counted()
        .output(3)
}

/// What is not here; the recorded graph is only read.
fn sources() -> OperationOutput<'static> {
    let repository = Source::git("https://git.example/a/b.git").with_reference("main").ref_counted();
    let file = Source::http("https://web.example/f").with_file_name("named").ref_counted();
    let image = Source::image("registry.example/i")
        .with_tag("1")
        .with_digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")
        .with_resolve_mode(ResolveMode::PreferLocal)
        .ref_counted();
    FileSystem::sequence()
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(repository.output(), "/x"))
                .to(OutputIdx(0), LayerPath::Other(image.output(), "/x")),
        )
        .append(
            FileSystem::copy()
                .from(LayerPath::Other(file.output(), "/named"))
                .to(OutputIdx(1), LayerPath::Own(OwnOutputIdx(0), "/y")),
        )
        .ref_counted()
        .output(1)
}
