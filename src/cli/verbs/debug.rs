//! `debug`: a Dockerfile as its parser and as the solver see it.

use std::io::Read;

use anyhow::Context as _;

use crate::base::{Platform, Reference};
use crate::cli::definition;
use crate::cli::exit::{Exit, missing};
use crate::cli::session::{Out, Session};
use crate::frontend::{self, ImageConfigs, Input, ResolvedImage};
use crate::image::ImageConfig;
use crate::llb;

/// Look inside.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Args {
    /// Print the parsed Dockerfile in BuildKit's dump notation
    Ast {
        /// Dockerfile; - for standard input
        file: String,
    },
    /// Print the graph that a Dockerfile, or a definition made by an LLB client, stands for
    Llb {
        /// Dockerfile, or a definition in BuildKit's wire format; - for standard input
        #[arg(required_unless_present = "from")]
        file: Option<String>,
        /// Definition made by any LLB client; - for standard input
        #[arg(long, value_name = "FILE", conflicts_with = "file")]
        from: Option<String>,
        /// text, json or dot
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[arg(long, value_name = "STAGE", conflicts_with = "from")]
        target: Option<String>,
        #[arg(long = "build-arg", value_name = "KEY[=VALUE]", conflicts_with = "from")]
        build_args: Vec<String>,
        #[arg(long, value_name = "OS/ARCH", conflicts_with = "from")]
        platform: Option<Platform>,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    #[default]
    Text,
    Json,
    Dot,
}

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let text = match args {
        Args::Ast { file } => frontend::ast::dump(&file, &read(&file, session)?)?,
        Args::Llb { from: Some(file), format, .. } => drawn(&definition::read(&file, false, session)?, format)?,
        Args::Llb { file, from: None, format, target, build_args, platform } => {
            let file = file.unwrap_or_default();
            let bytes = read(&file, session)?;
            let definition = match std::str::from_utf8(&bytes) {
                Ok(text) => {
                    let mut input = Input::new(file, text, session.epoch()?);
                    input.target = target;
                    input.build_args = super::build::build_args(&build_args, session);
                    input.platform = platform;
                    frontend::build(&input, &Local(session))?.definition
                }
                // A definition has lengths and digests in it: it is never text.
                Err(_) => <llb::pb::Definition as prost::Message>::decode(bytes.as_slice())
                    .context("neither a Dockerfile nor a definition")?,
            };
            drawn(&definition, format)?
        }
    };
    let mut out = Out::new();
    out.line(text.trim_end_matches('\n'))?;
    out.finish()?;
    Ok(Exit::Success)
}

fn drawn(definition: &llb::pb::Definition, format: Format) -> anyhow::Result<String> {
    let graph = llb::Graph::decode(definition)?;
    Ok(match format {
        Format::Text => llb::print::text(&graph),
        Format::Json => format!("{:#}\n", llb::print::json(&graph)),
        Format::Dot => llb::print::dot(&graph),
    })
}

fn read(file: &str, session: &Session) -> anyhow::Result<Vec<u8>> {
    if file == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    let path = session.absolute(file);
    std::fs::read(&path).map_err(|error| missing(format!("{}: {error}", path.display())))
}

/// Base images of the local store; one that is not here is taken for an empty one, so that a graph can be looked at
/// anywhere.
struct Local<'a>(&'a Session);

impl ImageConfigs for Local<'_> {
    fn resolve(&self, reference: &Reference, platform: &Platform) -> anyhow::Result<ResolvedImage> {
        let images = self.0.images()?;
        match images.named(reference)? {
            Some(descriptor) => {
                let image = images.load_for(&descriptor, platform)?;
                let reference = reference.with_digest(image.manifest_descriptor.digest);
                Ok(ResolvedImage { reference, config: image.config })
            }
            None => {
                self.0.warn(format!("{} is not here; the graph is drawn as if it were empty", reference.familiar()));
                Ok(ResolvedImage { reference: reference.clone(), config: ImageConfig::new(platform.clone()) })
            }
        }
    }
}
