//! buildctl's `debug workers`: who builds.

use std::fmt::Write as _;
use std::io::Write as _;

use serde_json::{Value, json};

use super::records::{formatted, renamed};
use crate::base::Platform;
use crate::cli::exit::{Exit, Unsupported};
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::table::Table;
use crate::cli::verbs::version::VERSION;
use crate::engine::Place;
use crate::engine::remote::reach;
use crate::remote::{Rule, Version, Worker};

/// List who builds: this process, or the workers of an engine elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only workers that pass; the engine elsewhere judges it
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// All that is known of each
    #[arg(short, long)]
    verbose: bool,
    /// Go template of the list, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub fn run(args: Args, place: &Place, session: &Session) -> anyhow::Result<Exit> {
    let workers = match place {
        Place::Here => match args.filters.first() {
            Some(filter) => return Err(Unsupported::refuse(format!("--filter {filter} without an engine elsewhere"))),
            None => vec![here()],
        },
        Place::At(address) => {
            let cancel = session.cancel()?;
            reach::connect(address, &session.env, &cancel)?.workers(&args.filters, &cancel)?
        }
    };
    let mut out = Out::new();
    match &args.format {
        Some(format) => {
            let all = |of: fn(&Worker) -> Value| Value::Array(workers.iter().map(of).collect());
            out.line(formatted(format, &all(fields), &all(|worker| renamed(fields(worker))))?)?;
        }
        None if args.verbose => workers.iter().try_for_each(|worker| write!(out, "{}", told(worker)))?,
        None => {
            let mut table = Table::new(["ID", "PLATFORMS"]);
            workers.iter().for_each(|worker| table.row([worker.id.clone(), worker.platforms.join(",")]));
            table.print(&mut out)?;
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}

fn here() -> Worker {
    Worker {
        id: "dockless".to_owned(),
        platforms: vec![Platform::host().to_string()],
        labels: Default::default(),
        version: Some(Version { package: "dockless".to_owned(), version: VERSION.to_owned(), revision: String::new() }),
        rules: Vec::new(),
    }
}

fn told(worker: &Worker) -> String {
    let mut text = format!("{:<13}{}\n{:<13}{}\n", "ID:", worker.id, "Platforms:", worker.platforms.join(","));
    if let Some(Version { package, version, revision }) = &worker.version {
        let said = format!("{package} {version} {revision}");
        let _ = writeln!(text, "{:<13}{}", "BuildKit:", said.trim());
    }
    text.push_str("Labels:\n");
    for (name, value) in &worker.labels {
        let _ = writeln!(text, "   {name}: {value}");
    }
    for (number, rule) in worker.rules.iter().enumerate() {
        let _ = writeln!(text, "GC Policy rule#{number}:\n   All: {}", rule.all);
        let Rule { filters, keep, reserved, free, most, .. } = rule;
        let lines = [
            ("Filters", (!filters.is_empty()).then(|| filters.join(" "))),
            ("Keep duration", (!keep.is_zero()).then(|| format!("{keep:?}"))),
            ("Reserved space", (*reserved > 0).then(|| bytes(*reserved))),
            ("Minimum free space", (*free > 0).then(|| bytes(*free))),
            ("Maximum used space", (*most > 0).then(|| bytes(*most))),
        ];
        for (name, value) in lines {
            let Some(value) = value else { continue };
            let _ = writeln!(text, "   {name}: {value}");
        }
    }
    text.push('\n');
    text
}

fn fields(worker: &Worker) -> Value {
    let platform = |text: &String| match text.split('/').collect::<Vec<_>>()[..] {
        [os, architecture, variant] => json!({"os": os, "architecture": architecture, "variant": variant}),
        [os, architecture] => json!({"os": os, "architecture": architecture}),
        _ => json!({"os": text}),
    };
    let rule = |rule: &Rule| {
        json!({
            "all": rule.all,
            "filter": rule.filters,
            "keepDuration": u64::try_from(rule.keep.as_nanos()).unwrap_or(u64::MAX),
            "reservedSpace": rule.reserved,
            "minFreeSpace": rule.free,
            "maxUsedSpace": rule.most,
        })
    };
    json!({
        "ID": worker.id,
        "Labels": worker.labels,
        "Platforms": worker.platforms.iter().map(platform).collect::<Vec<_>>(),
        "GCPolicy": worker.rules.iter().map(rule).collect::<Vec<_>>(),
        "BuildkitVersion": worker.version.as_ref().map(|Version { package, version, revision }| {
            json!({"package": package, "version": version, "revision": revision})
        }),
    })
}
