//! `build`: of dockless, docker, buildx and img.

mod plan;

use std::path::PathBuf;

use clap::Parser as _;

use crate::base::{Platform, Reference};
use crate::cli::cache;
use crate::cli::call::{self, Asked};
use crate::cli::exit::{Exit, Unsupported, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::output::{self, BareDocker, Common};
use crate::cli::progress::Mode;
use crate::cli::session::{Face, Session};
use crate::cli::solve::{self, Build};
use crate::engine::{Export, LayerOptions};
use plan::Meant;

pub use plan::build_args;

/// Build an image from a Dockerfile.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Folder with the files of the build, an address (git or tar), or - for standard input
    #[arg(value_name = "PATH | URL | -", default_value = ".", hide_default_value = true)]
    context: String,
    /// Dockerfile [default: PATH/Dockerfile]; - for standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<String>,
    /// Solve a definition made by an LLB client instead of a Dockerfile; - for standard input. Its local sources are
    /// PATH as `context`, and folders given with --build-context; so are its OCI layouts
    #[arg(long, value_name = "FILE")]
    #[arg(conflicts_with_all = ["file", "target", "build_args", "labels", "platforms", "no_cache_filter", "pull",
        "network", "add_hosts", "ulimits", "shm_size", "call", "check"])]
    llb: Option<String>,
    /// Name of the image; may be repeated
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    tags: Vec<Reference>,
    /// Stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Build argument; without a value, that of the environment variable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Label of the image
    #[arg(long = "label", value_name = "KEY[=VALUE]", value_parser = flags::label)]
    labels: Vec<(String, String)>,
    /// What to build for, such as linux/arm64; several joined by commas
    #[arg(long = "platform", value_name = "OS/ARCH", value_delimiter = ',')]
    platforms: Vec<Platform>,
    /// What to make of the result: DIR, -, or type=image|docker|oci|tar|local|registry[,dest=…]
    #[arg(short, long = "output", value_name = "SPEC")]
    outputs: Vec<String>,
    /// Keep the image in the local store (what is done without -o)
    #[arg(long)]
    load: bool,
    /// Push the image to its registry
    #[arg(long)]
    push: bool,
    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=VAR]
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    /// Agent or keys for RUN --mount=type=ssh: ID[=SOCKET[,raw=true]|KEY[,KEY]]
    #[arg(long, value_name = "SPEC")]
    ssh: Vec<String>,
    /// Further context: NAME=PATH, or docker-image://, oci-layout://, image-tar:, rootfs:, an address
    #[arg(long = "build-context", value_name = "NAME=VALUE", value_parser = flags::key_value)]
    build_contexts: Vec<(String, String)>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Run the steps of these stages again
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Network of RUN steps: default, host or none
    #[arg(long, value_name = "MODE", default_value = "default", hide_default_value = true)]
    network: String,
    /// What steps may do on an engine elsewhere: network.host, security.insecure
    #[arg(long = "allow", value_name = "NAME", value_delimiter = ',')]
    allow: Vec<String>,
    /// Line for /etc/hosts of RUN steps
    #[arg(long = "add-host", value_name = "HOST:IP", value_parser = flags::extra_host)]
    add_hosts: Vec<(String, String)>,
    /// Limit of RUN steps, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit)]
    ulimits: Vec<(String, u64, u64)>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "BYTES", value_parser = flags::bytes)]
    shm_size: Option<u64>,
    /// Annotation of the manifest
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    annotations: Vec<String>,
    /// Write the image id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Write digests and names to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Build nothing, and tell of mistakes and lint rules: --call=check
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new(), hide_default_value = true, action = clap::ArgAction::Set)]
    check: bool,
    /// Build nothing, and tell of the Dockerfile: check, outline or targets[,format=json]
    #[arg(long, value_name = "METHOD", default_value = "build", hide_default_value = true)]
    call: String,
    /// Print the image id only
    #[arg(short, long)]
    quiet: bool,
    /// How to show progress
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    progress: Mode,
    /// img's name for --progress=plain
    #[arg(long, hide = true)]
    no_console: bool,
    /// Take over steps from another machine's cache: an image, type=registry,ref=NAME, type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    cache_from: Vec<String>,
    /// Leave a cache for others: type=inline, type=registry,ref=NAME, type=local,dest=DIR [,mode=max]
    #[arg(long, value_name = "SPEC")]
    cache_to: Vec<String>,
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    provenance: Option<String>,
    #[arg(long, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true", hide = true)]
    sbom: Option<String>,
    #[arg(long, value_name = "SPEC", hide = true)]
    attest: Vec<String>,
    /// Put all that the base image does not have into one layer
    #[arg(long)]
    squash: bool,
    #[command(flatten)]
    ignored: Ignored,
    /// The Dockerfile itself, from a bake file.
    #[arg(skip)]
    pub inline_dockerfile: Option<String>,
}

