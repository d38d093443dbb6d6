//! BuildKit's `--progress=rawjson`: each line is a `SolveStatus` as Go writes it.

use std::io::Write;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::base::Event;
use crate::base::progress::Stream;

use super::Draw;

pub struct RawJson<W>(W);

impl<W: Write + Send> RawJson<W> {
    pub fn new(out: W) -> Self {
        Self(out)
    }
}

impl<W: Write + Send> Draw for RawJson<W> {
    fn event(&mut self, event: Event) {
        // A reader that went away is no reason to stop the build.
        let _ = writeln!(self.0, "{}", json(event, SystemTime::now()));
    }

    fn finish(&mut self) {
        let _ = self.0.flush();
    }
}

fn json(event: Event, now: SystemTime) -> Value {
    match event {
        Event::Vertex(vertex) => {
            let mut value = json!({"digest": vertex.digest, "name": vertex.name});
            if !vertex.inputs.is_empty() {
                value["inputs"] = json!(vertex.inputs);
            }
            if let Some(started) = vertex.started {
                value["started"] = time(started);
            }
            if let Some(completed) = vertex.completed {
                value["completed"] = time(completed);
            }
            if vertex.cached {
                value["cached"] = json!(true);
            }
            if let Some(error) = vertex.error {
                value["error"] = json!(error);
            }
            json!({"vertexes": [value]})
        }
        Event::Status(status) => {
            let mut value = json!({
                "id": status.id,
                "vertex": status.vertex,
                "current": status.current,
                "timestamp": time(now),
                "started": time(status.started),
            });
            if status.total > 0 {
                value["total"] = json!(status.total);
            }
            if let Some(completed) = status.completed {
                value["completed"] = time(completed);
            }
            json!({"statuses": [value]})
        }
        Event::Log { vertex, stream, data } => {
            let stream = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            let data = BASE64_STANDARD.encode(data);
            json!({"logs": [{"vertex": vertex, "stream": stream, "data": data, "timestamp": time(now)}]})
        }
        Event::Warning { vertex, message } => {
            let mut value = json!({"level": 1, "short": BASE64_STANDARD.encode(message)});
            if let Some(vertex) = vertex {
                value["vertex"] = json!(vertex);
            }
            json!({"warnings": [value]})
        }
    }
}

fn time(time: SystemTime) -> Value {
    jiff::Timestamp::try_from(time).map_or(Value::Null, |time| json!(time.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Digest, VertexDigest};

    #[test]
    fn writes_what_go_would() {
        let vertex = VertexDigest(Digest::of("x"));
        let event = Event::Log { vertex, stream: Stream::Stderr, data: b"hi".to_vec() };
        assert_eq!(
            json(event, SystemTime::UNIX_EPOCH),
            json!({"logs": [
                {"vertex": vertex.to_string(), "stream": 2, "data": "aGk=", "timestamp": "1970-01-01T00:00:00Z"}
            ]})
        );
    }
}
