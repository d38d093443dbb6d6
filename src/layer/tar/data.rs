//! The bytes of an archive and of one member in it, uncopied where they lie in one piece.

use std::io::{self, BufRead, Read};

use tar_core::SparseEntry;

/// An archive being read: looks ahead for headers, then hands out content.
pub struct Stream<'a> {
    input: &'a mut dyn BufRead,
    /// Header bytes that did not lie in one piece of `input`; `carry[used..]` comes before it.
    carry: Vec<u8>,
    used: usize,
    position: u64,
    failure: Option<(io::ErrorKind, String)>,
}

impl<'a> Stream<'a> {
    pub fn new(input: &'a mut dyn BufRead) -> Self {
        Self { input, carry: Vec::new(), used: 0, position: 0, failure: None }
    }

    /// Plain bytes consumed so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// What reading failed with, whoever saw it first.
    pub fn take_failure(&mut self) -> Option<io::Error> {
        self.failure.take().map(|(kind, message)| io::Error::new(kind, message))
    }

    /// The next bytes, not consumed: at least as many as asked, or fewer at the end.
    pub fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        if self.used == self.carry.len() && self.fill()? >= wanted {
            return self.input.fill_buf();
        }
        self.carry.drain(..self.used);
        self.used = 0;
        while self.carry.len() < wanted {
            let ready = self.fill()?;
            if ready == 0 {
                break;
            }
            let taken = ready.min(wanted - self.carry.len());
            self.carry.extend_from_slice(&self.input.fill_buf()?[..taken]);
            self.input.consume(taken);
        }
        Ok(&self.carry)
    }

    fn fill(&mut self) -> io::Result<usize> {
        loop {
            match self.input.fill_buf() {
                Ok(bytes) => return Ok(bytes.len()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failure = Some((error.kind(), error.to_string()));
                    return Err(error);
                }
            }
        }
    }

    /// Passes over bytes; false where the archive ends first.
    pub fn skip(&mut self, mut count: u64) -> io::Result<bool> {
        while count > 0 {
            let ready = self.fill_buf()?.len();
            if ready == 0 {
                return Ok(false);
            }
            let step = ready.min(usize::try_from(count).unwrap_or(usize::MAX));
            self.consume(step);
            count -= step as u64;
        }
        Ok(true)
    }

    /// Reads to the end of the input, past the end of the archive.
    pub fn drain(&mut self) -> io::Result<()> {
        self.skip(u64::MAX).map(drop)
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Stream<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used < self.carry.len() {
            return Ok(&self.carry[self.used..]);
        }
        self.fill()?;
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.position += count as u64;
        if self.used < self.carry.len() {
            self.used += count;
        } else {
            self.input.consume(count);
        }
    }
}

/// A member's content as it is stored.
pub struct Data<'s, 'a> {
    stream: &'s mut Stream<'a>,
    left: u64,
}

impl<'s, 'a> Data<'s, 'a> {
    pub fn new(stream: &'s mut Stream<'a>, size: u64) -> Self {
        Self { stream, left: size }
    }

    /// Passes over what nobody read.
    pub fn finish(self) -> io::Result<()> {
        if self.stream.skip(self.left)? { Ok(()) } else { Err(truncated(self.stream)) }
    }
}

fn truncated(stream: &mut Stream<'_>) -> io::Error {
    let message = "archive ends inside a member".to_owned();
    stream.failure = Some((io::ErrorKind::UnexpectedEof, message.clone()));
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

impl Read for Data<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Data<'_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        if self.stream.fill_buf()?.is_empty() {
            return Err(truncated(self.stream));
        }
        let ready = self.stream.fill_buf()?;
        Ok(&ready[..ready.len().min(usize::try_from(self.left).unwrap_or(usize::MAX))])
    }

    fn consume(&mut self, count: usize) {
        self.left -= count as u64;
        self.stream.consume(count);
    }
}

/// A sparse member's content as it is meant: zeros in its holes.
pub struct Sparse<'d, 's, 'a> {
    data: &'d mut Data<'s, 'a>,
    /// What comes next: a hole, then data, for each part; the last hole leads to the end.
    parts: std::vec::IntoIter<(u64, u64)>,
    hole: u64,
    stored: u64,
}

/// Holes come in pieces of this size, so that a writer can see them for what they are.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

impl<'d, 's, 'a> Sparse<'d, 's, 'a> {
    /// Fails with what is wrong about the map.
    pub fn new(data: &'d mut Data<'s, 'a>, map: &[SparseEntry], size: u64) -> Result<Self, &'static str> {
        let mut parts = Vec::with_capacity(map.len() + 1);
        let (mut end, mut stored) = (0u64, 0u64);
        for part in map {
            let hole = part.offset.checked_sub(end).ok_or("sparse parts overlap or are out of order")?;
            end = part
                .offset
                .checked_add(part.length)
                .filter(|end| *end <= size)
                .ok_or("sparse part lies past the end")?;
            // Cannot overflow: the parts lie one after the other below `size`.
            stored += part.length;
            parts.push((hole, part.length));
        }
        if stored != data.left {
            return Err("sparse map does not add up to the stored size");
        }
        parts.push((size - end, 0));
        Ok(Self { data, parts: parts.into_iter(), hole: 0, stored: 0 })
    }
}

impl Read for Sparse<'_, '_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl BufRead for Sparse<'_, '_, '_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.hole == 0 && self.stored == 0 {
            match self.parts.next() {
                Some((hole, stored)) => (self.hole, self.stored) = (hole, stored),
                None => return Ok(&[]),
            }
        }
        if self.hole > 0 {
            return Ok(&ZEROS[..usize::try_from(self.hole).unwrap_or(usize::MAX).min(ZEROS.len())]);
        }
        let limit = usize::try_from(self.stored).unwrap_or(usize::MAX);
        let ready = self.data.fill_buf()?;
        Ok(&ready[..ready.len().min(limit)])
    }

    fn consume(&mut self, count: usize) {
        if self.hole > 0 {
            self.hole -= count as u64;
        } else {
            self.stored -= count as u64;
            self.data.consume(count);
        }
    }
}

fn read_buffered(from: &mut impl BufRead, buffer: &mut [u8]) -> io::Result<usize> {
    let ready = from.fill_buf()?;
    let count = ready.len().min(buffer.len());
    buffer[..count].copy_from_slice(&ready[..count]);
    from.consume(count);
    Ok(count)
}
