//! Plain lines, in the form of BuildKit's `--progress=plain`: `#4 0.312 output`, `#4 DONE 1.2s`.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime};

use crate::base::progress::{Status, Vertex};
use crate::base::{Event, VertexDigest};

use super::{Draw, text};

/// A counter that is still going is shown again after this long: CI kills what is silent.
const SILENCE: Duration = Duration::from_secs(10);

pub struct Plain<W> {
    out: W,
    steps: HashMap<VertexDigest, Step>,
    /// Whose lines came last, so that a change of speaker is seen.
    speaking: Option<VertexDigest>,
}

struct Step {
    number: usize,
    started: Option<SystemTime>,
    ended: bool,
    lines: text::Lines,
    counters: HashMap<String, SystemTime>,
}

impl<W: Write + Send> Plain<W> {
    pub fn new(out: W) -> Self {
        Self { out, steps: HashMap::new(), speaking: None }
    }

    fn write(&mut self, line: &str) {
        // Nobody to read it is no reason to stop the build.
        let _ = writeln!(self.out, "{line}");
    }

    /// Makes the step the speaker; says its name the first time.
    fn speak(&mut self, digest: VertexDigest, name: &str) -> usize {
        let switched = self.speaking != Some(digest);
        self.speaking = Some(digest);
        if let Some(number) = self.steps.get(&digest).map(|step| step.number) {
            if switched {
                self.write(&format!("\n#{number} ..."));
            }
            return number;
        }
        let number = self.steps.len() + 1;
        let blank = if number > 1 { "\n" } else { "" };
        self.write(&format!("{blank}#{number} {name}"));
        let lines = text::Lines::default();
        self.steps.insert(digest, Step { number, started: None, ended: false, lines, counters: HashMap::new() });
        number
    }

    fn vertex(&mut self, vertex: &Vertex) {
        let ended = vertex.completed.is_some() || vertex.cached;
        // A step that has not begun is not news, nor is one that is known to run, and one that is over stays so.
        match self.steps.get(&vertex.digest) {
            None if vertex.started.is_none() && !ended => return,
            Some(step) if step.ended || !ended => return,
            _ => {}
        }
        let number = self.speak(vertex.digest, &vertex.name);
        let Some(step) = self.steps.get_mut(&vertex.digest) else { return };
        step.started = step.started.or(vertex.started);
        step.ended = ended;
        let started = step.started;
        let rest = if ended { step.lines.rest() } else { None };
        if let Some(line) = rest {
            self.output(number, started, &line);
        }
        if let Some(error) = &vertex.error {
            self.write(&format!("#{number} ERROR: {error}"));
        } else if vertex.cached {
            self.write(&format!("#{number} CACHED"));
        } else if let (Some(start), Some(end)) = (started, vertex.completed) {
            self.write(&format!("#{number} DONE {}", text::seconds(text::between(start, end))));
        }
    }

    fn output(&mut self, number: usize, started: Option<SystemTime>, line: &str) {
        let since = started.map_or(0.0, |start| text::between(start, SystemTime::now()).as_secs_f64());
        self.write(&format!("#{number} {since:.3} {line}"));
    }

    fn status(&mut self, status: &Status) {
        let Some(step) = self.steps.get_mut(&status.vertex) else { return };
        let now = SystemTime::now();
        let shown = step.counters.entry(status.id.clone()).or_insert(status.started);
        if status.completed.is_none() && text::between(*shown, now) < SILENCE {
            return;
        }
        *shown = now;
        let number = self.speak(status.vertex, "");
        let amount = text::amount(status.current, status.total).map(|a| format!(" {a}")).unwrap_or_default();
        let took = text::seconds(text::between(status.started, status.completed.unwrap_or(now)));
        let done = if status.completed.is_some() { " done" } else { "" };
        self.write(&format!("#{number} {}{amount} {took}{done}", status.id));
    }
}

impl<W: Write + Send> Draw for Plain<W> {
    fn event(&mut self, event: Event) {
        match event {
            Event::Vertex(vertex) => self.vertex(&vertex),
            Event::Status(status) => self.status(&status),
            Event::Log { vertex, data, .. } => {
                let Some(step) = self.steps.get_mut(&vertex) else { return };
                let (started, lines) = (step.started, step.lines.push(&data));
                if !lines.is_empty() {
                    let number = self.speak(vertex, "");
                    lines.iter().for_each(|line| self.output(number, started, line));
                }
            }
            Event::Warning { vertex, message } => {
                match vertex.and_then(|vertex| self.steps.get(&vertex)).map(|step| step.number) {
                    Some(number) => self.write(&format!("#{number} WARN: {message}")),
                    None => self.write(&format!("warning: {message}")),
                }
            }
        }
    }

    fn finish(&mut self) {
        let _ = self.out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;
    use crate::base::progress::Stream;

    fn digest(name: &str) -> VertexDigest {
        VertexDigest(Digest::of(name))
    }

    fn vertex(name: &str, started: Option<u64>, completed: Option<u64>) -> Vertex {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        Vertex {
            digest: digest(name),
            name: name.to_owned(),
            inputs: Vec::new(),
            started: started.map(at),
            completed: completed.map(at),
            cached: false,
            error: None,
        }
    }

    fn log(name: &str, text: &str) -> Event {
        Event::Log { vertex: digest(name), stream: Stream::Stdout, data: text.into() }
    }

    /// The seconds since a step began depend on the clock; everything else does not.
    fn shown(events: Vec<Event>) -> String {
        let mut out = Vec::new();
        let mut plain = Plain::new(&mut out);
        events.into_iter().for_each(|event| plain.event(event));
        let text = String::from_utf8(out).unwrap();
        regex::Regex::new(r"(?m)^(#\d+) \d+\.\d{3} ").unwrap().replace_all(&text, "$1 T ").into_owned()
    }

    #[test]
    fn steps_side_by_side_are_told_apart() {
        let text = shown(vec![
            Event::Vertex(vertex("a", None, None)),
            Event::Vertex(vertex("a", Some(0), None)),
            log("a", "one\ntw"),
            Event::Vertex(vertex("b", Some(0), None)),
            log("b", "other\n"),
            log("a", "o\nlast"),
            Event::Vertex(vertex("a", Some(0), Some(1))),
            Event::Vertex(Vertex { cached: true, ..vertex("cached", None, None) }),
            Event::Vertex(Vertex { error: Some("exit code 1".to_owned()), ..vertex("b", Some(0), Some(2)) }),
        ]);
        assert_eq!(
            text,
            "#1 a\n#1 T one\n\n#2 b\n#2 T other\n\n#1 ...\n#1 T two\n#1 T last\n#1 DONE 1.0s\n\n\
             #3 cached\n#3 CACHED\n\n#2 ...\n#2 ERROR: exit code 1\n"
        );
    }
}
