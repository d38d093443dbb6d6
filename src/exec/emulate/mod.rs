//! One user who passes for many: a supervisor that answers a step's system calls where the kernel would refuse them
//! or tell the truth. Ownership is kept in the owner store, credentials in a table; all else is the kernel's.
//!
//! It emulates and does not confine: a process can change what it asked for while the answer is made. What confines
//! a step are its namespaces.

mod acting;
mod attributes;
mod call;
mod credentials;
mod entries;
mod files;
mod filters;
mod identity;
mod judge;
mod memory;
mod names;
mod opening;
mod ownership;
mod paths;
mod permission;
mod processes;
mod programs;
mod rewrite;
mod shared;
mod stat;
mod stored;
mod times;
mod told;
mod tracer;
mod trial;
mod turn;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Scope;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};

use self::call::Call;
pub use self::credentials::Credentials;
use self::credentials::Refused;
use self::files::Files;
pub use self::filters::{Answers, Reach, names_filter, owners_filter};
pub use self::names::Names;
use self::paths::Named;
use self::shared::Shared;
use self::tracer::Leaving;
pub use self::tracer::Tracer;
pub use self::trial::answers;
use self::turn::Turn;
use crate::sys::notify::{self, Answer, Listener, Notification};
use crate::sys::{SideTable, trace};

/// Answering threads: calls of a parallel build wait side by side. More than a few only take turns.
const THREADS: usize = 4;

/// The emulation of one step.
pub struct Supervisor {
    listener: Listener,
    turn: Arc<Turn>,
    /// This process's /proc, open from before the threads left for the step's mounts.
    proc: OwnedFd,
    files: Files,
    /// What the step's paths mean, where it has no mounts of its own.
    names: Option<Names>,
    /// Where the tracer hears of the step's first thread.
    first: Mutex<Option<Sender<First>>>,
    /// What its processes share by a number, where it has no namespace for that.
    pub shared: Shared,
    /// Threads that are to be traced by others.
    leaving: Leaving,
    /// All credentials that any process ever had; a process notes its place in here.
    credentials: Mutex<Vec<Credentials>>,
    below: Mutex<Option<SideTable>>,
    /// What the next step must know of files that cannot carry an attribute.
    after: Mutex<SideTable>,
    /// The first fault of a thread.
    fault: Mutex<Option<io::Error>>,
}

/// The first thread of a step, which waits until it is traced, or cannot be; the end of the channel says so.
type First = (i32, Sender<()>);

/// Ends the step of a supervisor whose thread has failed.
struct Alarm<'a>(&'a Supervisor);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        lock(&self.0.fault).get_or_insert_with(|| io::Error::other("a thread of the supervisor has failed"));
        if let Some(names) = &self.0.names {
            // Whoever waits for the shepherd ends the rest. It may be gone already.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(names.shepherd), nix::sys::signal::SIGKILL);
        }
    }
}

/// How a call is answered.
enum Reply {
    Answer(Answer),
    /// A new descriptor, and the flags that it was asked for with.
    Descriptor(OwnedFd, OFlags),
}

const DONE: io::Result<Reply> = Ok(Reply::Answer(Answer::Value(0)));
const CONTINUE: io::Result<Reply> = Ok(Reply::Answer(Answer::Continue));

