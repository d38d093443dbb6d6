//! What an engine elsewhere keeps, gives back, and is: buildctl's `du`, `prune` and `debug workers`.

use std::time::Duration;

use crate::base::Platform;
use crate::cli::exit::{Exit, Unsupported};
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::table::Table;
use crate::engine::Place;
use crate::remote::{Address, Client};

use super::disk::{DuArgs, PruneArgs};

fn connect(address: &Address, session: &Session) -> anyhow::Result<Client> {
    Ok(Client::connect(address, Place::tls(&session.env).as_deref(), &session.cancel()?)?)
}

fn no_filters(filters: &[String]) -> anyhow::Result<()> {
    match filters.first() {
        Some(filter) => Err(Unsupported::refuse(format!("--filter {filter} for an engine elsewhere"))),
        None => Ok(()),
    }
}

pub fn du(args: DuArgs, address: &Address, session: &Session) -> anyhow::Result<Exit> {
    no_filters(&args.filters)?;
    let records = connect(address, session)?.disk_usage(&session.cancel()?)?;
    let mut table = Table::new(["ID", "RECLAIMABLE", "SIZE", "DESCRIPTION"]);
    let (mut total, mut reclaimable) = (0, 0);
    for record in &records {
        total += record.bytes;
        if !record.in_use {
            reclaimable += record.bytes;
        }
        let description = if args.verbose { record.description.clone() } else { String::new() };
        table.row([record.id.clone(), (!record.in_use).to_string(), bytes(record.bytes), description]);
    }
    let mut out = Out::new();
    table.print(&mut out)?;
    out.line(format!("Reclaimable: {}", bytes(reclaimable)))?;
    out.line(format!("Total: {}", bytes(total)))?;
    out.finish()?;
    Ok(Exit::Success)
}

/// As buildctl has it, it does not ask.
pub fn prune(args: PruneArgs, address: &Address, session: &Session) -> anyhow::Result<Exit> {
    no_filters(&args.filters)?;
    let (keep, room) = (args.keep_duration.unwrap_or(Duration::ZERO), args.max_used_space.unwrap_or(0));
    let gone = connect(address, session)?.prune(args.all, keep, room, &session.cancel()?)?;
    let mut out = Out::new();
    gone.iter().try_for_each(|record| out.line(&record.id))?;
    out.line(format!("Total: {}", bytes(gone.iter().map(|record| record.bytes).sum())))?;
    out.finish()?;
    Ok(Exit::Success)
}

pub fn workers(place: &Place, session: &Session) -> anyhow::Result<Exit> {
    let mut table = Table::new(["ID", "PLATFORMS"]);
    match place {
        Place::Here => table.row(["dockless".to_owned(), Platform::host().to_string()]),
        Place::At(address) => {
            for worker in connect(address, session)?.workers(&session.cancel()?)? {
                table.row([worker.id, worker.platforms.join(",")]);
            }
        }
    }
    let mut out = Out::new();
    table.print(&mut out)?;
    out.finish()?;
    Ok(Exit::Success)
}
