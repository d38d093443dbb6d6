//! `build`, the program of oci-build-task and builder-task: one Dockerfile by parameters, results in the folders that
//! the task declared as outputs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::base::{Env, Reference, Secret};
use crate::cli::exit::{Exit, missing, usage};
use crate::cli::flags;
use crate::cli::limits::LimitArgs;
use crate::cli::session::Session;
use crate::cli::solve::{self, Build};
use crate::cli::verbs::trim;
use crate::engine::{BuiltImage, Context, Dest, DockerfilePlan, DockerfileSource, Export, LayerOptions, NoCache, Plan};
use crate::expand::{self, Archive, Formats};
use crate::image;
use crate::task::params::BuildParams;

/// Build one Dockerfile, as the task's parameters (environment variables) say.
///
/// The program of oci-build-task and builder-task. A result goes to the folder of its name in the working directory,
/// where there is one: a task declares it as an output.
#[derive(clap::Parser)]
#[command(name = "build", disable_version_flag = true, after_help = PARAMETERS)]
pub struct OciBuild {}

const PARAMETERS: &str = "\
Parameters:
  CONTEXT                  build context [default: .]
  DOCKERFILE               [default: CONTEXT/Dockerfile]
  BUILD_ARG_name           a build argument
  BUILD_ARGS_FILE          lines of KEY=VALUE, or a YAML mapping
  LABEL_name, LABELS_FILE  labels of the image
  TARGET, TARGET_FILE      stage to build [default: the last]
  ADDITIONAL_TARGETS       stages to build before it, with commas
  IMAGE_ARG_name           an image archive or OCI layout for FROM ${name}
  IMAGE_PLATFORM           os/arch of the image; several with commas, which means OUTPUT_OCI
  OUTPUT_OCI               true: image/image/, an OCI layout
  UNPACK_ROOTFS            true: rootfs/ and metadata.json too
  BUILDKIT_SECRET_id       a file for RUN --mount=type=secret
  BUILDKIT_SECRETTEXT_id   its text
  BUILDKIT_SSH             id=path, or default
  BUILDKIT_ADD_HOSTS       host=ip, with commas
  REGISTRY_MIRRORS         for docker.io, with commas
  REPOSITORY, TAG          what the image is called
  TAG_FILE                 a file that holds the tag
  DOCKLESS_CACHE_AGE       what was not used for so long is not kept [default: 14d], or none
  DOCKLESS_CACHE_SIZE      no more than this is kept [default: half of the disk], or none

Folders:
  image/                   image.tar, digest, and what was asked for
  rootfs/                  rootfs/ and metadata.json
  STAGE/                   the same of an additional target
  cache/                   what is kept for the next build";

/// The task's cache folder, where it declared one, is the state folder: what is built stays there for the next time.
pub fn state(env: &Env) -> Option<PathBuf> {
    let cache = env.cwd().join("cache");
    (env.nonempty("DOCKLESS_STATE").is_none() && cache.is_dir()).then_some(cache)
}

pub fn run(session: &Session) -> anyhow::Result<Exit> {
    session.enter_namespace()?;
    let params = BuildParams::read(&session.env).map_err(|error| usage(error.to_string()))?;
    let limits = LimitArgs::default().read(session)?;
    if session.env.nonempty("BUILDKIT_EXTRA_CONFIG").is_some() {
        session.warn(
            "BUILDKIT_EXTRA_CONFIG has no effect: there is no buildkitd (see REGISTRY_MIRRORS, LOCAL_CA_CERTIFICATE)",
        );
    }
    let cwd = session.env.cwd();
    let context = session.absolute(&params.context);
    if !context.is_dir() {
        return Err(missing(format!("CONTEXT {} is not a folder", context.display())));
    }
    // Additional targets come first, and get everything that the main one gets.
    for target in &params.additional_targets {
        let output = cwd.join(target);
        one(&params, Some(target), output.is_dir().then_some(output.as_path()), None, session)
            .with_context(|| format!("additional target {target}"))?;
    }
    let image = cwd.join("image");
    // builder-task kept the root file system in an output of its own.
    let rootfs = cwd.join("rootfs");
    let image = image.is_dir().then_some(image.as_path());
    let rootfs = rootfs.is_dir().then_some(rootfs.as_path());
    if rootfs.is_some() && params.platforms.len() > 1 {
        return Err(usage("IMAGE_PLATFORM names several platforms, and the output rootfs has room for one"));
    }
    if image.is_none() && rootfs.is_none() {
        session.note("neither 'image' nor 'rootfs' are specified, finishing with no outputs");
    }
    one(&params, params.target.as_deref(), image, rootfs, session)?;
    trim::trim(&limits, &names(&params)?, session)?;
    Ok(Exit::Success)
}

/// Builds one target and lays it out where there is an output for it.
fn one(
    params: &BuildParams,
    target: Option<&str>,
    output: Option<&Path>,
    rootfs: Option<&Path>,
    session: &Session,
) -> anyhow::Result<()> {
    if params.platforms.len() > 1 {
        return index(params, target, output, session);
    }
    let names = names(params)?;
    let built = build(params, target, Vec::new(), session)?;
    if output.is_none() && rootfs.is_none() {
        return Ok(());
    }
    let (store, cancel) = (session.images()?, session.cancel()?);
    let stored = store.find(&built.config.to_string())?.context("the image that was built is gone")?;
    let image = store.load(&stored.descriptor)?;
    if let Some(output) = output {
        let formats = Formats {
            image_tar: Some(Archive::Docker),
            rootfs: params.unpack_rootfs && !params.output_oci,
            oci: params.output_oci,
            ..Formats::default()
        };
        let staged = staging(output)?;
        let expanded = expand::expand(&image, &names, &*store.blobs(), &formats, staged.path(), &cancel)?;
        expanded.warnings.iter().for_each(|warning| session.warn(warning));
        if params.output_oci {
            // There the layout is called `image`, and `digest` is the manifest's, as ours is.
            fs::rename(staged.path().join("oci"), staged.path().join("image"))?;
        } else {
            fs::write(staged.path().join("digest"), image.config_digest.to_string())?;
        }
        publish(&staged, output)?;
    }
    if let Some(rootfs) = rootfs {
        let formats = Formats { rootfs: true, ..Formats::default() };
        let staged = staging(rootfs)?;
        expand::expand(&image, &names, &*store.blobs(), &formats, staged.path(), &cancel)?;
        publish(&staged, rootfs)?;
    }
    Ok(())
}

