//! `in`: one version of the image, as files.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::params::{Format, Get};
use super::source::Source;
use super::{Outcome, Version, World, fields, metadata, shown_id};
use crate::base::progress::Step;
use crate::base::{Digest, Reference};
use crate::engine::State;
use crate::expand::{self, Archive, Formats, expand};
use crate::export::{self, Dest};
use crate::image::{Image, inspect};
use crate::snapshot::Snapshot;
use crate::sys::Root;

pub fn get(
    source: &Source,
    version: &Version,
    params: &Get,
    destination: &Path,
    world: &World<'_>,
) -> anyhow::Result<Outcome> {
    let digest: Digest = version.digest.parse().context("version")?;
    let pinned = source.name()?.with_digest(digest);
    fs::create_dir_all(destination).with_context(|| format!("make {}", destination.display()))?;
    // Inside, because Concourse mounts the destination; beside what will be there, so that renaming is all there is
    // to do in the end.
    let stage = tempfile::Builder::new().prefix(".dockless-").tempdir_in(destination);
    let stage = stage.with_context(|| format!("write to {}", destination.display()))?;
    let getter = Getter {
        source,
        tag: version.tag.as_deref().unwrap_or(source.tag()),
        pinned,
        params,
        stage: stage.path(),
        world,
    };
    let id = if params.skip_download { None } else { Some(getter.download()?) };
    getter.describe(&version.digest)?;
    place(stage.path(), destination)?;
    Ok(Outcome {
        version: version.clone(),
        metadata: fields(&[
            ("repository", source.repository.clone()),
            ("tag", getter.tag.to_owned()),
            ("image", id.as_ref().map(shown_id).unwrap_or_default()),
        ]),
    })
}

struct Getter<'a> {
    source: &'a Source,
    tag: &'a str,
    pinned: Reference,
    params: &'a Get,
    stage: &'a Path,
    world: &'a World<'a>,
}

impl Getter<'_> {
    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.stage.join(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))
    }

    /// The small files that are there in any case; registry-image ends them without a newline.
    fn describe(&self, digest: &str) -> anyhow::Result<()> {
        let end = if self.params.format.is_some() { "" } else { "\n" };
        self.write("repository", format!("{}{end}", self.source.repository))?;
        self.write("tag", format!("{}{end}", self.tag))?;
        self.write("digest", format!("{digest}{end}"))
    }

    fn download(&self) -> anyhow::Result<Digest> {
        let mut settings = self.source.registry(false)?;
        settings.patience = self.world.settings.registry.patience;
        let state = self.world.state(settings)?;
        // Until everything is laid out, nobody may collect what has no name here.
        let _pin = state.images().pin(self.world.cancel)?;
        let blobs = state.blobs()?;
        let platform = self.source.platform();
        let image = self.world.progress.step(&format!("pull {}", self.pinned.familiar()), |step| {
            let pulled = state.registry()?.pull(&self.pinned, &platform, blobs.as_ref(), step, self.world.cancel);
            let pulled = pulled.map_err(|error| {
                let text = format!(
                    "Failed to pull image {}@{}.",
                    self.source.repository,
                    self.pinned.digest().map_or_else(String::new, ToString::to_string)
                );
                anyhow::Error::new(error).context(text)
            })?;
            anyhow::Ok(pulled.image)
        })?;
        self.world.progress.step("write files", |step| match self.params.format {
            Some(format) => self.as_registry_image(&image, format, &state, step),
            None => self.as_docker_image(&image, &state, step),
        })?;
        Ok(image.config_digest)
    }

    fn named(&self) -> anyhow::Result<Vec<Reference>> {
        Ok(vec![self.source.tagged(self.tag)?])
    }

    fn expand(&self, image: &Image, formats: &Formats, state: &State, step: &Step) -> anyhow::Result<()> {
        let blobs = state.blobs()?;
        let expanded: expand::Expanded =
            expand(image, &self.named()?, blobs.as_ref(), formats, self.stage, self.world.cancel)?;
        expanded.warnings.into_iter().for_each(|warning| step.warn(warning));
        Ok(())
    }

    fn as_docker_image(&self, image: &Image, state: &State, step: &Step) -> anyhow::Result<()> {
        let image_tar = self.params.save.then_some(Archive::Docker);
        self.expand(image, &Formats { image_tar, rootfs: true, ..Formats::default() }, state, step)?;
        if self.params.save {
            fs::rename(self.stage.join("image.tar"), self.stage.join("image")).context("make image")?;
        }
        let rootfs = Root::open(&self.stage.join("rootfs")).context("open rootfs")?;
        self.write("metadata.json", metadata::metadata(&image.config, &rootfs))?;
        // A task's container gets a /dev of its own; the original leaves it out too.
        rootfs.remove(Path::new("dev")).context("remove rootfs/dev")?;
        let mut inspected = inspect::inspect(image, &self.named()?);
        inspected["RepoDigests"] = serde_json::json!([self.pinned.familiar()]);
        self.write("docker_inspect.json", format!("{}\n", serde_json::to_string_pretty(&[inspected])?))?;
        self.write("image-id", format!("{}\n", image.config_digest))?;
        if self.params.rootfs {
            let tree = state.snapshots()?.tree(&Snapshot::image(&image.layers));
            let dest = Dest::File(self.stage.join("rootfs.tar"));
            export::tar(&[(Path::new(""), tree)], &dest, &self.world.epoch, self.world.cancel)?;
        }
        Ok(())
    }

    fn as_registry_image(&self, image: &Image, format: Format, state: &State, step: &Step) -> anyhow::Result<()> {
        let formats = match format {
            Format::Rootfs => Formats { rootfs: true, ..Formats::default() },
            Format::Oci => Formats { image_tar: Some(Archive::Docker), ..Formats::default() },
            Format::OciLayout => Formats { oci: true, ..Formats::default() },
        };
        self.expand(image, &formats, state, step)?;
        // Not files of that resource.
        fs::remove_file(self.stage.join("image-id")).context("remove image-id")?;
        self.write("labels.json", serde_json::to_vec(&image.config.config.labels)?)
    }
}

/// Moves everything from the stage to where Concourse looks. Renames within one folder: what could fail has failed.
fn place(stage: &Path, destination: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(stage).with_context(|| format!("read {}", stage.display()))? {
        let entry = entry?;
        let to = destination.join(entry.file_name());
        fs::rename(entry.path(), &to).with_context(|| format!("make {}", to.display()))?;
    }
    Ok(())
}
