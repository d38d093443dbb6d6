//! buildctl's command line, as far as builds go: Dockerfiles by frontend, definitions of any LLB client by pipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use crate::base::Platform;
use crate::cli::cache;
use crate::cli::definition;
use crate::cli::exit::{Exit, Unsupported, missing, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::output::{self, BareDocker, Common};
use crate::cli::progress::Mode;
use crate::cli::session::Session;
use crate::cli::solve::{self, Build};
use crate::cli::verbs::{disk, elsewhere, version};
use crate::engine::{Context, DockerfilePlan, DockerfileSource, NoCache, Place, Plan};
use crate::exec::Network;
use crate::task::journal::BuildRecord;

/// buildctl without a buildkitd: dockless.
#[derive(Debug, Parser)]
#[command(name = "buildctl", version = version::VERSION, subcommand_required = true, arg_required_else_help = true)]
pub struct Buildctl {
    #[command(flatten)]
    pub ignored: Ignored,
    #[command(subcommand)]
    pub verb: Verb,
}

ignored_flags!(
    /// Where a buildkitd would be, and how to reach it.
    Ignored {
        switches: ["debug", "wait"],
        values: ["addr", "tlsservername", "tlscacert", "tlscert", "tlskey", "tlsdir", "timeout", "log-format"],
    }
);

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    Du(disk::DuArgs),
    Prune(disk::PruneArgs),
    /// Look at this place and at definitions
    #[command(subcommand)]
    Debug(DebugVerb),
}

#[derive(Debug, Clone, Subcommand)]
pub enum DebugVerb {
    /// Who builds: this process, or the workers of an engine elsewhere
    Workers,
    Info(version::InfoArgs),
}

/// Build: with --frontend dockerfile.v0, or a definition on standard input.
#[derive(Debug, Clone, clap::Args)]
pub struct BuildArgs {
    /// dockerfile.v0, or gateway.v0 with a docker/dockerfile source
    #[arg(long, value_name = "NAME")]
    frontend: Option<String>,
    /// Directory of the build: context=DIR, dockerfile=DIR
    #[arg(long = "local", value_name = "NAME=DIR", value_parser = flags::key_value)]
    locals: Vec<(String, String)>,
    /// Option of the frontend: target, filename, platform, build-arg:K=V, label:K=V, no-cache, add-hosts, context
    #[arg(long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// What to make of the result
    #[arg(short, long = "output", value_name = "SPEC")]
    outputs: Vec<String>,
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    progress: Mode,
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    #[arg(long, value_name = "SPEC")]
    ssh: Vec<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Leave a step cache for others: type=inline, type=registry,ref=NAME, type=local,dest=DIR [,mode=max]
    #[arg(long, value_name = "SPEC")]
    export_cache: Vec<String>,
    /// Take over steps: type=registry,ref=NAME, type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    import_cache: Vec<String>,
    #[arg(long = "allow", value_name = "NAME", hide = true)]
    allow: Vec<String>,
}

pub fn run(buildctl: Buildctl, session: &Session) -> anyhow::Result<Exit> {
    session.warn_ignored(&buildctl.ignored.0);
    match buildctl.verb {
        Verb::Build(args) => build(*args, session),
        Verb::Du(args) => match session.place()? {
            Place::Here => disk::du(args, session),
            Place::At(address) => elsewhere::du(args, &address, session),
        },
        Verb::Prune(args) => match session.place()? {
            Place::Here => disk::prune(args, session),
            Place::At(address) => elsewhere::prune(args, &address, session),
        },
        Verb::Debug(DebugVerb::Workers) => elsewhere::workers(&session.place()?, session),
        Verb::Debug(DebugVerb::Info(args)) => version::info(args, session),
    }
}

fn build(args: BuildArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let common = Common { cwd: session.env.cwd(), tags: &[], bare_docker: BareDocker::Stdout };
    let mut exports = Vec::new();
    for spec in &args.outputs {
        exports.extend(output::parse(spec, &common).map_err(|reason| usage(format!("--output {reason}")))?);
    }
    let locals = locals(&args.locals, session)?;
    let (plan, record) = match args.frontend.as_deref() {
        Some("dockerfile.v0" | "gateway.v0") => {
            let (plan, record) = dockerfile(&args, &locals, session)?;
            (Plan::Dockerfile(Box::new(plan)), record)
        }
        Some(other) => return Err(Unsupported::instead(format!("--frontend {other}"), "dockerfile.v0 is built in")),
        None => {
            if !args.export_cache.is_empty() || !args.import_cache.is_empty() {
                session.warn("--export-cache and --import-cache have no effect on a definition from standard input");
            }
            (Plan::Llb { definition: definition::read("-", session)?, locals }, None)
        }
    };
    let build = Build {
        plan,
        secrets: args.secrets,
        secret_values: BTreeMap::new(),
        ssh: args.ssh,
        exports,
        allow: args.allow,
        epoch: session.epoch()?,
        mode: args.progress,
        quiet: false,
        iidfile: None,
        metadata_file: args.metadata_file.map(|path| session.absolute(path)),
        record,
    };
    solve::run(session, build)?;
    Ok(Exit::Success)
}

