//! Reading ahead: one thread makes bytes while another uses them, a bounded way apart.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

const CHUNK: usize = 256 * 1024;

/// How many chunks the producer may be ahead.
const CHUNKS: usize = 6;

/// The consumer's end.
pub struct Ahead {
    chunks: Option<Receiver<io::Result<Vec<u8>>>>,
    /// Emptied chunks go back, so that memory is asked for once.
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    used: usize,
    thread: Option<JoinHandle<()>>,
}

/// The producer's end.
pub struct Producer {
    chunks: SyncSender<io::Result<Vec<u8>>>,
    empty: Receiver<Vec<u8>>,
}

impl Ahead {
    pub fn new() -> (Self, Producer) {
        let (send, receive) = sync_channel(CHUNKS);
        let (give_back, empty) = channel();
        let ahead = Self { chunks: Some(receive), empty: give_back, current: Vec::new(), used: 0, thread: None };
        (ahead, Producer { chunks: send, empty })
    }

    /// The thread that the producer runs on.
    pub fn join_on_drop(&mut self, thread: JoinHandle<()>) {
        self.thread = Some(thread);
    }
}

impl Producer {
    /// Reads to the end or to an error, `look`ing at each piece before it is handed over. Ends early when nobody
    /// reads any more.
    pub fn run<R: Read>(self, open: impl FnOnce() -> io::Result<R>, mut look: impl FnMut(&[u8])) {
        let mut reader = match open() {
            Ok(reader) => reader,
            Err(error) => {
                let _ = self.chunks.send(Err(error));
                return;
            }
        };
        loop {
            let mut chunk = self.empty.try_recv().unwrap_or_default();
            chunk.resize(CHUNK, 0);
            let result = fill(&mut reader, &mut chunk);
            let (length, error) = match result {
                Ok(length) => (length, None),
                Err((length, error)) => (length, Some(error)),
            };
            chunk.truncate(length);
            look(&chunk);
            if length > 0 && self.chunks.send(Ok(chunk)).is_err() {
                return;
            }
            if let Some(error) = error {
                let _ = self.chunks.send(Err(error));
                return;
            }
            if length < CHUNK {
                // Empty: the end. To hang up without it is what a thread does that panicked.
                let _ = self.chunks.send(Ok(Vec::new()));
                return;
            }
        }
    }
}

/// Fills a buffer as far as the input goes; with an error comes what was read before it.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, (usize, io::Error)> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((length, error)),
        }
    }
    Ok(length)
}

impl Read for Ahead {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let count = ready.len().min(buffer.len());
        buffer[..count].copy_from_slice(&ready[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Ahead {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.current.len()
            && let Some(chunks) = &self.chunks
        {
            let chunk = chunks.recv().map_err(|_| io::Error::other("the decompressing thread ended early"))??;
            if chunk.is_empty() {
                self.chunks = None;
            }
            let old = std::mem::replace(&mut self.current, chunk);
            self.used = 0;
            let _ = self.empty.send(old);
        }
        Ok(&self.current[self.used..])
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        // Hung up first: the producer may be waiting for room.
        self.chunks = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
