//! `buildx bake`: the targets of a file, each built as `build` would.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

use crate::base::Digest;
use crate::cli::bake::schedule::{self, Targets};
use crate::cli::bake::{self, Definition, Override, Plan, Planned, Text};
use crate::cli::call;
use crate::cli::exit::{Exit, Hinted, missing, usage};
use crate::cli::flags::{self, ignored_flags};
use crate::cli::progress::{Display, Mode};
use crate::cli::session::{Out, Session};
use crate::cli::solve::{self, Build, Solved};
use crate::engine::BuiltImage;
use crate::frontend::Warning;

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
    /// Write digests and names to a file, as JSON, by target
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    ignored: Ignored,
}

/// What is asked of every target, whatever its file says.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wishes {
    /// How to show progress
    #[arg(long, value_name = "MODE", value_enum, default_value_t)]
    pub progress: Mode,
    #[arg(long, value_name = "SPEC", hide = true)]
    provenance: Option<String>,
    #[arg(long, value_name = "SPEC", hide = true)]
    sbom: Option<String>,
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
    let dotenv = dotenv(&session.absolute(".env"), session)?;
    let compose_env = |name: &str| env(name).or_else(|| dotenv.get(name).cloned());
    let files = files(&args.files, session)?;
    let vars: BTreeMap<String, String> = args.vars.iter().cloned().collect();
    let definition = bake::read(&files, &env, &compose_env, &vars).map_err(|error| {
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
    build_all(&plan, &args.wishes, args.metadata_file.as_deref(), session)
}

/// Builds the targets of a plan side by side, and tells of them when all are there.
pub fn build_all(
    plan: &Plan,
    wishes: &Wishes,
    metadata_file: Option<&Path>,
    session: &Session,
) -> anyhow::Result<Exit> {
    let orders = orders(plan, wishes, session)?;
    let cancel = session.cancel()?.child();
    let display = Display::start(wishes.progress, &session.env);
    let progress = display.progress();
    let mut bakery = Bakery { session, orders, exit: Exit::Success, baked: BTreeMap::new(), unnamed: Vec::new() };
    let several = plan.targets.len() > 1;
    let ended = schedule::run(&plan.targets, &mut bakery, at_once(), &cancel, |planned, build| {
        let progress = if several { progress.of_part(&planned.name) } else { progress.clone() };
        solve::solve(session, build, progress, cancel.clone())
    });
    display.finish();
    bakery.forget()?;
    bakery.tell(plan, wishes, metadata_file)?;
    ended?;
    Ok(bakery.exit)
}

/// Variables of a `.env` file, where there is one.
pub fn dotenv(path: &Path, session: &Session) -> anyhow::Result<BTreeMap<String, String>> {
    // A folder of the name is Python's.
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let env = |name: &str| session.env.var(name).map(str::to_owned);
    bake::dotenv::read(&text, &env).map_err(|error| usage(format!("{}: {error}", path.display())))
}

/// Each target has helpers of its own for steps that can run side by side; more targets at once than processors would
/// only compete for memory.
fn at_once() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}

/// Every target as the words of a build, before the first is built: what nobody can build is told at once.
fn orders(plan: &Plan, wishes: &Wishes, session: &Session) -> anyhow::Result<BTreeMap<String, build::Args>> {
    let mut orders = BTreeMap::new();
    let mut to_stdout: Option<&str> = None;
    for planned in &plan.targets {
        let order = order(planned, wishes, session).with_context(|| format!("target {}", planned.name))?;
        if order.writes_to_stdout(session)?
            && let Some(other) = to_stdout.replace(&planned.name)
        {
            return Err(usage(format!("targets {other} and {} both write to standard output", planned.name)));
        }
        orders.insert(planned.name.clone(), order);
    }
    Ok(orders)
}

