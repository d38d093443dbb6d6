//! buildctl's `du` and `prune`, of an engine elsewhere or of the state folder.

use std::time::Duration;

use super::records::{Look, summary};
use crate::cli::exit::{Exit, Unsupported};
use crate::cli::flags;
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::verbs::disk::{self, kind_name};
use crate::engine::remote::reach;
use crate::engine::{self, Place, Usage};
use crate::remote::{Disk, Keep};

/// Show what is kept to build faster.
#[derive(Debug, Clone, clap::Args)]
pub struct DuArgs {
    /// Only records that pass; an engine elsewhere judges it (type==regular, id~=…), here they are those of `dockless du`
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// All that is known of each
    #[arg(short, long)]
    verbose: bool,
    /// Go template of the list, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// Remove what no build needs.
#[derive(Debug, Clone, clap::Args)]
pub struct PruneArgs {
    /// Leave what was used within this time
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    keep_duration: Option<Duration>,
    /// Leave the newest things, up to so many MB
    #[arg(long, value_name = "MB", value_parser = megabytes)]
    keep_storage: Option<u64>,
    /// Leave so many MB in any case
    #[arg(long, value_name = "MB", value_parser = megabytes)]
    keep_storage_min: Option<u64>,
    /// Stop when so many MB of the disk are free
    #[arg(long, value_name = "MB", value_parser = megabytes)]
    free_storage: Option<u64>,
    /// Only records that pass; an engine elsewhere judges it
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Also what frontends left; here: cache mounts, and what images and containers have unpacked
    #[arg(long)]
    all: bool,
    /// All that is known of each
    #[arg(short, long)]
    verbose: bool,
    /// Go template of a record, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// A number of a million bytes each, as buildctl counts storage.
fn megabytes(text: &str) -> Result<u64, String> {
    match text.parse::<f64>() {
        // Beyond this a float no longer counts single bytes.
        Ok(number) if (0.0..9e9).contains(&number) => Ok((number * 1e6) as u64),
        _ => Err(format!("{text:?} is no number of MB")),
    }
}

pub fn du(args: DuArgs, place: &Place, session: &Session) -> anyhow::Result<Exit> {
    let records = match place {
        Place::Here => of_folder(&args.filters, session)?,
        Place::At(address) => {
            let cancel = session.cancel()?;
            reach::connect(address, &session.env, &cancel)?.disk_usage(&args.filters, &cancel)?
        }
    };
    let mut out = Out::new();
    let formatted = args.format.is_some();
    Look { verbose: args.verbose, format: args.format }.print(&records, false, &mut out)?;
    // Sums of a part would be taken for those of the whole.
    if args.filters.is_empty() && !formatted {
        summary(&records, &mut out)?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

/// As buildctl has it, it does not ask.
pub fn prune(args: PruneArgs, place: &Place, session: &Session) -> anyhow::Result<Exit> {
    let gone = match place {
        Place::Here => prune_folder(&args, session)?,
        Place::At(address) => {
            let cancel = session.cancel()?;
            let keep = Keep {
                within: args.keep_duration.unwrap_or_default(),
                most: args.keep_storage.unwrap_or(0),
                least: args.keep_storage_min.unwrap_or(0),
                free: args.free_storage.unwrap_or(0),
            };
            reach::connect(address, &session.env, &cancel)?.prune(args.all, &keep, &args.filters, &cancel)?
        }
    };
    let mut out = Out::new();
    let formatted = args.format.is_some();
    if !gone.is_empty() {
        Look { verbose: args.verbose, format: args.format }.print(&gone, true, &mut out)?;
    }
    if !formatted {
        out.line(format!("Total: {}", bytes(gone.iter().map(|record| record.bytes).sum())))?;
    }
    out.finish()?;
    Ok(Exit::Success)
}

fn of_folder(filters: &[String], session: &Session) -> anyhow::Result<Vec<Disk>> {
    Ok(disk::listed(filters, session)?.into_iter().map(record).collect())
}

fn record(usage: Usage) -> Disk {
    Disk {
        kind: kind_name(usage.kind).to_owned(),
        id: usage.id,
        parents: Vec::new(),
        description: usage.description,
        bytes: usage.bytes,
        created: None,
        last_used: usage.last_used,
        uses: 0,
        in_use: usage.in_use,
        mutable: false,
        shared: false,
    }
}

fn prune_folder(args: &PruneArgs, session: &Session) -> anyhow::Result<Vec<Disk>> {
    if args.keep_storage_min.is_some() || args.free_storage.is_some() {
        return Err(Unsupported::instead(
            "--keep-storage-min or --free-storage without an engine elsewhere",
            "--keep-storage is",
        ));
    }
    session.enter_namespace()?;
    let before = engine::du(session.state()?)?;
    let keep = disk::keep(args.all, args.keep_duration, args.keep_storage, &args.filters)?;
    let pruned = disk::pruned(&keep, session)?;
    Ok(before.into_iter().filter(|usage| pruned.removed.contains(&usage.id)).map(record).collect())
}
