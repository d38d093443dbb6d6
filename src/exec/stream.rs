//! dockless's side of a running step: output is passed on as it comes and to its last byte, and a cancelled request
//! ends the step.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::time::Timespec;

use super::ns::Stage;
use super::pty::Terminal;
use super::wire::{self, Message, Order};
use super::{Error, Exit, Io, Stdin};
use crate::base::Cancel;
use crate::base::cancel::Cancelled;

/// How soon a cancelled request, or a terminal's new size, is noticed.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// How long a step may take to end in order after SIGTERM; as long as `docker stop` gives.
const GRACE: Duration = Duration::from_secs(10);
/// How long a sandbox may take to end everything in it.
const LAST_GRACE: Duration = Duration::from_secs(5);
/// A pipe holds this much.
const CHUNK: usize = 64 * 1024;

/// Whoever answers a step's emulated calls.
pub trait Emulation {
    /// Starts to, on this descriptor.
    fn begin(&mut self, listener: OwnedFd) -> io::Result<()>;

    /// It no longer does: the step hangs, and must be ended.
    fn has_failed(&self) -> bool;
}

/// Attends to a stage until nothing of it is left.
pub fn attend(stage: Stage, io: Io<'_>, cancel: &Cancel, emulation: &mut dyn Emulation) -> Result<Exit, Error> {
    let Stage { mut process, control } = stage;
    let mut pump = Pump {
        output: process.stdout.take().map(|pipe| File::from(OwnedFd::from(pipe))),
        errors: process.stderr.take().map(|pipe| File::from(OwnedFd::from(pipe))),
        terminal: None,
        wants_terminal: matches!(io.stdin, Stdin::Terminal),
        io,
        buffer: vec![0; CHUNK],
        answer: None,
        broken: None,
    };
    let mut ending = Ending::default();
    let mut open = true;
    while open {
        match pump.turn(&control, emulation) {
            Ok(goes_on) => open = goes_on,
            Err(source) => {
                // With the stage everything in it ends.
                let _ = process.kill();
                let _ = process.wait();
                return Err(Error::Setup { call: "attend to the step".into(), source });
            }
        }
        let wanted = cancel.is_cancelled() || pump.broken.is_some();
        ending.advance(wanted, emulation.has_failed(), &control, &mut process);
    }
    // The stage is the last to close the socket, and it waits for everybody: what was written is in the pipes.
    pump.drain();
    drop(pump.terminal.take());
    process.wait().map_err(|source| Error::Setup { call: "wait for the sandbox".into(), source })?;
    if cancel.is_cancelled() {
        return Err(Cancelled.into());
    }
    if let Some(source) = pump.broken {
        return Err(Error::Setup { call: "pass the step's output on".into(), source });
    }
    match pump.answer {
        Some(Message::Failed(failure)) => Err(failure.into()),
        Some(message) => message.exit().ok_or_else(silent),
        None => Err(silent()),
    }
}

fn silent() -> Error {
    Error::Setup {
        call: "run the sandbox".into(),
        source: io::Error::other("its first process ended without a word (killed, or out of memory)"),
    }
}

/// What is read and where it goes.
struct Pump<'a> {
    output: Option<File>,
    errors: Option<File>,
    terminal: Option<Terminal>,
    wants_terminal: bool,
    io: Io<'a>,
    buffer: Vec<u8>,
    /// The first word about how it ended; a failure to start is told before the end that follows from it.
    answer: Option<Message>,
    broken: Option<io::Error>,
}

