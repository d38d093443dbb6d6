//! `buildx bake`: the targets of a file, each built as `build` would.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

use crate::cli::bake::{self, Definition, Override, Planned, Text};
use crate::cli::exit::{Exit, Hinted, missing, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::session::{Out, Session};

use super::build;

/// Build the targets of a bake file (JSON) or a compose file.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Targets, groups or patterns of them
    #[arg(value_name = "TARGET", default_value = "default", hide_default_value = true)]
    targets: Vec<String>,
    /// Bake or compose file, - for standard input; may be repeated [default: those of the usual names]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<String>,
    /// Change targets: TARGET.KEY=VALUE, or += to add; may be repeated
    #[arg(long = "set", value_name = "CHANGE")]
    sets: Vec<String>,
    /// Value of a variable of the file
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = flags::key_value)]
    vars: Vec<(String, String)>,
    /// Print what would be built, as a bake file, and build nothing
    #[arg(long)]
    print: bool,
    /// List targets or variables, and build nothing
    #[arg(long, value_name = "WHAT", value_parser = ["targets", "variables"])]
    list: Option<String>,
    /// Keep the images in the local store
    #[arg(long)]
    load: bool,
    /// Push the images to their registries
    #[arg(long)]
    push: bool,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Build nothing, and tell of mistakes and lint rules
    #[arg(long)]
    check: bool,
    /// Build nothing, and tell of the Dockerfiles: check, outline or targets[,format=json]
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,
    /// How to show progress
    #[arg(long, value_name = "MODE")]
    progress: Option<String>,
    /// Write digests and names to a file, as JSON, by target
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    #[arg(long, value_name = "SPEC", hide = true)]
    provenance: Option<String>,
    #[arg(long, value_name = "SPEC", hide = true)]
    sbom: Option<String>,
    #[command(flatten)]
    ignored: Ignored,
}

ignored_flags!(
    /// What a daemon would do for a build, and nobody does here.
    Ignored { switches: ["debug"], values: ["allow", "builder"] }
);

/// Where bake looks when nobody says which file; all that are there are read, one over the other.
const USUAL: [&str; 8] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
    "docker-bake.json",
    "docker-bake.hcl",
    "docker-bake.override.json",
    "docker-bake.override.hcl",
];

const HCL_HINT: &str =
    "where buildx is, `docker buildx bake --print > docker-bake.json` writes the same as JSON, which is read here";

/// More than any file that people write.
const LARGEST: u64 = 16 << 20;

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    session.warn_ignored(&args.ignored.0);
    let env = |name: &str| session.env.var(name).map(str::to_owned);
    let files = files(&args.files, session)?;
    let vars: BTreeMap<String, String> = args.vars.iter().cloned().collect();
    let definition = bake::read(&files, &env, &vars).map_err(|error| {
        let is_hcl = error.contains("HCL");
        let error = usage(error);
        if is_hcl { Hinted { hint: HCL_HINT.to_owned(), source: error }.into() } else { error }
    })?;
    if let Some(what) = &args.list {
        return list(what, &definition);
    }
    let plan = definition.plan(&args.targets, &overrides(&args, &env)?).map_err(usage)?;
    if args.print {
        let mut out = Out::new();
        out.line(plan.to_json()?)?;
        out.finish()?;
        return Ok(Exit::Success);
    }
    let mut bakery =
        Bakery { args: &args, session, links: BTreeMap::new(), told: serde_json::Map::new(), kept: Vec::new() };
    let ended: anyhow::Result<Exit> = plan.targets.iter().try_fold(Exit::Success, |exit, planned| {
        let next = bakery.bake(planned).with_context(|| format!("target {}", planned.name))?;
        Ok(if exit == Exit::Success { next } else { exit })
    });
    bakery.forget()?;
    let exit = ended?;
    if let Some(path) = &args.metadata_file {
        let path = session.absolute(path);
        let text = format!("{:#}\n", serde_json::Value::Object(bakery.told));
        fs::write(&path, text).with_context(|| path.display().to_string())?;
    }
    Ok(exit)
}

