//! The build context and the named ones: what their source ops send is known once every instruction was seen.

use std::collections::BTreeMap;

use super::Planner;
use super::bases::known_only;
use super::stage::UsedPaths;
use crate::base::{Platform, Reference};
use crate::frontend::error::{Error, Result};
use crate::frontend::input::NamedContext;
use crate::frontend::{git, go, ignore};
use crate::image::config::ImageConfig;
use crate::llb::build::{Draft, OpId};
use crate::llb::{Output, file, file::FileActions, pb, source};

/// The main build context.
#[derive(Debug, Default)]
pub struct MainContext {
    exclude: Vec<String>,
    output: Option<Output>,
    /// Its op, where it is a local directory.
    local: Option<OpId>,
    used: UsedPaths,
}

/// Local directories under names.
#[derive(Debug, Default)]
pub struct NamedLocals(BTreeMap<String, (OpId, UsedPaths)>);

/// What a named context gives to a stage: files, and a config where it is an image.
pub struct Loaded {
    pub root: Option<Output>,
    pub image: Option<ImageConfig>,
}

impl MainContext {
    pub fn new(exclude: Vec<String>) -> Self {
        Self { exclude, ..Self::default() }
    }
}

/// Names as people may have typed them, to the form that image references are looked up in.
pub fn by_familiar_name(typed: &BTreeMap<String, NamedContext>) -> BTreeMap<String, NamedContext> {
    typed.iter().map(|(name, context)| (familiar(name), context.clone())).collect()
}

fn familiar(name: &str) -> String {
    let (name, platform) = match name.split_once("::") {
        Some((name, platform)) => (name, format!("::{platform}")),
        None => (name, String::new()),
    };
    let short = match name.parse::<Reference>() {
        Ok(reference) => reference.familiar(),
        Err(_) => name.to_owned(),
    };
    format!("{}{platform}", short.strip_suffix(":latest").unwrap_or(&short))
}

