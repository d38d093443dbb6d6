//! What the progress is told of one vertex: that it began, and how it ended.

use std::time::SystemTime;

use super::Node;
use crate::base::progress::{Event, Vertex};
use crate::base::{Cancel, Progress, causes};

pub(super) struct Report<'a> {
    progress: &'a Progress,
    cancel: Cancel,
    vertex: Vertex,
}

impl<'a> Report<'a> {
    pub fn new<R>(progress: &'a Progress, cancel: &Cancel, node: &Node<R>) -> Self {
        let vertex = Vertex {
            digest: node.digest,
            name: node.name.clone(),
            inputs: node.inputs.iter().map(|(vertex, _)| *vertex).collect(),
            started: None,
            completed: None,
            cached: false,
            error: None,
        };
        Self { progress, cancel: cancel.clone(), vertex }
    }

    /// Said once until the end; a vertex whose record turns out to be empty begins again.
    pub fn start(&mut self) {
        if self.vertex.started.is_none() {
            self.vertex.started = Some(SystemTime::now());
            self.send();
        }
    }

    pub fn end(&mut self, cached: bool) {
        self.vertex.cached = cached;
        self.close(None);
    }

    pub fn fail(&mut self, error: &anyhow::Error) {
        self.vertex.cached = false;
        // What fails after the flag was raised was stopped: it is not why the build failed.
        self.close(Some(match self.cancel.check() {
            Err(cancelled) => cancelled.to_string(),
            Ok(()) => causes::line(error),
        }));
    }

    /// Ends what began and was not needed after all.
    pub fn leave(&mut self) {
        if self.vertex.started.is_some() {
            self.end(false);
        }
    }

    fn close(&mut self, error: Option<String>) {
        let now = SystemTime::now();
        self.vertex.started.get_or_insert(now);
        self.vertex.completed = Some(now);
        self.vertex.error = error;
        self.send();
        self.vertex.started = None;
        self.vertex.completed = None;
    }

    fn send(&self) {
        self.progress.send(Event::Vertex(self.vertex.clone()));
    }
}
