//! One image into what a pipeline wants next: `image.tar`, `digest`, `rootfs/` with `metadata.json`, artifacts.
//! Everything is laid out in a directory beside the output and renamed last. And the way back: a root file system in
//! any of these forms to an image of one layer.

mod artifact;
mod git;
mod import;
mod ledger;
mod metadata;
mod mtree;
mod stage;
mod tgz;
mod unpack;
mod warn;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

pub use artifact::Artifact;
pub use git::restore;
pub use import::{Imported, import_archive, import_folder, is_rootfs_archive, is_rootfs_folder};
use stage::Stage;

use crate::base::{Cancel, Reference};
use crate::image::{self, Image, Uniform};
use crate::layer::{Compression, DirOptions};
use crate::store::{BlobStore, DiskBlobs, OverlayBlobs};

/// What to make of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Formats {
    pub image_tar: Option<Archive>,
    /// `rootfs/` and `metadata.json`.
    pub rootfs: bool,
    /// `rootfs.tgz` with both inside, for S3 and `unpack: true`.
    pub tgz: bool,
    /// `rootfs/` and `metadata.json` in the form that survives git: `.keep` files, and `rootfs.mtree` for what git
    /// cannot store.
    pub git: bool,
    /// `oci/`: the image as a layout folder.
    pub oci: bool,
    pub artifacts: Vec<Artifact>,
    /// All layers compressed this way; none: uniform, as the lowest layer is.
    pub compression: Option<Compression>,
}

/// The form of `image.tar`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Archive {
    #[default]
    Docker,
    Oci,
}

/// What was laid out, and what could not be kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Relative to the output folder, sorted.
    pub files: Vec<PathBuf>,
    /// One line for each class of attribute that this host could not keep.
    pub warnings: Vec<String>,
}

const ROOTFS: &str = "rootfs";
const METADATA: &str = "metadata.json";
const TGZ: &str = "rootfs.tgz";
/// In the stage, for what is needed on the way and is no output.
const SCRATCH: &str = ".scratch";

/// Lays an image out in `output`, which need not exist. Ok means that everything is there; after an error nothing of
/// this call is.
pub fn expand(
    image: &Image,
    references: &[Reference],
    blobs: &dyn BlobStore,
    formats: &Formats,
    output: &Path,
    cancel: &Cancel,
) -> anyhow::Result<Expanded> {
    if formats.git && (formats.rootfs || formats.tgz) {
        bail!(
            "the git form of the root file system cannot be laid out together with another: it gives up owners and modes"
        );
    }
    let stage = Stage::new(output)?;
    stage.make_dir(SCRATCH)?;
    // Two things of about equal cost, the one hashing and writing, the other inflating and making files.
    let (written, unpacked) = std::thread::scope(|scope| {
        let writing = scope.spawn(|| write_image(image, references, blobs, formats, &stage, cancel));
        let unpacked = lay_out_files(image, blobs, formats, &stage, cancel);
        (writing.join(), unpacked)
    });
    let warnings = unpacked?;
    written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    stage.discard(SCRATCH)?;
    cancel.check()?;
    let files = stage.place().with_context(|| format!("lay out {}", output.display()))?;
    Ok(Expanded { files, warnings })
}

/// The image as such: archives and the small files that say what it is.
fn write_image(
    image: &Image,
    references: &[Reference],
    blobs: &dyn BlobStore,
    formats: &Formats,
    stage: &Stage,
    cancel: &Cancel,
) -> anyhow::Result<()> {
    let made = DiskBlobs::open(&stage.join(SCRATCH).join("blobs"));
    let archived = formats.image_tar.is_some() || formats.oci;
    let image = if archived {
        let compression = match formats.image_tar {
            Some(Archive::Docker) => formats.compression.or_else(|| image.readable_compression()),
            _ => formats.compression,
        };
        image::uniform(image, blobs, &made, &Uniform { compression, ..Uniform::default() }, cancel)?
    } else {
        image.clone()
    };
    let all = OverlayBlobs::new(&made, blobs);
    let named = [(&image, references)];
    if let Some(form) = formats.image_tar {
        let path = stage.join("image.tar");
        let file = File::create_new(&path).with_context(|| format!("make {}", path.display()))?;
        let mut out = BufWriter::with_capacity(256 << 10, file);
        match form {
            Archive::Docker => image::docker_archive(&named, &all, &mut out, cancel)?,
            Archive::Oci => image::oci_archive(&named, &all, &mut out, cancel)?,
        }
        out.flush().with_context(|| format!("write {}", path.display()))?;
    }
    if formats.oci {
        image::oci_layout(&named, &all, &stage.make_dir("oci")?, cancel)?;
    }
    stage.write("digest", format!("{}\n", image.manifest_descriptor.digest))?;
    stage.write("image-id", format!("{}\n", image.config_digest))?;
    if let Some(reference) = references.first() {
        stage.write("repository", format!("{}\n", reference.familiar_name()))?;
        if let Some(tag) = reference.tag() {
            stage.write("tag", format!("{tag}\n"))?;
        }
    }
    Ok(())
}

