//! `compose build`: the images of a compose file's services. What runs services is somebody else's.

use std::fs;
use std::path::{Path, PathBuf};

use crate::cli::bake::compose::{self, Project, target_name};
use crate::cli::bake::{Definition, Override};
use crate::cli::exit::{Exit, Unsupported, missing, usage};
use crate::cli::flags::ignored_flags;
use crate::cli::progress::Mode;
use crate::cli::session::{Out, Session};

use super::bake::{Wishes, build_all, dotenv};
use super::version;

/// Build the images of a compose file's services.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// Compose file; may be repeated [default: $COMPOSE_FILE, else those of the usual names, here or above]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Name of the project: images without a name are NAME-SERVICE [default: $COMPOSE_PROJECT_NAME, else the file's, else
    /// the folder's]
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// Folder that paths are relative to [default: of the first file]
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// File of variables; may be repeated [default: .env in the project's folder]
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Services of this profile too; may be repeated [default: $COMPOSE_PROFILES]
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
    /// How to show progress
    #[arg(long, value_name = "MODE", value_enum)]
    progress: Option<Mode>,
    #[command(flatten)]
    ignored: Ignored,
    #[command(subcommand)]
    verb: Verb,
}

ignored_flags!(
    /// How compose talks to a terminal and to a daemon.
    Ignored { switches: ["compatibility", "no-ansi", "verbose"], values: ["ansi", "parallel"] }
);

#[derive(Debug, Clone, clap::Subcommand)]
enum Verb {
    Build(BuildArgs),
    /// Print the version
    Version {
        /// The number alone
        #[arg(long)]
        short: bool,
    },
    #[command(external_subcommand)]
    Other(Vec<String>),
}

/// Build the images of services, or of some.
#[derive(Debug, Clone, clap::Args)]
struct BuildArgs {
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Build argument; without a value, that of the environment variable
    #[arg(long = "build-arg", value_name = "KEY[=VALUE]")]
    build_args: Vec<String>,
    /// Agent or keys for RUN --mount=type=ssh
    #[arg(long, value_name = "SPEC")]
    ssh: Option<String>,
    /// Run every step again
    #[arg(long)]
    no_cache: bool,
    /// Ask the registry for newer base images
    #[arg(long)]
    pull: bool,
    /// Push the images to their registries
    #[arg(long)]
    push: bool,
    /// Print nothing
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    wishes: Wishes,
    #[command(flatten)]
    ignored: BuildIgnored,
}

ignored_flags!(
    /// What a daemon would do for a build, and nobody does here.
    BuildIgnored { switches: ["compress", "force-rm", "no-rm", "parallel"], values: ["builder", "memory"] }
);

/// The first of these is read, and one of [`OVERRIDES`] beside it.
const USUAL: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] =
    ["compose.override.yml", "compose.override.yaml", "docker-compose.override.yml", "docker-compose.override.yaml"];

pub fn run(args: &Args, outer: &Session) -> anyhow::Result<Exit> {
    let build = match &args.verb {
        Verb::Build(build) => build,
        Verb::Version { short } => {
            let mut out = Out::new();
            out.line(format!("{}{}", if *short { "" } else { "Docker Compose version " }, version::VERSION))?;
            out.finish()?;
            return Ok(Exit::Success);
        }
        Verb::Other(words) => {
            let verb = words.first().map_or("", String::as_str);
            let instead = "dockless builds images; it does not run services";
            return Err(Unsupported::instead(format!("compose {verb}"), instead));
        }
    };
    outer.enter_namespace()?;
    outer.warn_ignored(&args.ignored.0);
    outer.warn_ignored(&build.ignored.0);
    let files = args.files(outer)?;
    let folder = match &args.project_directory {
        Some(dir) => outer.absolute(dir),
        None => files[0].parent().unwrap_or(Path::new("/")).to_owned(),
    };
    // Whatever a file names is seen from the project's folder.
    let session = &outer.at(&folder);
    let env = args.env(&folder, outer)?;
    let mut project = Project::default();
    for path in &files {
        let text = fs::read_to_string(path).map_err(|error| missing(format!("{}: {error}", path.display())))?;
        project.lay_over(compose::read(&text, &env).map_err(|error| usage(format!("{}: {error}", path.display())))?);
    }
    let named = args.project_name.clone().or_else(|| env("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()));
    let name = named.or_else(|| project.name.clone()).unwrap_or_else(|| {
        let name = folder.file_name().unwrap_or_default();
        project_name(&name.to_string_lossy())
    });
    let profiles = match args.profiles.as_slice() {
        [] => env("COMPOSE_PROFILES").unwrap_or_default().split(',').map(str::to_owned).collect(),
        profiles => profiles.to_vec(),
    };
    let (definition, targets) = targets(project, &name, &profiles, &build.services)?;
    if targets.is_empty() {
        session.warn("No services to build");
        return Ok(Exit::Success);
    }
    let plan = definition.plan(&targets, &build.overrides(&env)?).map_err(usage)?;
    let mut wishes = build.wishes.clone();
    if let Some(mode) = args.progress {
        wishes.progress = mode;
    }
    if build.quiet {
        wishes.progress = Mode::Quiet;
    }
    build_all(&plan, &wishes, None, session)
}

impl Args {
    fn files(&self, session: &Session) -> anyhow::Result<Vec<PathBuf>> {
        if !self.files.is_empty() {
            return Ok(self.files.iter().map(|file| session.absolute(file)).collect());
        }
        if let Some(list) = session.env.nonempty("COMPOSE_FILE") {
            let separator = session.env.nonempty("COMPOSE_PATH_SEPARATOR").unwrap_or(":");
            return Ok(list.split(separator).map(|file| session.absolute(file)).collect());
        }
        let from = match &self.project_directory {
            Some(dir) => session.absolute(dir),
            None => session.env.cwd().to_owned(),
        };
        for dir in from.ancestors() {
            let one_of = |names: &[&str]| names.iter().map(|name| dir.join(name)).find(|path| path.is_file());
            if let Some(file) = one_of(&USUAL) {
                return Ok([file].into_iter().chain(one_of(&OVERRIDES)).collect());
            }
        }
        Err(missing(format!(
            "there is none of {} in {} or above; name a file with -f",
            USUAL.join(", "),
            from.display()
        )))
    }

    /// The caller's variables, then those of files.
    fn env<'a>(
        &self,
        folder: &Path,
        session: &'a Session,
    ) -> anyhow::Result<impl Fn(&str) -> Option<String> + use<'a>> {
        let mut read = std::collections::BTreeMap::new();
        for file in &self.env_files {
            let path = session.absolute(file);
            if !path.is_file() {
                return Err(missing(format!("--env-file {}: there is no such file", path.display())));
            }
            read.extend(dotenv(&path, session)?);
        }
        if self.env_files.is_empty() {
            read = dotenv(&folder.join(".env"), session)?;
        }
        Ok(move |name: &str| session.env.var(name).map(str::to_owned).or_else(|| read.get(name).cloned()))
    }
}

