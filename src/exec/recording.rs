//! An executor for tests: it runs nothing, remembers what it was asked, and answers as it was told.

use std::sync::Mutex;

use super::{Error, Executor, Exit, Io, Isolation, Process};
use crate::base::Cancel;
use crate::sys::RootFs;

type Answer = dyn Fn(&RootFs, &Process, &mut Io<'_>) -> Result<Exit, Error> + Send + Sync;

/// Records every call.
pub struct Recording {
    answer: Box<Answer>,
    calls: Mutex<Vec<(RootFs, Process)>>,
}

impl Default for Recording {
    fn default() -> Self {
        Self::answering(|_, _, _| Ok(Exit::Code(0)))
    }
}

impl Recording {
    /// Calls `answer` in place of a process; it may write to the root's upper directory and to the streams.
    pub fn answering(
        answer: impl Fn(&RootFs, &Process, &mut Io<'_>) -> Result<Exit, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { answer: Box::new(answer), calls: Mutex::default() }
    }

    /// What was asked so far, in order.
    pub fn calls(&self) -> Vec<(RootFs, Process)> {
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

impl Executor for Recording {
    fn isolation(&self) -> Isolation {
        Isolation::Ns
    }

    fn run(&self, root: &RootFs, process: &Process, mut io: Io<'_>, cancel: &Cancel) -> Result<Exit, Error> {
        cancel.check()?;
        self.calls.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((root.clone(), process.clone()));
        (self.answer)(root, process, &mut io)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::{Network, Stdin};

    #[test]
    fn it_remembers_the_call_and_gives_the_answer() {
        let recording = Recording::answering(|_, process, io| {
            io.stdout.write_all(process.args[0].as_bytes()).unwrap();
            Ok(Exit::Code(3))
        });
        let root = RootFs::Directory("/nowhere".into());
        let process = Process { args: vec!["true".into()], network: Network::None, ..Process::default() };
        let mut out = Vec::new();
        let io = Io { stdin: Stdin::Null, stdout: Box::new(&mut out), stderr: Box::new(std::io::sink()) };
        assert_eq!(recording.run(&root, &process, io, &Cancel::new()).unwrap(), Exit::Code(3));
        assert_eq!(out, b"true");
        assert_eq!(recording.calls()[0].1.network, Network::None);
    }
}
