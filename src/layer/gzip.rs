//! Parallel gzip: blocks are deflated on their own, each with the end of the one before it as its dictionary, and
//! joined into one ordinary gzip member (RFC 1952), as pigz does.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Compression as Level, FlushCompress, Status};

use super::dense::{PIECE, is_dense};

/// Bytes of input for one thread at a time. Changing this changes the bytes of every layer.
pub const BLOCK: usize = 128 * 1024;

/// Deflate looks no further back.
const DICTIONARY: usize = 32 * 1024;

const LEVEL: u32 = 6;

/// What a stored block of deflate may hold (RFC 1951, 3.2.4).
const STORED: usize = 65_535;

/// Memory is bounded by this times two blocks.
const MAX_THREADS: usize = 16;

/// No time, no name, operating system unknown: as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

pub struct Gzip<W: Write> {
    out: W,
    level: Level,
    threads: usize,
    /// The end of the block before, and the block that is being filled.
    block: Vec<u8>,
    /// Where the latter begins.
    start: usize,
    crc: crc32fast::Hasher,
    size: u32,
    started: bool,
    workers: Vec<Worker>,
    /// Which worker has each block that is not written yet, oldest first.
    pending: VecDeque<usize>,
    submitted: usize,
}

impl<W: Write> Gzip<W> {
    pub fn new(out: W, level: Option<u32>, threads: usize) -> Self {
        Self {
            out,
            level: Level::new(level.unwrap_or(LEVEL)),
            threads: threads.clamp(1, MAX_THREADS),
            block: Vec::new(),
            start: 0,
            crc: crc32fast::Hasher::new(),
            size: 0,
            started: false,
            workers: Vec::new(),
            pending: VecDeque::new(),
            submitted: 0,
        }
    }

    pub fn finish(mut self) -> io::Result<W> {
        self.submit(true)?;
        while !self.pending.is_empty() {
            self.collect()?;
        }
        self.out.write_all(&self.crc.finalize().to_le_bytes())?;
        self.out.write_all(&self.size.to_le_bytes())?;
        Ok(self.out)
    }

    fn submit(&mut self, last: bool) -> io::Result<()> {
        if !self.started {
            self.started = true;
            self.out.write_all(&HEADER)?;
        }
        let data = &self.block[self.start..];
        self.crc.update(data);
        // RFC 1952: modulo 2^32.
        self.size = self.size.wrapping_add(data.len() as u32);
        let mut next = Vec::with_capacity(DICTIONARY + BLOCK);
        next.extend_from_slice(&data[data.len().saturating_sub(DICTIONARY)..]);
        let start = std::mem::replace(&mut self.start, next.len());
        let job = Job { level: self.level, bytes: std::mem::replace(&mut self.block, next), start, last };
        // A stream of one block, or a single core, is not worth a thread.
        if self.threads == 1 || (last && self.workers.is_empty()) {
            return self.out.write_all(&job.deflate()?);
        }
        let slot = self.submitted % self.threads;
        self.submitted += 1;
        if slot == self.workers.len() {
            self.workers.push(Worker::start()?);
        }
        if self.pending.len() >= 2 * self.threads {
            self.collect()?;
        }
        self.workers[slot].jobs.send(job).map_err(|_| died())?;
        self.pending.push_back(slot);
        Ok(())
    }

    /// Writes the oldest block that is under way.
    fn collect(&mut self) -> io::Result<()> {
        if let Some(slot) = self.pending.pop_front() {
            let block = self.workers[slot].results.recv().map_err(|_| died())??;
            self.out.write_all(&block)?;
        }
        Ok(())
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Submitted only when more comes, so that the last block is known to be the last.
        if self.block.len() == self.start + BLOCK {
            self.submit(false)?;
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK);
        }
        let count = bytes.len().min(self.start + BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Job {
    level: Level,
    /// The block, and what came before it.
    bytes: Vec<u8>,
    start: usize,
    last: bool,
}

impl Job {
    fn deflate(&self) -> io::Result<Vec<u8>> {
        // Enough for data that does not shrink, so that nothing is moved.
        let length = self.bytes.len() - self.start;
        let mut out = Vec::with_capacity(length + length / 64 + 1024);
        let runs = self.runs();
        for (index, run) in runs.iter().enumerate() {
            let last = self.last && index + 1 == runs.len();
            match run.dense {
                true => store(&self.bytes[run.start..run.end], last, &mut out),
                false => self.deflate_run(run, last, &mut out)?,
            }
        }
        Ok(out)
    }

    /// The block's parts that are deflated, and those that would not get smaller.
    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut start = self.start;
        while start < self.bytes.len() || runs.is_empty() {
            let end = self.bytes.len().min(start + PIECE);
            let dense = self.level != Level::none() && is_dense(&self.bytes[..end], start);
            match runs.last_mut() {
                Some(run) if run.dense == dense => run.end = end,
                _ => runs.push(Run { start, end, dense }),
            }
            start = end;
        }
        runs
    }

    fn deflate_run(&self, run: &Run, last: bool, out: &mut Vec<u8>) -> io::Result<()> {
        // A fresh state each time: one that was reset gives other bytes (zlib-rs #459).
        let mut state = Compress::new(self.level, false);
        let dictionary = &self.bytes[run.start.saturating_sub(DICTIONARY)..run.start];
        if !dictionary.is_empty() {
            state.set_dictionary(dictionary)?;
        }
        let data = &self.bytes[run.start..run.end];
        let flush = if last { FlushCompress::Finish } else { FlushCompress::Sync };
        loop {
            let rest = &data[state.total_in() as usize..];
            let status = state.compress_vec(rest, out, flush)?;
            let flushed = state.total_in() as usize == data.len() && out.len() < out.capacity();
            if status == Status::StreamEnd || (!last && flushed) {
                return Ok(());
            }
            out.reserve(1024);
        }
    }
}

struct Run {
    start: usize,
    end: usize,
    dense: bool,
}

/// Stored blocks. They begin on a byte: so do the stream and whatever follows a flush.
fn store(data: &[u8], last: bool, out: &mut Vec<u8>) {
    let mut blocks = data.chunks(STORED).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.push(u8::from(last && blocks.peek().is_none()));
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(block);
    }
}

struct Worker {
    jobs: SyncSender<Job>,
    results: Receiver<io::Result<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn start() -> io::Result<Self> {
        // A worker has at most two blocks of the pending ones, so it never waits for its results to be taken.
        let (jobs, todo) = sync_channel::<Job>(2);
        let (done, results) = sync_channel(2);
        let thread = std::thread::Builder::new().name("gzip".to_owned()).spawn(move || {
            for job in todo {
                if done.send(job.deflate()).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, results, thread: Some(thread) })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Its queue closes, then it ends.
        self.jobs = sync_channel(0).0;
        self.results = sync_channel(0).1;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn died() -> io::Error {
    io::Error::other("a gzip thread ended early")
}
