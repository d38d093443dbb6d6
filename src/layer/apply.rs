//! Applies one layer to a target: decompressed and hashed on one thread, applied on another.

use std::io::{BufRead, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ahead::Ahead;
use super::{Entry, Error, Result, Target, WHITEOUT_OPAQUE, WHITEOUT_PREFIX, decompress, tar};
use crate::base::{Cancel, DiffId, Hasher};

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    pub diff_id: DiffId,
    /// Bytes of the plain tar.
    pub size: u64,
}

/// Applies a layer as it is stored (plain, gzip or zstd) to a target, and checks its diff ID after the last byte.
///
/// `stored` is read to its end, so that the caller can verify the blob's own digest afterwards. On an error the
/// target holds some part of the layer, and is to be thrown away.
pub fn apply(
    stored: &mut (dyn Read + Send),
    expected: Option<&DiffId>,
    target: &mut dyn Target,
    cancel: &Cancel,
) -> Result<Applied> {
    target.start().map_err(|source| Error::Apply { path: Default::default(), source })?;
    let applied = read_layer(stored, cancel, &mut |entry, data| apply_entry(target, entry, data))?;
    match expected {
        Some(expected) if *expected != applied.diff_id => {
            Err(Error::DiffId { expected: *expected, actual: applied.diff_id })
        }
        _ => Ok(applied),
    }
}

/// As [`apply`], for a layer that is stored plain, and so under its diff ID: whoever opened it compares that already,
/// and hashing all of it twice would cost as much as writing it.
pub fn apply_plain(stored: &mut (dyn Read + Send), target: &mut dyn Target, cancel: &Cancel) -> Result<()> {
    target.start().map_err(|source| Error::Apply { path: Default::default(), source })?;
    read_members(|| Ok(stored), |_| {}, cancel, &mut |entry, data| apply_entry(target, entry, data))
}

/// Reads a layer as it is stored, giving each member to `visit`; whiteouts are members like others here.
pub fn read_layer(
    stored: &mut (dyn Read + Send),
    cancel: &Cancel,
    visit: &mut dyn FnMut(&Entry, &mut dyn BufRead) -> anyhow::Result<()>,
) -> Result<Applied> {
    let (mut hasher, mut size) = (Hasher::new(), 0);
    let look = |chunk: &[u8]| {
        hasher.update(chunk);
        size += chunk.len() as u64;
    };
    read_members(|| decompress(stored), look, cancel, visit)?;
    Ok(Applied { diff_id: DiffId(hasher.finish()), size })
}

/// Opens and reads plain bytes on a thread of their own, to their end; `look` sees all of them there.
fn read_members<R: Read>(
    open: impl FnOnce() -> std::io::Result<R> + Send,
    look: impl FnMut(&[u8]) + Send,
    cancel: &Cancel,
    visit: &mut dyn FnMut(&Entry, &mut dyn BufRead) -> anyhow::Result<()>,
) -> Result<()> {
    let read = std::thread::scope(|scope| {
        let (mut plain, producer) = Ahead::new();
        std::thread::Builder::new()
            .name("layer".to_owned())
            .spawn_scoped(scope, move || producer.run(open, look))
            .map_err(Error::Read)?;
        let mut checked = Checked { plain: &mut plain, cancel };
        tar::read_buffered(&mut checked, visit)
    });
    // Whatever a cancelled read failed with, that it was cancelled is what happened.
    cancel.check()?;
    read
}

/// Stops at the next chunk once the work is cancelled.
struct Checked<'a> {
    plain: &'a mut Ahead,
    cancel: &'a Cancel,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.plain.read(buffer)
    }
}

impl BufRead for Checked<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.cancel.is_cancelled() {
            return Err(std::io::Error::other("cancelled"));
        }
        self.plain.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.plain.consume(count);
    }
}

/// What a member of a layer means (image-spec, layer.md, "Representing Changes").
#[derive(Debug, PartialEq, Eq)]
pub enum Change<'a> {
    Entry,
    /// The name beside it that is hidden.
    Whiteout(&'a Path),
    /// The directory whose lower content is hidden.
    Opaque(&'a Path),
    /// Bookkeeping of aufs, of no meaning to anyone else.
    Ignored,
    /// A whiteout of `.` or `..`.
    Impossible,
}

impl<'a> Change<'a> {
    /// By the member's path; `hidden` is where the name of a whiteout is put.
    pub fn of(path: &'a Path, hidden: &'a mut std::path::PathBuf) -> Self {
        let (Some(name), Some(dir)) = (path.file_name(), path.parent()) else { return Self::Entry };
        let Some(rest) = name.as_bytes().strip_prefix(WHITEOUT_PREFIX.as_bytes()) else { return Self::Entry };
        match rest {
            // A bare prefix hides nothing: it is a file of that name.
            b"" => Self::Entry,
            b"." | b".." => Self::Impossible,
            _ if name == WHITEOUT_OPAQUE => Self::Opaque(dir),
            _ if rest.starts_with(WHITEOUT_PREFIX.as_bytes()) => Self::Ignored,
            rest => {
                *hidden = dir.join(std::ffi::OsStr::from_bytes(rest));
                Self::Whiteout(hidden)
            }
        }
    }
}

fn apply_entry(target: &mut dyn Target, entry: &Entry, data: &mut dyn BufRead) -> anyhow::Result<()> {
    match Change::of(&entry.path, &mut std::path::PathBuf::new()) {
        Change::Entry => target.entry(entry, data),
        Change::Whiteout(path) => target.whiteout(path),
        Change::Opaque(dir) => target.opaque(dir),
        Change::Ignored => Ok(()),
        Change::Impossible => anyhow::bail!("a whiteout of `.` or `..`"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn names_of_members_say_what_they_change() {
        let cases = [
            ("a/b", Change::Entry),
            ("", Change::Entry),
            ("a/.wh.b", Change::Whiteout(Path::new("a/b"))),
            (".wh.b", Change::Whiteout(Path::new("b"))),
            ("a/.wh..wh..opq", Change::Opaque(Path::new("a"))),
            (".wh..wh..opq", Change::Opaque(Path::new(""))),
            (".wh.", Change::Entry),
            ("a/.wh..", Change::Impossible),
            ("a/.wh...", Change::Impossible),
            (".wh..wh.plnk", Change::Ignored),
            (".wh..hidden", Change::Whiteout(Path::new(".hidden"))),
            (".wh.a/b", Change::Entry),
        ];
        for (path, change) in cases {
            assert_eq!(Change::of(Path::new(path), &mut PathBuf::new()), change, "{path}");
        }
    }
}
