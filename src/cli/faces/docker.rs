//! docker's command line: the verbs that real Makefiles use, under all their names.

use clap::{Parser, Subcommand};

use super::builders;
use crate::cli::exit::Exit;
use crate::cli::flags::ignored_flags;
use crate::cli::session::{Out, Session};
use crate::cli::verbs::inspect::Kind;
use crate::cli::verbs::{
    bake, build, commit, compose, container, containers, cp, disk, export, history, images, import, inspect, load,
    login, pull, push, rmi, save, tag, version, volumes,
};

/// docker without a daemon: dockless.
#[derive(Debug, Parser)]
#[command(name = "docker", version = version::VERSION, disable_help_subcommand = true, subcommand_required = true)]
#[command(arg_required_else_help = true, disable_version_flag = true)]
pub struct Docker {
    /// Print version
    #[arg(short = 'v', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
    #[command(flatten)]
    pub ignored: Ignored,
    /// Say more
    #[arg(short = 'D', long)]
    pub debug: bool,
    /// Folder of Docker's config.json, with credentials
    #[arg(long, value_name = "DIR")]
    pub config: Option<String>,
    /// How Windows boxes a container; dockless's own flag of the name is its face's
    #[arg(long, value_name = "NAME", global = true, hide = true)]
    pub isolation: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

ignored_flags!(
    /// Where a daemon would be, and how to reach it.
    Ignored {
        switches: ["tls", "tlsverify"],
        values: ["host", "context", "log-level", "tlscacert", "tlscert", "tlskey"],
    }
);

#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    Build(Box<build::Args>),
    Bake(Box<bake::Args>),
    Compose(Box<compose::Args>),
    Images(images::Args),
    Save(save::Args),
    Load(load::Args),
    Import(import::Args),
    Tag(tag::Args),
    Rmi(rmi::Args),
    Inspect(inspect::Args),
    History(history::Args),
    Pull(Box<pull::Args>),
    Push(Box<push::Args>),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Create(Box<container::CreateArgs>),
    Run(Box<container::RunArgs>),
    Start(container::StartArgs),
    Cp(cp::Args),
    Rm(containers::RmArgs),
    Ps(containers::PsArgs),
    Stop(containers::StopArgs),
    Kill(containers::KillArgs),
    Commit(commit::Args),
    Export(export::Args),
    Logs(containers::LogsArgs),
    Wait(containers::WaitArgs),
    Version(version::VersionArgs),
    Info(version::InfoArgs),
    /// Images, by verb
    #[command(subcommand)]
    Image(ImageVerb),
    /// Containers, by verb
    #[command(subcommand)]
    Container(ContainerVerb),
    /// The builder, by verb
    #[command(subcommand)]
    Builder(BuilderVerb),
    /// buildx's verbs
    #[command(subcommand)]
    Buildx(BuildxVerb),
    /// The state folder, by verb
    #[command(subcommand)]
    System(SystemVerb),
    /// Networks: there is only the host's
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Volumes, by verb
    #[command(subcommand)]
    Volume(volumes::Verb),
}

