//! `task`: the main job. Runs a project's own build, then lays out every image that it made.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::Context as _;

use super::trim;
use crate::cli::exit::{Exit, missing, usage};
use crate::cli::limits::LimitArgs;
use crate::cli::session::{ISOLATION, LOST_ENGINES, Session};
use crate::engine::place::VARIABLE;
use crate::task::config::{self, Config, Wanted};
use crate::task::journal::{self, Journal};
use crate::task::run::NativeBuild;
use crate::task::{authority, collect, faces, outputs, params, run as native, stages};

/// Run the project's own build, and lay out every image that it made.
///
/// The build finds dockless as `docker`, `img` and `buildctl` at the front of its PATH. When it succeeds, every image
/// that it tagged, saved or left as an archive in an output folder is expanded into OUTPUT/NAME/. When it fails,
/// nothing is laid out, and its exit code is ours.
#[derive(Debug, Clone, clap::Args)]
#[command(after_long_help = HELP)]
pub struct Args {
    /// The build [default: `command` of dockless.yml, else make release]
    #[arg(value_name = "COMMAND", last = true)]
    command: Vec<OsString>,
    /// File that says what is wanted of which image [default: dockless.yml, where there is one]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder for the results [default: `output` of dockless.yml, else release]
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Folder to run in
    #[arg(short = 'C', long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Further folder, beside OUTPUT and release/, in which archives of other tools are looked for
    #[arg(long, value_name = "DIR")]
    search: Vec<PathBuf>,
    /// Lay out rootfs/ and metadata.json of every image
    #[arg(long)]
    rootfs: bool,
    /// Pack both into rootfs.tgz
    #[arg(long)]
    tgz: bool,
    /// Lay out rootfs/ in the form that survives git
    #[arg(long, conflicts_with_all = ["rootfs", "tgz"])]
    git: bool,
    /// Lay out oci/, an OCI layout folder
    #[arg(long)]
    oci: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

const HELP: &str = "\
What is laid out for each image, in OUTPUT/NAME/:
  image.tar             what docker load, podman load, skopeo and Concourse's registry-image read
  digest  image-id      of the manifest and of the config
  repository  tag       what it is called
  rootfs/ metadata.json with --rootfs or UNPACK_ROOTFS=true
  rootfs.tgz  oci/      with --tgz, --oci
  and the artifacts that dockless.yml names.

dockless.yml (every key may be left out; an unknown one is an error):
  command: make release       # or a list of words
  output: release
  search: [dist]              # where other tools leave archives, beside the output folder
  defaults: {rootfs: true}    # for every image: archive, compression, rootfs, tgz, git, oci
  images:
    acct/app:                 # name, name:tag, or path of an archive; * is anything but /
      name: app               # the folder
      archive: docker         # docker, oci or none
      compression: gzip       # none, gzip or zstd [as built]
      rootfs: true
      artifacts:
        - from: /usr/bin/app* # path or glob in the image
          to: bin/
        - stage: build        # or in a stage of its Dockerfile
          from: /src/report.html
    acct/base:
      skip: true              # built, but not laid out

Parameters (environment):
  LOCAL_CA_CERTIFICATE  PEM text of an authority that the build and dockless trust
  UNPACK_ROOTFS         true: as --rootfs (so does IMG_UNPACK)
  OUTPUT_OCI            true: as --oci
  DOCKLESS_OUTPUT       as --output
  DOCKLESS_CACHE_AGE    as --cache-age
  DOCKLESS_CACHE_SIZE   as --cache-size
  SOURCE_DATE_EPOCH     the time of what is built, in seconds since 1970
  DOCKER_CONFIG, REGISTRY_MIRRORS and others of the build pass through to it.
For the parameters of oci-build-task (CONTEXT, BUILD_ARG_name, ...) let the task run `build`,
dockless under another name; `build --help` lists them.
DOCKER, IMG and BUILDCTL are set for the build where they are unset.";

/// Where the results go when nobody says.
const OUTPUT: &str = "release";

pub fn run(args: Args, session: &Session) -> anyhow::Result<Exit> {
    let dir = match &args.directory {
        Some(dir) => session.absolute(dir),
        None => session.env.cwd().to_owned(),
    };
    if !dir.is_dir() {
        return Err(usage(format!("{} is not a folder", dir.display())));
    }
    let config = read_config(&args, &dir, session)?;
    let defaults = defaults(&args, session)?;
    // Typed paths begin where dockless was started, those of the file where the build runs.
    let output = match (&args.output, session.env.nonempty("DOCKLESS_OUTPUT"), &config.output) {
        (Some(typed), _, _) => session.absolute(typed),
        (None, Some(parameter), _) => session.absolute(parameter),
        (None, None, Some(file)) => dir.join(file),
        (None, None, None) => dir.join(OUTPUT),
    };
    // Now, and not after an hour of building.
    if output.exists() && !output.is_dir() {
        return Err(usage(format!("output {} is not a folder", output.display())));
    }
    let limits = args.limits.read(session)?;
    let state = session.state()?;
    let tmp = state.tmp()?;
    let journal = Journal::at(tmp.join("journal"));

    let exit = native_build(&args, &config, &dir, &tmp, &journal, session)?;
    if exit.code() != 0 {
        session.note(format!("dockless: the build failed with {}; nothing is laid out", exit_words(exit)));
        return Ok(Exit::Process(u8::try_from(exit.code()).unwrap_or(u8::MAX)));
    }

    let cancel = session.cancel()?;
    let mut folders = vec![output.clone(), dir.join(OUTPUT)];
    folders.extend(config.search.iter().map(|folder| dir.join(folder)));
    folders.extend(args.search.iter().map(|folder| session.absolute(folder)));
    let records = journal.read()?;
    let found = collect::collect(&records, state.images(), &folders, &tmp, &mut |warning| session.warn(warning))
        .context("collect images")?;
    if found.is_empty() {
        session.warn("the build made no image: nothing was tagged, and no archive lies in the output folders");
    }
    let items = outputs::plan(&found, &config, &defaults, &dir)?;
    let (program, state_dir) = (std::env::current_exe().context("find dockless's own file")?, session.state_dir());
    let fill = |item: &outputs::Item, folder: &Path| -> anyhow::Result<()> {
        let image = &found[item.found];
        let record = records.request(&image.image.config_digest).with_context(|| {
            format!(
                "{} was not built here from a Dockerfile on disk, so its stages are not known",
                outputs::title(image)
            )
        })?;
        // Where the steps are in the cache, unless it is gone.
        let engine = record.engine.clone().filter(|engine| !is_lost(&journal, engine));
        let engine = match engine {
            Some(engine) => engine,
            None => session.places()?.to_string(),
        };
        let place = stages::Place {
            program: &program,
            state: &state_dir,
            engine: &engine,
            isolation: &session.isolation(),
            folder,
            tmp: &tmp,
        };
        stages::pick(record, &item.stages, &place, &cancel)
    };
    let warnings = Mutex::new(Vec::new());
    let done = |item: &outputs::Item, lost: &[String]| {
        if let Ok(mut warnings) = warnings.lock() {
            warnings.extend(lost.iter().map(|line| format!("{}: {line}", item.name)));
        }
    };
    outputs::lay_out(&items, &found, &output, &fill, &done, &cancel)?;
    warnings.into_inner().unwrap_or_default().into_iter().for_each(|warning| session.warn(warning));
    for item in &items {
        let image = &found[item.found];
        let built = records.request(&image.image.config_digest).and_then(|record| record.engine.as_ref());
        let by = built.map(|engine| format!(" (built on {engine})")).unwrap_or_default();
        session.note(format!("{} -> {}{by}", outputs::title(image), output.join(&item.name).display()));
    }
    let names: Vec<_> = records.names().into_keys().collect();
    trim::apart(&limits, &names, session);
    Ok(Exit::Success)
}

fn read_config(args: &Args, dir: &Path, session: &Session) -> anyhow::Result<Config> {
    let (path, wanted) = match &args.config {
        Some(typed) => (session.absolute(typed), true),
        None => (dir.join(config::NAME), false),
    };
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !wanted => return Ok(Config::default()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(missing(format!("{}: {error}", path.display())));
        }
        Err(error) => return Err(error).with_context(|| path.display().to_string()),
    };
    let shown = path.strip_prefix(session.env.cwd()).unwrap_or(&path);
    Ok(config::parse(&shown.display().to_string(), &text)?)
}