impl BuildArgs {
    fn overrides(&self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<Vec<Override>> {
        let mut overrides = Vec::new();
        for arg in &self.build_args {
            let Some((key, value)) =
                arg.split_once('=').map(|(key, value)| (key, value.to_owned())).or_else(|| Some((arg, env(arg)?)))
            else {
                continue;
            };
            let parsed = Override::parse(&format!("*.args.{key}={value}"), env);
            overrides.push(parsed.map_err(|error| usage(format!("--build-arg {arg}: {error}")))?);
        }
        overrides.extend(self.ssh.iter().map(|spec| Override::all("ssh", spec)));
        let switches = [("push", self.push), ("no-cache", self.no_cache), ("pull", self.pull)];
        overrides.extend(switches.iter().filter(|(_, on)| *on).map(|(key, _)| Override::all(key, "true")));
        Ok(overrides)
    }
}

/// Every service that is built, under the names that its image has, and which of them are wanted.
fn targets(
    mut project: Project,
    name: &str,
    profiles: &[String],
    wanted: &[String],
) -> anyhow::Result<(Definition, Vec<String>)> {
    if let Some(unknown) = wanted.iter().find(|service| !project.services.contains_key(*service)) {
        return Err(missing(format!("no such service: {unknown}")));
    }
    let mut targets = Vec::new();
    for (service, known) in &mut project.services {
        let Some(target) = &mut known.target else { continue };
        let image = known.image.clone().unwrap_or_else(|| format!("{name}-{service}"));
        let tags = target.tags.get_or_insert_default();
        if !tags.contains(&image) {
            tags.insert(0, image);
        }
        if target.platforms.is_none() {
            target.platforms = known.platform.clone().map(|platform| vec![platform]);
        }
        let is_active = |profile: &String| profile == "*" || known.profiles.contains(profile);
        let takes_part = known.profiles.is_empty() || profiles.iter().any(is_active);
        let is_wanted = if wanted.is_empty() { takes_part } else { wanted.contains(service) };
        if is_wanted {
            targets.push(target_name(service));
        }
    }
    Ok((project.definition(), targets))
}

/// What of a folder's name may be in a project's.
fn project_name(folder: &str) -> String {
    let name: String =
        folder.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
services:
  web: {build: ./web, platform: linux/arm64}
  api.v1: {build: {context: api, tags: ['api:extra']}, image: 'r.example/api:1'}
  debug: {build: ./web, profiles: [debug]}
  db: {image: postgres}
";

    #[test]
    fn services_that_take_part_are_built_under_the_names_of_their_images() {
        let of = |profiles: &[&str], wanted: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
            targets(compose::read(FILE, &|_| None).unwrap(), "proj", &owned(profiles), &owned(wanted))
        };
        let (definition, all) = of(&[], &[]).unwrap();
        assert_eq!(all, ["api_v1", "web"]);
        let tags = |name: &str| definition.targets[name].tags.clone().unwrap();
        assert_eq!(tags("web"), ["proj-web"]);
        assert_eq!(tags("api_v1"), ["r.example/api:1", "api:extra"]);
        assert_eq!(definition.targets["web"].platforms.as_deref(), Some(&["linux/arm64".to_owned()][..]));
        for (profiles, wanted, expected) in [
            (&["debug"][..], &[][..], &["api_v1", "debug", "web"][..]),
            (&["*"], &[], &["api_v1", "debug", "web"]),
            (&[], &["debug"], &["debug"]),
            (&[], &["db"], &[]),
            (&[], &["api.v1"], &["api_v1"]),
        ] {
            assert_eq!(of(profiles, wanted).unwrap().1, expected, "{profiles:?} {wanted:?}");
        }
        assert_eq!(of(&[], &["nope"]).unwrap_err().to_string(), "no such service: nope");
    }

    #[test]
    fn folders_give_projects_their_names() {
        for (folder, name) in [("App", "app"), ("my.app v2", "myappv2"), ("_x-y_z", "x-y_z"), ("日本", "")] {
            assert_eq!(project_name(folder), name, "{folder}");
        }
    }
}
