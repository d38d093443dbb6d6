//! `create`, `run` and `start`: containers of images, in the same boxes as RUN steps.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::base::{Platform, Reference, csv};
use crate::cli::exit::{Exit, Unsupported, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::engine::containers::{self, Container, Create, Volume};
use crate::exec::{Io, Network, Stdin};

/// Make a container: a root file system to copy files out of, or to start.
#[derive(Debug, Clone, clap::Args)]
// docker's `-h` names the host: help, with a code of success, would be taken for what the program said.
#[command(disable_help_flag = true)]
pub struct CreateArgs {
    #[arg(value_name = "IMAGE")]
    image: Reference,
    /// Program and arguments [default: the image's CMD]
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
    /// Name of the container
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Give the process standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Bind a folder of the host or a named volume: SOURCE:TARGET[:ro]
    #[arg(short, long = "volume", value_name = "SPEC")]
    volumes: Vec<String>,
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long = "mount", value_name = "SPEC")]
    mounts: Vec<String>,
    /// Mount a temporary folder: TARGET[:size=…,mode=…]
    #[arg(long = "tmpfs", value_name = "SPEC")]
    tmpfs: Vec<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Environment variable; without a value, that of the caller
    #[arg(short, long = "env", value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    /// File with environment variables, one a line
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// User and group inside: NAME|UID[:GROUP|GID]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// Program that takes the place of the image's ENTRYPOINT
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Network: host (the default), bridge (the same) or none
    #[arg(long = "network", alias = "net", value_name = "MODE")]
    network: Option<String>,
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Give the process all that this place allows
    #[arg(long)]
    privileged: bool,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Ask the registry: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pull: String,
    /// Refuse writes to the root file system
    #[arg(long)]
    read_only: bool,
    /// Line for /etc/hosts
    #[arg(long = "add-host", value_name = "HOST:IP", value_parser = flags::extra_host)]
    add_hosts: Vec<(String, String)>,
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    #[arg(short, long = "label", value_name = "KEY[=VALUE]")]
    labels: Vec<String>,
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = flags::ulimit)]
    ulimits: Vec<(String, u64, u64)>,
    #[arg(short, long = "publish", value_name = "PORTS", hide = true)]
    publish: Vec<String>,
    #[arg(short = 'P', long, hide = true)]
    publish_all: bool,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    ignored: Ignored,
}

ignored_flags!(
    /// What a daemon would do for a container, and nobody does here.
    Ignored {
        switches: ["init", "oom-kill-disable", "sig-proxy", "no-healthcheck"],
        values: [
            "restart", "memory", "memory-swap", "cpus", "cpu-shares", "cpuset-cpus", "pids-limit", "log-driver",
            "log-opt", "security-opt", "cgroup-parent", "stop-timeout", "stop-signal", "shm-size", "expose",
            "runtime", "ipc", "pid", "uts", "userns", "cap-add", "cap-drop", "dns", "group-add",
        ],
    }
);

/// Make a container and run it to its end.
#[derive(Debug, Clone, clap::Args)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Go on without waiting for it
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    create: CreateArgs,
}

/// Run a container that was made before.
#[derive(Debug, Clone, clap::Args)]
pub struct StartArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
    /// Wait for it, with its output
    #[arg(short, long)]
    attach: bool,
    /// Give it standard input
    #[arg(short, long)]
    interactive: bool,
    /// Remove it when it ends: what `run --detach --rm` becomes
    #[arg(long, hide = true)]
    rm: bool,
}

pub fn create(args: CreateArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let container = make(args, session)?;
    let mut out = Out::new();
    out.line(&container.id)?;
    out.finish()?;
    Ok(Exit::Success)
}

pub fn run(args: RunArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let (interactive, terminal) = (args.create.interactive, args.create.tty);
    let container = match make(args.create, session) {
        Ok(container) => container,
        Err(error) if error.is::<crate::cli::exit::Usage>() => return Err(error),
        Err(error) => return Err(SetupFailed(error).into()),
    };
    if args.detach {
        detach(&container, args.rm, session)?;
        let mut out = Out::new();
        out.line(&container.id)?;
        out.finish()?;
        return Ok(Exit::Success);
    }
    let exit = attach(&container.id, stdin(interactive, terminal)?, session);
    if args.rm { removed(&container.id, exit, session) } else { exit }
}

