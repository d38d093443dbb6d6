//! ADD's unpacking of archives: a tar, however compressed, becomes the files that are in it.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;

use super::copy::Making;
use super::select::{at, shown};
use crate::layer::{self, Entry};
use crate::snapshot::{DeltaWriter, FileData, Node, Subtree, Tree, clean, resolve};
use crate::sys::{Kind, Meta, Mtime};

/// Unpacks the source into the destination folder if it is an archive; false when it is not.
pub(super) fn attempt(
    from: &Arc<dyn Tree>,
    source: &Path,
    writer: &mut DeltaWriter,
    dest: &str,
    making: &Making,
) -> anyhow::Result<bool> {
    let source = resolve(&**from, source, true).map_err(at(source))?;
    match from.lookup(&source).map_err(at(&source))? {
        Some(Node { kind: Kind::File { size }, .. }) if size > 0 => {}
        _ => return Ok(false),
    }
    if !is_archive(from.open(&source).map_err(at(&source))?) {
        return Ok(false);
    }
    let dest = writer.resolve(Path::new(dest), true).map_err(at(Path::new(dest)))?;
    making.mkdir_all(writer, &dest, 0o755)?;
    let mut plain = layer::decompress_any(from.open(&source).map_err(at(&source))?)?;
    let mut unpacking = Unpacking { writer, dest: &dest, owner: making.owner };
    layer::tar::read(&mut plain, &mut |entry, data| unpacking.entry(entry, data))?;
    // What follows the archive's end mark is nobody's, but must be readable.
    io::copy(&mut plain, &mut io::sink())?;
    Ok(true)
}

/// Whether the first header of an archive can be read.
fn is_archive(data: FileData) -> bool {
    let Ok(mut plain) = layer::decompress_any(data) else { return false };
    let mut header = [0; 512];
    if plain.read_exact(&mut header).is_err() {
        return false;
    }
    // Two forms of "nothing in here": the end mark alone is an archive to no one.
    header.iter().any(|byte| *byte != 0) && checksum_holds(&header)
}

/// The sum of a header's bytes with the sum's own field as blanks, signed or not, as every tar has written it.
fn checksum_holds(header: &[u8; 512]) -> bool {
    let field: &[u8] = &header[148..156];
    let digits: Vec<u8> = field.iter().copied().skip_while(|b| *b == b' ').take_while(u8::is_ascii_digit).collect();
    let Some(stored) = std::str::from_utf8(&digits).ok().and_then(|text| i64::from_str_radix(text, 8).ok()) else {
        return false;
    };
    let bytes = || header.iter().enumerate().map(|(i, byte)| if (148..156).contains(&i) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stored == unsigned || stored == signed
}

struct Unpacking<'a> {
    writer: &'a mut DeltaWriter,
    dest: &'a Path,
    owner: Option<(u32, u32)>,
}

impl Unpacking<'_> {
    fn entry(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        self.make(entry, data).with_context(|| shown(&entry.path))
    }

    fn make(&mut self, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let mut meta = entry.meta.clone();
        if let Some((uid, gid)) = self.owner {
            (meta.uid, meta.gid) = (uid, gid);
        }
        if entry.path.as_os_str().is_empty() {
            // The destination is there, and stays what it is.
            return Ok(());
        }
        let path = self.land(&entry.path)?;
        match &entry.kind {
            Kind::File { size } => self.file(&path, &meta, *size, data)?,
            Kind::Hardlink { target } => {
                let target = self.dest.join(self.inside(target, false)?);
                self.writer.link(&target, &path).with_context(|| format!("hard link to {}", shown(&target)))?;
            }
            Kind::Directory => {
                if self.writer.lookup(&path)?.is_some_and(|there| !there.is_dir()) {
                    self.writer.remove(&path)?;
                }
                self.writer.make(&path, &entry.kind, &meta)?;
            }
            kind => {
                self.writer.remove(&path)?;
                self.writer.make(&path, kind, &meta)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, meta: &Meta, size: u64, data: &mut dyn BufRead) -> anyhow::Result<()> {
        let mut landed = Entry { path: path.to_owned(), kind: Kind::File { size }, meta: meta.clone() };
        if self.writer.lookup(path)?.is_some_and(|there| there.is_dir()) {
            self.writer.remove(path)?;
        }
        // Nothing is left to resolve, so the archive's way of making a file does.
        landed.path = path.to_owned();
        layer::Target::entry(self.writer, &landed, data)
    }

    /// Where an entry goes. Symlinks that the archive brought lead to places below the destination, as if that were `/`.
    fn land(&mut self, path: &Path) -> anyhow::Result<PathBuf> {
        let parent = self.inside(path.parent().unwrap_or(Path::new("")), true)?;
        let parent = self.dest.join(parent);
        let implied = Making { owner: None, mtime: Some(Mtime::default()), now: Mtime::default() };
        implied.mkdir_all(self.writer, &parent, 0o755)?;
        Ok(parent.join(path.file_name().unwrap_or_default()))
    }

    fn inside(&self, path: &Path, follow: bool) -> io::Result<PathBuf> {
        resolve(&Subtree { tree: self.writer.tree(), dir: self.dest.to_owned() }, &clean(path), follow)
    }
}