/// Flags come before parameters.
fn defaults(args: &Args, session: &Session) -> anyhow::Result<Wanted> {
    let flags = Wanted {
        rootfs: args.rootfs.then_some(true),
        tgz: args.tgz.then_some(true),
        git: args.git.then_some(true),
        oci: args.oci.then_some(true),
        ..Wanted::default()
    };
    Ok(flags.or(&params::wanted(&session.env).map_err(|error| usage(error.to_string()))?))
}

fn native_build(
    args: &Args,
    config: &Config,
    dir: &Path,
    tmp: &Path,
    journal: &Journal,
    session: &Session,
) -> anyhow::Result<crate::exec::Exit> {
    let env = &session.env;
    let bin = faces::make(tmp, &std::env::current_exe().context("find dockless's own file")?)?;
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("DOCKLESS_STATE".into(), session.state_dir().into_os_string()),
        (journal::VARIABLE.into(), journal.path().into()),
    ];
    // Its faces build where and how this task was told to, whatever said it.
    variables.push((VARIABLE.into(), session.places()?.to_string().into()));
    variables.push((ISOLATION.into(), session.isolation().into()));
    variables.push((native::DIR.into(), dir.into()));
    for (name, value) in faces::VARIABLES {
        if env.var_os(name).is_none() {
            variables.push((name.into(), value.into()));
        }
    }
    let trusted = authority::prepare(env, tmp).map_err(|error| usage(error.to_string()))?;
    variables.extend(trusted.into_iter().map(|(name, path)| (name.into(), path)));
    let build = NativeBuild {
        argv: native::argv(&args.command, config.command.as_ref()),
        dir: dir.to_owned(),
        variables,
        path: faces::path(env, &bin),
    };
    Ok(build.run()?)
}

/// Whether a process of this task found an engine gone.
fn is_lost(journal: &Journal, engine: &str) -> bool {
    let lost = journal.path().with_file_name(LOST_ENGINES);
    fs::read_to_string(lost).is_ok_and(|lost| lost.lines().any(|line| line == engine))
}

fn exit_words(exit: crate::exec::Exit) -> String {
    match exit {
        crate::exec::Exit::Code(code) => format!("exit code {code}"),
        crate::exec::Exit::Signal(signal) => format!("signal {signal}"),
    }
}
