//! Takes blobs that an engine leaves here, as containerd's content service would: those of a cache that goes into a
//! folder.

use std::io::Write as _;

use prost::{Enumeration, Message};
use tokio::sync::mpsc;
use tonic::{Request, Status, Streaming};

use crate::base::Digest;
use crate::remote::grpc::{Outgoing, outgoing};
use crate::remote::stores::Stores;
use crate::store::BlobStore;

// The few messages of containerd's `services/content/v1` that a writer needs.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    /// Asks how far the blob has come; says what it will be.
    Stat = 0,
    Write = 1,
    Commit = 2,
}

#[derive(Clone, PartialEq, Message)]
pub struct WriteContentRequest {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    #[prost(string, tag = "2")]
    pub r#ref: String,
    /// 0 where the size is not known yet.
    #[prost(int64, tag = "3")]
    pub total: i64,
    #[prost(string, tag = "4")]
    pub expected: String,
    #[prost(int64, tag = "5")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "6")]
    pub data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub struct WriteContentResponse {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    #[prost(int64, tag = "4")]
    pub offset: i64,
    #[prost(int64, tag = "5")]
    pub total: i64,
    #[prost(string, tag = "6")]
    pub digest: String,
}

/// How many messages wait for a slow disk.
const QUEUE: usize = 4;

pub fn write(
    stores: &Stores,
    request: Request<Streaming<WriteContentRequest>>,
) -> Result<Outgoing<WriteContentResponse>, Status> {
    let store = stores.chosen(request.metadata())?;
    if !store.writable {
        return Err(Status::permission_denied("nothing may be written to this store"));
    }
    let blobs = store.blobs.clone();
    let mut messages = request.into_inner();
    let (pass, passed) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        while let Ok(Some(message)) = messages.message().await {
            if pass.send(message).await.is_err() {
                return;
            }
        }
    });
    let (sender, answers) = outgoing();
    tokio::task::spawn_blocking(move || {
        let answer = |answer| sender.blocking_send(Ok(answer)).is_ok();
        if let Err(status) = take(blobs.as_ref(), passed, answer) {
            // Nothing can be done for a writer that went away.
            let _ = sender.blocking_send(Err(status));
        }
    });
    Ok(answers)
}

/// Takes one blob, message by message. One that is not committed leaves nothing behind.
fn take(
    blobs: &dyn BlobStore,
    mut messages: mpsc::Receiver<WriteContentRequest>,
    answer: impl Fn(WriteContentResponse) -> bool,
) -> Result<(), Status> {
    let failed = |error: &dyn std::fmt::Display| Status::internal(format!("store a blob: {error}"));
    let mut blob = blobs.create().map_err(|error| failed(&error))?;
    let (mut expected, mut total, mut offset) = (None, 0, 0_i64);
    while let Some(message) = messages.blocking_recv() {
        if !message.expected.is_empty() {
            let digest: Digest = message
                .expected
                .parse()
                .map_err(|_| Status::invalid_argument(format!("{:?} is no digest", message.expected)))?;
            if blobs.size(&digest).map_err(|error| failed(&error))?.is_some() {
                return Err(Status::already_exists(format!("{digest} is in the store")));
            }
            expected = Some(digest);
        }
        if message.total > 0 {
            total = message.total;
        }
        if !message.data.is_empty() {
            if message.offset != offset {
                let words = format!("bytes for offset {} came when {offset} were there", message.offset);
                return Err(Status::out_of_range(words));
            }
            blob.write_all(&message.data).map_err(|error| failed(&error))?;
            offset = offset.saturating_add(i64::try_from(message.data.len()).unwrap_or(i64::MAX));
        }
        if total > 0 && offset > total {
            return Err(Status::out_of_range(format!("{offset} bytes came of a blob of {total}")));
        }
        let mut said = WriteContentResponse { action: message.action, offset, total, digest: String::new() };
        if message.action == WriteAction::Commit as i32 {
            let size = u64::try_from(total).ok().filter(|size| *size > 0);
            said.digest = match expected {
                Some(digest) => blob.complete_verified_as(&digest, size).map(|()| digest),
                None => blob.complete().map(|(digest, _)| digest),
            }
            .map_err(|error| Status::failed_precondition(error.to_string()))?
            .to_string();
            answer(said);
            return Ok(());
        }
        if !answer(said) {
            return Ok(());
        }
    }
    Ok(())
}
