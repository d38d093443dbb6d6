//! What happens during a request, as events shaped like BuildKit's `StatusResponse`, so that the local and the
//! remote engine feed the same displays. The library emits; only `cli` prints.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Digest, VertexDigest};

/// One thing that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A step came into being or changed its state. The same digest comes again with more fields set.
    Vertex(Vertex),
    /// Progress inside a step: a layer being pulled, an export being written.
    Status(Status),
    /// Output of a step, unclipped, as it was written.
    Log { vertex: VertexDigest, stream: Stream, data: Vec<u8> },
    /// Something the user should know and that does not stop the request.
    Warning { vertex: Option<VertexDigest>, message: String },
}

#[derive(Debug, Clone)]
pub struct Vertex {
    pub digest: VertexDigest,
    /// What a person reads: `[build 2/4] RUN make`.
    pub name: String,
    pub inputs: Vec<VertexDigest>,
    pub started: Option<SystemTime>,
    pub completed: Option<SystemTime>,
    pub cached: bool,
    pub error: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Status {
    pub vertex: VertexDigest,
    /// What the counter counts: a blob's digest, `exporting layers`.
    pub id: String,
    pub current: u64,
    /// Bytes where known; 0 where the end is not known.
    pub total: u64,
    pub started: SystemTime,
    pub completed: Option<SystemTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Where events go. Cheap to clone; sending never fails and never blocks for long.
#[derive(Clone)]
pub struct Progress(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Progress {
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(sink)))
    }

    /// Nobody listens.
    pub const fn none() -> Self {
        Self(None)
    }

    pub fn send(&self, event: Event) {
        if let Some(sink) = &self.0 {
            sink(event);
        }
    }

    pub fn warn(&self, message: impl Into<String>) {
        self.send(Event::Warning { vertex: None, message: message.into() });
    }

    /// For one of several pieces of work that share a display: steps and warnings carry its name, in the brackets
    /// that a step's name begins with (`[app build 2/4] RUN make`).
    pub fn of_part(&self, part: &str) -> Self {
        let (whole, part) = (self.clone(), part.to_owned());
        Self::new(move |event| {
            whole.send(match event {
                Event::Vertex(vertex) => {
                    let name = match vertex.name.strip_prefix('[') {
                        Some(rest) => format!("[{part} {rest}"),
                        None => format!("[{part}] {}", vertex.name),
                    };
                    Event::Vertex(Vertex { name, ..vertex })
                }
                Event::Warning { vertex, message } => Event::Warning { vertex, message: format!("[{part}] {message}") },
                event => event,
            });
        })
    }

    /// Runs one named piece of work that is no LLB vertex (an export, a pull) and reports its start and end as one.
    pub fn step<T, E: std::fmt::Display>(&self, name: &str, work: impl FnOnce(&Step) -> Result<T, E>) -> Result<T, E> {
        let started = SystemTime::now();
        let digest = VertexDigest(Digest::of(format!("{name}\0{started:?}")));
        let vertex = |completed, error| {
            Event::Vertex(Vertex {
                digest,
                name: name.to_owned(),
                inputs: Vec::new(),
                started: Some(started),
                completed,
                cached: false,
                error,
            })
        };
        self.send(vertex(None, None));
        let result = work(&Step { progress: self.clone(), vertex: digest });
        // With its causes, where it is an `anyhow::Error`.
        let error = result.as_ref().err().map(|error| format!("{error:#}"));
        self.send(vertex(Some(SystemTime::now()), error));
        result
    }
}

/// A running piece of work: where its counters and its output go.
#[derive(Clone)]
pub struct Step {
    progress: Progress,
    vertex: VertexDigest,
}

impl Step {
    /// The events of an LLB vertex, which the engine itself starts and ends.
    pub fn of(progress: &Progress, vertex: VertexDigest) -> Self {
        Self { progress: progress.clone(), vertex }
    }

    /// Nobody listens: for tests and for quiet work.
    pub fn none() -> Self {
        Self { progress: Progress::none(), vertex: VertexDigest(Digest::from_bytes([0; 32])) }
    }

    pub fn vertex(&self) -> VertexDigest {
        self.vertex
    }

    pub fn log(&self, stream: Stream, data: impl Into<Vec<u8>>) {
        self.progress.send(Event::Log { vertex: self.vertex, stream, data: data.into() });
    }

    pub fn warn(&self, message: impl Into<String>) {
        self.progress.send(Event::Warning { vertex: Some(self.vertex), message: message.into() });
    }

    /// Starts a counter; `total` is 0 where the end is not known.
    pub fn counter(&self, id: impl Into<String>, total: u64) -> Counter {
        let counter =
            Counter { step: self.clone(), id: id.into(), total, current: 0, shown: 0, started: SystemTime::now() };
        counter.send(None);
        counter
    }
}

/// A count of bytes or files inside a step. Dropping it says that the work ended.
pub struct Counter {
    step: Step,
    id: String,
    total: u64,
    current: u64,
    shown: u64,
    started: SystemTime,
}

/// Below this much news a counter stays silent, or a fast disk would drown the display.
const COUNTER_STEP: u64 = 512 * 1024;

impl Counter {
    pub fn add(&mut self, amount: u64) {
        self.current += amount;
        if self.current - self.shown >= COUNTER_STEP {
            self.shown = self.current;
            self.send(None);
        }
    }

    fn send(&self, completed: Option<SystemTime>) {
        self.step.progress.send(Event::Status(Status {
            vertex: self.step.vertex,
            id: self.id.clone(),
            current: self.current,
            total: self.total,
            started: self.started,
            completed,
        }));
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.send(Some(SystemTime::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_part_is_named_where_its_steps_are() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let listener = told.clone();
        let progress = Progress::new(move |event| {
            listener.lock().unwrap().push(match event {
                Event::Vertex(vertex) => vertex.name,
                Event::Warning { message, .. } => message,
                _ => String::new(),
            });
        });
        let part = progress.of_part("app");
        part.step("[build 2/4] RUN make", |_| Ok::<_, String>(())).unwrap();
        part.step("exporting to image", |_| Ok::<_, String>(())).unwrap();
        part.warn("odd");
        let mut told = told.lock().unwrap();
        told.dedup();
        assert_eq!(*told, ["[app build 2/4] RUN make", "[app] exporting to image", "[app] odd"]);
    }
}
