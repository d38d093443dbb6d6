//! Blobs in the folders of an OCI layout (image-layout.md): `blobs/sha256/<hex>`, with work in progress in `ingest/`.
//!
//! A blob appears by one rename. A file in `ingest/` is locked by its writer, so that what a killed process left can
//! be told from what a living one is writing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{BlobRead, BlobStore, BlobWrite, Error, Result, Verified, verify};
use crate::base::{Digest, Hasher};
use crate::sys::quiet;

/// Blobs below one directory.
#[derive(Debug, Clone)]
pub struct DiskBlobs {
    blobs: PathBuf,
    ingest: PathBuf,
}

impl DiskBlobs {
    /// Opens the blobs of an OCI layout directory; what is missing is made with the first blob.
    pub fn open(layout: &Path) -> Self {
        Self { blobs: layout.join("blobs/sha256"), ingest: layout.join("ingest") }
    }

    /// Where a blob is or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    /// Removes the folder of work in progress when nothing is in it, so that a layout made for others is only that.
    pub fn tidy(&self) -> Result<()> {
        match fs::remove_dir(&self.ingest) {
            Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                Err(Error::at(&self.ingest)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what killed writers left behind; says how many bytes that freed.
    pub fn sweep(&self) -> Result<u64> {
        let mut freed = 0;
        for entry in read_dir(&self.ingest)? {
            let entry = entry.map_err(Error::at(&self.ingest))?;
            let path = entry.path();
            // A writer holds its lock from before the first byte; whoever can take it looks at an orphan.
            let Ok(file) = open_plain(&path) else { continue };
            if file.try_lock().is_ok() {
                freed += file.metadata().map(|m| m.len()).unwrap_or_default();
                fs::remove_file(&path).or_else(absent_is_fine).map_err(Error::at(&path))?;
            }
        }
        Ok(freed)
    }
}

/// Never follows a symlink in the last place: a layout may come from anywhere.
fn open_plain(path: &Path) -> io::Result<File> {
    Ok(quiet::open_in(rustix::fs::CWD, path.as_os_str())?.into())
}

fn read_dir(dir: &Path) -> Result<Box<dyn Iterator<Item = io::Result<fs::DirEntry>>>> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(Box::new(entries)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Box::new(std::iter::empty())),
        Err(error) => Err(Error::at(dir)(error)),
    }
}

fn absent_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

impl BlobStore for DiskBlobs {
    fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.path(digest);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => Ok(Some(metadata.len())),
            Ok(_) => Ok(None),
            Err(error) => absent_is_fine(error).map(|()| None).map_err(Error::at(&path)),
        }
    }

    fn open(&self, digest: &Digest) -> Result<Box<dyn BlobRead>> {
        let path = self.path(digest);
        let file = open_plain(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Missing { digest: *digest },
            _ => Error::at(&path)(error),
        })?;
        let metadata = file.metadata().map_err(Error::at(&path))?;
        if !metadata.is_file() {
            return Err(Error::Missing { digest: *digest });
        }
        Ok(Box::new(Verified::new(file, *digest, metadata.len())))
    }

    fn create(&self) -> Result<Box<dyn BlobWrite>> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        fs::create_dir_all(&self.ingest).map_err(Error::at(&self.ingest))?;
        loop {
            let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
            let path = self.ingest.join(name);
            let file = match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => file,
                // Another process, in another pid namespace, took the name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(Error::at(&path)(error)),
            };
            file.lock().map_err(Error::at(&path))?;
            // A sweep between create and lock has unlinked it.
            if file.metadata().map_err(Error::at(&path))?.nlink() == 0 {
                continue;
            }
            let part = Part(Some(path));
            return Ok(Box::new(Writer { store: self.clone(), part, file, hasher: Hasher::new(), size: 0 }));
        }
    }

    fn remove(&self, digest: &Digest) -> Result<()> {
        let path = self.path(digest);
        fs::remove_file(&path).or_else(absent_is_fine).map_err(Error::at(&path))
    }

    fn list(&self) -> Result<Vec<Digest>> {
        let mut digests = Vec::new();
        for entry in read_dir(&self.blobs)? {
            let name = entry.map_err(Error::at(&self.blobs))?.file_name();
            // Other tools may leave files of their own here; those are not blobs.
            if let Some(digest) = name.to_str().and_then(|hex| format!("sha256:{hex}").parse().ok()) {
                digests.push(digest);
            }
        }
        digests.sort();
        Ok(digests)
    }
}

/// The unfinished file; removed when dropped, unless it was renamed.
struct Part(Option<PathBuf>);

impl Drop for Part {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!("remove unfinished blob {}: {error}", path.display());
        }
    }
}

struct Writer {
    store: DiskBlobs,
    part: Part,
    file: File,
    hasher: Hasher,
    size: u64,
}

impl Writer {
    fn place(&mut self, digest: &Digest) -> Result<()> {
        let path = self.store.path(digest);
        fs::create_dir_all(&self.store.blobs).map_err(Error::at(&self.store.blobs))?;
        if let Some(part) = &self.part.0 {
            // Over whatever is there: should that be damaged, it is healed.
            fs::rename(part, &path).map_err(Error::at(&path))?;
        }
        self.part.0 = None;
        Ok(())
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl BlobWrite for Writer {
    fn complete(mut self: Box<Self>) -> Result<(Digest, u64)> {
        let digest = std::mem::take(&mut self.hasher).finish();
        self.place(&digest)?;
        Ok((digest, self.size))
    }

    fn complete_verified_as(mut self: Box<Self>, digest: &Digest, size: Option<u64>) -> Result<()> {
        verify(digest, size, &std::mem::take(&mut self.hasher).finish(), self.size)?;
        self.place(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_the_suite() {
        let dir = tempfile::tempdir().unwrap();
        super::super::suite::run(&DiskBlobs::open(dir.path()), |store, digest, bytes| {
            fs::write(store.path(&digest), bytes).unwrap();
        });
    }

    #[test]
    fn an_abandoned_blob_leaves_nothing_and_a_killed_writer_s_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskBlobs::open(dir.path());
        let mut living = store.create().unwrap();
        living.write_all(b"abc").unwrap();
        drop(store.create().unwrap());
        fs::write(dir.path().join("ingest/orphan"), b"12345").unwrap();
        assert_eq!(store.sweep().unwrap(), 5);
        assert_eq!(living.complete().unwrap(), (Digest::of("abc"), 3), "a living writer is spared");
        assert_eq!(fs::read_dir(dir.path().join("ingest")).unwrap().count(), 0);
    }

    #[test]
    fn a_symlink_in_a_foreign_layout_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskBlobs::open(dir.path());
        let outside = dir.path().join("outside");
        fs::write(&outside, "secret").unwrap();
        fs::create_dir_all(dir.path().join("blobs/sha256")).unwrap();
        let digest = Digest::of("secret");
        std::os::unix::fs::symlink(&outside, store.path(&digest)).unwrap();
        assert_eq!(store.size(&digest).unwrap(), None);
        assert!(store.open(&digest).is_err());
    }

    #[test]
    fn strangers_in_the_folder_are_not_blobs() {
        let dir = tempfile::tempdir().unwrap();
        let store = DiskBlobs::open(dir.path());
        assert_eq!(store.list().unwrap(), []);
        let digest = super::super::write_document(&store, b"x").unwrap();
        fs::write(dir.path().join("blobs/sha256/README"), "").unwrap();
        assert_eq!(store.list().unwrap(), [digest]);
    }
}