impl Pump<'_> {
    /// Waits for news of any kind and passes it on; false when the sandbox is gone.
    fn turn(&mut self, control: &OwnedFd, emulation: &mut dyn Emulation) -> io::Result<bool> {
        let [output, errors, told, typed, shown] = {
            let streams = [self.output.as_ref(), self.errors.as_ref()];
            let terminal = self.terminal.as_ref();
            let descriptors: [Option<std::os::fd::BorrowedFd<'_>>; 5] = {
                use std::os::fd::AsFd;
                [
                    streams[0].map(AsFd::as_fd),
                    streams[1].map(AsFd::as_fd),
                    Some(control.as_fd()),
                    terminal.and_then(Terminal::typed),
                    terminal.and_then(Terminal::shown),
                ]
            };
            let mut asked = Vec::with_capacity(descriptors.len());
            asked.extend(descriptors.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match rustix::event::poll(&mut asked, Some(&TICK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let mut ready = asked.iter().map(|fd| !fd.revents().is_empty());
            descriptors.map(|fd| fd.is_some() && ready.next().unwrap_or(false))
        };
        if output {
            pass(&mut self.output, &mut self.io.stdout, &mut self.buffer, &mut self.broken);
        }
        if errors {
            pass(&mut self.errors, &mut self.io.stderr, &mut self.buffer, &mut self.broken);
        }
        if let Some(terminal) = &mut self.terminal {
            if typed {
                terminal.pass_typed(&mut self.buffer)?;
            }
            if shown {
                terminal.pass_shown(&mut self.io.stdout, &mut self.buffer)?;
            }
            terminal.pass_size()?;
        }
        if told {
            match wire::receive::<Message>(control)? {
                None => return Ok(false),
                Some((Message::Terminal, descriptors)) => {
                    if let (true, Some(master)) = (self.wants_terminal, descriptors.into_iter().next()) {
                        self.terminal = Some(Terminal::attach(master)?);
                    }
                }
                Some((Message::Listener, descriptors)) => {
                    if let Some(listener) = descriptors.into_iter().next() {
                        emulation.begin(listener)?;
                    }
                }
                Some((message, _)) => {
                    self.answer.get_or_insert(message);
                }
            }
        }
        Ok(true)
    }

    /// Passes on what lies in the pipes. Their ends may have got out of the sandbox, so nothing is waited for.
    fn drain(&mut self) {
        for errors in [false, true] {
            let (pipe, sink) =
                if errors { (&mut self.errors, &mut self.io.stderr) } else { (&mut self.output, &mut self.io.stdout) };
            while pipe.as_ref().is_some_and(readable) {
                pass(pipe, sink, &mut self.buffer, &mut self.broken);
            }
        }
        if let Some(terminal) = &mut self.terminal {
            while terminal.shown().is_some_and(readable) {
                if terminal.pass_shown(&mut self.io.stdout, &mut self.buffer).is_err() {
                    break;
                }
            }
        }
        for sink in [&mut self.io.stdout, &mut self.io.stderr] {
            if let Err(error) = sink.flush() {
                self.broken.get_or_insert(error);
            }
        }
    }
}

/// Something, or an end, can be read without waiting.
fn readable(file: impl std::os::fd::AsFd) -> bool {
    let mut asked = [PollFd::new(&file, PollFlags::IN)];
    matches!(rustix::event::poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
}

/// Passes one chunk on; at the end of the pipe it becomes none.
fn pass(pipe: &mut Option<File>, sink: &mut impl Write, buffer: &mut [u8], broken: &mut Option<io::Error>) {
    let Some(file) = pipe else { return };
    match file.read(buffer) {
        Ok(0) => *pipe = None,
        // After a failed write the rest is read all the same, or the step would hang on a full pipe.
        Ok(length) if broken.is_none() => {
            if let Err(error) = sink.write_all(&buffer[..length]) {
                *broken = Some(error);
            }
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
        Err(error) => {
            broken.get_or_insert(error);
            *pipe = None;
        }
    }
}

/// How far a step that shall end has been pushed.
#[derive(Default)]
enum Ending {
    #[default]
    NotAsked,
    Asked(Instant),
    Ordered(Instant),
    Killed,
}

impl Ending {
    fn advance(&mut self, wanted: bool, hopeless: bool, control: &OwnedFd, process: &mut std::process::Child) {
        // A message to a sandbox that has just gone cannot be sent, and need not be.
        match self {
            Self::NotAsked | Self::Asked(_) if hopeless => {
                let _ = wire::send(control, &Order::Kill, &[]);
                *self = Self::Ordered(Instant::now());
            }
            Self::NotAsked if wanted => {
                let _ = wire::send(control, &Order::Signal(libc::SIGTERM), &[]);
                *self = Self::Asked(Instant::now());
            }
            Self::Asked(since) if since.elapsed() > GRACE => {
                let _ = wire::send(control, &Order::Kill, &[]);
                *self = Self::Ordered(Instant::now());
            }
            Self::Ordered(since) if since.elapsed() > LAST_GRACE => {
                let _ = process.kill();
                *self = Self::Killed;
            }
            _ => {}
        }
    }
}
