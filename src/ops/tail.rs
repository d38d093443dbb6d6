//! The last lines of a step's output: what a person wants to see again when the step has failed.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::progress::{Step, Stream};

/// Enough for a compiler's last complaint and the line of make that follows it.
const MAX_LINES: usize = 50;

/// A line that is longer is shown from its start; the log above has all of it.
const MAX_LINE: usize = 4096;

/// Lines of both streams in the order in which they came.
#[derive(Default)]
pub struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// Unfinished lines: of stdout, of stderr.
    open: [Vec<u8>; 2],
}

impl Tail {
    pub fn add(&mut self, stream: Stream, data: &[u8]) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let open = &mut self.open[stream as usize];
            let text = part.strip_suffix(b"\n").unwrap_or(part);
            open.extend_from_slice(&text[..text.len().min(MAX_LINE.saturating_sub(open.len()))]);
            if text.len() < part.len() {
                let line = std::mem::take(open);
                self.push(line);
            }
        }
    }

    fn push(&mut self, line: Vec<u8>) {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// Oldest first.
    pub fn into_lines(mut self) -> Vec<String> {
        for open in std::mem::take(&mut self.open) {
            if !open.is_empty() {
                self.push(open);
            }
        }
        let text = |line: Vec<u8>| String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(&line)).into_owned();
        self.lines.into_iter().map(text).collect()
    }
}

/// One stream of a step: to the log as it comes, and to the tail.
pub struct LogWriter {
    pub step: Step,
    pub stream: Stream,
    pub tail: Arc<Mutex<Tail>>,
}

impl Write for LogWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).add(self.stream, data);
        self.step.log(self.stream, data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_last_lines_of_both_streams_whole() {
        let mut tail = Tail::default();
        for n in 0..60 {
            tail.add(Stream::Stdout, format!("{n}\r\n").as_bytes());
        }
        tail.add(Stream::Stdout, b"un");
        tail.add(Stream::Stderr, b"error\n");
        tail.add(Stream::Stdout, b"finished");
        let lines = tail.into_lines();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!(lines[0], "12");
        assert_eq!(lines[MAX_LINES - 2..], ["error", "unfinished"]);
    }

    #[test]
    fn an_endless_line_is_bounded() {
        let mut tail = Tail::default();
        for _ in 0..100 {
            tail.add(Stream::Stderr, &[b'x'; 1000]);
        }
        assert_eq!(tail.into_lines(), ["x".repeat(MAX_LINE)]);
    }
}
