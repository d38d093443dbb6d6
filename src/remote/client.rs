//! A connected engine: what it is, what it keeps, and giving that back.

use std::collections::HashMap;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use tokio::runtime::Runtime;
use tonic::Status;

use super::grpc::Channel;
use super::{Address, Error, Result, connect};
use crate::base::{Cancel, cancel::Cancelled};

/// How soon a cancelled request is noticed. The other side is told by the end of the call.
const CANCEL_POLL: Duration = Duration::from_millis(50);

/// An engine that answers. Its threads live as long as this.
pub struct Client {
    pub(super) address: Address,
    pub(super) channel: Channel,
    pub(super) runtime: Runtime,
}

/// One of an engine's workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub id: String,
    pub platforms: Vec<String>,
}

/// Something that an engine keeps to build faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: String,
    pub description: String,
    pub bytes: u64,
    pub in_use: bool,
}

impl Client {
    /// `tls` is a folder with the authority and our certificate; it counts for addresses of hosts.
    pub fn connect(address: &Address, tls: Option<&Path>, cancel: &Cancel) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("remote")
            .enable_all()
            .build()
            .map_err(|source| Error::Io { what: "start a thread".to_owned(), source })?;
        let opening = async {
            let io = connect::connect(address, tls).await?;
            Channel::open(io)
                .await
                .map_err(|error| Error::Connect { address: address.clone(), source: std::io::Error::other(error) })
        };
        let channel = runtime.block_on(until(cancel, opening))?;
        Ok(Self { address: address.clone(), channel, runtime })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    pub fn workers(&self, cancel: &Cancel) -> Result<Vec<Worker>> {
        let question = proto::ListWorkersRequest { filter: Vec::new() };
        let call = self.channel.unary("/moby.buildkit.v1.Control/ListWorkers", question);
        let answer: proto::ListWorkersResponse = self.wait("list the workers", cancel, call)?;
        let platform =
            |p: &crate::llb::pb::Platform| crate::base::Platform::new(&p.os, &p.architecture, &p.variant).to_string();
        let worker = |record: proto::types::WorkerRecord| Worker {
            id: record.id,
            platforms: record.platforms.iter().map(platform).collect(),
        };
        Ok(answer.record.into_iter().map(worker).collect())
    }

    /// What the engine keeps, sorted by id.
    pub fn disk_usage(&self, cancel: &Cancel) -> Result<Vec<Disk>> {
        let call = self.channel.unary("/moby.buildkit.v1.Control/DiskUsage", proto::DiskUsageRequest::default());
        let answer: proto::DiskUsageResponse = self.wait("ask what takes up space", cancel, call)?;
        let mut records: Vec<Disk> = answer.record.into_iter().map(disk).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    /// Removes what no build uses; what was used within `keep` stays, and so does what fits into `bytes`. Returned is
    /// what went.
    pub fn prune(&self, all: bool, keep: Duration, bytes: u64, cancel: &Cancel) -> Result<Vec<Disk>> {
        let question = proto::PruneRequest {
            all,
            keep_duration: i64::try_from(keep.as_nanos()).unwrap_or(i64::MAX),
            reserved_space: i64::try_from(bytes).unwrap_or(i64::MAX),
            ..proto::PruneRequest::default()
        };
        let call = async {
            let mut answers =
                self.channel.answers::<_, proto::UsageRecord>("/moby.buildkit.v1.Control/Prune", question).await?;
            let mut gone = Vec::new();
            while let Some(record) = answers.message().await? {
                gone.push(disk(record));
            }
            Ok(gone)
        };
        self.wait("prune", cancel, call)
    }

    /// Waits for a call's answer, or for the request to be cancelled.
    pub(super) fn wait<T>(
        &self,
        what: &'static str,
        cancel: &Cancel,
        call: impl Future<Output = std::result::Result<T, Status>>,
    ) -> Result<T> {
        let call = async { call.await.map_err(|status| self.failed(what, status)) };
        self.runtime.block_on(until(cancel, call))
    }

    pub(super) fn failed(&self, what: &'static str, status: Status) -> Error {
        Error::Call { what, address: self.address.clone(), status: status.into() }
    }
}

fn disk(record: proto::UsageRecord) -> Disk {
    Disk {
        id: record.id,
        description: record.description,
        bytes: u64::try_from(record.size).unwrap_or(0),
        in_use: record.in_use,
    }
}

/// The work's result, unless the request is cancelled first.
pub(super) async fn until<T>(cancel: &Cancel, work: impl Future<Output = Result<T>>) -> Result<T> {
    let cancelled = async {
        while !cancel.is_cancelled() {
            tokio::time::sleep(CANCEL_POLL).await;
        }
    };
    tokio::select! {
        result = work => result,
        () = cancelled => Err(Cancelled.into()),
    }
}

/// Attributes as the messages have them.
pub(super) fn attributes<const N: usize>(pairs: [(&str, String); N]) -> HashMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}
