//! Takes the archive of what was built.

use bollard_buildkit_proto::moby::filesync::packet::BytesMessage;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tonic::{Request, Status, Streaming};

use super::{Receive, Session};
use crate::remote::grpc::{Outgoing, outgoing};

pub async fn archive(
    session: &Session,
    request: Request<Streaming<BytesMessage>>,
) -> Result<Outgoing<BytesMessage>, Status> {
    let expected = std::mem::replace(&mut *session.receive(), Receive::Running);
    let Receive::Expected(path) = expected else {
        // What was there before stays true.
        *session.receive() = expected;
        return Err(Status::permission_denied("no further archive is expected"));
    };
    let failed = |error: std::io::Error| Status::internal(format!("write {}: {error}", path.display()));
    let mut file = File::create(&path).await.map_err(failed)?;
    let mut pieces = request.into_inner();
    while let Some(piece) = pieces.message().await? {
        file.write_all(&piece.data).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    *session.receive() = Receive::Done;
    // No answer, and an end to it.
    Ok(outgoing().1)
}
