//! What an engine keeps, as buildctl shows it: a table, a list of everything that is known, a Go template.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::cli::exit::usage;
use crate::cli::progress::bytes;
use crate::cli::session::Out;
use crate::cli::table::{Table, age};
use crate::cli::template::Template;
use crate::remote::Disk;

/// How the flags want it.
pub struct Look {
    pub verbose: bool,
    pub format: Option<String>,
}

impl Look {
    /// Prints records; `each` says that a template is for one of them, as `prune` has it.
    pub fn print(&self, records: &[Disk], each: bool, out: &mut Out) -> anyhow::Result<()> {
        match &self.format {
            Some(format) if each => records.iter().try_for_each(|record| {
                out.line(formatted(format, &fields(record), &tags(record))?)?;
                Ok(())
            }),
            Some(format) => {
                let all = |of: fn(&Disk) -> Value| Value::Array(records.iter().map(of).collect());
                Ok(out.line(formatted(format, &all(fields), &all(tags))?)?)
            }
            None if self.verbose => records.iter().try_for_each(|record| Ok(write!(out, "{}", told(record))?)),
            None => {
                let mut table = Table::new(["ID", "RECLAIMABLE", "SIZE", "LAST ACCESSED"]);
                for record in records {
                    let (mutable, shared) = (star(record.mutable), star(record.shared));
                    table.row([
                        format!("{}{mutable}", record.id),
                        (!record.in_use).to_string(),
                        format!("{}{shared}", bytes(record.bytes)),
                        record.last_used.map(ago).unwrap_or_default(),
                    ]);
                }
                Ok(table.print(out)?)
            }
        }
    }
}

/// A template's answer. What `json` prints has the names of BuildKit's JSON, fields have those of its code.
pub fn formatted(format: &str, fields: &Value, tags: &Value) -> anyhow::Result<String> {
    match format.trim() {
        "json" | "{{json .}}" => Ok(tags.to_string()),
        format => {
            let template = Template::parse(format).map_err(|error| usage(error.to_string()))?;
            Ok(template.execute(fields)?)
        }
    }
}

/// The sums that follow a list.
pub fn summary(records: &[Disk], out: &mut Out) -> anyhow::Result<()> {
    let sum = |which: fn(&&Disk) -> bool| records.iter().filter(which).map(|record| record.bytes).sum::<u64>();
    let (total, shared) = (sum(|_| true), sum(|record| record.shared));
    if shared > 0 {
        out.line(format!("Shared: {}", bytes(shared)))?;
        out.line(format!("Private: {}", bytes(total - shared)))?;
    }
    out.line(format!("Reclaimable: {}", bytes(sum(|record| !record.in_use))))?;
    out.line(format!("Total: {}", bytes(total)))?;
    Ok(())
}

fn star(is: bool) -> &'static str {
    if is { "*" } else { "" }
}

fn ago(time: SystemTime) -> String {
    format!("{} ago", age(time.elapsed().unwrap_or(Duration::ZERO)))
}

/// RFC 3339; none for a time that no clock shows.
fn stamp(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| time.to_string())
}

fn told(record: &Disk) -> String {
    let mut lines = String::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push_str(&format!("{:<16}{value}\n", format!("{name}:")));
        }
    };
    line("ID", record.id.clone());
    line("Parents", record.parents.join(";"));
    line("Created at", record.created.and_then(stamp).unwrap_or_default());
    line("Mutable", record.mutable.to_string());
    line("Reclaimable", (!record.in_use).to_string());
    line("Shared", record.shared.to_string());
    line("Size", bytes(record.bytes));
    line("Description", record.description.clone());
    line("Usage count", record.uses.to_string());
    line("Last used", record.last_used.and_then(stamp).unwrap_or_default());
    line("Type", record.kind.clone());
    lines.push('\n');
    lines
}

fn fields(record: &Disk) -> Value {
    json!({
        "ID": record.id,
        "Mutable": record.mutable,
        "InUse": record.in_use,
        "Size": record.bytes,
        "CreatedAt": record.created.and_then(stamp),
        "LastUsedAt": record.last_used.and_then(stamp),
        "UsageCount": record.uses,
        "Parents": record.parents,
        "Description": record.description,
        "RecordType": record.kind,
        "Shared": record.shared,
    })
}

fn tags(record: &Disk) -> Value {
    renamed(fields(record))
}

/// `RecordType` as `recordType`, `ID` as `id`.
pub fn renamed(fields: Value) -> Value {
    let name = |name: String| match name.as_str() {
        "ID" => "id".to_owned(),
        "GCPolicy" => "gcPolicy".to_owned(),
        _ => name[..1].to_lowercase() + &name[1..],
    };
    match fields {
        Value::Object(map) => map.into_iter().map(|(key, value)| (name(key), value)).collect(),
        other => other,
    }
}
