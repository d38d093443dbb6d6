//! Finds every image that a task made: what the journal says was built under a name, and what lies in the output
//! folders, whichever tool wrote it, recognised by content.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::base::{Digest, Reference};
use crate::image::{self, Image, ImageStore};
use crate::store::BlobStore;

use super::journal::Records;

/// How deep below an output folder archives are looked for: `release/GROUP/NAME/image.tar` and one more. A root file
/// system that was unpacked into the output is deeper, and none of our business.
const DEPTH: usize = 4;

/// One image under the names that it has in one repository, with all that leads to it.
///
/// An image that was tagged into two repositories is found twice: each is a product of its own.
pub struct Found {
    pub image: Image,
    /// Of one repository, sorted; empty for an archive that says no name.
    pub references: Vec<Reference>,
    /// The archives and layout folders that hold it, in the order they were found.
    pub archives: Vec<PathBuf>,
    pub blobs: Arc<dyn BlobStore>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {source}")]
    Walk { path: PathBuf, source: io::Error },
    #[error("image {0} was built and is not in the store any more")]
    Gone(Reference),
    #[error(transparent)]
    Image(#[from] image::Error),
}

/// Finds all images, those with names first, each once. `warn` hears of archives that cannot be read.
pub fn collect(
    records: &Records,
    store: &ImageStore,
    folders: &[PathBuf],
    tmp: &Path,
    warn: &mut dyn FnMut(String),
) -> Result<Vec<Found>, Error> {
    let named = records.names();
    let mut found = Vec::new();
    for (reference, id) in &named {
        if let Some(known) = position(&mut found, id, Some(reference)) {
            known.references.push(reference.clone());
            continue;
        }
        // By id: another task that shares the store may have given the name to another image since.
        let stored = store.find(&id.to_string())?.ok_or_else(|| Error::Gone(reference.clone()))?;
        found.push(Found {
            image: store.load(&stored.descriptor)?,
            references: vec![reference.clone()],
            archives: Vec::new(),
            blobs: store.blobs(),
        });
    }
    let mut paths: Vec<PathBuf> = records.archives().into_iter().map(Path::to_owned).filter(|p| p.exists()).collect();
    for folder in folders {
        walk(folder, DEPTH, &mut paths)?;
    }
    let mut unnamed = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for path in paths {
        // One file under two names, or a folder named twice.
        let real = fs::canonicalize(&path).map_err(|source| Error::Walk { path: path.clone(), source })?;
        if !seen.insert(real) {
            continue;
        }
        let opened = match image::open(&path, tmp) {
            Ok(opened) => opened,
            // A tar of something else.
            Err(image::Error::NotAnImage(_)) => continue,
            Err(error) => {
                warn(format!("{} is left out: {error}", path.display()));
                continue;
            }
        };
        for (image, references) in opened.images {
            if references.is_empty() {
                unnamed.push((image, path.clone(), opened.blobs.clone()));
                continue;
            }
            for reference in references {
                add(&mut found, &image, Some(reference), &path, &opened.blobs);
            }
        }
    }
    // Last, so that they join what has a name.
    for (image, path, blobs) in unnamed {
        add(&mut found, &image, None, &path, &blobs);
    }
    for image in &mut found {
        image.references.sort();
        image.references.dedup();
        image.archives.dedup();
        // A name that was built again stands for the newer image, whatever an older archive says.
        let id = image.image.config_digest;
        image.references.retain(|reference| named.get(reference).is_none_or(|newer| *newer == id));
    }
    found.sort_by(|a, b| {
        (a.references.is_empty(), &a.references, &a.archives).cmp(&(
            b.references.is_empty(),
            &b.references,
            &b.archives,
        ))
    });
    Ok(found)
}

/// The one that more of the same belongs to: by config, because the same image in the store and in an archive is one
/// image, however its layers are compressed; and by repository. What has no name belongs to any.
fn position<'a>(found: &'a mut [Found], id: &Digest, reference: Option<&Reference>) -> Option<&'a mut Found> {
    found.iter_mut().find(|known| {
        let same_name = match (known.references.first(), reference) {
            (Some(known), Some(reference)) => known.name() == reference.name(),
            (None, Some(_)) => false,
            (_, None) => true,
        };
        known.image.config_digest == *id && same_name
    })
}

fn add(found: &mut Vec<Found>, image: &Image, reference: Option<Reference>, path: &Path, blobs: &Arc<dyn BlobStore>) {
    match position(found, &image.config_digest, reference.as_ref()) {
        Some(known) => {
            known.archives.push(path.to_owned());
            known.references.extend(reference);
        }
        None => found.push(Found {
            image: image.clone(),
            references: reference.into_iter().collect(),
            archives: vec![path.to_owned()],
            blobs: blobs.clone(),
        }),
    }
}

/// Adds files and folders that may be images, sorted by name.
fn walk(dir: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), Error> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Walk { path, source }
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(at(dir)(error)),
    };
    let mut names = entries.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>().map_err(at(dir))?;
    names.sort();
    if names.iter().any(|n| n == "oci-layout") && names.iter().any(|n| n == "index.json") {
        paths.push(dir.to_owned());
        return Ok(());
    }
    // What an earlier task laid out: it is a result, not a source.
    if ["digest", "image-id"].iter().all(|mark| names.iter().any(|n| n == mark)) {
        return Ok(());
    }
    for name in names {
        // Dot names are version control's, and ours for what is not finished.
        if name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        let path = dir.join(name);
        let own = fs::symlink_metadata(&path).map_err(at(&path))?;
        if own.is_dir() {
            if depth > 0 {
                walk(&path, depth - 1, paths)?;
            }
            continue;
        }
        // A link to an archive elsewhere is an output; a link to a folder may lead anywhere.
        let Ok(meaning) = fs::metadata(&path) else { continue };
        if meaning.is_file() && may_be_archive(&path).map_err(at(&path))? {
            paths.push(path);
        }
    }
    Ok(())
}

/// A tar, or something compressed that may hold one.
fn may_be_archive(path: &Path) -> io::Result<bool> {
    let mut head = Vec::with_capacity(512);
    File::open(path)?.take(512).read_to_end(&mut head)?;
    let tar = head.get(257..262) == Some(b"ustar");
    Ok(tar || head.starts_with(&[0x1f, 0x8b]) || head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_at_content_and_passes_by_results_and_hidden_names() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, bytes: &[u8]| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        write("a.bin", &tar);
        write("b/image.tar", &tar);
        write("b/readme", b"no");
        write("c.gz", &[0x1f, 0x8b]);
        write("layout/oci-layout", b"{}");
        write("layout/index.json", b"{}");
        write("layout/blobs/x", &tar);
        write("done/image.tar", &tar);
        write("done/digest", b"");
        write("done/image-id", b"");
        write(".git/x.tar", &tar);
        write("1/2/3/4/5/deep.tar", &tar);
        let mut paths = Vec::new();
        walk(dir.path(), DEPTH, &mut paths).unwrap();
        let names: Vec<_> = paths.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["a.bin", "b/image.tar", "c.gz", "layout"]);
        walk(&dir.path().join("absent"), DEPTH, &mut paths).unwrap();
    }
}