/// The same for several platforms: an index over their images, as a layout and as its tar.
fn index(params: &BuildParams, target: Option<&str>, output: Option<&Path>, session: &Session) -> anyhow::Result<()> {
    let Some(output) = output else { return build(params, target, Vec::new(), session).map(drop) };
    let names = names(params)?;
    let staged = staging(output)?;
    let layout = |name: &str, tar| Export::Oci {
        names: names.clone(),
        dest: Dest::File(staged.path().join(name)),
        tar,
        options: LayerOptions::default(),
    };
    build(params, target, vec![layout("image", false), layout("image.tar", true)], session)?;
    // Of what lies here: the store's own form of the image is not compressed.
    let index = fs::read(staged.path().join("image/index.json"))?;
    let index: serde_json::Value = serde_json::from_slice(&index)?;
    let digest = index["manifests"][0]["digest"].as_str().context("the layout that was written is empty")?;
    fs::write(staged.path().join("digest"), digest)?;
    publish(&staged, output)
}

/// Builds one target into the local store, and whatever else is asked for.
fn build(
    params: &BuildParams,
    target: Option<&str>,
    exports: Vec<Export>,
    session: &Session,
) -> anyhow::Result<BuiltImage> {
    let store = Export::Image { names: names(params)?, push: false, options: LayerOptions::default() };
    let plan = Plan::Dockerfile(Box::new(plan(params, target, session)?));
    let exports = [store].into_iter().chain(exports).collect();
    let build = Build {
        secrets: params.secrets.clone(),
        secret_values: params.secret_texts.iter().map(|(id, text)| (id.clone(), Secret::from(text.as_str()))).collect(),
        ssh: params.ssh.iter().cloned().collect(),
        ..Build::new(plan, exports, session.epoch()?)
    };
    solve::run(session, build)?.context("the build made no image")
}

/// A hidden folder on the output's own file system, so that each result appears by a rename.
fn staging(output: &Path) -> anyhow::Result<tempfile::TempDir> {
    Ok(tempfile::Builder::new().prefix(".dockless-").tempdir_in(output)?)
}

fn publish(staged: &tempfile::TempDir, output: &Path) -> anyhow::Result<()> {
    let mut names = fs::read_dir(staged.path())?.map(|e| Ok(e?.file_name())).collect::<std::io::Result<Vec<_>>>()?;
    names.sort();
    for name in names {
        let place = output.join(&name);
        if place.is_dir() {
            fs::remove_dir_all(&place).with_context(|| place.display().to_string())?;
        }
        fs::rename(staged.path().join(&name), &place).with_context(|| place.display().to_string())?;
    }
    Ok(())
}

fn names(params: &BuildParams) -> anyhow::Result<Vec<Reference>> {
    let Some(repository) = &params.repository else { return Ok(Vec::new()) };
    let reference: Reference = repository.parse()?;
    Ok(vec![match &params.tag {
        Some(tag) => reference.with_tag(tag)?,
        None => reference.or_latest(),
    }])
}

fn plan(params: &BuildParams, target: Option<&str>, session: &Session) -> anyhow::Result<DockerfilePlan> {
    let mut build_args = crate::cli::verbs::build::build_args(&[], session);
    build_args.extend(params.build_args.clone());
    for (name, path) in &params.image_args {
        // The argument becomes a name in the local store, where FROM looks first: no registry has to serve it.
        let reference: Reference = format!("image-arg.dockless/{}", name.to_lowercase()).parse()?;
        load(path, &reference, session).with_context(|| format!("IMAGE_ARG_{name}"))?;
        build_args.insert(name.clone(), reference.or_latest().to_string());
    }
    let platforms = params.platforms.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    Ok(DockerfilePlan {
        context: Context::Directory(session.absolute(&params.context)),
        dockerfile: DockerfileSource::Path(Some(session.absolute(&params.dockerfile))),
        target: target.map(str::to_owned),
        build_args,
        labels: params.labels.clone(),
        platforms,
        named_contexts: BTreeMap::new(),
        no_cache: NoCache::Use,
        pull: false,
        network: None,
        extra_hosts: params
            .add_hosts
            .iter()
            .map(|host| flags::extra_host(host))
            .collect::<Result<_, _>>()
            .map_err(|reason| usage(format!("BUILDKIT_ADD_HOSTS {reason}")))?,
        ulimits: Vec::new(),
        shm_size: None,
    })
}

/// Puts the image of an archive or layout into the store under a name that only this task knows.
fn load(path: &Path, name: &Reference, session: &Session) -> anyhow::Result<()> {
    let store = session.images()?;
    let opened = image::open(path, &session.state()?.tmp()?)?;
    let [(image, _)] = opened.images.as_slice() else {
        return Err(usage(format!("{} holds {} images, expected one", path.display(), opened.images.len())));
    };
    store.adopt(image, &*opened.blobs)?;
    Ok(store.tag(&image.manifest_descriptor, name)?)
}
