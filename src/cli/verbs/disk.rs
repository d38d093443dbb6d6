//! `du` and `prune`: what takes up space, and giving it back.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::Duration;

use crate::cli::exit::{Exit, usage};
use crate::cli::flags;
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::table::{Table, age};
use crate::engine::{self, Keep, Pruned, UsageKind};

/// Show what takes up space in the state folder.
#[derive(Debug, Clone, clap::Args)]
pub struct DuArgs {
    /// Also say when each thing was used last
    #[arg(short, long)]
    verbose: bool,
    /// Only things of this kind: image, blob, snapshot, cache-mount, source, volume
    #[arg(short, long = "filter", value_name = "type=KIND")]
    filters: Vec<String>,
}

/// Remove build cache, unpacked layers and leftovers; named images and containers stay.
#[derive(Debug, Clone, clap::Args)]
pub struct PruneArgs {
    /// Also cache mounts, and what images and containers have unpacked
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// until=DURATION: leave what was used within it
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Leave what was used within this time
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    keep_duration: Option<Duration>,
    /// Leave the newest things, up to so much
    #[arg(long, alias = "keep-storage", alias = "reserved-space", value_name = "BYTES", value_parser = flags::bytes)]
    max_used_space: Option<u64>,
    #[arg(long, hide = true)]
    volumes: bool,
}

pub fn kind_name(kind: UsageKind) -> &'static str {
    match kind {
        UsageKind::Image => "image",
        UsageKind::Blob => "blob",
        UsageKind::Snapshot => "snapshot",
        UsageKind::CacheMount => "cache-mount",
        UsageKind::Source => "source",
        UsageKind::Volume => "volume",
    }
}

pub fn du(args: DuArgs, session: &Session) -> anyhow::Result<Exit> {
    let mut list = engine::du(session.state()?)?;
    for filter in &args.filters {
        match filter.split_once('=') {
            Some(("type", kind)) => list.retain(|usage| kind_name(usage.kind) == kind),
            _ => return Err(usage(format!("filter {filter:?} is not known (type)"))),
        }
    }
    let mut table = Table::new(["ID", "KIND", "RECLAIMABLE", "SIZE", "LAST USED", "DESCRIPTION"]);
    let (mut total, mut reclaimable) = (0, 0);
    for usage in &list {
        total += usage.bytes;
        if !usage.in_use {
            reclaimable += usage.bytes;
        }
        let last = match usage.last_used.filter(|_| args.verbose) {
            Some(time) => format!("{} ago", age(time.elapsed().unwrap_or_default())),
            None => String::new(),
        };
        let id: String = usage.id.chars().take(if args.verbose { usize::MAX } else { 25 }).collect();
        table.row([
            id,
            kind_name(usage.kind).to_owned(),
            (!usage.in_use).to_string(),
            bytes(usage.bytes),
            last,
            usage.description.clone(),
        ]);
    }
    let mut out = Out::new();
    table.print(&mut out)?;
    out.line(format!("Reclaimable: {}", bytes(reclaimable)))?;
    out.line(format!("Total: {}", bytes(total)))?;
    out.finish()?;
    Ok(Exit::Success)
}

pub fn prune(args: PruneArgs, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let mut newer_than = args.keep_duration;
    for filter in &args.filters {
        match filter.split_once('=') {
            Some(("until", text)) => newer_than = Some(flags::duration(text).map_err(usage)?),
            _ => return Err(usage(format!("filter {filter:?} is not known (until)"))),
        }
    }
    if !args.force && io::stdin().is_terminal() && !agreed(session)? {
        return Ok(Exit::Success);
    }
    let keep = Keep { newer_than, bytes: args.max_used_space, cache_mounts: !args.all, images: !args.all };
    let pruned = pruned(&keep, session)?;
    let mut out = Out::new();
    pruned.removed.iter().try_for_each(|id| out.line(id))?;
    out.line(format!("Reclaimed: {}", bytes(pruned.bytes)))?;
    out.finish()?;
    Ok(Exit::Success)
}

/// Removes what nobody keeps, and says what stayed because it is in use.
pub fn pruned(keep: &Keep, session: &Session) -> anyhow::Result<Pruned> {
    let pruned = engine::prune(session.state()?, keep)?;
    if pruned.busy {
        session.warn("another dockless builds or runs a container here; what is unpacked stays this time");
    }
    Ok(pruned)
}

fn agreed(session: &Session) -> anyhow::Result<bool> {
    session.note("This removes build cache and unpacked layers. Named images and containers stay.");
    write!(io::stderr(), "Go on? [y/N] ")?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}