/// The process is over; what it said and how it ended is told whatever becomes of its files.
fn removed(id: &str, exit: anyhow::Result<Exit>, session: &Session) -> anyhow::Result<Exit> {
    let removed = containers::remove(session.state()?, id);
    let _ = fs::remove_file(log_path(session, id));
    exit.and_then(|exit| removed.map(|()| exit))
}

/// The container never ran; the causes say why.
#[derive(Debug, thiserror::Error)]
#[error("the container could not be made")]
pub struct SetupFailed(#[source] pub anyhow::Error);

impl SetupFailed {
    /// Docker's number for what went wrong before the container's own process ran.
    pub const EXIT: Exit = Exit::Process(125);
}

pub fn start(args: StartArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    if (args.attach || args.interactive) && args.containers.len() > 1 {
        return Err(usage("you cannot start and attach multiple containers at once"));
    }
    if args.attach || args.interactive {
        let container = containers::find(session.state()?, &args.containers[0])?;
        let exit = attach(&container.id, stdin(args.interactive, false)?, session);
        return if args.rm { removed(&container.id, exit, session) } else { exit };
    }
    let mut out = Out::new();
    for name in &args.containers {
        detach(&containers::find(session.state()?, name)?, args.rm, session)?;
        out.line(name)?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

fn stdin(interactive: bool, terminal: bool) -> anyhow::Result<Stdin> {
    match (interactive, terminal) {
        (true, true) if !io::stdin().is_terminal() => Err(usage("the input device is not a TTY")),
        (true, true) => Ok(Stdin::Terminal),
        (true, false) => Ok(Stdin::Inherit),
        (false, _) => Ok(Stdin::Null),
    }
}

fn attach(container: &str, stdin: Stdin, session: &Session) -> anyhow::Result<Exit> {
    let io = Io { stdin, stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) };
    let exit = containers::start(session.state()?, container, io, &session.cancel()?)?;
    Ok(Exit::Process(u8::try_from(exit.code()).unwrap_or(u8::MAX)))
}

/// Runs a container in a process of its own, which outlives this one. Its output goes to a file for `logs`.
fn detach(container: &Container, rm: bool, session: &Session) -> anyhow::Result<()> {
    let log = log_path(session, &container.id);
    let dir = log.parent().unwrap_or(&log);
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let out = fs::File::create(&log).with_context(|| log.display().to_string())?;
    let err = out.try_clone()?;
    let mut command = Command::new("/proc/self/exe");
    std::os::unix::process::CommandExt::arg0(&mut command, "dockless");
    // Not of this process's group: a Ctrl-C here is not for it.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
        .arg("--state")
        .arg(session.state_dir())
        .args(["--isolation", &session.isolation(), "start", "--attach", &container.id])
        .args(rm.then_some("--rm"))
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .context("start the container's process")?;
    Ok(())
}

/// Where a detached container's output is kept.
pub fn log_path(session: &Session, id: &str) -> PathBuf {
    session.state_dir().join("logs").join(id)
}

fn make(args: CreateArgs, session: &Session) -> anyhow::Result<Container> {
    session.warn_ignored(&args.ignored.0);
    if !args.publish.is_empty() || args.publish_all {
        session.warn("--publish has no effect: containers share the host's network");
    }
    if args.tty && !args.interactive {
        session.warn("--tty without --interactive only sets TERM");
    }
    if let Some(path) = args.cidfile.as_ref().filter(|path| session.absolute(path).exists()) {
        return Err(usage(format!(
            "container ID file found, make sure the other container isn't running or delete {}",
            path.display()
        )));
    }
    let network = match args.network.as_deref() {
        None | Some("host" | "bridge" | "default") => Network::Host,
        Some("none") => Network::None,
        Some(other) => {
            return Err(Unsupported::instead(
                format!("--network={other}"),
                "containers share the host's network, or have none",
            ));
        }
    };
    let pull = match args.pull.as_str() {
        "always" => true,
        "missing" | "never" => false,
        other => return Err(usage(format!("--pull={other} is not known (always, missing, never)"))),
    };
    if args.pull == "never" {
        session.image(&args.image.to_string())?;
    }
    let mut volumes = Vec::new();
    for spec in &args.volumes {
        volumes.push(volume(spec, session).map_err(|reason| usage(format!("--volume {spec:?}: {reason}")))?);
    }
    for spec in &args.mounts {
        volumes.push(mount(spec, session).map_err(|reason| usage(format!("--mount {spec:?}: {reason}")))?);
    }
    for spec in &args.tmpfs {
        volumes.push(tmpfs(spec).map_err(|reason| usage(format!("--tmpfs {spec:?}: {reason}")))?);
    }
    let create = Create {
        name: args.name,
        // An empty one takes the image's away.
        entrypoint: args.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        command: args.command,
        env: variables(&args.env_files, &args.env, session)?,
        user: args.user,
        workdir: args.workdir,
        hostname: args.hostname,
        network,
        volumes,
        extra_hosts: args.add_hosts,
        ulimits: args.ulimits,
        labels: args
            .labels
            .into_iter()
            .map(|label| match label.split_once('=') {
                Some((key, value)) => (key.to_owned(), value.to_owned()),
                None => (label, String::new()),
            })
            .collect(),
        privileged: args.privileged,
        read_only: args.read_only,
        terminal: args.tty,
        platform: args.platform,
        pull,
    };
    let display = Display::start(if args.quiet { Mode::Quiet } else { Mode::Auto }, &session.env);
    let made =
        containers::create(session.state()?, &args.image.or_latest(), &create, &display.progress(), &session.cancel()?);
    display.finish();
    let container = made?;
    if let Some(path) = args.cidfile {
        fs::write(session.absolute(&path), &container.id).with_context(|| path.display().to_string())?;
    }
    Ok(container)
}

/// Files first, then flags, as Docker does it; a name alone takes the caller's value.
fn variables(files: &[PathBuf], typed: &[String], session: &Session) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for path in files {
        let text = fs::read_to_string(session.absolute(path)).with_context(|| path.display().to_string())?;
        lines.extend(
            text.lines().map(str::trim_start).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned),
        );
    }
    lines.extend(typed.iter().cloned());
    Ok(lines
        .into_iter()
        .filter_map(|line| match line.contains('=') {
            true => Some(line),
            false => session.env.var(&line).map(|value| format!("{line}={value}")),
        })
        .collect())
}

