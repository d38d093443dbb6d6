//! Traces a step's threads. A signal that comes between a call and whoever answers it interrupts the call, which the kernel
//! would never have waited in, and its caller does not expect to hear of it: only a tracer can have it begin again. Where
//! calls are rewritten, it is the tracer who does.
//!
//! A thread has one tracer. One that strace, a debugger or a leak checker in the step wants is left to them.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::call::Call;
use super::filters::Answers;
use super::rewrite::Rewriter;
use super::{CONTINUE, Reply, Supervisor, errno, lock, turn};
use crate::sys::notify::Answer;
use crate::sys::trace::{self, Event, Pending};

/// How long somebody waits for a thread to be left to them: it may be in a call that takes long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tracer of one step. All of it happens on one thread.
pub struct Tracer<'a> {
    supervisor: &'a Supervisor,
    answers: Answers,
    /// Where calls are.
    rewriter: Option<Rewriter<'a>>,
}

/// The threads that somebody else wants to trace, until they are told by a signal to stop and be released.
#[derive(Default)]
pub struct Leaving {
    threads: Mutex<HashSet<i32>>,
    changed: Condvar,
}

impl Leaving {
    fn contains(&self, thread: i32) -> bool {
        lock(&self.threads).contains(&thread)
    }

    fn gone(&self, thread: i32) {
        if lock(&self.threads).remove(&thread) {
            self.changed.notify_all();
        }
    }

    fn wait_until_gone(&self, thread: i32) {
        let waiting = lock(&self.threads);
        let _ = self.changed.wait_timeout_while(waiting, PATIENCE, |threads| threads.contains(&thread));
    }
}

impl<'a> Tracer<'a> {
    pub fn new(supervisor: &'a Supervisor, answers: Answers) -> Self {
        let rewriter = answers.are_rewritten().then(|| Rewriter::new(supervisor));
        Self { supervisor, answers, rewriter }
    }

    /// Attends to the step until the process is gone that started it, or nobody is left who is traced.
    pub fn attend(&mut self, shepherd: Option<i32>) -> io::Result<()> {
        while let Some(event) = trace::wait()? {
            match event {
                Event::Ended(process) if Some(process) == shepherd => return Ok(()),
                Event::Ended(thread) => {
                    self.supervisor.leaving.gone(thread);
                    if let Some(names) = &self.supervisor.names {
                        names.has_ended(thread);
                    }
                }
                Event::Started(thread) => {
                    if let Some(names) = &self.supervisor.names {
                        names.has_started(thread);
                    }
                    trace::resume(thread, 0)?;
                }
                Event::Call(thread) => {
                    if let Some(rewriter) = &mut self.rewriter {
                        unless_gone(rewriter.rewrite(thread))?;
                    }
                    trace::resume(thread, 0)?;
                }
                Event::Signal(thread, signal) => {
                    unless_gone(self.repeat(thread))?;
                    if signal == libc::SIGSTOP && self.supervisor.leaving.contains(thread) {
                        trace::release(thread)?;
                        self.supervisor.leaving.gone(thread);
                    } else {
                        trace::resume(thread, signal)?;
                    }
                }
                Event::Stop(thread) => trace::leave_stopped(thread)?,
                Event::Other(thread) => trace::resume(thread, 0)?,
            }
        }
        Ok(())
    }

    /// Has a call begin again that a signal interrupted before it was answered.
    fn repeat(&self, thread: i32) -> io::Result<()> {
        let pending = Pending::of(thread)?;
        if pending.is_interrupted() && self.answers.include(pending.number(), &pending.arguments()) {
            return pending.restart();
        }
        Ok(())
    }
}

/// A thread may be killed meanwhile.
fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        result => result,
    }
}

impl Supervisor {
    /// Somebody in the step is to be traced by somebody else in it.
    pub(super) fn leave_to_another(&self, caller: i32, call: Call) -> io::Result<Reply> {
        let wanted = match call {
            Call::Trace { thread } => known_as(caller, thread)?,
            _ => caller,
        };
        if !is_traced_by_us(wanted)? {
            return CONTINUE;
        }
        lock(&self.leaving.threads).insert(wanted);
        trace::stop(wanted)?;
        if wanted == caller {
            // It stops when it goes on, is released, and asks again.
            return Ok(Reply::Answer(Answer::Errno(trace::ERESTARTNOINTR)));
        }
        turn::give_way();
        self.leaving.wait_until_gone(wanted);
        CONTINUE
    }
}

/// Whether the tracer of a thread is one of this process's threads.
fn is_traced_by_us(thread: i32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("{thread}/status"))?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).map_or("0", str::trim);
    Ok(fs::metadata(format!("self/task/{tracer}")).is_ok())
}

/// The thread that a caller, perhaps in a pid namespace of its own, knows by a number.
fn known_as(caller: i32, number: i32) -> io::Result<i32> {
    let namespace = |process: &str| fs::read_link(format!("{process}/ns/pid"));
    let own = namespace(&caller.to_string())?;
    if own == namespace("self")? {
        return Ok(number);
    }
    let numbers = |directory: &str| -> io::Result<Vec<String>> {
        let names = fs::read_dir(directory)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect())
    };
    for process in numbers(".")? {
        // Many are other users', and gone before they are looked at.
        if namespace(&process).is_ok_and(|namespace| namespace == own) {
            for thread in numbers(&format!("{process}/task")).unwrap_or_default() {
                let status = fs::read_to_string(format!("{thread}/status")).unwrap_or_default();
                let known = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
                let innermost = known.and_then(|numbers| numbers.split_whitespace().next_back()?.parse().ok());
                if innermost == Some(number) {
                    return thread.parse().map_err(|_| errno(libc::ESRCH));
                }
            }
        }
    }
    Err(errno(libc::ESRCH))
}
