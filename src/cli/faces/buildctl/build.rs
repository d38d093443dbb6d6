//! buildctl's `build`: Dockerfiles by frontend, definitions of any LLB client by pipe.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::base::{Platform, Reference};
use crate::cli::cache;
use crate::cli::call;
use crate::cli::definition;
use crate::cli::exit::{Exit, Unsupported, missing, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::output::{self, BareDocker, Common};
use crate::cli::progress::Mode;
use crate::cli::session::Session;
use crate::cli::solve::{self, Build};
use crate::engine::{Context, DockerfilePlan, DockerfileSource, FrontendPlan, Given, NoCache, Plan, Reader};
use crate::exec::Network;
use crate::task::journal::BuildRecord;

/// Build: with a frontend, or a definition on standard input.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// dockerfile.v0, or gateway.v0 with the image of a frontend as --opt source=IMAGE. Docker's is built in; others,
    /// and all with DOCKLESS_FRONTEND=engine, are run by the engine elsewhere
    #[arg(long, value_name = "NAME")]
    frontend: Option<String>,
    /// Directory of the build: context=DIR, dockerfile=DIR
    #[arg(long = "local", value_name = "NAME=DIR", value_parser = flags::key_value)]
    locals: Vec<(String, String)>,
    /// OCI layout that the build may read: NAME=DIR
    #[arg(long = "oci-layout", value_name = "NAME=DIR", value_parser = flags::key_value)]
    layouts: Vec<(String, String)>,
    /// Option of the frontend: target, filename, platform, build-arg:K=V, label:K=V, no-cache, add-hosts, ulimit, shm-size,
    /// context, requestid
    #[arg(long = "opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// What to make of the result: type=image|docker|oci|tar|local[,…]
    #[arg(short, long = "output", value_name = "SPEC")]
    outputs: Vec<String>,
    /// How to show progress
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    progress: Mode,
    /// Secret of a step: id=ID[,src=FILE|,env=VAR]
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,
    /// Agent or keys of a step: ID[=SOCKET[,raw=true]|KEY[,KEY]]
    #[arg(long, value_name = "SPEC")]
    ssh: Vec<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Write digests and names to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    /// Leave a step cache for others: type=inline, type=registry,ref=NAME, type=local,dest=DIR [,mode=max]
    #[arg(long, value_name = "SPEC")]
    export_cache: Vec<String>,
    /// Take over steps: type=registry,ref=NAME, type=local,src=DIR
    #[arg(long, value_name = "SPEC")]
    import_cache: Vec<String>,
    /// What steps may do on an engine elsewhere: network.host, security.insecure
    #[arg(long = "allow", value_name = "NAME")]
    allow: Vec<String>,
    #[command(flatten)]
    ignored: Ignored,
}

ignored_flags!(
    /// What a daemon would tell of itself.
    Ignored { switches: [], values: ["debug-json-cache-metrics", "trace"] }
);

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    solve::admit(&args.allow, session)?;
    session.warn_ignored(&args.ignored.0);
    let common = Common { cwd: session.env.cwd(), tags: &[], bare_docker: BareDocker::Stdout };
    let mut exports = Vec::new();
    for spec in &args.outputs {
        exports.extend(output::parse(spec, &common).map_err(|reason| usage(format!("--output {reason}")))?);
    }
    let given = Given {
        locals: folders("--local", &args.locals, session)?,
        layouts: folders("--oci-layout", &args.layouts, session)?,
    };
    let mut asked = None;
    let (plan, record) = match &args.frontend {
        Some(name) if ours(name, &args, session)? => {
            asked = question(&args.options)?;
            let (plan, record) = dockerfile(&args, &given, session)?;
            (Plan::Dockerfile(Box::new(plan)), record)
        }
        Some(name) => (Plan::Frontend(Box::new(frontend(name, &args, given)?)), None),
        None => (Plan::Llb { definition: definition::read("-", args.no_cache, session)?, given }, None),
    };
    let build = Build {
        caches: cache::read(&args.import_cache, &args.export_cache, ["--import-cache", "--export-cache"], session)?,
        secrets: args.secrets,
        ssh: args.ssh,
        allow: args.allow,
        mode: args.progress,
        metadata_file: args.metadata_file.map(|path| session.absolute(path)),
        record,
        ..Build::new(plan, exports, session.epoch()?)
    };
    if let Some(asked) = asked {
        return call::run(session, asked, build);
    }
    solve::run(session, build)?;
    Ok(Exit::Success)
}

/// What is to be known without a build: `--opt requestid=frontend.outline`. Warnings of a lint are no failure to
/// buildctl.
fn question(options: &[String]) -> anyhow::Result<Option<call::Asked>> {
    match options.iter().filter_map(|option| option.strip_prefix("requestid=")).next_back() {
        None => Ok(None),
        Some("frontend.lint") => call::parse("check,ignorestatus=true"),
        Some("frontend.outline") => call::parse("outline"),
        Some("frontend.targets") => call::parse("targets"),
        Some(other) => Err(Unsupported::instead(
            format!("--opt requestid={other}"),
            "there are frontend.lint, frontend.outline and frontend.targets",
        )),
    }
}

