//! `put` with `build`: params and files into a build of our own engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::World;
use super::params::{Put, printed};
use crate::base::{Env, Platform, Reference, Secret};
use crate::engine::{
    Context, DockerfilePlan, DockerfileSource, Export, LayerOptions, Places, Plan, Run, SharedCaches, SolveRequest,
    State,
};
use crate::image::Descriptor;
use crate::layer::Compression;
use crate::ops::ssh::Keys;

/// What Concourse tells a resource, and what build arguments may ask for.
const CONCOURSE: [&str; 6] =
    ["BUILD_ID", "BUILD_NAME", "BUILD_JOB_NAME", "BUILD_PIPELINE_NAME", "BUILD_TEAM_NAME", "ATC_EXTERNAL_URL"];

/// Given to every build where they are set; the upper-case forms are not, as in the original.
const PROXIES: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];

/// What a build is made of.
pub struct Input<'a> {
    pub params: &'a Put,
    pub context: &'a str,
    /// The put's own folder, which every path is relative to.
    pub sources: &'a Path,
    pub platform: Platform,
    pub caches: SharedCaches,
}

/// Builds into the image store under a name; returns the manifest there.
pub fn build(input: Input<'_>, name: &Reference, state: &Arc<State>, world: &World<'_>) -> anyhow::Result<Descriptor> {
    let Input { params, context, sources, platform, caches } = input;
    let context = sources.join(context);
    let dockerfile = match params.dockerfile.as_deref().filter(|path| !path.is_empty()) {
        Some(path) => sources.join(path),
        None => context.join("Dockerfile"),
    };
    if !dockerfile.is_file() {
        bail!("It doesn't appear that given Dockerfile: \"{}\" is a file", shown(&dockerfile, sources));
    }
    let plan = DockerfilePlan {
        target: params.target_name.clone().filter(|name| !name.is_empty()),
        build_args: build_args(params, sources, world.env)?,
        labels: labels(params, sources)?,
        platforms: vec![platform],
        ..DockerfilePlan::new(Context::Directory(context), DockerfileSource::Path(Some(dockerfile)))
    };
    // What a registry takes for granted, made at once instead of again for the push.
    let options = LayerOptions { compression: Some(Compression::Gzip), ..LayerOptions::default() };
    let request = SolveRequest {
        plan: Plan::Dockerfile(Box::new(plan)),
        secrets: secrets(params, sources, world.env)?,
        ssh: ssh(params, sources)?,
        exports: vec![Export::Image { names: vec![name.clone()], push: false, options }],
        caches,
        allow: Vec::new(),
        epoch: world.epoch,
        progress: world.progress.clone(),
        cancel: world.cancel.clone(),
    };
    let run = Arc::new(Run::new(sources.to_owned(), None));
    let outcome = Places::of(world.env)?.engine(state, &run).solve(&request)?;
    outcome.warnings.iter().for_each(|warning| world.progress.warn(warning.to_string()));
    outcome.image.and_then(|image| image.manifest).context("the build made no image")
}

