//! Frontends that are not ours: what BuildKit's own, or the image of one, is told of a build so that it reads the
//! Dockerfile itself.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::dockerfile::{CONTEXT, Prepared};
use super::{DockerfilePlan, Given, NoCache};
use crate::base::{Env, Platform};
use crate::exec::Network;
use crate::frontend::NamedContext;
use crate::ops::Machine;

/// Who reads Dockerfiles on an engine elsewhere.
pub const VARIABLE: &str = "DOCKLESS_FRONTEND";

/// BuildKit's frontend for Dockerfiles. It hands over to the image that a syntax line names.
const DOCKERFILE: &str = "dockerfile.v0";

/// The folder with the Dockerfile, by the name that the frontend has for it.
const FOLDER: &str = "dockerfile";

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Reader {
    /// Our frontend, but for Dockerfiles whose syntax line names one that is not Docker's.
    #[default]
    Dockless,
    /// The engine's own, always.
    Engine,
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dockless => "dockless",
            Self::Engine => "engine",
        })
    }
}

impl Reader {
    pub fn of(env: &Env) -> anyhow::Result<Self> {
        match env.nonempty(VARIABLE) {
            None => Ok(Self::default()),
            Some("dockless") => Ok(Self::Dockless),
            Some("engine") => Ok(Self::Engine),
            Some(other) => bail!("{VARIABLE}={other} is not known (dockless, engine)"),
        }
    }
}

/// A build by a frontend of the engine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontendPlan {
    /// `dockerfile.v0`, `gateway.v0`
    pub name: String,
    /// In BuildKit's words, without the platform.
    pub options: BTreeMap<String, String>,
    pub given: Given,
    /// None where the frontend is to choose.
    pub platforms: Vec<Platform>,
}

impl FrontendPlan {
    /// The options of each build: one for each platform.
    pub fn by_platform(&self) -> impl Iterator<Item = BTreeMap<String, String>> {
        let alone = self.platforms.is_empty().then(|| self.options.clone());
        let each = self.platforms.iter().map(|platform| {
            let mut options = self.options.clone();
            options.insert("platform".to_owned(), platform.to_string());
            options
        });
        alone.into_iter().chain(each)
    }

    pub fn build_args(&self) -> BTreeMap<String, String> {
        let argument =
            |(key, value): (&String, &String)| Some((key.strip_prefix("build-arg:")?.to_owned(), value.clone()));
        self.options.iter().filter_map(argument).collect()
    }
}

/// A Dockerfile's build for the engine's frontend. It gets the Dockerfile and the ignore file that were read here, so
/// that both mean the same wherever they came from.
pub fn of_dockerfile(
    plan: &DockerfilePlan,
    prepared: &mut Prepared,
    machine: &dyn Machine,
) -> anyhow::Result<FrontendPlan> {
    let dir = machine.tmp()?;
    let input = &prepared.input;
    let filename = Path::new(&input.name).file_name().and_then(|name| name.to_str()).unwrap_or("Dockerfile");
    let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).with_context(|| name.to_owned());
    write(filename, &input.text)?;
    if let Some((_, text)) = &input.ignore {
        write(&format!("{filename}.dockerignore"), text.as_bytes())?;
    }
    let mut options = options(plan);
    let mut set = |key: &str, value: String| drop(options.insert(key.to_owned(), value));
    set("filename", filename.to_owned());
    // Says that the folder counts even where the context is an address.
    set("dockerfilekey", FOLDER.to_owned());
    if let Some(NamedContext::Url(address)) = &input.main_context {
        set(CONTEXT, address.clone());
    }
    for (name, context) in &input.named_contexts {
        let value = match context {
            NamedContext::Image(reference) => format!("docker-image://{reference}"),
            NamedContext::Local { source, .. } => format!("local:{source}"),
            NamedContext::Url(address) => address.clone(),
            NamedContext::OciLayout { reference, .. } => format!("oci-layout://{reference}"),
        };
        set(&format!("context:{name}"), value);
    }
    let mut locals = std::mem::take(&mut prepared.locals);
    locals.insert(FOLDER.to_owned(), dir.path().to_owned());
    prepared.keep(dir);
    let given = Given { locals, ..Given::default() };
    Ok(FrontendPlan { name: DOCKERFILE.to_owned(), options, given, platforms: prepared.platforms.clone() })
}

