//! `run -it`: the terminal that a step has, joined to the one that dockless has.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::termios::{OptionalActions, Termios, Winsize};

/// Both terminals. Dropping it gives dockless's own back as it was.
pub struct Terminal {
    master: Option<File>,
    /// None when standard input has come to its end, or is no terminal.
    input: Option<io::Stdin>,
    before: Option<Termios>,
    size: Option<Winsize>,
}

impl Terminal {
    /// Joins the master side of a step's terminal to standard input, which goes raw: every key is the step's.
    pub fn attach(master: OwnedFd) -> io::Result<Self> {
        let input = io::stdin();
        let before = rustix::termios::tcgetattr(&input).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            raw.make_raw();
            rustix::termios::tcsetattr(&input, OptionalActions::Now, &raw)?;
        }
        let mut terminal = Self { master: Some(master.into()), input: Some(input), before, size: None };
        terminal.pass_size()?;
        Ok(terminal)
    }

    /// Where keys come from.
    pub fn typed(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().and(self.input.as_ref()).map(AsFd::as_fd)
    }

    /// Where the step's output comes from.
    pub fn shown(&self) -> Option<BorrowedFd<'_>> {
        self.master.as_ref().map(AsFd::as_fd)
    }

    pub fn pass_typed(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        // Not through `Stdin`: what its buffer swallowed, poll would not tell of.
        match rustix::io::read(io::stdin(), &mut *buffer) {
            Ok(0) => self.input = None,
            Ok(length) => {
                if let Some(master) = &mut self.master {
                    master.write_all(&buffer[..length])?;
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    pub fn pass_shown(&mut self, sink: &mut impl Write, buffer: &mut [u8]) -> io::Result<()> {
        let Some(master) = &mut self.master else { return Ok(()) };
        match master.read(buffer) {
            // EIO is how a terminal says that nobody holds its other side any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => self.master = None,
            Ok(0) => self.master = None,
            Ok(length) => {
                sink.write_all(&buffer[..length])?;
                sink.flush()?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Gives the step's terminal the size of ours, if that has changed.
    pub fn pass_size(&mut self) -> io::Result<()> {
        if self.before.is_none() {
            return Ok(());
        }
        if let (Some(master), Ok(size)) = (&self.master, rustix::termios::tcgetwinsize(io::stdin())) {
            let same = self.size.is_some_and(|last| (last.ws_row, last.ws_col) == (size.ws_row, size.ws_col));
            if !same {
                rustix::termios::tcsetwinsize(master, size)?;
                self.size = Some(size);
            }
        }
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // Nobody is left to tell that the terminal is gone.
            let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Now, before);
        }
    }
}