/// `SOURCE:TARGET[:OPTIONS]`; a source that is no path is the name of a volume.
fn volume(spec: &str, session: &Session) -> Result<Volume, String> {
    let mut parts = spec.split(':');
    let (Some(source), Some(target)) = (parts.next(), parts.next()) else {
        return Err("anonymous volumes are not supported; name a source".to_owned());
    };
    let mut read_only = false;
    for option in parts.next().unwrap_or_default().split(',').filter(|o| !o.is_empty()) {
        match option {
            "ro" => read_only = true,
            // What a bind mount is anyway, and marks of SELinux, which nobody labels here.
            "rw" | "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" | "private" => {}
            other => return Err(format!("option {other:?} is not known")),
        }
    }
    if parts.next().is_some() {
        return Err("too many colons".to_owned());
    }
    let target = absolute_target(target)?;
    if source.is_empty() {
        return Err("the source is empty".to_owned());
    }
    if source.starts_with(['/', '.', '~']) {
        let source = session.absolute(source);
        // Docker makes a missing source; so do we, or the Makefiles that count on it would fail.
        if !source.exists() {
            fs::create_dir_all(&source).map_err(|error| format!("{}: {error}", source.display()))?;
        }
        return Ok(Volume::Bind { source, target, read_only });
    }
    Ok(Volume::Named { name: volume_name(source)?, target, read_only })
}