ignored_flags!(
    /// What a daemon would do for a build, and nobody does here.
    Ignored {
        switches: ["rm", "force-rm", "compress", "debug"],
        values: [
            "memory", "memory-swap", "cpu-period", "cpu-quota", "cpu-shares", "cpuset-cpus", "cpuset-mems",
            "security-opt", "cgroup-parent", "builder", "resource", "policy",
        ],
    }
);

pub fn run(mut args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    args.admit(session)?;
    if let (true, Some(usual)) = (args.platforms.is_empty(), session.env.nonempty("DOCKER_DEFAULT_PLATFORM")) {
        let platforms = usual.split(',').map(str::parse).collect::<Result<_, _>>();
        args.platforms = platforms.map_err(|error| usage(format!("DOCKER_DEFAULT_PLATFORM: {error}")))?;
    }
    let img = session.face == Face::Img;
    if img && args.tags.is_empty() && args.outputs.is_empty() {
        return Err(usage("please specify an image tag with `-t` or an output spec with `-o`"));
    }
    let title = args.tags.first().map(|tag| tag.clone().or_latest().familiar());
    if let (true, Some(title)) = (img, &title) {
        session.note(format!("Building {title}"));
        session.note("Setting up the rootfs... this may take a bit.");
    }
    let asked = args.asked()?;
    let build = request(args, session)?;
    if let Some(asked) = asked {
        return call::run(session, asked, build);
    }
    let solved = solve::run(session, build);
    session.note_isolation()?;
    solved?;
    if let (true, Some(title)) = (img, title) {
        session.note(format!("Successfully built {title}"));
    }
    Ok(Exit::Success)
}

/// `build`'s own words.
#[derive(Debug, clap::Parser)]
#[command(name = "build", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    build: Args,
}

impl Args {
    /// A build in words that nobody typed: what a bake file or another tool's command line means.
    pub fn of_words(words: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let parsed = Words::try_parse_from(words).map_err(|error| {
            // Without clap's advice on what to type, which nobody did.
            let text = error.to_string();
            let sentence = text.split("\n\n").next().unwrap_or_default();
            usage(sentence.trim_start_matches("error: "))
        });
        Ok(parsed?.build)
    }

    /// Refuses what would change the result and is not done; says what is ignored.
    pub fn admit(&self, session: &Session) -> anyhow::Result<()> {
        refuse(self)?;
        solve::admit(&self.allow, session)?;
        session.warn_ignored(&self.ignored.0);
        if let Some(tag) = self.tags.iter().find(|tag| tag.digest().is_some()) {
            return Err(usage(format!("a name to give cannot have a digest: {tag}")));
        }
        Ok(())
    }

    /// What is to be known of the Dockerfile instead of a build.
    pub fn asked(&self) -> anyhow::Result<Option<Asked>> {
        call::parse(if self.check { "check" } else { &self.call })
    }

    /// Whether a result goes to standard output, where there is room for one.
    pub fn writes_to_stdout(&self, session: &Session) -> anyhow::Result<bool> {
        Ok(exports(self, &self.tags, session)?.iter().any(Export::is_to_stdout))
    }

    /// Puts values in the place of contexts that name a bake file's targets.
    pub fn link(&mut self, image: impl Fn(&str) -> anyhow::Result<String>) -> anyhow::Result<()> {
        for (_, value) in &mut self.build_contexts {
            if let Some(target) = value.strip_prefix("target:") {
                *value = image(target)?;
            }
        }
        Ok(())
    }
}