impl Planner<'_> {
    /// The named context that stands for a stage or an image, with the key it was found under.
    pub fn named_context(&self, name: &str, platform: &Platform) -> Option<(String, NamedContext)> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let name = familiar(name);
        [format!("{name}::{platform}"), name]
            .into_iter()
            .find_map(|key| self.named_contexts.get(&key).map(|context| (key.clone(), context.clone())))
    }

    pub fn load_context(&mut self, key: &str, context: &NamedContext, platform: &Platform) -> Result<Loaded> {
        match context {
            // As in FROM: nothing, and no image of that name.
            NamedContext::Image(reference) if reference.familiar() == "scratch" => {
                Ok(Loaded { root: None, image: None })
            }
            NamedContext::Image(reference) => {
                let reference = reference.clone().or_latest();
                let resolved = self.resolve_image(&reference, platform)?;
                let image = known_only(resolved.config);
                let mut draft = source::image(&resolved.reference, platform);
                draft.name(format!("[context {key}] {}", resolved.reference));
                Ok(Loaded { root: Some(self.builder.output(draft)), image: Some(image) })
            }
            NamedContext::OciLayout { reference, store, config } => {
                let mut draft = source::oci_layout(reference, store, platform);
                draft.name(format!("[context {key}] OCI load from client"));
                let image = known_only((**config).clone());
                Ok(Loaded { root: Some(self.builder.output(draft)), image: Some(image) })
            }
            NamedContext::Local { source: name, ignore } => {
                let op = match self.named_locals.0.get(name) {
                    Some((op, _)) => *op,
                    None => {
                        let exclude = ignore.as_ref().map(|(_, text)| ignore::parse(text)).unwrap_or_default();
                        let exclude = if exclude.is_empty() { String::new() } else { go::json_list(&exclude) };
                        let mut draft = source::local(name, &format!("context:{key}-"), &exclude, "");
                        draft.name(format!("[context {key}] load from client"));
                        let op = self.builder.add(draft);
                        self.named_locals.0.insert(name.clone(), (op, UsedPaths::default()));
                        op
                    }
                };
                Ok(Loaded { root: Some(Output { op, index: 0 }), image: None })
            }
            NamedContext::Url(address) => Ok(Loaded {
                root: Some(self.remote_context(address, &format!("[context {key}] {address}"))?),
                image: None,
            }),
        }
    }

    /// A git repository, or a file at an address.
    fn remote_context(&mut self, address: &str, name: &str) -> Result<Output> {
        let draft = match git_draft(address, &self.input.build_args)? {
            Some(draft) => draft,
            None if address.starts_with("http://") || address.starts_with("https://") => {
                let mut draft = source::http(address, "context", "");
                draft.name(name);
                draft
            }
            None => return Err(Error::new(format!("unsupported context source {address}"))),
        };
        Ok(self.builder.output(draft))
    }

    /// The build context as an input.
    pub fn main_context(&mut self) -> Result<Option<Output>> {
        if let Some(output) = self.context.output {
            return Ok(Some(output));
        }
        let output = match &self.input.main_context {
            None => {
                let exclude = &self.context.exclude;
                let exclude = if exclude.is_empty() { String::new() } else { go::json_list(exclude) };
                let mut draft = source::local("context", "context", &exclude, "");
                draft.name("[internal] load build context");
                let op = self.builder.add(draft);
                self.context.local = Some(op);
                Output { op, index: 0 }
            }
            Some(NamedContext::Url(address)) => {
                let address = address.clone();
                self.remote_context(&address, "[internal] load remote build context")?
            }
            Some(other) => {
                let (other, platform) = (other.clone(), self.platforms.target.clone());
                match self.load_context("context", &other, &platform)?.root {
                    Some(output) => output,
                    None => return Ok(None),
                }
            }
        };
        self.context.output = Some(output);
        Ok(Some(output))
    }

    pub fn use_context(&mut self, path: &str) {
        self.context.used.add(path);
    }

    /// Notes that a path of another stage is used: a matter only where that stage is a local directory.
    pub fn use_stage(&mut self, stage: usize, path: &str) {
        let Some(root) = self.states[stage].ground else { return };
        let local = self.named_locals.0.values_mut().find(|(op, _)| *op == root.op);
        if let Some((_, used)) = local {
            used.add(path);
        }
    }

    /// Everything of a local directory may be used: a RUN sees it all.
    pub fn use_all_below(&mut self, ground: Option<Output>) {
        let Some(root) = ground else { return };
        if let Some((_, used)) = self.named_locals.0.values_mut().find(|(op, _)| *op == root.op) {
            used.add("/");
        }
    }

    /// Tells the local sources which paths are needed.
    pub fn close_contexts(&mut self) {
        let mut follow = |op: OpId, used: &UsedPaths| {
            let paths = used.to_list();
            if !paths.is_empty() {
                let paths = go::json_list(&paths);
                source::attribute(self.builder.draft_mut(op), "local.followpaths", &paths);
            }
        };
        if let Some(op) = self.context.local {
            follow(op, &self.context.used);
        }
        for (op, used) in self.named_locals.0.values() {
            follow(*op, used);
        }
    }

    /// A file made of text, alone on `scratch`.
    pub fn inline_file(&mut self, name: &str, mode: i32, content: &str) -> Output {
        let mut actions = FileActions::on(None);
        actions.mkfile(pb::FileActionMkFile {
            path: crate::base::clean::join(&["/", name]),
            mode,
            data: content.as_bytes().to_vec(),
            owner: None,
            timestamp: file::NO_TIMESTAMP,
        });
        let mut draft = actions.into_draft();
        draft.name("[internal] preparing inline document");
        self.builder.output(draft)
    }
}

/// The source of a git repository's address; none when it is not one.
pub fn git_draft(address: &str, build_args: &BTreeMap<String, String>) -> Result<Option<Draft>> {
    let Some(parsed) = git::parse(address)? else { return Ok(None) };
    let asked = build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(|v| go::parse_bool(v));
    let keep_git_dir = parsed.keep_git_dir.or(asked).unwrap_or(false);
    let mut git = source::Git { keep_git_dir, ..parsed.git };
    if parsed.could_be_local {
        git.remote = format!("https://{}", git.remote);
    }
    let mut draft = git.draft();
    draft.name(format!("[internal] load git source {address}"));
    Ok(Some(draft))
}