fn build_args(params: &Put, sources: &Path, env: &Env) -> anyhow::Result<BTreeMap<String, String>> {
    let mut args = BTreeMap::new();
    for name in PROXIES {
        if let Some(value) = env.nonempty(name) {
            args.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in &params.build_args {
        args.insert(name.clone(), expanded(&printed(value), env));
    }
    if let Some(path) = params.build_args_file.as_deref().filter(|path| !path.is_empty()) {
        let file = read_map(sources, path)
            .map_err(|error| error.context(format!("Failed to parse build_args_file ({path})")))?;
        args.extend(file);
    }
    Ok(args)
}

fn labels(params: &Put, sources: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels: BTreeMap<String, String> =
        params.labels.iter().map(|(name, value)| (name.clone(), printed(value))).collect();
    if let Some(path) = params.labels_file.as_deref().filter(|path| !path.is_empty()) {
        let file =
            read_map(sources, path).map_err(|error| error.context(format!("Failed to parse labels_file ({path})")))?;
        labels.extend(file);
    }
    Ok(labels)
}

fn read_map(sources: &Path, path: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let text = fs::read_to_string(sources.join(path))?;
    let map: BTreeMap<String, Value> = serde_json::from_str(&text)?;
    Ok(map.into_iter().map(|(name, value)| (name, printed(&value))).collect())
}

fn secrets(params: &Put, sources: &Path, env: &Env) -> anyhow::Result<BTreeMap<String, Secret>> {
    let mut secrets = BTreeMap::new();
    for (id, param) in &params.secrets {
        let value = match (&param.env, &param.source) {
            (Some(name), None) => {
                let value = env.var_os(name).with_context(|| format!("secrets: {id}: {name} is not set"))?;
                Secret::new(std::os::unix::ffi::OsStrExt::as_bytes(value))
            }
            (None, Some(path)) => {
                Secret::new(fs::read(sources.join(path)).with_context(|| format!("secrets: {id}: read {path}"))?)
            }
            _ => bail!("secrets: {id}: needs either env or source"),
        };
        secrets.insert(id.clone(), value);
    }
    Ok(secrets)
}

fn ssh(params: &Put, sources: &Path) -> anyhow::Result<BTreeMap<String, Keys>> {
    let Some(path) = params.ssh_identity.as_deref().filter(|path| !path.is_empty()) else {
        return Ok(BTreeMap::new());
    };
    let key = sources.join(path);
    if !key.is_file() {
        bail!("ssh_identity: {path} is not a file");
    }
    Ok(BTreeMap::from([("default".to_owned(), Keys { paths: vec![key], raw: false })]))
}

/// Puts in what Concourse tells (`$BUILD_ID`, `${BUILD_ID}`); unset is empty, and every other dollar stays.
fn expanded(text: &str, env: &Env) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let (name, tail) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, tail)) => (name, tail),
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        if CONCOURSE.contains(&name) {
            out.push_str(env.var(name).unwrap_or(""));
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

fn shown(path: &Path, sources: &Path) -> String {
    path.strip_prefix(sources).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_concourses_own_variables_are_put_in() {
        let env = Env::of([("BUILD_ID", "7"), ("HOME", "/root")]);
        let cases = [
            ("v$BUILD_ID", "v7"),
            ("${BUILD_ID}-x", "7-x"),
            ("$BUILD_NAME|", "|"),
            ("$HOME ${HOME} $", "$HOME ${HOME} $"),
            ("$BUILD_IDX", "$BUILD_IDX"),
            ("$$BUILD_ID", "$7"),
            ("${BUILD_ID", "${BUILD_ID"),
            ("ü$BUILD_ID", "ü7"),
        ];
        for (text, expected) in cases {
            assert_eq!(expanded(text, &env), expected, "{text}");
        }
    }

    #[test]
    fn files_come_after_params_and_proxies_before() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("args"), r#"{"A":"file","N":1}"#).unwrap();
        let params: Put =
            serde_json::from_str(r#"{"build_args":{"A":"param","B":null},"build_args_file":"args"}"#).unwrap();
        let env = Env::of([("http_proxy", "p"), ("HTTPS_PROXY", "q")]);
        let args = build_args(&params, dir.path(), &env).unwrap();
        let shown: Vec<String> = args.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(shown, ["A=file", "B=null", "N=1", "http_proxy=p"]);
        fs::write(dir.path().join("args"), "{").unwrap();
        let error = build_args(&params, dir.path(), &env).unwrap_err();
        assert_eq!(error.to_string(), "Failed to parse build_args_file (args)");
    }

    #[test]
    fn a_secret_has_one_place() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("s"), "from file").unwrap();
        let of = |json: &str| {
            let params: Put = serde_json::from_str(json).unwrap();
            secrets(&params, dir.path(), &Env::of([("S", "from env")]))
        };
        let found = of(r#"{"secrets":{"a-b":{"env":"S"},"c":{"source":"s"}}}"#).unwrap();
        assert_eq!(found["a-b"], "from env".into());
        assert_eq!(found["c"], "from file".into());
        for (json, expected) in [
            (r#"{"secrets":{"a":{}}}"#, "secrets: a: needs either env or source"),
            (r#"{"secrets":{"a":{"env":"NO"}}}"#, "secrets: a: NO is not set"),
            (r#"{"secrets":{"a":{"source":"no"}}}"#, "secrets: a: read no"),
        ] {
            assert_eq!(of(json).unwrap_err().to_string(), expected);
        }
    }
}
