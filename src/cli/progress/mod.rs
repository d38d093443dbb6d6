//! Shows what a request is doing: on a terminal, as plain lines, as BuildKit's JSON, or not at all. Events come from
//! many threads; one thread of ours draws, so that nothing that works waits for a slow terminal for long.

mod plain;
mod rawjson;
mod text;
mod tty;

use std::io::IsTerminal;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::base::{Env, Event, Progress};

pub use text::bytes;

/// How to show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Mode {
    /// A terminal display where a person watches, else plain lines.
    #[default]
    Auto,
    /// Lines, each with the number of its step; all output of steps, unclipped.
    Plain,
    /// A display that is redrawn in place.
    Tty,
    /// One JSON object a line, as BuildKit's clients read it.
    #[value(alias = "json")]
    Rawjson,
    /// Nothing but errors.
    #[value(alias = "none")]
    Quiet,
}

impl Mode {
    /// Whether what a Dockerfile is warned about is told when the display is over.
    pub fn shows_warnings(self) -> bool {
        !matches!(self, Self::Quiet | Self::Rawjson)
    }
}

/// A running display.
pub struct Display {
    sender: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

enum Message {
    Event(Event),
    Finish,
}

/// What a display does with events. Errors of the stream are not its business: the work goes on unseen.
trait Draw: Send {
    fn event(&mut self, event: Event);
    /// Called some ten times a second, for what moves without events.
    fn tick(&mut self) {}
    fn finish(&mut self) {}
}

/// So many events may wait for the display; then those who work wait too, and memory stays bounded.
const WAITING: usize = 1024;

const TICK: Duration = Duration::from_millis(100);

impl Display {
    /// Starts a display on stderr. What the flag leaves open, `BUILDKIT_PROGRESS` decides, and then the place.
    pub fn start(mode: Mode, env: &Env) -> Self {
        let draw: Box<dyn Draw> = match resolve(mode, env, std::io::stderr().is_terminal()) {
            Mode::Tty => Box::new(tty::Tty::new(colour(env))),
            Mode::Rawjson => Box::new(rawjson::RawJson::new(std::io::stderr())),
            Mode::Quiet => Box::new(Quiet),
            Mode::Auto | Mode::Plain => Box::new(plain::Plain::new(std::io::stderr())),
        };
        let (sender, receiver) = mpsc::sync_channel(WAITING);
        let thread = std::thread::spawn(move || show(draw, &receiver));
        Self { sender, thread: Some(thread) }
    }

    /// Where events go.
    pub fn progress(&self) -> Progress {
        let sender = self.sender.clone();
        Progress::new(move |event| {
            // The display is gone only when the request is over.
            let _ = sender.send(Message::Event(event));
        })
    }

    /// Draws what is left; afterwards stderr is free.
    pub fn finish(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        let _ = self.sender.send(Message::Finish);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
        }
    }
}

fn show(mut draw: Box<dyn Draw>, receiver: &mpsc::Receiver<Message>) {
    loop {
        match receiver.recv_timeout(TICK) {
            Ok(Message::Event(event)) => draw.event(event),
            Err(RecvTimeoutError::Timeout) => draw.tick(),
            Ok(Message::Finish) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    draw.finish();
}

struct Quiet;

impl Draw for Quiet {
    fn event(&mut self, _event: Event) {}
}

/// What a mode means here.
fn resolve(mode: Mode, env: &Env, terminal: bool) -> Mode {
    let asked = match mode {
        Mode::Auto => match env.nonempty("BUILDKIT_PROGRESS") {
            Some("plain") => Mode::Plain,
            Some("tty") => Mode::Tty,
            Some("rawjson") => Mode::Rawjson,
            Some("quiet" | "none") => Mode::Quiet,
            _ => Mode::Auto,
        },
        asked => asked,
    };
    match asked {
        Mode::Auto if terminal && is_watched(env) => Mode::Tty,
        Mode::Auto => Mode::Plain,
        // Redrawing needs a terminal; a file would be full of escapes.
        Mode::Tty if !terminal => Mode::Plain,
        asked => asked,
    }
}

/// Whether a person is at the terminal. CI systems pretend: a Concourse task's stdout is always one of 500 by 500.
fn is_watched(env: &Env) -> bool {
    let ci = ["CI", "ATC_EXTERNAL_URL", "BUILD_ID", "GITHUB_ACTIONS", "GITLAB_CI", "JENKINS_URL", "TEAMCITY_VERSION"]
        .iter()
        .any(|name| env.nonempty(name).is_some_and(|value| value != "false"));
    let dumb = env.var("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    !ci && !dumb && tty::size() != Some((500, 500))
}

/// Whether stderr may carry colours (no-color.org).
pub fn colour(env: &Env) -> bool {
    std::io::stderr().is_terminal() && env.nonempty("NO_COLOR").is_none() && is_watched(env)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_drawn_only_for_a_person() {
        let person = [("TERM", "xterm")];
        let cases: [(Mode, &[(&str, &str)], bool, Mode, &str); 8] = [
            (Mode::Auto, &person, true, Mode::Tty, "a person at a terminal"),
            (Mode::Auto, &person, false, Mode::Plain, "a pipe"),
            (Mode::Auto, &[("TERM", "xterm"), ("CI", "true")], true, Mode::Plain, "CI with a terminal"),
            (Mode::Auto, &[("TERM", "xterm"), ("ATC_EXTERNAL_URL", "http://x")], true, Mode::Plain, "Concourse"),
            (Mode::Auto, &[("TERM", "dumb")], true, Mode::Plain, "a dumb terminal"),
            (Mode::Tty, &person, false, Mode::Plain, "tty without a terminal"),
            (Mode::Auto, &[("BUILDKIT_PROGRESS", "rawjson")], true, Mode::Rawjson, "the variable"),
            (Mode::Plain, &[("BUILDKIT_PROGRESS", "rawjson")], true, Mode::Plain, "the flag before the variable"),
        ];
        for (mode, variables, terminal, expected, what) in cases {
            assert_eq!(resolve(mode, &Env::of(variables.iter().copied()), terminal), expected, "{what}");
        }
    }
}
