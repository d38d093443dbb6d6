//! What is seen of a build on its way, so that its failure can be told as the local engine tells one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::progress::Event;
use crate::base::{Progress, VertexDigest};
use crate::engine::failure;
use crate::llb;
use crate::ops::tail::Tail;
use crate::remote;

/// What the events of a build tell of its failure.
#[derive(Default)]
pub struct Watch(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// In the order in which they failed.
    failed: Vec<(VertexDigest, String, String)>,
    tails: HashMap<VertexDigest, Tail>,
}

impl Watch {
    /// Progress that is looked at on its way.
    pub fn over(&self, progress: &Progress) -> Progress {
        let (seen, progress) = (self.0.clone(), progress.clone());
        Progress::new(move |event| {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &event {
                Event::Vertex(vertex) => {
                    if let Some(error) = &vertex.error {
                        seen.failed.push((vertex.digest, vertex.name.clone(), error.clone()));
                    }
                }
                Event::Log { vertex, stream, data } => seen.tails.entry(*vertex).or_default().add(*stream, data),
                Event::Status(_) | Event::Warning { .. } => {}
            }
            drop(seen);
            progress.send(event);
        })
    }

    /// The error as the local engine would tell it, where the events say which step it was.
    pub fn explain(&self, error: remote::Error, graphs: &[llb::Graph]) -> anyhow::Error {
        if let remote::Error::Cancelled(cancelled) = error {
            return cancelled.into();
        }
        // What was running then failed with it, and is not the cause.
        if error.is_lost() {
            return error.into();
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let said = error.to_string();
        // What was cancelled because of it failed too, and says only that.
        let cause = seen.failed.iter().find(|(_, _, why)| said.contains(why.as_str()));
        let Some((digest, name, why)) = cause.cloned() else { return error.into() };
        let lines = seen.tails.remove(&digest).map(Tail::into_lines).unwrap_or_default();
        let unknown = llb::Graph::default();
        let graph = graphs.iter().find(|graph| graph.position(&digest).is_some()).unwrap_or(&unknown);
        failure::elsewhere(digest, name, &why, lines, graph)
    }
}
