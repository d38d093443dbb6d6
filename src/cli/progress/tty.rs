//! A display that is redrawn in place: what is running, its last lines, what is done. Finished steps scroll away above.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Instant, SystemTime};

use crate::base::progress::{Status, Vertex};
use crate::base::{Event, VertexDigest};

use super::{Draw, TICK, text};

/// Lines of a running step that stay in view.
const TAIL: usize = 6;

/// Where the terminal does not say its size.
const USUAL: (u16, u16) = (80, 24);

/// Columns and rows of the terminal on stderr or stdout.
pub fn size() -> Option<(u16, u16)> {
    terminal_size::terminal_size_of(std::io::stderr())
        .or_else(|| terminal_size::terminal_size_of(std::io::stdout()))
        .map(|(width, height)| (width.0, height.0))
}

pub struct Tty {
    colour: bool,
    began: Instant,
    drawn: Option<Instant>,
    /// Lines of the last drawing, which the next one replaces.
    height: usize,
    order: Vec<VertexDigest>,
    steps: HashMap<VertexDigest, Step>,
    /// What is written above the display at the next drawing.
    finished: Vec<String>,
    done: usize,
}

#[derive(Default)]
struct Step {
    name: String,
    started: Option<SystemTime>,
    completed: Option<SystemTime>,
    lines: text::Lines,
    tail: VecDeque<String>,
    counters: Vec<Status>,
}

impl Tty {
    pub fn new(colour: bool) -> Self {
        Self {
            colour,
            began: Instant::now(),
            drawn: None,
            height: 0,
            order: Vec::new(),
            steps: HashMap::new(),
            finished: Vec::new(),
            done: 0,
        }
    }

    fn step(&mut self, digest: VertexDigest) -> &mut Step {
        self.steps.entry(digest).or_insert_with(|| {
            self.order.push(digest);
            Step::default()
        })
    }

    fn vertex(&mut self, vertex: Vertex) {
        let step = self.step(vertex.digest);
        let was_done = step.completed.is_some();
        if step.name.is_empty() {
            // A step that several builds share keeps the name that it was first told under.
            step.name = vertex.name;
        }
        step.started = step.started.or(vertex.started);
        step.completed = step.completed.or(vertex.completed);
        if vertex.cached && step.completed.is_none() {
            step.completed = Some(SystemTime::now());
        }
        if was_done || step.completed.is_none() {
            return;
        }
        let took = step.started.zip(step.completed).map(|(start, end)| text::seconds(text::between(start, end)));
        let (name, tail) = (step.name.clone(), std::mem::take(&mut step.tail));
        self.done += 1;
        let line = match (&vertex.error, vertex.cached) {
            (Some(error), _) => {
                // The display goes away; what a failed step said last stays.
                self.finished.extend(tail.into_iter().map(|line| format!("    {line}")));
                self.paint("31", &format!(" x {name}: {error}"))
            }
            (None, true) => self.paint("34", &format!(" = CACHED {name}")),
            (None, false) => self.paint("34", &format!(" = {name} {}", took.unwrap_or_default())),
        };
        self.finished.push(line);
    }

    fn paint(&self, code: &str, line: &str) -> String {
        if self.colour { format!("\x1b[{code}m{line}\x1b[0m") } else { line.to_owned() }
    }

    fn draw(&mut self) {
        let (width, height) = size().unwrap_or(USUAL);
        let (width, height) = (usize::from(width).max(20), usize::from(height).max(4));
        let total = self.order.len();
        let mut live = vec![format!("[+] {} ({}/{total})", text::seconds(self.began.elapsed()), self.done)];
        let now = SystemTime::now();
        for step in self.order.iter().filter_map(|digest| self.steps.get(digest)) {
            let (Some(started), None) = (step.started, step.completed) else { continue };
            live.push(format!(" > {} {}", step.name, text::seconds(text::between(started, now))));
            for counter in step.counters.iter().filter(|c| c.completed.is_none()) {
                let amount = text::amount(counter.current, counter.total).unwrap_or_default();
                live.push(format!("    {} {amount}", counter.id));
            }
            live.extend(step.tail.iter().map(|line| format!("    {line}")));
        }
        // The last rows matter most when not all fit; one stays free for the cursor.
        let hidden = (live.len() + 1).saturating_sub(height);
        live.drain(1..=hidden);
        let mut frame = String::new();
        if self.height > 0 {
            // Up to the first line of the last drawing, and clear from there.
            let _ = write!(frame, "\x1b[{}A\x1b[J", self.height);
        }
        for line in self.finished.drain(..) {
            let _ = writeln!(frame, "{line}");
        }
        self.height = live.len();
        for line in live {
            let _ = writeln!(frame, "{}", clipped(&line, width));
        }
        let mut out = std::io::stderr().lock();
        // Nobody to look at it is no reason to stop the build.
        let _ = out.write_all(frame.as_bytes()).and_then(|()| out.flush());
        self.drawn = Some(Instant::now());
    }
}

/// As much as fits on a row, without what would move the cursor.
fn clipped(line: &str, width: usize) -> String {
    let mut shown = String::new();
    let mut escape = false;
    for c in line.chars() {
        match c {
            '\x1b' => escape = true,
            // A step's own colours are dropped: they would not end where the row is cut.
            c if escape => escape = !c.is_ascii_alphabetic(),
            '\t' => shown.push(' '),
            c if c.is_control() => {}
            c => shown.push(c),
        }
        if shown.chars().count() >= width {
            break;
        }
    }
    shown
}

impl Draw for Tty {
    fn event(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => self.vertex(vertex),
            Event::Status(status) => {
                let step = self.step(status.vertex);
                match step.counters.iter_mut().find(|known| known.id == status.id) {
                    Some(known) => *known = status,
                    None => step.counters.push(status),
                }
            }
            Event::Log { vertex, data, .. } => {
                let step = self.step(vertex);
                for line in step.lines.push(&data) {
                    if step.tail.len() == TAIL {
                        step.tail.pop_front();
                    }
                    step.tail.push_back(line);
                }
            }
            Event::Warning { message, .. } => {
                let line = self.paint("33", &format!(" ! {message}"));
                self.finished.push(line);
            }
        }
        if self.drawn.is_none_or(|drawn| drawn.elapsed() >= TICK) {
            self.draw();
        }
    }

    fn tick(&mut self) {
        self.draw();
    }

    fn finish(&mut self) {
        if self.drawn.is_some() {
            self.draw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::clipped;

    #[test]
    fn a_row_holds_no_escapes_and_no_more_than_fits() {
        assert_eq!(clipped("\x1b[31mred\x1b[0m and more", 7), "red and");
        assert_eq!(clipped("a\tb\rc", 10), "a bc");
    }
}