/// What would change the result and is not done.
fn refuse(args: &Args) -> anyhow::Result<()> {
    let is_on = |value: &Option<String>| value.as_deref().is_some_and(|v| !matches!(v, "false" | "0" | "disabled"));
    if is_on(&args.provenance) {
        return Err(Unsupported::instead("--provenance", "--provenance=false builds without an attestation"));
    }
    if is_on(&args.sbom) {
        return Err(Unsupported::refuse("--sbom"));
    }
    if let Some(spec) = args.attest.iter().find(|spec| !spec.contains("disabled=true")) {
        return Err(Unsupported::refuse(format!("--attest {spec}")));
    }
    Ok(())
}

/// A build as it is meant.
pub fn request(args: Args, session: &Session) -> anyhow::Result<Build> {
    let env = &session.env;
    let tags: Vec<Reference> = args.tags.iter().cloned().map(Reference::or_latest).collect();
    let exports = exports(&args, &tags, session)?;
    let caches = cache::read(&args.cache_from, &args.cache_to, ["--cache-from", "--cache-to"], session)?;
    if args.squash && caches.is_inline() {
        let instead = "type=registry keeps the layers of steps";
        return Err(Unsupported::instead("--squash with --cache-to type=inline", instead));
    }
    let Meant { plan, epoch, record } = match &args.llb {
        Some(file) => plan::definition(file, &args, session)?,
        None => plan::dockerfile(&args, session)?,
    };
    Ok(Build {
        caches,
        secrets: args.secrets,
        ssh: args.ssh,
        allow: args.allow,
        mode: if args.no_console { Mode::Plain } else { args.progress },
        quiet: args.quiet,
        iidfile: args.iidfile.map(|path| env.absolute(path)),
        metadata_file: args.metadata_file.map(|path| env.absolute(path)),
        record,
        ..Build::new(plan, exports, epoch)
    })
}

fn exports(args: &Args, tags: &[Reference], session: &Session) -> anyhow::Result<Vec<Export>> {
    let bare_docker = if session.face == Face::Img { BareDocker::Stdout } else { BareDocker::Load };
    let common = Common { cwd: session.env.cwd(), tags, bare_docker };
    let mut exports = Vec::new();
    for spec in &args.outputs {
        exports.extend(output::parse(spec, &common).map_err(|reason| usage(format!("--output {reason}")))?);
    }
    let image = |push| Export::Image { names: tags.to_vec(), push, options: LayerOptions::default() };
    if args.push && tags.is_empty() {
        return Err(usage("--push needs a name: -t NAME"));
    }
    if args.push {
        exports.push(image(true));
    } else if args.load || args.outputs.is_empty() {
        exports.push(image(false));
    }
    if args.iidfile.is_some() && !exports.iter().any(|e| !matches!(e, Export::Tar { .. } | Export::Local { .. })) {
        return Err(usage("--iidfile needs an output that is an image"));
    }
    for annotation in &args.annotations {
        annotate(&mut exports, annotation)?;
    }
    for export in &mut exports {
        if let Export::Image { options, .. } | Export::Docker { options, .. } | Export::Oci { options, .. } = export {
            options.squash = args.squash;
        }
    }
    Ok(exports)
}

/// `[manifest:]KEY=VALUE`; indexes are made for several platforms only.
fn annotate(exports: &mut [Export], text: &str) -> anyhow::Result<()> {
    let (key, value) = flags::key_value(text).map_err(|reason| usage(format!("--annotation {reason}")))?;
    let key = match key.split_once(':') {
        Some(("manifest", key)) => key.to_owned(),
        Some((kind, _)) if kind.contains("index") || kind.contains("descriptor") || kind.contains('[') => {
            return Err(Unsupported::refuse(format!("--annotation {kind}:")));
        }
        _ => key,
    };
    for export in exports {
        if let Export::Image { options, .. } | Export::Docker { options, .. } | Export::Oci { options, .. } = export {
            options.annotations.insert(key.clone(), value.clone());
        }
    }
    Ok(())
}
