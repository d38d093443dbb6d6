//! Small files are finished on a thread of their own: to write, date and close one costs as much as to make it, and
//! nobody waits for that.

use std::fs::File;
use std::io::{self, BufRead};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use anyhow::Context;

use crate::sys::Meta;
use crate::sys::meta::{self, Known};

/// Up to this size a file's bytes are copied once more on their way; of larger ones the copy costs more than it saves.
pub const SMALL: u64 = 64 << 10;

/// A handful goes when it has so many files or bytes: to wake a thread up costs as much as to make a file.
const FILES: usize = 32;
const BYTES: usize = 256 << 10;

/// How many handfuls may wait, each with its open files.
const WAITING: usize = 2;

/// Files that were made and are still empty.
#[derive(Default)]
struct Handful {
    files: Vec<Unfinished>,
    bytes: Vec<u8>,
}

struct Unfinished {
    file: File,
    path: PathBuf,
    /// Where its part of the bytes ends; it begins where the one before it ends.
    end: usize,
    meta: Meta,
    known: Known,
}

/// What is left to do of small files.
#[derive(Default)]
pub struct Later {
    handful: Handful,
    worker: Option<Worker>,
}

struct Worker {
    handfuls: SyncSender<Handful>,
    /// Emptied ones come back, so that memory is asked for once.
    empty: Receiver<Handful>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Later {
    /// Takes over a new file whose owner is right, and that gets no extended attributes. It may be moved or removed
    /// meanwhile: it is known by its descriptor alone.
    pub fn add(
        &mut self,
        file: File,
        path: &Path,
        meta: &Meta,
        known: Known,
        data: &mut dyn BufRead,
    ) -> anyhow::Result<()> {
        loop {
            let piece = data.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            self.handful.bytes.extend_from_slice(piece);
            let length = piece.len();
            data.consume(length);
        }
        let end = self.handful.bytes.len();
        self.handful.files.push(Unfinished { file, path: path.to_owned(), end, meta: meta.clone(), known });
        if self.handful.files.len() < FILES && end < BYTES {
            return Ok(());
        }
        let worker = match &mut self.worker {
            Some(worker) => worker,
            none => none.insert(Worker::start()?),
        };
        let next = worker.empty.try_recv().unwrap_or_default();
        match worker.handfuls.send(std::mem::replace(&mut self.handful, next)) {
            Ok(()) => Ok(()),
            // It gave up, with an error that says why.
            Err(_) => self.finish(),
        }
    }

    /// Waits for all of them; the first error is the answer.
    pub fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(Worker { handfuls, thread, .. }) = self.worker.take() {
            drop(handfuls);
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the thread that writes files panicked")))?;
        }
        self.handful.write()
    }
}

impl Drop for Later {
    /// A directory that is given up is about to be removed: nobody may still be writing in it.
    fn drop(&mut self) {
        if let Some(Worker { handfuls, thread, .. }) = self.worker.take() {
            drop(handfuls);
            let _ = thread.join();
        }
    }
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (handfuls, waiting) = sync_channel::<Handful>(WAITING);
        let (give_back, empty) = channel();
        let work = move || work(&waiting, &give_back);
        let thread = std::thread::Builder::new().name("files".to_owned()).spawn(work)?;
        Ok(Self { handfuls, empty, thread })
    }
}

fn work(waiting: &Receiver<Handful>, give_back: &Sender<Handful>) -> anyhow::Result<()> {
    while let Ok(mut handful) = waiting.recv() {
        handful.write()?;
        // After the last one nobody wants it.
        let _ = give_back.send(handful);
    }
    Ok(())
}

impl Handful {
    /// Writes all of it, and is empty again.
    fn write(&mut self) -> anyhow::Result<()> {
        let mut start = 0;
        for Unfinished { mut file, path, end, meta, known } in self.files.drain(..) {
            let mut write = || {
                super::copy(&mut &self.bytes[start..end], &mut file)?;
                meta::write_fd(&file, &meta, known)
            };
            write().with_context(|| format!("write {path:?}"))?;
            start = end;
        }
        self.bytes.clear();
        Ok(())
    }
}
