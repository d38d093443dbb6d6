//! Many small files at once: creating a file is work for the kernel that two cores do twice as fast.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use super::delta::{Data, Upper};
use super::tree::FileData;
use crate::sys::Meta;

/// One file to make.
pub(super) struct Job {
    pub path: PathBuf,
    pub meta: Meta,
    pub size: u64,
    pub open: Box<dyn FnOnce() -> io::Result<FileData> + Send>,
}

impl Job {
    fn run(self, upper: &dyn Upper) -> io::Result<()> {
        let make = || match (self.open)()? {
            FileData::File(file) => upper.make_file(&self.path, &self.meta, self.size, Data::File(&file)),
            FileData::Stream(mut stream) => upper.make_file(&self.path, &self.meta, self.size, Data::Read(&mut stream)),
        };
        make().map_err(|error| io::Error::new(error.kind(), format!("/{}: {error}", self.path.display())))
    }
}

/// Files go to a thread in handfuls, since waking one up costs as much as making a file.
const HANDFUL: usize = 32;
/// How many handfuls may wait for a thread.
const WAITING: usize = 16;
/// More threads only wait for each other in the file system's journal.
const MAX_THREADS: usize = 8;

/// Threads that make files in one delta.
pub(super) struct Pool {
    upper: Arc<dyn Upper>,
    handful: Vec<Job>,
    crew: Option<Crew>,
}

struct Crew {
    jobs: SyncSender<Vec<Job>>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Pool {
    pub fn new(upper: Arc<dyn Upper>) -> Self {
        Self { upper, handful: Vec::new(), crew: None }
    }

    pub fn add(&mut self, job: Job) -> io::Result<()> {
        self.handful.push(job);
        if self.handful.len() < HANDFUL {
            return Ok(());
        }
        let jobs = std::mem::take(&mut self.handful);
        let crew = self.crew.get_or_insert_with(|| Crew::hire(&self.upper));
        if crew.jobs.send(jobs).is_err() {
            // All threads have given up, each with an error that says why.
            return self.flush();
        }
        Ok(())
    }

    /// Waits for everything that was added.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut result = Ok(());
        let handful = std::mem::take(&mut self.handful);
        if let Some(Crew { jobs, threads }) = self.crew.take() {
            drop(jobs);
            for thread in threads {
                let done =
                    thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread that makes files panicked")));
                result = result.and(done);
            }
        }
        handful.into_iter().try_for_each(|job| job.run(&*self.upper)).and(result)
    }
}

impl Drop for Pool {
    /// A delta that is given up is about to be removed: nobody may still be writing in it.
    fn drop(&mut self) {
        self.handful.clear();
        if let Some(Crew { jobs, threads }) = self.crew.take() {
            drop(jobs);
            for thread in threads {
                let _ = thread.join();
            }
        }
    }
}

impl Crew {
    fn hire(upper: &Arc<dyn Upper>) -> Self {
        let (jobs, waiting) = sync_channel::<Vec<Job>>(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (0..cores.min(MAX_THREADS))
            .map(|_| {
                let (waiting, upper) = (Arc::clone(&waiting), Arc::clone(upper));
                std::thread::spawn(move || work(&waiting, &*upper))
            })
            .collect();
        Self { jobs, threads }
    }
}

fn work(waiting: &Mutex<Receiver<Vec<Job>>>, upper: &dyn Upper) -> io::Result<()> {
    loop {
        let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(jobs) = next else { return Ok(()) };
        for job in jobs {
            job.run(upper)?;
        }
    }
}
