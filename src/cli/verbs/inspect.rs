//! `inspect`: what is known of images and containers, as JSON or through a template.

use serde_json::{Value, json};

use crate::cli::exit::{Exit, Missing, usage};
use crate::cli::session::{Face, Out, Session};
use crate::cli::template::Template;
use crate::engine::containers;
use crate::image;

use super::containers::state_word;

/// Show what is known of images and containers.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
    /// Go template, or `json`
    #[arg(short, long, value_name = "TEMPLATE")]
    format: Option<String>,
    /// Look only for this kind of thing
    #[arg(long = "type", value_name = "KIND")]
    kind: Option<Kind>,
    /// Accepted; the size is always shown
    #[arg(short, long, hide = true)]
    size: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Image,
    Container,
}

impl Args {
    /// For `image inspect` and `container inspect`.
    pub fn of_kind(mut self, kind: Kind) -> Self {
        self.kind = Some(kind);
        self
    }
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    if let (Face::Img, None, [name]) = (session.face, &args.format, args.names.as_slice()) {
        return config(name, session);
    }
    let template = match args.format.as_deref() {
        None | Some("json" | "") => None,
        Some(text) => Some(Template::parse(text).map_err(|error| usage(error.to_string()))?),
    };
    let mut found = Vec::new();
    let mut missing = None;
    for name in &args.names {
        match look(name, args.kind, session) {
            Ok(value) => found.push(value),
            Err(error) if error.is::<Missing>() => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    let mut out = Out::new();
    match template {
        Some(template) => found.iter().try_for_each(|value| -> anyhow::Result<()> {
            out.line(template.execute(value)?)?;
            Ok(())
        })?,
        None if args.format.as_deref() == Some("json") => out.line(Value::from(found).to_string())?,
        // What was found is shown even where something else was not, as Docker does.
        None => out.line(go_json(&Value::from(found)))?,
    }
    out.finish()?;
    missing.map_or(Ok(Exit::Success), Err)
}

fn look(name: &str, kind: Option<Kind>, session: &Session) -> anyhow::Result<Value> {
    if kind != Some(Kind::Image) {
        match containers::find(session.state()?, name) {
            Ok(container) => {
                let running = containers::is_running(session.state()?, &container)?;
                return Ok(container_json(&container, running));
            }
            Err(error) if error.is::<containers::Error>() => {}
            Err(error) => return Err(error),
        }
        if kind == Some(Kind::Container) {
            return Err(crate::cli::exit::missing(format!("No such container: {name}")));
        }
    }
    match session.image(name) {
        Ok(stored) => {
            let image = session.images()?.load(&stored.descriptor)?;
            Ok(image::inspect::inspect(&image, &stored.references))
        }
        Err(error) if error.is::<Missing>() && kind.is_none() => {
            Err(crate::cli::exit::missing(format!("No such object: {name} (No such image: {name})")))
        }
        Err(error) => Err(error),
    }
}

fn container_json(container: &containers::Container, running: bool) -> Value {
    json!({
        "Id": container.id,
        "Name": format!("/{}", container.name),
        "Created": container.created,
        "Path": container.args.first(),
        "Args": container.args.get(1..).unwrap_or_default(),
        "Image": container.image_id,
        "State": {
            "Status": state_word(container, running),
            "Running": running,
            "ExitCode": container.exit.unwrap_or(0),
        },
        "Config": {"Image": container.image, "Labels": container.labels},
    })
}

/// Indented by four spaces, as Go's encoder is told by Docker.
pub fn go_json(value: &Value) -> String {
    use serde::Serialize as _;
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => value.to_string(),
    }
}

/// img's inspect: the OCI config, which is not what docker's shows.
fn config(name: &str, session: &Session) -> anyhow::Result<Exit> {
    let stored = session.image(name)?;
    let image = session.images()?.load(&stored.descriptor)?;
    let mut out = Out::new();
    out.line(go_json(&serde_json::to_value(&image.config)?))?;
    out.finish()?;
    Ok(Exit::Success)
}
