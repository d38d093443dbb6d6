//! Lets steps on the engine speak to an ssh agent of this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bollard_buildkit_proto::moby::sshforward::v1::{BytesMessage, CheckAgentRequest, CheckAgentResponse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tonic::{Request, Status, Streaming};

use crate::remote::grpc::{CHUNK, Outgoing, outgoing};

/// The id that a mount without one means.
const DEFAULT: &str = "default";

/// The header with the id.
const ID: &str = "buildkit.ssh.id";

fn socket<'a>(sockets: &'a BTreeMap<String, PathBuf>, id: &str) -> Result<&'a Path, Status> {
    let id = if id.is_empty() { DEFAULT } else { id };
    let found = sockets.get(id).ok_or_else(|| Status::not_found(format!("no ssh agent {id} was given")))?;
    Ok(found)
}

pub fn check(
    sockets: &BTreeMap<String, PathBuf>,
    request: Request<CheckAgentRequest>,
) -> Result<CheckAgentResponse, Status> {
    socket(sockets, &request.into_inner().id).map(|_| CheckAgentResponse {})
}

pub async fn forward(
    sockets: &BTreeMap<String, PathBuf>,
    request: Request<Streaming<BytesMessage>>,
) -> Result<Outgoing<BytesMessage>, Status> {
    let id = request.metadata().get(ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let path = socket(sockets, id)?;
    let agent = UnixStream::connect(path)
        .await
        .map_err(|error| Status::unavailable(format!("reach the ssh agent at {}: {error}", path.display())))?;
    let (mut reader, mut writer) = agent.into_split();
    let mut pieces = request.into_inner();
    let (sender, answers) = outgoing();
    tokio::spawn(async move {
        let out = async {
            let mut buffer = vec![0; CHUNK];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                if sender.send(Ok(BytesMessage { data: buffer[..length].to_vec() })).await.is_err() {
                    return;
                }
            }
        };
        let into = async {
            while let Ok(Some(piece)) = pieces.message().await {
                if writer.write_all(&piece.data).await.is_err() {
                    return;
                }
            }
            // The step has said all; the agent may still answer.
            let _ = writer.shutdown().await;
            std::future::pending::<()>().await;
        };
        tokio::select! { () = out => {}, () = into => {} }
    });
    Ok(answers)
}
