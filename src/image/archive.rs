//! A tar archive as a folder of files: an index of its members, which are then read in place, at their offset.
//! A 2 GiB archive costs one look at each header.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use tar_core::parse::{Limits, ParseEvent, Parser};

use super::{Error, Result};
use crate::base::Digest;
use crate::store::{self, BlobRead, BlobStore, BlobWrite, DOCUMENT_LIMIT, Verified};

/// Members of one archive, by normalised name.
pub struct Members {
    /// How errors call the archive.
    pub name: String,
    file: Arc<File>,
    members: BTreeMap<String, Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Member {
    File(Span),
    /// A name of the same archive, normalised: what a symlink or a hard link leads to.
    Link(String),
}

/// Where a file's bytes are in the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub offset: u64,
    pub size: u64,
}

/// More members than this no image archive has: an image of 127 layers, Docker's limit, has some 400.
const MEMBER_LIMIT: usize = 100_000;
/// Links from one name to the next: `docker save` of old writes one.
const LINK_LIMIT: usize = 8;
/// The window that headers are parsed in; grown when a header with its extensions needs more.
const WINDOW: usize = 4 * 512;
/// Above the parser's own limit on extensions, which is 1 MiB.
const WINDOW_LIMIT: usize = 4 << 20;

impl Members {
    /// Reads all headers of a plain tar. The last of several members of one name counts, as it would in a folder.
    pub fn index(file: File, name: &str) -> Result<Self> {
        let broken = |problem: String| Error::malformed(name, problem);
        let end = file.metadata().map_err(|source| Error::Io { path: name.to_owned(), source })?.len();
        let mut members = BTreeMap::new();
        let mut parser = Parser::new(Limits { max_path_len: Some(libc::PATH_MAX as u32), ..Limits::default() });
        let mut window = vec![0; WINDOW];
        let (mut position, mut wanted) = (0, WINDOW);
        loop {
            window.resize(wanted.max(WINDOW), 0);
            let filled =
                read_at(&file, &mut window, position).map_err(|source| Error::Io { path: name.to_owned(), source })?;
            if filled == 0 && position >= end {
                // Some writers leave the end mark out.
                break;
            }
            let event = parser
                .parse(&window[..filled])
                .map_err(|error| broken(format!("tar header at byte {position}: {error}")))?;
            wanted = WINDOW;
            let (consumed, size) = match event {
                ParseEvent::NeedData { .. } if filled < window.len() || filled >= WINDOW_LIMIT => {
                    return Err(broken(format!("truncated or oversized tar header at byte {position}")));
                }
                ParseEvent::NeedData { .. } => {
                    wanted = filled * 2;
                    (0, 0)
                }
                ParseEvent::Entry { consumed, entry } => {
                    let offset = position + consumed as u64;
                    let path = normalise("", &entry.path_lossy());
                    let link = entry.link_target_lossy().unwrap_or_default();
                    let member = if entry.is_file() {
                        Some(Member::File(Span { offset, size: entry.size }))
                    } else if entry.is_hard_link() {
                        normalise("", &link).map(Member::Link)
                    } else if entry.is_symlink() && !link.starts_with('/') {
                        let dir = path.as_deref().and_then(|p| p.rsplit_once('/')).map_or("", |(dir, _)| dir);
                        normalise(dir, &link).map(Member::Link)
                    } else {
                        None
                    };
                    // Names that lead out of the archive name nothing in it.
                    if let (Some(path), Some(member)) = (path, member) {
                        members.insert(path, member);
                    }
                    (consumed, entry.size)
                }
                ParseEvent::SparseEntry { entry, .. } => {
                    return Err(broken(format!("member {:?} is sparse", entry.path_lossy())));
                }
                ParseEvent::GlobalExtensions { consumed, .. } => (consumed, 0),
                ParseEvent::End { .. } => break,
            };
            position = position
                .checked_add(consumed as u64)
                .and_then(|next| next.checked_add(size))
                .filter(|next| *next <= end)
                .ok_or_else(|| broken(format!("truncated: the member at byte {position} ends beyond the archive")))?
                .next_multiple_of(512);
            if members.len() > MEMBER_LIMIT {
                return Err(broken(format!("more than {MEMBER_LIMIT} members")));
            }
        }
        Ok(Self { name: name.to_owned(), file: Arc::new(file), members })
    }

    /// Where a member's bytes are, links followed; none where there is no such file.
    pub fn find(&self, name: &str) -> Option<Span> {
        let mut name = normalise("", name)?;
        for _ in 0..=LINK_LIMIT {
            match self.members.get(&name)? {
                Member::File(span) => return Some(*span),
                Member::Link(target) => name.clone_from(target),
            }
        }
        None
    }

    pub fn reader(&self, span: Span) -> SpanReader {
        SpanReader { file: Arc::clone(&self.file), position: span.offset, end: span.offset + span.size }
    }

    /// Reads a small member into memory; none where it is not there.
    pub fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let Some(span) = self.find(name) else { return Ok(None) };
        if span.size > DOCUMENT_LIMIT {
            return Err(Error::malformed(&self.name, format!("{name} has {} bytes", span.size)));
        }
        let mut bytes = Vec::new();
        let path = || format!("{}: {name}", self.name);
        self.reader(span).read_to_end(&mut bytes).map_err(|source| Error::Io { path: path(), source })?;
        Ok(Some(bytes))
    }

    /// The blobs of an OCI layout in the archive.
    pub fn layout_blobs(&self) -> BTreeMap<Digest, Span> {
        let named = self.members.keys().filter_map(|name| {
            let hex = name.strip_prefix("blobs/sha256/")?;
            Some((format!("sha256:{hex}").parse().ok()?, self.find(name)?))
        });
        named.collect()
    }
}

