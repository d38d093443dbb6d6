//! `images` and img's `ls`: what the local store holds.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::base::Reference;
use crate::base::patterns::glob;
use crate::cli::exit::{Exit, usage};
use crate::cli::progress::bytes;
use crate::cli::session::{Face, Out, Session};
use crate::cli::table::{Table, ago};
use crate::cli::template::Template;
use crate::image::Image;

/// List images.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Only this repository, with or without tag; may be a glob
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pattern: Option<String>,
    /// Print ids only
    #[arg(short, long)]
    quiet: bool,
    /// Accepted; all images are listed always
    #[arg(short, long, hide = true)]
    all: bool,
    /// Print whole ids
    #[arg(long)]
    no_trunc: bool,
    /// Show the digests of manifests
    #[arg(long)]
    digests: bool,
    /// dangling=true|false, reference=GLOB, label=KEY[=VALUE]
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Go template, `table` and a template, or `json`
    #[arg(long, value_name = "TEMPLATE")]
    format: Option<String>,
}

/// One line: an image under one of its names, or under none.
struct Line {
    image: Image,
    name: Option<Reference>,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let store = session.images()?;
    let mut lines = Vec::new();
    for stored in store.list()? {
        let image = match store.load(&stored.descriptor) {
            Ok(image) => image,
            // An index without an image for this machine, a blob that was pruned: the others are still worth listing.
            Err(error) => {
                session.warn(format!("image {}: {error}", stored.descriptor.digest));
                continue;
            }
        };
        if stored.references.is_empty() {
            lines.push(Line { image: image.clone(), name: None });
        }
        lines.extend(stored.references.iter().map(|name| Line { image: image.clone(), name: Some(name.clone()) }));
    }
    for filter in &args.filters {
        let keep = filter_of(filter)?;
        lines.retain(|line| keep(line));
    }
    if let Some(pattern) = &args.pattern {
        glob::check(pattern).with_context(|| pattern.clone())?;
        lines.retain(|line| line.name.as_ref().is_some_and(|name| answers(name, pattern)));
    }
    // The newest first, as Docker has them.
    lines.sort_by(|a, b| b.image.config.created.cmp(&a.image.config.created).then_with(|| a.name.cmp(&b.name)));
    let mut out = Out::new();
    print(&args, &lines, session, &mut out)?;
    out.finish()?;
    Ok(Exit::Success)
}

fn answers(name: &Reference, pattern: &str) -> bool {
    [name.familiar(), name.familiar_name(), name.to_string(), name.name()]
        .iter()
        .any(|word| word == pattern || glob::matches(pattern, word).unwrap_or(false))
}

type Filter = Box<dyn Fn(&Line) -> bool>;

fn filter_of(text: &str) -> anyhow::Result<Filter> {
    let Some((key, value)) = text.split_once('=') else {
        return Err(usage(format!("filter {text:?} is not KEY=VALUE")));
    };
    let value = value.to_owned();
    Ok(match key {
        "dangling" => {
            let wanted = matches!(value.as_str(), "true" | "1");
            Box::new(move |line| line.name.is_none() == wanted)
        }
        "reference" => Box::new(move |line| line.name.as_ref().is_some_and(|name| answers(name, &value))),
        "label" => Box::new(move |line| {
            let labels = &line.image.config.config.labels;
            match value.split_once('=') {
                Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
                None => labels.contains_key(&value),
            }
        }),
        _ => return Err(usage(format!("filter {key:?} is not known (dangling, reference, label)"))),
    })
}

fn print(args: &Args, lines: &[Line], session: &Session, out: &mut Out) -> anyhow::Result<()> {
    let now = jiff::Timestamp::now();
    let values: Vec<Value> = lines.iter().map(|line| value(line, args.no_trunc, now)).collect();
    let cell = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    if args.quiet && args.format.is_none() {
        let mut last = None;
        for value in &values {
            let id = cell(value, "ID");
            // One image under several names is one id.
            if last.replace(id.clone()) != Some(id.clone()) {
                out.line(id)?;
            }
        }
        return Ok(());
    }
    match args.format.as_deref() {
        Some("json") => values.iter().try_for_each(|value| out.line(value.to_string()))?,
        Some(format) => {
            let (format, table) = match format.strip_prefix("table ") {
                Some(format) => (format, true),
                None => (format, false),
            };
            let format = format.replace("\\t", "\t").replace("\\n", "\n");
            let template = Template::parse(&format).map_err(|error| usage(error.to_string()))?;
            if table {
                out.line(template.execute(&head())?)?;
            }
            for value in &values {
                out.line(template.execute(value)?)?;
            }
        }
        None if session.face == Face::Img => {
            let mut table = Table::new(["NAME", "SIZE", "CREATED AT", "UPDATED AT", "DIGEST"]);
            for (line, value) in lines.iter().zip(&values) {
                let name = line.name.as_ref().map_or_else(|| "<none>".to_owned(), Reference::familiar);
                let age = cell(value, "CreatedSince");
                table.row([name, cell(value, "Size"), age.clone(), age, cell(value, "Digest")]);
            }
            table.print(out)?;
        }
        None if args.digests => {
            let mut table = Table::new(["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]);
            for value in &values {
                table.row(["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"].map(|key| cell(value, key)));
            }
            table.print(out)?;
        }
        None => {
            let mut table = Table::new(["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
            for value in &values {
                table.row(["Repository", "Tag", "ID", "CreatedSince", "Size"].map(|key| cell(value, key)));
            }
            table.print(out)?;
        }
    }
    Ok(())
}

fn value(line: &Line, whole_ids: bool, now: jiff::Timestamp) -> Value {
    let config = &line.image.config;
    let none = || "<none>".to_owned();
    let id = &line.image.config_digest;
    json!({
        "Repository": line.name.as_ref().map_or_else(none, Reference::familiar_name),
        "Tag": line.name.as_ref().and_then(|n| n.tag()).map_or_else(none, str::to_owned),
        "ID": if whole_ids { id.to_string() } else { id.short() },
        "Digest": line.image.manifest_descriptor.digest,
        "CreatedSince": ago(config.created.as_deref(), now),
        "CreatedAt": config.created.clone().unwrap_or_else(|| "N/A".to_owned()),
        "Size": bytes(line.image.stored_size()),
        "SharedSize": "N/A",
        "UniqueSize": "N/A",
        "VirtualSize": bytes(line.image.stored_size()),
        "Containers": "N/A",
    })
}

/// What a `table` template is given for its first line.
fn head() -> Value {
    json!({
        "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Digest": "DIGEST", "CreatedSince": "CREATED",
        "CreatedAt": "CREATED AT", "Size": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
        "VirtualSize": "SIZE", "Containers": "CONTAINERS",
    })
}