#[derive(Debug, Clone, Subcommand)]
pub enum ImageVerb {
    Build(Box<build::Args>),
    #[command(visible_alias = "list")]
    Ls(images::Args),
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    Save(save::Args),
    Load(load::Args),
    Import(import::Args),
    Tag(tag::Args),
    Inspect(inspect::Args),
    History(history::Args),
    Pull(Box<pull::Args>),
    Push(Box<push::Args>),
    Prune(disk::PruneArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub enum ContainerVerb {
    Create(Box<container::CreateArgs>),
    Run(Box<container::RunArgs>),
    Start(container::StartArgs),
    Cp(cp::Args),
    #[command(visible_alias = "remove")]
    Rm(containers::RmArgs),
    #[command(visible_alias = "ps", visible_alias = "list")]
    Ls(containers::PsArgs),
    Stop(containers::StopArgs),
    Kill(containers::KillArgs),
    Commit(commit::Args),
    Export(export::Args),
    Inspect(inspect::Args),
    Logs(containers::LogsArgs),
    Wait(containers::WaitArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub enum BuilderVerb {
    Build(Box<build::Args>),
    Prune(disk::PruneArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub enum BuildxVerb {
    #[command(visible_alias = "b")]
    Build(Box<build::Args>),
    #[command(visible_alias = "f")]
    Bake(Box<bake::Args>),
    Du(disk::DuArgs),
    Prune(disk::PruneArgs),
    Version(version::VersionArgs),
    /// There is one builder: this process
    #[command(visible_alias = "list")]
    Ls,
    /// Accepted: there is one builder
    Create(AnyArgs),
    /// Accepted: there is one builder
    Use(AnyArgs),
    /// Show the one builder
    Inspect(AnyArgs),
    /// Accepted: there is one builder
    Rm(AnyArgs),
    /// Accepted: there is one builder
    Stop(AnyArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub enum SystemVerb {
    Df(disk::DuArgs),
    Prune(disk::PruneArgs),
    Info(version::InfoArgs),
}

#[derive(Debug, Clone, Subcommand)]
pub enum NetworkVerb {
    Ls(AnyArgs),
    Create(AnyArgs),
    Rm(AnyArgs),
    Prune(AnyArgs),
}

/// Words that change nothing whatever they are.
#[derive(Debug, Clone, clap::Args)]
pub struct AnyArgs {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    words: Vec<String>,
}

impl AnyArgs {
    /// The words that are no flags, nor a flag's value after a space that we know of.
    fn names(&self) -> impl Iterator<Item = &String> {
        self.words.iter().filter(|word| !word.starts_with('-'))
    }
}

pub fn run(docker: Docker, session: &Session) -> anyhow::Result<Exit> {
    session.warn_ignored(&docker.ignored.0);
    session.warn_ignored(&docker.isolation.map(|_| "--isolation".to_owned()).into_iter().collect::<Vec<_>>());
    verb(docker.verb, session)
}

pub fn verb(verb: Verb, session: &Session) -> anyhow::Result<Exit> {
    match verb {
        Verb::Build(args) | Verb::Image(ImageVerb::Build(args)) | Verb::Builder(BuilderVerb::Build(args)) => {
            build::run(*args, session)
        }
        Verb::Buildx(BuildxVerb::Build(args)) => build::run(*args, session),
        Verb::Bake(args) | Verb::Buildx(BuildxVerb::Bake(args)) => bake::run(*args, session),
        Verb::Compose(args) => compose::run(&args, session),
        Verb::Images(args) | Verb::Image(ImageVerb::Ls(args)) => images::run(args, session),
        Verb::Save(args) | Verb::Image(ImageVerb::Save(args)) => save::run(args, session),
        Verb::Load(args) | Verb::Image(ImageVerb::Load(args)) => load::run(args, session),
        Verb::Import(args) | Verb::Image(ImageVerb::Import(args)) => import::run(args, session),
        Verb::Tag(args) | Verb::Image(ImageVerb::Tag(args)) => tag::run(args, session),
        Verb::Rmi(args) | Verb::Image(ImageVerb::Rm(args)) => rmi::run(args, session),
        Verb::Inspect(args) => inspect::run(args, session),
        Verb::Image(ImageVerb::Inspect(args)) => inspect::run(args.of_kind(Kind::Image), session),
        Verb::Container(ContainerVerb::Inspect(args)) => inspect::run(args.of_kind(Kind::Container), session),
        Verb::History(args) | Verb::Image(ImageVerb::History(args)) => history::run(args, session),
        Verb::Pull(args) | Verb::Image(ImageVerb::Pull(args)) => pull::run(*args, session),
        Verb::Push(args) | Verb::Image(ImageVerb::Push(args)) => push::run(*args, session),
        Verb::Login(args) => login::login(args, session),
        Verb::Logout(args) => login::logout(args, session),
        Verb::Create(args) | Verb::Container(ContainerVerb::Create(args)) => container::create(*args, session),
        Verb::Run(args) | Verb::Container(ContainerVerb::Run(args)) => container::run(*args, session),
        Verb::Start(args) | Verb::Container(ContainerVerb::Start(args)) => container::start(args, session),
        Verb::Cp(args) | Verb::Container(ContainerVerb::Cp(args)) => cp::run(args, session),
        Verb::Rm(args) | Verb::Container(ContainerVerb::Rm(args)) => containers::rm(args, session),
        Verb::Ps(args) | Verb::Container(ContainerVerb::Ls(args)) => containers::ps(args, session),
        Verb::Stop(args) | Verb::Container(ContainerVerb::Stop(args)) => containers::stop(args, session),
        Verb::Kill(args) | Verb::Container(ContainerVerb::Kill(args)) => containers::kill(args, session),
        Verb::Commit(args) | Verb::Container(ContainerVerb::Commit(args)) => commit::run(args, session),
        Verb::Export(args) | Verb::Container(ContainerVerb::Export(args)) => export::run(args, session),
        Verb::Logs(args) | Verb::Container(ContainerVerb::Logs(args)) => containers::logs(args, session),
        Verb::Wait(args) | Verb::Container(ContainerVerb::Wait(args)) => containers::wait(args, session),
        Verb::Version(args) | Verb::Buildx(BuildxVerb::Version(args)) => version::version(args, session),
        Verb::Info(args) | Verb::System(SystemVerb::Info(args)) => version::info(args, session),
        Verb::Buildx(BuildxVerb::Du(args)) | Verb::System(SystemVerb::Df(args)) => disk::du(args, session),
        Verb::Image(ImageVerb::Prune(args))
        | Verb::Builder(BuilderVerb::Prune(args))
        | Verb::Buildx(BuildxVerb::Prune(args))
        | Verb::System(SystemVerb::Prune(args)) => disk::prune(args, session),
        Verb::Buildx(BuildxVerb::Ls) => builders::ls(session),
        Verb::Buildx(BuildxVerb::Inspect(_)) => builders::inspect(session),
        Verb::Buildx(BuildxVerb::Create(_)) => lines(&["dockless"]),
        Verb::Buildx(BuildxVerb::Use(_) | BuildxVerb::Rm(_) | BuildxVerb::Stop(_)) => Ok(Exit::Success),
        Verb::Network(verb) => network(&verb, session),
        Verb::Volume(verb) => volumes::run(verb, session),
    }
}

/// Scripts make a network before they start containers; here all have the host's.
fn network(verb: &NetworkVerb, session: &Session) -> anyhow::Result<Exit> {
    match verb {
        NetworkVerb::Ls(_) => {
            lines(&["NETWORK ID   NAME      DRIVER    SCOPE", "host         host      host      local"])
        }
        NetworkVerb::Create(args) => {
            session.warn("containers share the host's network; no other is made");
            let names: Vec<&str> = args.names().map(String::as_str).collect();
            lines(&names)
        }
        NetworkVerb::Rm(args) => {
            let names: Vec<&str> = args.names().map(String::as_str).collect();
            lines(&names)
        }
        NetworkVerb::Prune(_) => Ok(Exit::Success),
    }
}

/// What to do instead of a verb that docker has and dockless has not; none for one that neither has.
pub fn instead(verb: &str) -> Option<&'static str> {
    match verb {
        "exec" | "attach" | "top" | "stats" | "pause" | "unpause" | "restart" | "rename" | "update" | "port" => {
            Some("a container is its one process; give `run` a command that does it all")
        }
        "swarm" | "stack" | "service" | "node" | "secret" | "config" | "plugin" => {
            Some("dockless builds images; it does not run services")
        }
        "context" | "events" | "trust" => Some("there is no daemon to ask"),
        "manifest" | "imagetools" => Some("a build with several --platform makes an index, and push sends it"),
        "search" => Some("ask the registry's own pages"),
        _ => None,
    }
}

fn lines(lines: &[&str]) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    lines.iter().try_for_each(|line| out.line(line))?;
    out.finish()?;
    Ok(Exit::Success)
}