/// Names of the first members of an archive that begins with these bytes; none where it is no archive.
pub fn first_names(beginning: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut parser = Parser::new(Limits::default());
    let mut rest = beginning;
    loop {
        let next = match parser.parse(rest) {
            Ok(ParseEvent::Entry { consumed, entry }) => {
                names.extend(normalise("", &entry.path_lossy()));
                (consumed as u64).checked_add(entry.size).and_then(|end| end.checked_next_multiple_of(512))
            }
            Ok(ParseEvent::GlobalExtensions { consumed, .. }) => Some(consumed as u64),
            _ => None,
        };
        match next.and_then(|next| rest.get(usize::try_from(next).ok()?..)) {
            Some(tail) => rest = tail,
            None => return names,
        }
    }
}

/// A name without `.`, `..` and doubled slashes, seen from a directory; none where it leads out of the archive.
fn normalise(dir: &str, name: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in dir.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// Fills the buffer as far as the file reaches.
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Reads one member without moving the archive's own position, so that several can be read at once.
pub struct SpanReader {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Read for SpanReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        let limit = buffer.len().min(left);
        let count = self.file.read_at(&mut buffer[..limit], self.position)?;
        self.position += count as u64;
        Ok(count)
    }
}

/// Blobs that are members of an archive.
pub struct ArchiveBlobs {
    members: Arc<Members>,
    blobs: BTreeMap<Digest, Span>,
}

impl ArchiveBlobs {
    pub fn new(members: Arc<Members>, blobs: BTreeMap<Digest, Span>) -> Self {
        Self { members, blobs }
    }
}

impl BlobStore for ArchiveBlobs {
    fn size(&self, digest: &Digest) -> store::Result<Option<u64>> {
        Ok(self.blobs.get(digest).map(|span| span.size))
    }

    fn open(&self, digest: &Digest) -> store::Result<Box<dyn BlobRead>> {
        let span = self.blobs.get(digest).ok_or(store::Error::Missing { digest: *digest })?;
        Ok(Box::new(Verified::new(self.members.reader(*span), *digest, span.size)))
    }

    fn create(&self) -> store::Result<Box<dyn BlobWrite>> {
        Err(store::Error::ReadOnly(self.members.name.clone()))
    }

    fn remove(&self, _: &Digest) -> store::Result<()> {
        Err(store::Error::ReadOnly(self.members.name.clone()))
    }

    fn list(&self) -> store::Result<Vec<Digest>> {
        Ok(self.blobs.keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    fn archive(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, content) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            // Written raw, because the crate refuses the names that are of interest here.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            if *kind == Regular {
                header.set_size(content.len() as u64);
                header.set_cksum();
                builder.append(&header, content.as_bytes()).unwrap();
            } else {
                header.set_link_name_literal(content).unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, io::empty()).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    use tar::EntryType::{Link, Regular, Symlink};

    #[test]
    fn finds_members_through_links_and_never_outside() {
        let bytes = archive(&[
            (Regular, "./a/layer.tar", "layer"),
            (Symlink, "b/layer.tar", "../a/layer.tar"),
            (Link, "c/layer.tar", "b/layer.tar"),
            (Symlink, "loop", "loop"),
            (Symlink, "out", "../../etc/passwd"),
            (Symlink, "abs", "/etc/passwd"),
            (Regular, "../up", "x"),
            (Regular, "twice", "first"),
            (Regular, "twice", "second"),
        ]);
        let members = Members::index(file(&bytes), "x.tar").unwrap();
        let read = |name: &str| members.document(name).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
        for name in ["a/layer.tar", "./a/layer.tar", "b/layer.tar", "c/layer.tar"] {
            assert_eq!(read(name).as_deref(), Some("layer"), "{name}");
        }
        assert_eq!(read("twice").as_deref(), Some("second"));
        for name in ["loop", "out", "abs", "up", "../up", "a", ""] {
            assert_eq!(read(name), None, "{name}");
        }
    }

    #[test]
    fn a_missing_end_mark_is_fine_and_a_missing_tail_is_not() {
        let bytes = archive(&[(Regular, "a", &"x".repeat(600)), (Regular, "b", "y")]);
        let members = |length: usize| Members::index(file(&bytes[..length]), "x.tar");
        assert!(members(bytes.len() - 1024).unwrap().find("b").is_some());
        for length in [1, 511, 513, 700, 512 + 1024 + 3, 512 + 1024 + 512] {
            assert!(members(length).is_err(), "{length} bytes");
        }
        assert!(Members::index(file(b""), "x.tar").unwrap().find("a").is_none(), "an empty file has no members");
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_refused_or_indexed(bytes: Vec<u8>, at in 0usize..2048, byte: u8) {
            let _ = Members::index(file(&bytes), "x.tar");
            let mut tampered = archive(&[(Regular, "a", "x"), (Symlink, "b", "a")]);
            tampered[at] = byte;
            if let Ok(members) = Members::index(file(&tampered), "x.tar") {
                let _ = members.document("a");
                let _ = members.document("b");
            }
        }
    }
}
