//! What an engine elsewhere could not know of this machine's folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::base::{Cancel, Digest, Hasher};
use crate::llb::{Graph, pb};
use crate::source::{LocalContext, LocalOptions};

/// Over the parts of the folders that a build asks for, [`LocalContext::behind_mtimes`]. `graphs` say which parts; where
/// a frontend of the engine's is yet to make them, the folders are whole.
pub fn behind_mtimes(
    locals: &BTreeMap<String, PathBuf>,
    graphs: &[Graph],
    cache: &Path,
    cancel: &Cancel,
) -> anyhow::Result<Option<Digest>> {
    let mut asked: Vec<(&PathBuf, LocalOptions)> = Vec::new();
    for source in graphs.iter().flat_map(Graph::vertices) {
        let Some(pb::op::Op::Source(source)) = &source.op.op else { continue };
        let name = source.identifier.strip_prefix("local://");
        let Some(dir) = name.and_then(|name| locals.get(name)) else { continue };
        let options = options(&source.attrs)?;
        if !asked.iter().any(|other| *other == (dir, options.clone())) {
            asked.push((dir, options));
        }
    }
    if graphs.iter().all(|graph| graph.vertices().is_empty()) {
        asked.extend(locals.values().map(|dir| (dir, LocalOptions::default())));
    }
    let (mut hasher, mut any) = (Hasher::new(), false);
    for (dir, options) in asked {
        let options = LocalOptions { cache: Some(cache.to_owned()), ..options };
        let context = LocalContext::open(dir, options).with_context(|| format!("open {}", dir.display()))?;
        if let Some(changes) = context.behind_mtimes(cancel)? {
            hasher.field(changes.as_bytes());
            any = true;
        }
    }
    Ok(any.then(|| hasher.finish()))
}

fn options(attrs: &BTreeMap<String, String>) -> anyhow::Result<LocalOptions> {
    let list = |key: &str| -> anyhow::Result<Vec<String>> {
        let Some(text) = attrs.get(key).filter(|text| !text.is_empty()) else { return Ok(Vec::new()) };
        serde_json::from_str(text).with_context(|| format!("attribute {key} is no JSON list"))
    };
    Ok(LocalOptions {
        include: list("local.includepattern")?,
        exclude: list("local.excludepatterns")?,
        follow: list("local.followpaths")?,
        cache: None,
    })
}
