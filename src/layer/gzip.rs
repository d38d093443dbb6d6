//! Parallel gzip: blocks are deflated on their own, each with the end of the one before it as its dictionary, and
//! joined into one ordinary gzip member (RFC 1952), as pigz does.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use flate2::{Compress, Compression as Level, FlushCompress, Status};

/// Bytes of input for one thread at a time. Changing this changes the bytes of every layer.
pub const BLOCK: usize = 128 * 1024;

/// Deflate looks no further back.
const DICTIONARY: usize = 32 * 1024;

const LEVEL: u32 = 6;

/// Memory is bounded by this times two blocks.
const MAX_THREADS: usize = 16;

/// No time, no name, operating system unknown: as Go writes it.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

pub struct Gzip<W: Write> {
    out: W,
    level: Level,
    threads: usize,
    block: Vec<u8>,
    dictionary: Vec<u8>,
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
            dictionary: Vec::new(),
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
        self.crc.update(&self.block);
        // RFC 1952: modulo 2^32.
        self.size = self.size.wrapping_add(self.block.len() as u32);
        let data = std::mem::take(&mut self.block);
        let next = data[data.len().saturating_sub(DICTIONARY)..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, next);
        let job = Job { level: self.level, dictionary, data, last };
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
        if self.block.len() == BLOCK {
            self.submit(false)?;
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK);
        }
        let count = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

struct Job {
    level: Level,
    dictionary: Vec<u8>,
    data: Vec<u8>,
    last: bool,
}

impl Job {
    fn deflate(&self) -> io::Result<Vec<u8>> {
        // A fresh state each time: one that was reset gives other bytes (zlib-rs #459).
        let mut state = Compress::new(self.level, false);
        if !self.dictionary.is_empty() {
            state.set_dictionary(&self.dictionary)?;
        }
        // Enough for data that does not shrink, so that nothing is moved.
        let mut out = Vec::with_capacity(self.data.len() + self.data.len() / 64 + 1024);
        let flush = if self.last { FlushCompress::Finish } else { FlushCompress::Sync };
        loop {
            let rest = &self.data[state.total_in() as usize..];
            let status = state.compress_vec(rest, &mut out, flush)?;
            let flushed = state.total_in() as usize == self.data.len() && out.len() < out.capacity();
            if status == Status::StreamEnd || (!self.last && flushed) {
                return Ok(out);
            }
            out.reserve(1024);
        }
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