fn order(planned: &Planned, wishes: &Wishes, session: &Session) -> anyhow::Result<build::Args> {
    let mut target = planned.target.clone();
    if planned.only_linked {
        // A result without a name, for those who take files of it.
        (target.output, target.tags) = (None, None);
    }
    let mut words = Vec::new();
    if planned.linked && !planned.only_linked {
        // Wherever else it goes, the others need it here.
        words.push("--load".to_owned());
    }
    for (name, value) in [("provenance", &wishes.provenance), ("sbom", &wishes.sbom)] {
        words.extend(value.iter().map(|value| format!("--{name}={value}")));
    }
    words.extend(bake::words(&target));
    let mut order = build::Args::of_words(words)?;
    order.inline_dockerfile = target.dockerfile_inline;
    order.admit(session)?;
    Ok(order)
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

/// What is to be done, and what is known of the targets that are done.
struct Bakery<'a> {
    session: &'a Session,
    orders: BTreeMap<String, build::Args>,
    /// Of questions: what is built either is or is an error.
    exit: Exit,
    baked: BTreeMap<String, Baked>,
    /// Images that are there only for those that take files of them.
    unnamed: Vec<Digest>,
}

struct Baked {
    image: Option<BuiltImage>,
    engine: Option<String>,
    warnings: Vec<Warning>,
}

impl Targets for Bakery<'_> {
    type Work = Build;
    type Result = Solved;

    fn begin(&mut self, planned: &Planned) -> anyhow::Result<Option<Build>> {
        let mut order = self.orders.remove(&planned.name).context("it was begun before")?;
        order.link(|name| {
            let image = self.baked.get(name).and_then(|baked| baked.image.as_ref()?.manifest.as_ref());
            let image = image.with_context(|| format!("target {name} gave no image"))?;
            // What stands for the result in the local store: only the digest means something.
            Ok(format!("docker-image://dockless-context/image@{}", image.digest))
        })?;
        let asked = order.asked()?;
        let build = build::request(order, self.session)?;
        let Some(asked) = asked else { return Ok(Some(build)) };
        let exit = call::run(self.session, asked, build)?;
        if self.exit == Exit::Success {
            self.exit = exit;
        }
        Ok(None)
    }

    fn end(&mut self, planned: &Planned, mut solved: Solved) -> anyhow::Result<()> {
        let warnings = std::mem::take(&mut solved.warnings);
        let engine = solved.engine().map(str::to_owned);
        let image = solved.keep(self.session)?;
        if planned.only_linked {
            self.unnamed.extend(image.iter().filter_map(|image| Some(image.manifest.as_ref()?.digest)));
        }
        self.baked.insert(planned.name.clone(), Baked { image, engine, warnings });
        Ok(())
    }
}

impl Bakery<'_> {
    /// Removes images that nobody asked for, unless they are known by a name too.
    fn forget(&self) -> anyhow::Result<()> {
        let images = self.session.images()?;
        for digest in &self.unnamed {
            let named = images.list()?.iter().any(|i| i.descriptor.digest == *digest && !i.references.is_empty());
            if !named {
                images.remove(digest)?;
            }
        }
        Ok(())
    }

    /// Warnings of all targets, each once, and the metadata file.
    fn tell(&self, plan: &Plan, wishes: &Wishes, metadata_file: Option<&Path>) -> anyhow::Result<()> {
        let baked = || plan.targets.iter().filter_map(|planned| self.baked.get_key_value(&planned.name));
        if wishes.progress.shows_warnings() {
            let mut warnings: Vec<Warning> = Vec::new();
            for warning in baked().flat_map(|(_, baked)| &baked.warnings) {
                if !warnings.contains(warning) {
                    warnings.push(warning.clone());
                }
            }
            self.session.lint(&warnings);
        }
        self.session.note_isolation()?;
        let Some(path) = metadata_file else { return Ok(()) };
        let told = baked().filter_map(|(name, baked)| {
            Some((name.clone(), solve::metadata(baked.image.as_ref()?, baked.engine.as_deref())))
        });
        let text = format!("{:#}\n", Value::Object(told.collect()));
        let path = self.session.absolute(path);
        fs::write(&path, text).with_context(|| path.display().to_string())
    }
}
