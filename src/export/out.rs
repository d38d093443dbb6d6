//! A destination that appears all at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

use super::Dest;

/// One write to the system for this many bytes.
const BUFFER: usize = 256 << 10;

/// Runs `write` on the destination; a file is in place only when that went well.
pub fn write_to(dest: &Dest, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    match dest {
        Dest::Stdout => {
            let mut out = BufWriter::with_capacity(BUFFER, io::stdout().lock());
            write(&mut out)?;
            out.flush().context("write to standard output")
        }
        Dest::File(path) => to_file(path, write).with_context(|| format!("write {}", path.display())),
    }
}

fn to_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // A device or a fifo (`-o /dev/stdout`) is written to, not replaced.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir()) {
        let mut out = BufWriter::with_capacity(BUFFER, OpenOptions::new().write(true).open(path)?);
        write(&mut out)?;
        return Ok(out.flush()?);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let (file, part) = Part::beside(path)?;
    let mut out = BufWriter::with_capacity(BUFFER, file);
    write(&mut out)?;
    out.flush()?;
    part.rename_to(path)
}

/// A path beside another that nobody has yet.
pub fn name_beside(path: &Path) -> anyhow::Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().with_context(|| format!("{} has no file name", path.display()))?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(format!(".{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    Ok(path.with_file_name(part))
}

/// Removed when dropped, unless it was renamed.
struct Part(PathBuf);

impl Part {
    fn beside(path: &Path) -> anyhow::Result<(File, Self)> {
        let part = name_beside(path)?;
        let file = OpenOptions::new().write(true).create_new(true).open(&part)?;
        Ok((file, Self(part)))
    }

    fn rename_to(self, path: &Path) -> anyhow::Result<()> {
        fs::rename(&self.0, path)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            tracing::warn!("remove {}: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/image.tar");
        let dest = Dest::File(path.clone());
        write_to(&dest, |out| Ok(out.write_all(b"one")?)).unwrap();
        let failed = write_to(&dest, |out| {
            out.write_all(b"two")?;
            anyhow::bail!("no")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_written_to_not_replaced() {
        write_to(&Dest::File("/dev/null".into()), |out| Ok(out.write_all(b"x")?)).unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }
}