fn files(typed: &[String], session: &Session) -> anyhow::Result<Vec<Text>> {
    let mut files = Vec::new();
    for name in typed {
        let text = if name == "-" {
            let mut text = String::new();
            std::io::stdin().lock().take(LARGEST).read_to_string(&mut text).context("standard input")?;
            text
        } else {
            let path = session.absolute(name);
            fs::read_to_string(&path).map_err(|error| missing(format!("{}: {error}", path.display())))?
        };
        files.push(Text { name: name.clone(), text });
    }
    if !typed.is_empty() {
        return Ok(files);
    }
    for name in USUAL {
        let path = session.absolute(name);
        if path.is_file() {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            files.push(Text { name: name.to_owned(), text });
        }
    }
    if files.is_empty() {
        return Err(missing(format!("there is none of {} here; name a file with -f", USUAL.join(", "))));
    }
    Ok(files)
}

/// What the flags change, over what `--set` does.
fn overrides(args: &Args, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Vec<Override>> {
    let sets =
        args.sets.iter().map(|text| Override::parse(text, env).map_err(|error| usage(format!("--set: {error}"))));
    let mut overrides: Vec<Override> = sets.collect::<Result<_, _>>()?;
    let switches = [("push", args.push), ("load", args.load), ("no-cache", args.no_cache), ("pull", args.pull)];
    overrides.extend(switches.iter().filter(|(_, on)| *on).map(|(key, _)| Override::all(key, "true")));
    let call = if args.check { Some("check") } else { args.call.as_deref() };
    overrides.extend(call.map(|call| Override::all("call", call)));
    Ok(overrides)
}

fn list(what: &str, definition: &Definition) -> anyhow::Result<Exit> {
    let mut out = Out::new();
    if what == "targets" {
        for (name, group) in &definition.groups {
            out.line(format!("{name}: {}", group.targets.join(", ")))?;
        }
        for (name, target) in &definition.targets {
            out.line(format!("{name} {}", target.description.as_deref().unwrap_or_default()).trim_end())?;
        }
    } else {
        for (name, variable) in &definition.variables {
            out.line(format!("{name}={} {}", variable.default, variable.description).trim_end())?;
        }
    }
    out.finish()?;
    Ok(Exit::Success)
}

/// Target after target, and what is known of those that are done.
struct Bakery<'a> {
    args: &'a Args,
    session: &'a Session,
    /// What stands for a target's result in another's contexts.
    links: BTreeMap<String, String>,
    /// For the metadata file.
    told: serde_json::Map<String, serde_json::Value>,
    /// Images that are there only for those that take files of them.
    kept: Vec<crate::base::Digest>,
}

/// `build`'s own words.
#[derive(Debug, Parser)]
#[command(name = "build", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    build: build::Args,
}

impl Bakery<'_> {
    fn bake(&mut self, planned: &Planned) -> anyhow::Result<Exit> {
        let mut target = planned.target.clone();
        if planned.only_linked {
            // A result without a name, for those who take files of it.
            (target.output, target.tags) = (None, None);
        }
        let tmp = tempfile::tempdir_in(self.session.state()?.tmp()?)?;
        let metadata = tmp.path().join("metadata.json");
        let mut words = vec!["--metadata-file".to_owned(), metadata.display().to_string()];
        if planned.linked && !planned.only_linked {
            // Wherever else it goes, the others need it here.
            words.push("--load".to_owned());
        }
        let extra =
            [("progress", &self.args.progress), ("provenance", &self.args.provenance), ("sbom", &self.args.sbom)];
        for (name, value) in extra {
            words.extend(value.iter().map(|value| format!("--{name}={value}")));
        }
        words.extend(bake::words(&target, &self.links).map_err(usage)?);
        let mut build = Words::try_parse_from(words).map_err(|error| usage(error.to_string()))?.build;
        build.inline_dockerfile = target.dockerfile_inline;
        let exit = build::run(build, self.session)?;
        if let Ok(text) = fs::read(&metadata) {
            let told: serde_json::Value = serde_json::from_slice(&text)?;
            if let Some(digest) = told["containerimage.digest"].as_str() {
                self.links.insert(planned.name.clone(), format!("docker-image://dockless-context/image@{digest}"));
                if planned.only_linked {
                    self.kept.push(digest.parse()?);
                }
            }
            self.told.insert(planned.name.clone(), told);
        }
        Ok(exit)
    }

    /// Removes images that nobody asked for, unless they are known by a name too.
    fn forget(&self) -> anyhow::Result<()> {
        let images = self.session.images()?;
        for digest in &self.kept {
            let named = images.list()?.iter().any(|i| i.descriptor.digest == *digest && !i.references.is_empty());
            if !named {
                images.remove(digest)?;
            }
        }
        Ok(())
    }
}