fn mount(spec: &str, session: &Session) -> Result<Volume, String> {
    let (mut kind, mut source, mut target) = ("volume".to_owned(), None, None);
    let (mut read_only, mut size, mut mode) = (false, None, None);
    for (key, value) in csv::pairs(spec)? {
        let text = || value.clone().ok_or_else(|| format!("{key} has no value"));
        match key.as_str() {
            "type" => kind = text()?,
            "source" | "src" => source = Some(text()?),
            "target" | "dst" | "destination" => target = Some(text()?),
            "readonly" | "ro" => read_only = csv::switch(&key, value.as_deref())?,
            "tmpfs-size" => size = Some(flags::bytes(&text()?)?),
            "tmpfs-mode" => {
                mode = Some(u32::from_str_radix(&text()?, 8).map_err(|_| "tmpfs-mode is not octal".to_owned())?);
            }
            "bind-propagation" | "consistency" => {}
            _ => return Err(format!("{key:?} is not known")),
        }
    }
    let target = absolute_target(&target.ok_or("it has no target")?)?;
    match (kind.as_str(), source) {
        ("tmpfs", None) => Ok(Volume::Tmpfs { target, size, mode }),
        ("bind", Some(source)) => {
            let source = session.absolute(source);
            // `--mount` is the strict one: it does not make its source.
            if !source.exists() {
                return Err(format!("bind source path does not exist: {}", source.display()));
            }
            Ok(Volume::Bind { source, target, read_only })
        }
        ("volume", Some(name)) => Ok(Volume::Named { name: volume_name(&name)?, target, read_only }),
        ("bind" | "volume", None) => Err("it has no source".to_owned()),
        (kind, _) => Err(format!("type={kind} is not known (bind, volume, tmpfs)")),
    }
}

fn tmpfs(spec: &str) -> Result<Volume, String> {
    let (target, options) = spec.split_once(':').unwrap_or((spec, ""));
    let (mut size, mut mode) = (None, None);
    for option in options.split(',').filter(|o| !o.is_empty()) {
        match option.split_once('=') {
            Some(("size", text)) => size = Some(flags::bytes(text)?),
            Some(("mode", text)) => {
                mode = Some(u32::from_str_radix(text, 8).map_err(|_| format!("mode={text} is not octal"))?);
            }
            None if ["rw", "noexec", "nosuid", "nodev", "exec", "suid", "dev"].contains(&option) => {}
            _ => return Err(format!("option {option:?} is not known")),
        }
    }
    Ok(Volume::Tmpfs { target: absolute_target(target)?, size, mode })
}

fn absolute_target(target: &str) -> Result<String, String> {
    if target.starts_with('/') { Ok(target.to_owned()) } else { Err(format!("target {target:?} is not absolute")) }
}

fn volume_name(name: &str) -> Result<String, String> {
    let valid = name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if valid {
        Ok(name.to_owned())
    } else {
        Err(format!("{name:?} is no name of a volume, [a-zA-Z0-9][a-zA-Z0-9_.-]*"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Env;
    use crate::cli::session::{Chosen, Face};

    #[test]
    fn volumes_mean_what_docker_means() {
        let session = Session::new(Env::of([]), Face::Docker, Chosen::default());
        let bind = |source: &str, read_only| Volume::Bind { source: source.into(), target: "/t".into(), read_only };
        assert_eq!(volume("/tmp:/t", &session), Ok(bind("/tmp", false)));
        assert_eq!(volume("/tmp:/t:ro,z", &session), Ok(bind("/tmp", true)));
        let named = Volume::Named { name: "cache".into(), target: "/t".into(), read_only: false };
        assert_eq!(volume("cache:/t", &session), Ok(named.clone()));
        assert_eq!(mount("type=volume,src=cache,dst=/t", &session), Ok(named));
        assert_eq!(mount("type=bind,source=/tmp,target=/t,readonly", &session), Ok(bind("/tmp", true)));
        assert!(mount("type=bind,source=/no/such,target=/t", &session).is_err());
        let tmp = Volume::Tmpfs { target: "/t".into(), size: Some(1 << 20), mode: Some(0o1777) };
        assert_eq!(tmpfs("/t:size=1m,mode=1777"), Ok(tmp.clone()));
        assert_eq!(mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777", &session), Ok(tmp));
        for spec in ["/t", "a:t", "a:/t:x", "a:/t:ro:x", "../x y"] {
            assert!(volume(spec, &session).is_err(), "{spec}");
        }
    }
}
