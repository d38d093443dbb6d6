//! `history`: the steps that an image is made of.

use serde_json::{Value, json};

use crate::cli::exit::{Exit, usage};
use crate::cli::progress::bytes;
use crate::cli::session::{Out, Session};
use crate::cli::table::{Table, ago};
use crate::cli::template::Template;
use crate::image::inspect;

/// Show the steps that an image is made of.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Sizes and dates for people (`--human=false`: bytes and RFC 3339)
    #[arg(short = 'H', long, num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true")]
    human: String,
    /// Do not cut long lines
    #[arg(long)]
    no_trunc: bool,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Go template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let human = !matches!(args.human.as_str(), "false" | "0");
    let stored = session.image(&args.image)?;
    let image = session.images()?.load(&stored.descriptor)?;
    let now = jiff::Timestamp::now();
    let lines: Vec<Value> = inspect::history(&image)
        .into_iter()
        .enumerate()
        .map(|(n, line)| {
            let id = match n {
                0 if args.no_trunc => image.config_digest.to_string(),
                0 => image.config_digest.short(),
                // Only the last step is an image; the others are lines of its history.
                _ => "<missing>".to_owned(),
            };
            let size = line.size.unwrap_or(0);
            let created = match human {
                true => ago(line.created.as_deref(), now),
                false => line.created.clone().unwrap_or_default(),
            };
            json!({
                "ID": id,
                "CreatedSince": created,
                "CreatedAt": line.created,
                "CreatedBy": if args.no_trunc { line.created_by } else { cut(&line.created_by, 45) },
                "Size": if human { bytes(size) } else { size.to_string() },
                "Comment": line.comment,
            })
        })
        .collect();
    let cell = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut out = Out::new();
    match args.format.as_deref() {
        _ if args.quiet => lines.iter().try_for_each(|line| out.line(cell(line, "ID")))?,
        Some("json") => lines.iter().try_for_each(|line| out.line(line.to_string()))?,
        Some(format) => {
            let template = Template::parse(format).map_err(|error| usage(error.to_string()))?;
            for line in &lines {
                out.line(template.execute(line)?)?;
            }
        }
        None => {
            let mut table = Table::new(["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
            for line in &lines {
                table.row(["ID", "CreatedSince", "CreatedBy", "Size", "Comment"].map(|key| cell(line, key)));
            }
            table.print(&mut out)?;
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}

/// At most so many characters, the last of them an ellipsis.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}
