//! `ps`, `rm`, `stop`, `kill`, `logs` and `wait`: containers that are there, and those that run in the background.

use std::fs;
use std::io;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::exit::{Exit, Missing, Unsupported, usage};
use crate::cli::session::{Face, Out, Session};
use crate::cli::table::{Table, ago};
use crate::cli::template::Template;
use crate::engine::containers::{self, Container};

use super::container::log_path;
use super::rmi;

/// List containers.
#[derive(Debug, Clone, clap::Args)]
pub struct PsArgs {
    /// Also those that do not run
    #[arg(short, long)]
    all: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    #[arg(long)]
    no_trunc: bool,
    /// name=TEXT, label=KEY[=VALUE], status=created|running|exited
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Remove containers.
#[derive(Debug, Clone, clap::Args)]
pub struct RmArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
    /// End it first, where it runs; do not fail where there is none
    #[arg(short, long)]
    force: bool,
    /// Accepted; anonymous volumes are never made
    #[arg(short, long, hide = true)]
    volumes: bool,
}

/// End containers that run.
#[derive(Debug, Clone, clap::Args)]
pub struct StopArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
    /// How long their process may take to end by itself
    #[arg(short, long = "timeout", alias = "time", value_name = "SECONDS", default_value_t = 10)]
    timeout: u64,
}

/// End containers that run, at once. What they wrote may be lost.
#[derive(Debug, Clone, clap::Args)]
pub struct KillArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
    /// KILL; TERM is what `stop` sends
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
}

/// Show what a detached container printed.
#[derive(Debug, Clone, clap::Args)]
pub struct LogsArgs {
    #[arg(value_name = "CONTAINER")]
    container: String,
}

/// Wait for detached containers and print their exit codes.
#[derive(Debug, Clone, clap::Args)]
pub struct WaitArgs {
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub fn ps(args: PsArgs, session: &Session) -> anyhow::Result<Exit> {
    let state = session.state()?;
    let mut list = Vec::new();
    for container in containers::list(state)? {
        let running = containers::is_running(state, &container)?;
        if running || args.all {
            list.push((container, running));
        }
    }
    for filter in &args.filters {
        match filter.split_once('=') {
            Some(("name", name)) => list.retain(|(c, _)| c.name.contains(name)),
            Some(("label", label)) => list.retain(|(c, _)| match label.split_once('=') {
                Some((key, value)) => c.labels.get(key).is_some_and(|v| v == value),
                None => c.labels.contains_key(label),
            }),
            Some(("status", status)) => list.retain(|(c, running)| state_word(c, *running) == status),
            _ => return Err(usage(format!("filter {filter:?} is not known (name, label, status)"))),
        }
    }
    let now = jiff::Timestamp::now();
    let values: Vec<Value> =
        list.iter().map(|(container, running)| value(container, *running, args.no_trunc, now)).collect();
    let cell = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut out = Out::new();
    match args.format.as_deref() {
        _ if args.quiet => values.iter().try_for_each(|value| out.line(cell(value, "ID")))?,
        Some("json") => values.iter().try_for_each(|value| out.line(value.to_string()))?,
        Some(format) => {
            let template = Template::parse(format).map_err(|error| usage(error.to_string()))?;
            for value in &values {
                out.line(template.execute(value)?)?;
            }
        }
        None => {
            let mut table = Table::new(["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "NAMES"]);
            for value in &values {
                table.row(["ID", "Image", "Command", "RunningFor", "Status", "Names"].map(|key| cell(value, key)));
            }
            table.print(&mut out)?;
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}

/// Docker's word for what a container does.
pub fn state_word(container: &Container, running: bool) -> &'static str {
    match (running, container.exit) {
        (true, _) => "running",
        (false, Some(_)) => "exited",
        (false, None) => "created",
    }
}

fn value(container: &Container, running: bool, whole_ids: bool, now: jiff::Timestamp) -> Value {
    let status = match (running, container.exit) {
        (true, _) => "Up".to_owned(),
        (false, Some(code)) => format!("Exited ({code})"),
        (false, None) => "Created".to_owned(),
    };
    let short = container.id.get(..12).unwrap_or(&container.id);
    json!({
        "ID": if whole_ids { &container.id } else { short },
        "Image": container.image,
        "Command": format!("{:?}", container.args.join(" ")),
        "RunningFor": ago(Some(&container.created), now),
        "CreatedAt": container.created,
        "Status": status,
        "State": state_word(container, running),
        "Names": container.name,
        "Labels": container.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
    })
}

pub fn rm(args: RmArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let state = session.state()?;
    let mut out = Out::new();
    let mut exit = Exit::Success;
    for name in &args.containers {
        let found = containers::find(state, name);
        // img's `rm` is about images; a container of that name is what a Makefile with docker's words means.
        if session.face == Face::Img
            && matches!(found.as_ref().map_err(|e| e.downcast_ref()), Err(Some(containers::Error::Missing(_))))
        {
            rmi::remove(name, args.force, session, &mut out)?;
            continue;
        }
        let removed = found.and_then(|container| {
            if args.force {
                containers::stop(state, &container.id, Duration::ZERO, &session.cancel()?)?;
            }
            containers::remove(state, &container.id)?;
            match fs::remove_file(log_path(session, &container.id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            }
        });
        match removed {
            Ok(()) => out.line(name)?,
            Err(error) if args.force && matches!(error.downcast_ref(), Some(containers::Error::Missing(_))) => {}
            Err(error) if args.containers.len() > 1 && !error.is::<Missing>() => {
                session.note(format!("{}: {error:#}", session.face.name()));
                exit = Exit::Failure;
            }
            Err(error) => return Err(error),
        }
    }
    out.finish()?;
    Ok(exit)
}

pub fn stop(args: StopArgs, session: &Session) -> anyhow::Result<Exit> {
    end(&args.containers, Duration::from_secs(args.timeout), session)
}

pub fn kill(args: KillArgs, session: &Session) -> anyhow::Result<Exit> {
    match args.signal.trim_start_matches("SIG") {
        "KILL" | "9" => end(&args.containers, Duration::ZERO, session),
        "TERM" | "15" => end(&args.containers, Duration::MAX, session),
        other => Err(Unsupported::instead(format!("--signal={other}"), "KILL and TERM are")),
    }
}

fn end(names: &[String], patience: Duration, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let (state, cancel) = (session.state()?, session.cancel()?);
    let mut out = Out::new();
    for name in names {
        containers::stop(state, name, patience, &cancel)?;
        out.line(name)?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

pub fn logs(args: LogsArgs, session: &Session) -> anyhow::Result<Exit> {
    let container = containers::find(session.state()?, &args.container)?;
    let mut out = io::stdout().lock();
    match fs::File::open(log_path(session, &container.id)) {
        Ok(mut log) => {
            io::copy(&mut log, &mut out)?;
        }
        // It never ran detached.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    Ok(Exit::Success)
}

pub fn wait(args: WaitArgs, session: &Session) -> anyhow::Result<Exit> {
    /// Between two looks; nothing tells us when a container of another process ends.
    const PAUSE: Duration = Duration::from_millis(50);
    let (state, cancel) = (session.state()?, session.cancel()?);
    let mut out = Out::new();
    for name in &args.containers {
        loop {
            if let Some(code) = containers::find(state, name)?.exit {
                out.line(code.to_string())?;
                break;
            }
            if cancel.wait(PAUSE) {
                cancel.check()?;
            }
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}
