//! A definition of another LLB client, as it comes in a file or through a pipe.

use std::io::Read;

use anyhow::Context as _;
use prost::Message as _;

use super::exit::{missing, usage};
use super::session::Session;
use crate::llb::{encode, pb};

/// A definition is a message of BuildKit's; more than this is something else.
const LARGEST: u64 = 64 << 20;

/// Reads one; `-` is standard input. With `no_cache` all of it is to be built anew.
pub fn read(file: &str, no_cache: bool, session: &Session) -> anyhow::Result<pb::Definition> {
    let mut bytes = Vec::new();
    let what = if file == "-" {
        std::io::stdin().lock().take(LARGEST).read_to_end(&mut bytes)?;
        "standard input".to_owned()
    } else {
        let path = session.absolute(file);
        let open = std::fs::File::open(&path).map_err(|error| missing(format!("{}: {error}", path.display())))?;
        open.take(LARGEST).read_to_end(&mut bytes).with_context(|| path.display().to_string())?;
        path.display().to_string()
    };
    if bytes.is_empty() {
        // buildctl's words, with which a script that forgot its frontend is met.
        let instead = if file == "-" { "; please specify --frontend or pipe LLB definition to stdin" } else { "" };
        return Err(usage(format!("there is no definition in {what}{instead}")));
    }
    let mut definition = pb::Definition::decode(bytes.as_slice()).with_context(|| format!("definition from {what}"))?;
    if no_cache {
        for op in &definition.def {
            definition.metadata.entry(encode::digest(op).to_string()).or_default().ignore_cache = true;
        }
    }
    Ok(definition)
}
