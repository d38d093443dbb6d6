//! What a build is of: a Dockerfile with all that was typed beside it, or a definition of another LLB client.

use std::collections::BTreeMap;

use super::Args;
use crate::base::Epoch;
use crate::cli::exit::{missing, usage};
use crate::cli::session::Session;
use crate::cli::{context, definition, flags};
use crate::engine::{Context, DockerfilePlan, DockerfileSource, Given, NoCache, Plan, contexts};
use crate::exec::Network;
use crate::task::journal::BuildRecord;

/// A plan, and what its build needs to know beside it.
pub struct Meant {
    pub plan: Plan,
    pub epoch: Epoch,
    /// What the journal of a task keeps.
    pub record: Option<BuildRecord>,
}

pub fn dockerfile(args: &Args, session: &Session) -> anyhow::Result<Meant> {
    let env = &session.env;
    let (context, dockerfile) = match &args.inline_dockerfile {
        Some(text) => {
            let source = DockerfileSource::Text { name: "inline".to_owned(), text: text.clone() };
            context::with_dockerfile(session, &args.context, source)?
        }
        None => context::resolve(session, &args.context, args.file.as_deref())?,
    };
    let build_args = build_args(&args.build_args, session);
    let epoch = match build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty()).map(|text| text.parse()) {
        None => session.epoch()?,
        Some(Ok(seconds)) => session.unpinned_epoch()?.pinned(seconds),
        // The name of something: the frontend knows what has a date.
        Some(Err(_)) => session.unpinned_epoch()?,
    };
    let mut named_contexts = BTreeMap::new();
    for (name, value) in &args.build_contexts {
        let value =
            contexts::absolute(value, env).map_err(|error| usage(format!("--build-context {name}: {error}")))?;
        named_contexts.insert(name.clone(), value);
    }
    let network = match args.network.as_str() {
        "default" | "" => None,
        "host" => Some(Network::Host),
        "none" => Some(Network::None),
        other => return Err(usage(format!("--network={other} is not known (default, host, none)"))),
    };
    let no_cache = match (args.no_cache, args.no_cache_filter.as_slice()) {
        (true, _) => NoCache::All,
        (false, []) => NoCache::Use,
        (false, stages) => NoCache::Stages(stages.to_vec()),
    };
    let labels: BTreeMap<_, _> = args.labels.iter().cloned().collect();
    let record = session.journal().and_then(|_| {
        let Context::Directory(dir) = &context else { return None };
        let (dockerfile, text) = match &dockerfile {
            DockerfileSource::Path(path) => (path.clone(), None),
            DockerfileSource::Text { text, .. } => (None, Some(text.clone())),
            // A task's report is of what is here.
            DockerfileSource::Remote(_) => return None,
        };
        Some(BuildRecord {
            cwd: session.env.cwd().to_owned(),
            context: dir.clone(),
            dockerfile,
            text,
            build_args: build_args.clone(),
            labels: labels.clone(),
            platform: args.platforms.first().map(ToString::to_string),
            named_contexts: named_contexts.clone(),
            secrets: args.secrets.clone(),
            ssh: args.ssh.clone(),
            extra_hosts: args.add_hosts.clone(),
            network: network.map(flags::network_name),
            allow: args.allow.clone(),
            ulimits: args.ulimits.clone(),
            shm_size: args.shm_size,
            engine: None,
        })
    });
    let plan = DockerfilePlan {
        context,
        dockerfile,
        target: args.target.clone().filter(|target| !target.is_empty()),
        build_args,
        labels,
        platforms: args.platforms.clone(),
        named_contexts,
        no_cache,
        pull: args.pull,
        network,
        extra_hosts: args.add_hosts.clone(),
        ulimits: args.ulimits.clone(),
        shm_size: args.shm_size,
    };
    Ok(Meant { plan: Plan::Dockerfile(Box::new(plan)), epoch, record })
}

/// What another LLB client made, with the folders and layouts that it may name.
pub fn definition(file: &str, args: &Args, session: &Session) -> anyhow::Result<Meant> {
    const LAYOUT: &str = "oci-layout://";
    let mut given = Given::default();
    let context = [("context", args.context.as_str())];
    let others = args.build_contexts.iter().map(|(name, dir)| (name.as_str(), dir.as_str()));
    for (name, value) in context.into_iter().chain(others) {
        let (dir, places) = match value.strip_prefix(LAYOUT) {
            Some(dir) => (dir, &mut given.layouts),
            None => (value, &mut given.locals),
        };
        let path = session.absolute(dir);
        if !path.is_dir() {
            return Err(missing(format!(
                "{name}={value} is no folder; a definition's local sources are, and its OCI layouts ({LAYOUT}DIR)"
            )));
        }
        places.insert(name.to_owned(), path);
    }
    let plan = Plan::Llb { definition: definition::read(file, args.no_cache, session)?, given };
    Ok(Meant { plan, epoch: session.epoch()?, record: None })
}

/// `KEY=VALUE`; a key alone takes the variable of that name, and is no argument where there is none. Proxies reach
/// every build, as Docker's clients pass them on; the frontend keeps them out of history and cache keys.
pub fn build_args(typed: &[String], session: &Session) -> BTreeMap<String, String> {
    const PASSED_ON: [&str; 6] =
        ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY", "SOURCE_DATE_EPOCH"];
    let env = &session.env;
    let mut args = BTreeMap::new();
    for name in PASSED_ON {
        for name in [name.to_owned(), name.to_lowercase()] {
            args.extend(env.nonempty(&name).map(|value| (name.clone(), value.to_owned())));
        }
    }
    for arg in typed {
        match arg.split_once('=') {
            Some((key, value)) => {
                args.insert(key.to_owned(), value.to_owned());
            }
            None => args.extend(env.var(arg).map(|value| (arg.clone(), value.to_owned()))),
        }
    }
    args
}