/// What was asked for, in the words of BuildKit's frontend (`frontend/dockerui`).
fn options(plan: &DockerfilePlan) -> BTreeMap<String, String> {
    let mut options = BTreeMap::new();
    let mut set = |key: &str, value: String| drop(options.insert(key.to_owned(), value));
    if let Some(target) = &plan.target {
        set("target", target.clone());
    }
    for (name, value) in &plan.build_args {
        set(&format!("build-arg:{name}"), value.clone());
    }
    for (name, value) in &plan.labels {
        set(&format!("label:{name}"), value.clone());
    }
    match &plan.no_cache {
        NoCache::Use => {}
        NoCache::All => set("no-cache", String::new()),
        NoCache::Stages(stages) => set("no-cache", stages.join(",")),
    }
    if plan.pull {
        set("image-resolve-mode", "pull".to_owned());
    }
    match plan.network {
        None => {}
        Some(Network::Host) => set("force-network-mode", "host".to_owned()),
        Some(Network::None) => set("force-network-mode", "none".to_owned()),
    }
    if !plan.extra_hosts.is_empty() {
        let hosts: Vec<_> = plan.extra_hosts.iter().map(|(host, ip)| format!("{host}={ip}")).collect();
        set("add-hosts", hosts.join(","));
    }
    if !plan.ulimits.is_empty() {
        let limit = |value: u64| i64::try_from(value).unwrap_or(-1);
        let limits = plan.ulimits.iter().map(|(name, soft, hard)| format!("{name}={}:{}", limit(*soft), limit(*hard)));
        set("ulimit", limits.collect::<Vec<_>>().join(","));
    }
    if let Some(size) = plan.shm_size {
        set("shm-size", size.to_string());
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Context, DockerfileSource};

    #[test]
    fn what_is_asked_for_in_the_frontend_s_words() {
        let plain = DockerfilePlan::new(Context::Empty, DockerfileSource::Path(None));
        assert_eq!(options(&plain), BTreeMap::new());
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let plan = DockerfilePlan {
            target: Some("t".to_owned()),
            build_args: BTreeMap::from([pair("A", "1")]),
            labels: BTreeMap::from([pair("l", "2")]),
            no_cache: NoCache::Stages(vec!["a".to_owned(), "b".to_owned()]),
            pull: true,
            network: Some(Network::None),
            extra_hosts: vec![pair("h", "1.2.3.4"), pair("six", "::1")],
            ulimits: vec![("nofile".to_owned(), 1, u64::MAX)],
            shm_size: Some(64),
            ..plain
        };
        let expected = [
            pair("add-hosts", "h=1.2.3.4,six=::1"),
            pair("build-arg:A", "1"),
            pair("force-network-mode", "none"),
            pair("image-resolve-mode", "pull"),
            pair("label:l", "2"),
            pair("no-cache", "a,b"),
            pair("shm-size", "64"),
            pair("target", "t"),
            pair("ulimit", "nofile=1:-1"),
        ];
        assert_eq!(options(&plan).into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn each_platform_is_a_build() {
        let options = BTreeMap::from([("build-arg:A".to_owned(), "1".to_owned())]);
        let mut plan =
            FrontendPlan { name: String::new(), options: options.clone(), given: Given::default(), platforms: vec![] };
        assert_eq!(plan.by_platform().collect::<Vec<_>>(), [options]);
        assert_eq!(plan.build_args(), BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        plan.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        let asked: Vec<_> = plan.by_platform().map(|options| options["platform"].clone()).collect();
        assert_eq!(asked, ["linux/amd64", "linux/arm64"]);
    }

    #[test]
    fn who_reads_is_said_by_the_environment() {
        let of = |vars: &[(&str, &str)]| Reader::of(&Env::of(vars.iter().copied()));
        assert_eq!(of(&[]).unwrap(), Reader::Dockless);
        assert_eq!(of(&[(VARIABLE, "engine")]).unwrap(), Reader::Engine);
        assert_eq!(
            of(&[(VARIABLE, "x")]).unwrap_err().to_string(),
            "DOCKLESS_FRONTEND=x is not known (dockless, engine)"
        );
    }
}