fn value(value: impl Into<i64>) -> io::Result<Reply> {
    Ok(Reply::Answer(Answer::Value(value.into())))
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl From<Refused> for io::Error {
    fn from(_: Refused) -> Self {
        errno(libc::EPERM)
    }
}

impl Supervisor {
    /// `below` is what the layers of the step's root say of files that cannot carry an attribute.
    pub fn new(listener: OwnedFd, first: Credentials, below: SideTable) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            listener: Listener::new(listener),
            turn: Arc::default(),
            proc: rustix::fs::open("/proc", flags, Mode::empty())?,
            files: Files::default(),
            names: None,
            first: Mutex::default(),
            shared: Shared::default(),
            leaving: Leaving::default(),
            credentials: Mutex::new(vec![first]),
            below: Mutex::new(Some(below)),
            after: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    /// For a step whose names are looked at. This process has /proc as its working directory and no umask.
    pub fn of_names(listener: OwnedFd, first: Credentials, names: Names, below: &SideTable) -> io::Result<Arc<Self>> {
        let supervisor = Self::new(listener, first, SideTable::default())?;
        supervisor.files.load(&names.root_path(), below);
        Ok(Arc::new(Self { names: Some(names), ..supervisor }))
    }

    /// The owners of the root's files that cannot carry an attribute, as they are now.
    pub fn table(&self) -> SideTable {
        self.names.as_ref().map_or_else(SideTable::default, |names| self.files.table(&names.root_path()))
    }

    /// Starts answering, with as many threads as there are calls that take long. They end with the step's last process,
    /// or with this one: what one waits for may never come.
    pub fn start_detached(self: &Arc<Self>) -> io::Result<()> {
        self.turn.expect_one_more();
        let supervisor = Arc::clone(self);
        std::thread::Builder::new().spawn(move || {
            // A call that nobody answers waits for ever: with this thread goes the step.
            let alarm = Alarm(&supervisor);
            let _turn = turn::UntilTheEnd;
            match supervisor.attend_detached() {
                Ok(()) => std::mem::forget(alarm),
                Err(error) => {
                    lock(&supervisor.fault).get_or_insert(error);
                }
            }
        })?;
        Ok(())
    }

    fn attend_detached(self: &Arc<Self>) -> io::Result<()> {
        loop {
            if self.turn.take() {
                // For when this one has something to do that takes long: to wait for the other end of a fifo.
                self.start_detached()?;
            }
            let Some(notification) = self.listener.receive()? else { return Ok(()) };
            self.answer_in_turn(&notification)?;
        }
    }

    /// Answers a call, and leaves further ones to another thread if there are some already.
    fn answer_in_turn(&self, notification: &Notification) -> io::Result<()> {
        turn::share(|| self.listener.has_more())?;
        self.answer(notification)?;
        if !turn::is_held() {
            self.turn.expect_one_more();
        }
        Ok(())
    }

    /// The first fault of a thread.
    pub fn fault(&self) -> Option<io::Error> {
        lock(&self.fault).take()
    }

    /// Starts answering, and tracing; the threads end when the step's last process has.
    pub fn start<'scope>(&'scope self, answers: Answers, scope: &'scope Scope<'scope, '_>) {
        let (sender, first) = mpsc::channel();
        *lock(&self.first) = Some(sender);
        scope.spawn(move || self.trace(&first, answers));
        let count = std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(THREADS));
        for _ in 0..count {
            self.turn.expect_one_more();
            scope.spawn(|| {
                let _turn = turn::UntilTheEnd;
                if let Err(error) = self.attend() {
                    lock(&self.fault).get_or_insert(error);
                }
            });
        }
    }

    fn trace(&self, first: &Receiver<First>, answers: Answers) {
        let Ok((thread, waiting)) = first.recv() else { return };
        // Where that is forbidden, a signal may interrupt what it should not.
        let traced = trace::seize(thread);
        drop(waiting);
        if traced.is_ok()
            && let Err(error) = Tracer::new(self, answers).attend(None)
        {
            lock(&self.fault).get_or_insert(error);
        }
    }

    /// Whether a thread has failed: then calls go unanswered, and the step must be ended.
    pub fn has_failed(&self) -> bool {
        lock(&self.fault).is_some()
    }

    /// After the end: the owners of files that cannot carry an attribute.
    pub fn finish(self) -> io::Result<SideTable> {
        match self.fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault),
            None => Ok(self.after.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn attend(&self) -> io::Result<()> {
        let mut inside = false;
        // Where the end is not told, it has to be asked for.
        let alone = !notify::tells_of_the_end();
        loop {
            self.turn.take();
            let received = if alone { self.listener.receive_alone()? } else { self.listener.receive()? };
            let first = lock(&self.first).take();
            let Some(notification) = received else {
                if inside {
                    *lock(&self.after) = self.files.table(Path::new("/"));
                }
                return Ok(());
            };
            if let Some(tracer) = first {
                let (waiting, traced) = mpsc::channel();
                if tracer.send((notification.thread, waiting)).is_ok() {
                    // Nothing is ever sent.
                    let _ = traced.recv();
                }
            }
            if !inside {
                self.go_inside(notification.thread)?;
                inside = true;
            }
            self.answer_in_turn(&notification)?;
        }
    }

    fn answer(&self, notification: &Notification) -> io::Result<()> {
        let call = call::decode(notification.call, notification.arguments);
        if matches!(call, Some(Call::Execute { .. })) {
            self.listener.settle();
        }
        let reply = match (call, &self.names) {
            (Some(call), Some(names)) => Named::carry_out(self, names, notification, call),
            (Some(call), None) => self.carry_out(notification, call),
            (None, _) => CONTINUE,
        };
        let refuse: fn(&io::Error) -> Answer = if self.names.is_some() { refusal } else { verdict };
        match reply.unwrap_or_else(|error| Reply::Answer(refuse(&error))) {
            Reply::Answer(answer) => self.listener.answer(notification, answer),
            Reply::Descriptor(file, flags) => self.listener.answer_descriptor(notification, file, flags),
        }
    }

    /// Carries out a call, or leaves it to the kernel.
    fn carry_out(&self, notification: &Notification, call: Call) -> io::Result<Reply> {
        self.judge(notification, &call)?;
        match call {
            Call::Chown { file, uid, gid } => self.chown(notification, &file, uid, gid),
            Call::Stat { file, buffer, extended } => self.stat(notification, &file, buffer, extended),
            Call::MakeNode { place, mode, device } => self.make_node(notification, &place, mode, device),
            Call::MakeDirectory { place, mode } => self.make_directory(notification, &place, mode),
            Call::MakeSymlink { to, place } => self.make_symlink(notification, to, &place),
            Call::Create { place, flags, mode } => self.create(notification, &place, flags, mode),
            Call::CreateHow { place, how } => self.create_how(notification, &place, how),
            Call::ListAttributes { file, list, size } => self.list_attributes(notification, &file, list, size),
            Call::Execute { file } => self.execute(notification, &file),
            Call::ChangeRoot => {
                self.files.roots_differ();
                CONTINUE
            }
            Call::Trace { .. } | Call::BeTraced => self.leave_to_another(notification.thread, call),
            Call::Access { .. }
            | Call::ChangeDirectory { .. }
            | Call::ChangeMode { .. }
            | Call::GetAttribute { .. }
            | Call::Link { .. }
            | Call::ReadLink { .. }
            | Call::Remove { .. }
            | Call::RemoveAttribute { .. }
            | Call::Rename { .. }
            | Call::SetAttribute { .. }
            | Call::SetTimes { .. }
            | Call::StatFileSystem { .. }
            | Call::Truncate { .. } => CONTINUE,
            other => self.identity(notification, other),
        }
    }

    /// Moves this thread to where the step's paths mean what they mean to the step.
    fn go_inside(&self, thread: i32) -> io::Result<()> {
        // A thread's root and working directory are its own only after this.
        nix::sched::unshare(CloneFlags::CLONE_FS)?;
        // As is its umask: modes are made by the step's.
        rustix::process::umask(Mode::empty());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mounts = rustix::fs::openat(&self.proc, format!("{thread}/ns/mnt"), flags, Mode::empty())?;
        nix::sched::setns(mounts, CloneFlags::CLONE_NEWNS)?;
        rustix::process::fchdir(&self.proc)?;
        if let Some(table) = lock(&self.below).take() {
            self.files.load(Path::new("/"), &table);
        }
        Ok(())
    }
}

/// What a call is told that failed here.
fn refusal(error: &io::Error) -> Answer {
    Answer::Errno(error.raw_os_error().unwrap_or(libc::EIO))
}

/// What a call is told that could not be carried out here. A path that cannot be followed from here may still lead
/// somewhere for the kernel, which also knows the right error.
fn verdict(error: &io::Error) -> Answer {
    match error.raw_os_error() {
        Some(number) if number != libc::ELOOP => Answer::Errno(number),
        _ => Answer::Continue,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
