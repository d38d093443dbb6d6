//! BuildKit's progress as ours: they have the same shape.

use std::time::SystemTime;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as proto;

use crate::base::VertexDigest;
use crate::base::progress::{Event, Status, Stream, Vertex};

/// In an order in which each vertex comes before what is said of it.
pub fn events(response: proto::StatusResponse) -> impl Iterator<Item = Event> {
    let vertices = response.vertexes.into_iter().filter_map(vertex).map(Event::Vertex);
    let statuses = response.statuses.into_iter().filter_map(status).map(Event::Status);
    let logs = response.logs.into_iter().filter_map(|log| {
        let stream = if log.stream == 1 { Stream::Stdout } else { Stream::Stderr };
        Some(Event::Log { vertex: log.vertex.parse().ok()?, stream, data: log.msg })
    });
    let warnings = response.warnings.into_iter().map(|warning| Event::Warning {
        vertex: warning.vertex.parse().ok(),
        message: String::from_utf8_lossy(&warning.short).into_owned(),
    });
    vertices.chain(statuses).chain(logs).chain(warnings)
}

/// None for a vertex without a digest, of which nothing could be told apart.
fn vertex(vertex: proto::Vertex) -> Option<Vertex> {
    Some(Vertex {
        digest: vertex.digest.parse().ok()?,
        name: vertex.name,
        inputs: vertex.inputs.iter().filter_map(|input| input.parse().ok()).collect(),
        started: vertex.started.and_then(time),
        completed: vertex.completed.and_then(time),
        cached: vertex.cached,
        error: Some(vertex.error).filter(|error| !error.is_empty()),
    })
}

fn status(status: proto::VertexStatus) -> Option<Status> {
    let vertex: VertexDigest = status.vertex.parse().ok()?;
    Some(Status {
        vertex,
        id: status.id,
        current: u64::try_from(status.current).unwrap_or(0),
        total: u64::try_from(status.total).unwrap_or(0),
        started: status.started.or(status.timestamp).and_then(time)?,
        completed: status.completed.and_then(time),
    })
}

/// None for what no clock shows.
pub fn time(stamp: Timestamp) -> Option<SystemTime> {
    let since = std::time::Duration::new(u64::try_from(stamp.seconds).ok()?, u32::try_from(stamp.nanos).ok()?);
    SystemTime::UNIX_EPOCH.checked_add(since)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Digest;

    #[test]
    fn events_keep_their_order_and_lose_what_is_nonsense() {
        let digest = format!("{}", Digest::of("v"));
        let stamp = |seconds, nanos| Some(Timestamp { seconds, nanos });
        let response = proto::StatusResponse {
            vertexes: vec![
                proto::Vertex { digest: "nonsense".to_owned(), ..Default::default() },
                proto::Vertex {
                    digest: digest.clone(),
                    name: "RUN x".to_owned(),
                    started: stamp(5, 6),
                    completed: stamp(-1, 0),
                    error: "exit code: 3".to_owned(),
                    ..Default::default()
                },
            ],
            statuses: vec![proto::VertexStatus {
                vertex: digest.clone(),
                id: "layers".to_owned(),
                current: -4,
                total: 9,
                timestamp: stamp(1, 0),
                ..Default::default()
            }],
            logs: vec![proto::VertexLog { vertex: digest, stream: 1, msg: b"out".to_vec(), ..Default::default() }],
            warnings: vec![proto::VertexWarning { short: b"careful".to_vec(), ..Default::default() }],
        };
        let events: Vec<Event> = events(response).collect();
        let [
            Event::Vertex(vertex),
            Event::Status(status),
            Event::Log { stream, data, .. },
            Event::Warning { message, .. },
        ] = &events[..]
        else {
            panic!("{events:?}")
        };
        assert_eq!((vertex.name.as_str(), vertex.error.as_deref()), ("RUN x", Some("exit code: 3")));
        assert_eq!(vertex.started, Some(SystemTime::UNIX_EPOCH + std::time::Duration::new(5, 6)));
        assert_eq!(vertex.completed, None, "a time before there were clocks");
        assert_eq!((status.current, status.total), (0, 9));
        assert_eq!((*stream, data.as_slice(), message.as_str()), (Stream::Stdout, &b"out"[..], "careful"));
    }
}
