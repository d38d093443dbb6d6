//! `du` and `prune`: what takes up space, and giving it back.

use std::io::{self, BufRead, IsTerminal, Write};
use std::time::{Duration, SystemTime};

use crate::base::csv;
use crate::cli::exit::{Exit, usage};
use crate::cli::flags;
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::table::{Table, age};
use crate::engine::{self, Filter, Keep, Pruned, Usage, UsageKind};

/// Show what takes up space in the state folder.
#[derive(Debug, Clone, clap::Args)]
pub struct DuArgs {
    /// Also say when each thing was used last
    #[arg(short, long)]
    verbose: bool,
    /// Only some: type=KIND, id=ID, description=WORDS, inuse=BOOL, unused-for=DURATION, until=DURATION; the kinds are
    /// image, blob, snapshot, root, cache-mount, source, volume
    #[arg(short, long = "filter", value_name = "FILTER")]
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
    /// Only some: until=DURATION or unused-for=DURATION (not used within it), type=KIND, id=ID, as du has them
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Leave what was used within this time
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    keep_duration: Option<Duration>,
    /// Leave the newest things, up to so much
    #[arg(long, visible_alias = "keep-storage", alias = "reserved-space", value_name = "BYTES", value_parser = flags::bytes)]
    max_used_space: Option<u64>,
    #[arg(long, hide = true)]
    volumes: bool,
}

pub fn kind_name(kind: UsageKind) -> &'static str {
    match kind {
        UsageKind::Image => "image",
        UsageKind::Blob => "blob",
        UsageKind::Snapshot => "snapshot",
        UsageKind::Root => "root",
        UsageKind::CacheMount => "cache-mount",
        UsageKind::Source => "source",
        UsageKind::Volume => "volume",
    }
}

/// What `--filter` says, in docker's words and BuildKit's. Of one key any value will do.
fn filter(typed: &[String]) -> Result<Filter, String> {
    let mut filter = Filter::default();
    for text in typed {
        let wrong = || format!("filter {text:?} is not known (type, id, description, inuse, unused-for, until)");
        let (key, value) = text.split_once('=').ok_or_else(wrong)?;
        // buildctl's `type==regular`.
        let value = value.strip_prefix('=').unwrap_or(value);
        match key {
            "type" => match value {
                "image" => drop(filter.kinds.insert(UsageKind::Image)),
                "blob" => drop(filter.kinds.insert(UsageKind::Blob)),
                "snapshot" => drop(filter.kinds.insert(UsageKind::Snapshot)),
                "root" => drop(filter.kinds.insert(UsageKind::Root)),
                "regular" => filter.kinds.extend([UsageKind::Snapshot, UsageKind::Root]),
                "cache-mount" | "exec.cachemount" => drop(filter.kinds.insert(UsageKind::CacheMount)),
                "source" | "source.local" | "source.git.checkout" => drop(filter.kinds.insert(UsageKind::Source)),
                "volume" => drop(filter.kinds.insert(UsageKind::Volume)),
                // BuildKit's own, of which there are none here.
                "internal" | "frontend" => filter.nothing = true,
                other => return Err(format!("filter {text:?}: the kind {other:?} is not known")),
            },
            "id" => filter.ids.push(value.to_owned()),
            "description" => filter.descriptions.push(value.to_owned()),
            "inuse" => filter.in_use = Some(csv::switch(key, Some(value))?),
            "until" | "unused-for" => filter.unused_for = filter.unused_for.max(Some(flags::duration(value)?)),
            _ => return Err(wrong()),
        }
    }
    Ok(filter)
}

pub fn du(args: DuArgs, session: &Session) -> anyhow::Result<Exit> {
    let list = listed(&args.filters, session)?;
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
    let keep = keep(args.all, args.keep_duration, args.max_used_space, &args.filters)?;
    if !args.force && io::stdin().is_terminal() && !agreed(session)? {
        return Ok(Exit::Success);
    }
    let pruned = pruned(&keep, session)?;
    let mut out = Out::new();
    pruned.removed.iter().try_for_each(|id| out.line(id))?;
    out.line(format!("Reclaimed: {}", bytes(pruned.bytes)))?;
    out.finish()?;
    Ok(Exit::Success)
}

/// What takes up space and passes the filters. Seen as builds see it: from outside of their namespace, an ordinary
/// user's files of steps would mean something else.
pub fn listed(filters: &[String], session: &Session) -> anyhow::Result<Vec<Usage>> {
    session.enter_namespace()?;
    let filter = filter(filters).map_err(usage)?;
    let (mut list, now) = (engine::du(session.state()?)?, SystemTime::now());
    list.retain(|thing| filter.admits(thing, now));
    Ok(list)
}

/// What a prune leaves alone, as it is typed.
pub fn keep(all: bool, within: Option<Duration>, most: Option<u64>, filters: &[String]) -> anyhow::Result<Keep> {
    let mut filter = filter(filters).map_err(usage)?;
    Ok(Keep {
        newer_than: within.max(filter.unused_for.take()),
        bytes: most,
        strict: false,
        // Whoever names the kind means it.
        cache_mounts: !all && !filter.kinds.contains(&UsageKind::CacheMount),
        images: !all,
        filter,
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_in_docker_s_words_and_buildkit_s() {
        let read = |texts: &[&str]| filter(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let both = read(&["type==exec.cachemount", "type=snapshot", "until=24h", "unused-for=2h"]).unwrap();
        assert_eq!(both.kinds, [UsageKind::Snapshot, UsageKind::CacheMount].into());
        assert_eq!(both.unused_for, Some(Duration::from_secs(24 * 3600)));
        assert!(read(&["type=frontend"]).unwrap().nothing);
        assert_eq!(read(&["inuse=false"]).unwrap().in_use, Some(false));
        for text in ["type=socks", "colour=red", "until", "until=soon", "inuse=maybe"] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }
}