fn locals(typed: &[(String, String)], session: &Session) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    typed
        .iter()
        .map(|(name, dir)| {
            let path = session.absolute(dir);
            if path.is_dir() {
                Ok((name.clone(), path))
            } else {
                Err(missing(format!("--local {name}: {} is not a folder", path.display())))
            }
        })
        .collect()
}

fn dockerfile(
    args: &BuildArgs,
    locals: &BTreeMap<String, PathBuf>,
    session: &Session,
) -> anyhow::Result<(DockerfilePlan, Option<BuildRecord>)> {
    let mut target = None;
    let mut filename = "Dockerfile".to_owned();
    let mut build_args = crate::cli::verbs::build::build_args(&[], session);
    let mut plan_labels = BTreeMap::new();
    let mut platforms = Vec::new();
    let mut named_contexts = BTreeMap::new();
    let mut extra_hosts = Vec::new();
    let mut no_cache = if args.no_cache { NoCache::All } else { NoCache::Use };
    let mut remote = None;
    let mut pull = false;
    let mut network = None;
    for option in &args.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "target" => target = Some(value.to_owned()).filter(|t| !t.is_empty()),
            "filename" => filename = value.to_owned(),
            "platform" => platforms = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "no-cache" if value.is_empty() => no_cache = NoCache::All,
            "no-cache" => no_cache = NoCache::Stages(value.split(',').map(str::to_owned).collect()),
            "image-resolve-mode" => pull = value == "pull",
            "context" => remote = Some(value.to_owned()),
            "force-network-mode" => {
                network = match value {
                    "none" => Some(Network::None),
                    "host" => Some(Network::Host),
                    "sandbox" => None,
                    other => return Err(usage(format!("--opt force-network-mode={other} is not known"))),
                }
            }
            "add-hosts" => {
                for host in value.split(',') {
                    extra_hosts.push(flags::extra_host(host).map_err(usage)?);
                }
            }
            // Which frontend image would read the Dockerfile: ours does.
            "source" | "cmdline" if value.starts_with("docker/dockerfile") => {}
            _ => {
                if let Some(name) = key.strip_prefix("build-arg:") {
                    build_args.insert(name.to_owned(), value.to_owned());
                } else if let Some(name) = key.strip_prefix("label:") {
                    plan_labels.insert(name.to_owned(), value.to_owned());
                } else if let Some(name) = key.strip_prefix("context:") {
                    let value = match value.strip_prefix("local:") {
                        Some(local) => {
                            let dir = locals
                                .get(local)
                                .ok_or_else(|| usage(format!("--opt {option}: there is no --local {local}")))?;
                            dir.display().to_string()
                        }
                        None => value.to_owned(),
                    };
                    named_contexts.insert(name.to_owned(), value);
                } else {
                    return Err(Unsupported::refuse(format!("--opt {key}")));
                }
            }
        }
    }
    let context = match (&remote, locals.get("context")) {
        (Some(address), _) => Context::Remote(address.clone()),
        (None, Some(dir)) => Context::Directory(dir.clone()),
        (None, None) => Context::Empty,
    };
    let dir = locals.get("dockerfile").or_else(|| locals.get("context"));
    let path: Option<PathBuf> = match (dir, &remote) {
        (Some(dir), _) => Some(dir.join(Path::new(&filename))),
        (None, Some(_)) => Some(PathBuf::from(&filename)),
        (None, None) => return Err(usage("dockerfile.v0 needs --local dockerfile=DIR")),
    };
    let record = match &context {
        Context::Directory(dir) if session.journal().is_some() => Some(BuildRecord {
            cwd: session.env.cwd().to_owned(),
            context: dir.clone(),
            dockerfile: path.clone(),
            build_args: build_args.clone(),
            labels: plan_labels.clone(),
            platform: platforms.first().map(Platform::to_string),
            named_contexts: named_contexts.clone(),
            secrets: args.secrets.clone(),
            ssh: args.ssh.clone(),
            extra_hosts: extra_hosts.clone(),
            network: network.map(flags::network_name),
            allow: args.allow.clone(),
            ..BuildRecord::default()
        }),
        _ => None,
    };
    let plan = DockerfilePlan {
        context,
        dockerfile: DockerfileSource::Path(path),
        target,
        build_args,
        labels: plan_labels,
        platforms,
        named_contexts,
        no_cache,
        pull,
        network,
        extra_hosts,
        ulimits: Vec::new(),
        shm_size: None,
        caches: cache::read(&args.import_cache, &args.export_cache, ["--import-cache", "--export-cache"], session)?,
    };
    Ok((plan, record))
}
