//! Hands out blobs of images and caches, as containerd's content service would. An engine takes those that it lacks.

use std::io::Read;
use std::sync::Arc;

use prost::Message;
use tonic::{Request, Status};

use crate::remote::grpc::{CHUNK, Outgoing, outgoing};
use crate::remote::stores::Stores;

// The few messages of containerd's `services/content/v1` that a reader needs.

#[derive(Clone, PartialEq, Message)]
pub struct InfoRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct InfoResponse {
    #[prost(message, optional, tag = "1")]
    pub info: Option<Info>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Info {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReadContentRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub offset: i64,
    /// 0 for all that is left.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

#[derive(Clone, PartialEq, Message)]
pub struct ReadContentResponse {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(bytes = "vec", tag = "2")]
    pub data: Vec<u8>,
}

pub fn info(stores: &Stores, request: Request<InfoRequest>) -> Result<InfoResponse, Status> {
    let store = stores.chosen(request.metadata())?;
    let digest = store.offered(&request.into_inner().digest)?;
    let size = store.blobs.size(&digest).map_err(|error| Status::internal(error.to_string()))?;
    let size = size.ok_or_else(|| Status::not_found(format!("{digest} is not in the store")))?;
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    Ok(InfoResponse { info: Some(Info { digest: digest.to_string(), size }) })
}

pub fn read(stores: &Stores, request: Request<ReadContentRequest>) -> Result<Outgoing<ReadContentResponse>, Status> {
    let store = stores.chosen(request.metadata())?;
    let asked = request.into_inner();
    let digest = store.offered(&asked.digest)?;
    let (Ok(start), Ok(size)) = (u64::try_from(asked.offset), u64::try_from(asked.size)) else {
        return Err(Status::out_of_range("an offset and a size are never negative"));
    };
    let blobs = Arc::clone(&store.blobs);
    let (sender, answers) = outgoing();
    tokio::task::spawn_blocking(move || {
        let work = || -> anyhow::Result<()> {
            let mut blob = blobs.open(&digest)?;
            std::io::copy(&mut blob.by_ref().take(start), &mut std::io::sink())?;
            let mut left: Box<dyn Read> = if size == 0 { blob } else { Box::new(blob.take(size)) };
            let (mut offset, mut buffer) = (asked.offset, vec![0; CHUNK]);
            loop {
                let length = left.read(&mut buffer)?;
                if length == 0 {
                    return Ok(());
                }
                let data = buffer[..length].to_vec();
                if sender.blocking_send(Ok(ReadContentResponse { offset, data })).is_err() {
                    return Ok(());
                }
                offset += i64::try_from(length)?;
            }
        };
        if let Err(error) = work() {
            // Nothing can be done for a reader that went away.
            let _ = sender.blocking_send(Err(Status::internal(format!("read {digest}: {error}"))));
        }
    });
    Ok(answers)
}
