//! buildctl's command line. Without an address it is buildctl with no buildkitd: dockless builds, and what `du`, `prune`
//! and `debug workers` tell of is the state folder.

mod build;
mod disk;
mod records;
mod workers;

use clap::{Parser, Subcommand};

use crate::base::Env;
use crate::cli::exit::{Exit, Unsupported, usage};
use crate::cli::session::Session;
use crate::cli::verbs::version;
use crate::engine::remote::reach;
use crate::engine::{Place, Places};

/// buildctl without a buildkitd: dockless.
#[derive(Debug, Parser)]
#[command(name = "buildctl", version = version::VERSION, subcommand_required = true, arg_required_else_help = true)]
pub struct Buildctl {
    #[command(flatten)]
    reach: Reach,
    /// Log what dockless does
    #[arg(long)]
    pub debug: bool,
    #[arg(long, value_name = "FORMAT", default_value = "text", hide = true)]
    log_format: String,
    #[command(subcommand)]
    verb: Verb,
}

/// Where a buildkitd is, and how to reach it.
#[derive(Debug, Clone, clap::Args)]
struct Reach {
    /// Where builds happen: tcp://HOST:PORT, unix://PATH, docker://PATH
    /// [default: $DOCKLESS_ENGINE, which comes first, else $BUILDKIT_HOST, else here]
    #[arg(long, value_name = "ADDRESS")]
    addr: Option<String>,
    /// Name in the engine's certificate [default: its host]
    #[arg(long, value_name = "NAME")]
    tlsservername: Option<String>,
    /// Certificate of the authority that vouches for the engine
    #[arg(long, value_name = "FILE", conflicts_with = "tlsdir")]
    tlscacert: Option<String>,
    /// Our certificate
    #[arg(long, value_name = "FILE", conflicts_with = "tlsdir", requires = "tlskey", requires = "tlscacert")]
    tlscert: Option<String>,
    /// Our key
    #[arg(long, value_name = "FILE", conflicts_with = "tlsdir", requires = "tlscert")]
    tlskey: Option<String>,
    /// Folder with ca.pem, cert.pem and key.pem, or ca.crt, tls.crt and tls.key
    #[arg(long, value_name = "DIR")]
    tlsdir: Option<String>,
    /// How long an engine may take to answer; 0 for as long as it likes
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Wait for an engine that is not there yet
    #[arg(long)]
    wait: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum Verb {
    #[command(visible_alias = "b")]
    Build(Box<build::Args>),
    Du(disk::DuArgs),
    Prune(disk::PruneArgs),
    /// Look at who builds and at definitions
    #[command(subcommand)]
    Debug(DebugVerb),
}

#[derive(Debug, Clone, Subcommand)]
enum DebugVerb {
    Workers(workers::Args),
    Info(version::InfoArgs),
}

impl Buildctl {
    /// The environment as if the flags had been variables.
    pub fn env(&self, mut env: Env) -> Env {
        let Reach { addr, tlsservername, tlscacert, tlscert, tlskey, tlsdir, timeout, wait } = &self.reach;
        if let Some(addr) = addr {
            env = env.with("BUILDKIT_HOST", addr);
        }
        let files = [("ca", tlscacert), ("cert", tlscert), ("key", tlskey), ("dir", tlsdir), ("name", tlsservername)];
        let files: Vec<_> = files
            .into_iter()
            .filter_map(|(name, value)| Some(format!("\"{name}={}\"", value.as_ref()?.replace('"', "\"\""))))
            .collect();
        if tlsdir.is_some() || tlscacert.is_some() {
            env = env.with(reach::TLS, files.join(","));
        }
        if let Some(seconds) = timeout {
            env = env.with(reach::TIMEOUT, seconds.to_string());
        }
        if *wait {
            env = env.with(reach::WAIT, "true");
        }
        env
    }
}

pub fn run(buildctl: Buildctl, session: &Session) -> anyhow::Result<Exit> {
    let meant = buildctl.reach.addr.as_ref().map(|addr| addr.parse::<Places>());
    let meant = meant.transpose().map_err(|error| usage(format!("--addr: {error}")))?;
    let places = session.places()?;
    if let (Some(addr), Some(meant)) = (&buildctl.reach.addr, meant)
        && meant != places
    {
        session.note(format!("--addr {addr} has no effect: DOCKLESS_ENGINE says {places}"));
    }
    if buildctl.reach.tlsservername.is_some() && buildctl.reach.tlsdir.is_none() && buildctl.reach.tlscacert.is_none() {
        return Err(usage("--tlsservername needs --tlscacert or --tlsdir"));
    }
    if buildctl.log_format != "text" {
        return Err(Unsupported::refuse(format!("--log-format {}", buildctl.log_format)));
    }
    match buildctl.verb {
        Verb::Build(args) => build::run(*args, session),
        Verb::Du(args) => each(&places, session, |place| disk::du(args.clone(), place, session)),
        Verb::Prune(args) => each(&places, session, |place| disk::prune(args.clone(), place, session)),
        Verb::Debug(DebugVerb::Workers(args)) => {
            each(&places, session, |place| workers::run(args.clone(), place, session))
        }
        Verb::Debug(DebugVerb::Info(args)) => version::info(args, session),
    }
}

/// Asks every engine that is named, and says which one it is where there are several.
fn each(places: &Places, session: &Session, ask: impl Fn(&Place) -> anyhow::Result<Exit>) -> anyhow::Result<Exit> {
    for place in places.iter() {
        if places.iter().count() > 1 {
            session.note(format!("{place}:"));
        }
        ask(place)?;
    }
    Ok(Exit::Success)
}