/// The image's files: unpacked, archived, picked. In one pass over the layers, or in two where only some are wanted.
fn lay_out_files(
    image: &Image,
    blobs: &dyn BlobStore,
    formats: &Formats,
    stage: &Stage,
    cancel: &Cancel,
) -> anyhow::Result<Vec<String>> {
    let metadata = metadata::metadata(&image.config);
    if formats.rootfs || formats.git {
        stage.write(METADATA, &metadata)?;
    }
    if !formats.rootfs && !formats.tgz && !formats.git {
        if formats.artifacts.is_empty() {
            return Ok(Vec::new());
        }
        let survey = unpack::to_ledger(image, blobs, cancel)?;
        let picks = artifact::find(&formats.artifacts, &survey.ledger)?;
        let wanted = survey.with_sources(&artifact::wanted(&picks, &survey.ledger));
        let root = stage.make_dir(&format!("{SCRATCH}/picked"))?;
        let some: unpack::Filter<'_> = &|path, kind, meta| {
            if wanted.contains(path) { unpack::readable(path, kind, meta) } else { None }
        };
        unpack::to_directory(image, blobs, &root, git::OPTIONS, some, cancel)?;
        return pick(&picks, &survey.ledger, &root, stage, cancel);
    }
    if formats.rootfs && !formats.tgz && formats.artifacts.is_empty() {
        let root = stage.make_dir(ROOTFS)?;
        return Ok(warn::lines(&unpack::plainly(image, blobs, &root, cancel)?));
    }
    let root = match formats.rootfs || formats.git {
        true => stage.make_dir(ROOTFS)?,
        false => stage.make_dir(&format!("{SCRATCH}/{ROOTFS}"))?,
    };
    let mut warnings = Vec::new();
    let ledger = if formats.git {
        let unpacked = unpack::to_directory(image, blobs, &root, git::OPTIONS, &git::stored, cancel)?;
        git::keep_empty_folders(&unpacked.ledger, &root)?;
        stage.write(git::MTREE, mtree::write(&unpacked.ledger))?;
        warnings.extend(git::warnings(&unpacked.ledger));
        unpacked.ledger
    } else {
        let unpacked = unpack::to_directory(image, blobs, &root, DirOptions::default(), &unpack::readable, cancel)?;
        // What only an archive is made of loses nothing: the ledger knows.
        if formats.rootfs {
            warnings.extend(warn::lines(&unpacked.lost));
        }
        unpacked.ledger
    };
    if formats.tgz {
        tgz::write(&stage.join(TGZ), &metadata, &ledger, &root, cancel)?;
        warnings.extend(tgz::warnings(&ledger));
    }
    let picks = artifact::find(&formats.artifacts, &ledger)?;
    if !picks.is_empty() {
        warnings.extend(pick(&picks, &ledger, &root, stage, cancel)?);
    }
    if formats.rootfs {
        unpack::restore_modes(&ledger, &root)?;
    }
    Ok(warnings)
}

/// Names that this module writes: no artifact goes there, asked for or not.
const OWN: [&str; 11] =
    ["image.tar", "digest", "image-id", "repository", "tag", ROOTFS, METADATA, TGZ, git::MTREE, "oci", SCRATCH];

fn pick(
    picks: &[artifact::Pick],
    ledger: &ledger::Ledger,
    root: &Path,
    stage: &Stage,
    cancel: &Cancel,
) -> anyhow::Result<Vec<String>> {
    for pick in picks {
        if OWN.iter().any(|own| pick.to.starts_with(own)) {
            bail!("artifact /{} cannot go to {}: that name is taken", pick.from.display(), pick.to.display());
        }
    }
    let lost = artifact::copy(picks, ledger, root, stage.path(), cancel)?;
    Ok(warn::lines(&lost))
}
