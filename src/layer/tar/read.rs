//! The reading loop over tar-core's parser, which sees headers only; content goes past it.

use std::io::{BufRead, BufReader, Read};

use tar_core::parse::{Limits, ParseEvent, Parser};

use super::BLOCK;
use super::data::{Data, Sparse, Stream};
use super::member::Member;
use super::path::quote;
use super::pax::Pax;
use crate::layer::{Entry, Error, Result};

const BUFFER: usize = 128 * 1024;

/// Linux's PATH_MAX without its NUL: no longer name could be made.
const MAX_PATH: u32 = 4095;

/// Extended headers before one member, all together.
const MAX_METADATA: u32 = 1 << 20;

/// More than one member's headers, extensions and sparse map can need under the other limits.
const MAX_HEADERS: usize = 4 << 20;

/// What is called with each member and exactly its bytes; it may leave them unread.
pub type Visit<'v> = dyn FnMut(&Entry, &mut dyn BufRead) -> anyhow::Result<()> + 'v;

/// Reads an archive, and what follows its end mark, to the end of the input.
pub fn read(input: &mut dyn Read, visit: &mut Visit<'_>) -> Result<()> {
    read_buffered(&mut BufReader::with_capacity(BUFFER, input), visit)
}

/// As [`read`]; content is handed on from the input's own buffer.
pub fn read_buffered(input: &mut dyn BufRead, visit: &mut Visit<'_>) -> Result<()> {
    let mut stream = Stream::new(input);
    let mut parser = Parser::new(Limits {
        max_metadata_size: MAX_METADATA,
        max_path_len: Some(MAX_PATH),
        max_pending_entries: 16,
        max_sparse_entries: 10_000,
    });
    // Malformed values are refused by `Pax`, which also knows the ones that are rightly there (negative mtimes).
    parser.set_ignore_pax_errors(true);
    let mut global = Pax::default();
    while !at_end(&mut stream)? {
        match next(&mut stream, &mut parser, &global)? {
            Next::Global(pax) => global = pax,
            Next::Member(member) => visit_member(&mut stream, member, visit)?,
        }
    }
    stream.drain().map_err(Error::Read)
}

enum Next {
    Global(Pax),
    Member(Member),
}

/// Two blocks of zeros, one at the very end, or no more bytes at all (some archivers leave the mark out).
fn at_end(stream: &mut Stream<'_>) -> Result<bool> {
    let is_zero = |block: &[u8]| block.iter().all(|b| *b == 0);
    let block = stream.peek(BLOCK).map_err(Error::Read)?;
    if block.is_empty() {
        return Ok(true);
    }
    if block[0] != 0 || block.len() < BLOCK || !is_zero(&block[..BLOCK]) {
        return Ok(false);
    }
    let blocks = stream.peek(2 * BLOCK).map_err(Error::Read)?;
    if !is_zero(&blocks[BLOCK..blocks.len().min(2 * BLOCK)]) {
        // GNU tar stops here, others go on: an archive that shows two faces is refused.
        return Err(header(stream, "a lone block of zeros between members"));
    }
    Ok(true)
}

fn next(stream: &mut Stream<'_>, parser: &mut Parser, global: &Pax) -> Result<Next> {
    let mut wanted = BLOCK;
    let mut needed = BLOCK;
    loop {
        let bytes = stream.peek(wanted).map_err(Error::Read)?;
        if bytes.len() < needed {
            return Err(header(stream, "archive ends inside a header"));
        }
        let available = bytes.len();
        let (consumed, next) = match parser.parse(bytes) {
            Ok(ParseEvent::NeedData { min_bytes }) => {
                // The parser starts over each time, so it is given more than it asks for.
                needed = min_bytes.max(available + 1);
                wanted = needed.max(available.saturating_mul(2));
                if needed > MAX_HEADERS {
                    return Err(header(stream, "headers of one member are too long"));
                }
                continue;
            }
            Ok(ParseEvent::Entry { consumed, entry }) => (consumed, Next::Member(Member::new(&entry, None, global)?)),
            Ok(ParseEvent::SparseEntry { consumed, entry, sparse_map, real_size }) => {
                (consumed, Next::Member(Member::new(&entry, Some((sparse_map, real_size)), global)?))
            }
            Ok(ParseEvent::GlobalExtensions { consumed, pax_data }) => {
                let pax = Pax::parse(pax_data).and_then(|pax| match pax.single {
                    Some(key) => Err(format!("a global header sets {key} for all members")),
                    None => Ok(pax),
                });
                match pax {
                    Ok(pax) => (consumed, Next::Global(pax)),
                    Err(reason) => return Err(header(stream, &reason)),
                }
            }
            // `at_end` has seen to it that a header comes; what the parser ends at is zeros after an extension.
            Ok(ParseEvent::End { .. }) => return Err(header(stream, "extended header without a member")),
            Err(error) => {
                let reason = error.to_string();
                return Err(header(stream, &reason));
            }
        };
        stream.consume(consumed);
        return Ok(next);
    }
}

fn header(stream: &Stream<'_>, reason: &str) -> Error {
    Error::Header { position: stream.position(), reason: quote(reason.as_bytes()) }
}

fn visit_member(stream: &mut Stream<'_>, member: Member, visit: &mut Visit<'_>) -> Result<()> {
    let Member { entry, stored, sparse } = member;
    let mut data = Data::new(stream, stored);
    let visited = match sparse {
        None => visit(&entry, &mut data),
        Some(map) => {
            let size = match entry.kind {
                crate::sys::Kind::File { size } => size,
                _ => 0,
            };
            let refused = |reason: &str| Error::Entry {
                path: quote(entry.path.as_os_str().as_encoded_bytes()),
                reason: reason.to_owned(),
            };
            visit(&entry, &mut Sparse::new(&mut data, &map, size).map_err(refused)?)
        }
    };
    if let Err(source) = visited {
        // When the stream broke while the visitor was reading, that is what happened, not what came of it.
        return Err(match stream.take_failure() {
            Some(failure) => Error::Read(failure),
            None => Error::Apply { path: entry.path, source },
        });
    }
    data.finish().map_err(Error::Read)?;
    let padding = stored.next_multiple_of(BLOCK as u64) - stored;
    match stream.skip(padding).map_err(Error::Read)? {
        true => Ok(()),
        false => Err(header(stream, "archive ends inside a member")),
    }
}