/// Whether our frontend is the one that is meant; another must be the engine's.
fn ours(name: &str, args: &Args, session: &Session) -> anyhow::Result<bool> {
    let source = args.options.iter().find_map(|option| option.strip_prefix("source="));
    let docker_s = |source: &str| {
        source.parse::<Reference>().is_ok_and(|reference| {
            matches!(reference.repository().rsplit('/').next(), Some("dockerfile" | "dockerfile-upstream"))
        })
    };
    let known = match (name, source) {
        ("dockerfile.v0", _) => true,
        ("gateway.v0", Some(source)) => docker_s(source),
        ("gateway.v0", None) => return Err(usage("gateway.v0 needs the image of a frontend: --opt source=IMAGE")),
        _ => false,
    };
    if known && Reader::of(&session.env)? == Reader::Dockless {
        return Ok(true);
    }
    if session.places()?.are_here() {
        let what = match source {
            Some(source) => format!("--frontend {name} with {source}"),
            None => format!("--frontend {name}"),
        };
        return Err(Unsupported::instead(what, "dockerfile.v0 is built in; a BuildKit can run others (--addr)"));
    }
    Ok(false)
}

/// As the frontend is told of it, word for word.
fn frontend(name: &str, args: &Args, given: Given) -> anyhow::Result<FrontendPlan> {
    let mut platforms = Vec::new();
    let mut options = BTreeMap::new();
    if args.no_cache {
        options.insert("no-cache".to_owned(), String::new());
    }
    for option in &args.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "platform" => platforms = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
            "requestid" => return Err(Unsupported::refuse(format!("--opt {option}"))),
            _ => drop(options.insert(key.to_owned(), value.to_owned())),
        }
    }
    Ok(FrontendPlan { name: name.to_owned(), options, given, platforms })
}

fn folders(flag: &str, typed: &[(String, String)], session: &Session) -> anyhow::Result<BTreeMap<String, PathBuf>> {
    typed
        .iter()
        .map(|(name, dir)| {
            let path = session.absolute(dir);
            if path.is_dir() {
                Ok((name.clone(), path))
            } else {
                Err(missing(format!("{flag} {name}: {} is not a folder", path.display())))
            }
        })
        .collect()
}

fn dockerfile(args: &Args, given: &Given, session: &Session) -> anyhow::Result<(DockerfilePlan, Option<BuildRecord>)> {
    let locals = &given.locals;
    let mut target = None;
    let mut filename = "Dockerfile".to_owned();
    let mut build_args = crate::cli::verbs::build::build_args(&[], session);
    let mut plan_labels = BTreeMap::new();
    let mut platforms = Vec::new();
    let mut named_contexts = BTreeMap::new();
    let mut extra_hosts = Vec::new();
    let mut ulimits = Vec::new();
    let mut shm_size = None;
    let mut no_cache = if args.no_cache { NoCache::All } else { NoCache::Use };
    let mut remote = None;
    let mut pull = false;
    let mut network = None;
    for option in &args.options {
        let (key, value) = option.split_once('=').unwrap_or((option, ""));
        match key {
            "target" => target = Some(value.to_owned()).filter(|t| !t.is_empty()),
            "filename" => filename = value.to_owned(),
            // Answered without a build.
            "requestid" => {}
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
            "ulimit" => {
                for limit in value.split(',') {
                    ulimits.push(flags::ulimit(limit).map_err(usage)?);
                }
            }
            "shm-size" => shm_size = Some(flags::bytes(value).map_err(usage)?),
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
                    let value = match (value.strip_prefix("local:"), value.strip_prefix("oci-layout://")) {
                        (Some(local), _) => {
                            let dir = locals
                                .get(local)
                                .ok_or_else(|| usage(format!("--opt {option}: there is no --local {local}")))?;
                            dir.display().to_string()
                        }
                        (None, Some(layout)) => in_layout(layout, &given.layouts),
                        (None, None) => value.to_owned(),
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
            ulimits: ulimits.clone(),
            shm_size,
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
        ulimits,
        shm_size,
    };
    Ok((plan, record))
}

/// `NAME@DIGEST` or `NAME:TAG` of a layout that was given, as a context of ours names one: by its folder.
fn in_layout(text: &str, layouts: &BTreeMap<String, PathBuf>) -> String {
    let end = text.find('@').or_else(|| text.rfind(':')).unwrap_or(text.len());
    let (name, wanted) = text.split_at(end);
    match layouts.get(name) {
        // A digest says all, a tag beside it is for people.
        Some(dir) => format!("oci-layout://{}{wanted}", dir.display()),
        None => format!("oci-layout://{text}"),
    }
}
