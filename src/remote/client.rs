//! A connected engine: what it is, what it keeps, and giving that back.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::time::{Duration, SystemTime};

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use tokio::runtime::Runtime;
use tonic::{Request, Status};

use super::grpc::Channel;
use super::{Address, Error, Reach, Result, Said, connect, status};
use crate::base::{Cancel, cancel::Cancelled};

/// How soon a cancelled request is noticed. The other side is told by the end of the call.
const CANCEL_POLL: Duration = Duration::from_millis(50);

const LIST_WORKERS: &str = "/moby.buildkit.v1.Control/ListWorkers";

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
    pub labels: BTreeMap<String, String>,
    /// Of BuildKit; none where it is from before 2023, which does not say.
    pub version: Option<Version>,
    /// What it may keep, and for how long.
    pub rules: Vec<Rule>,
}

/// What an engine is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// `github.com/moby/buildkit`
    pub package: String,
    pub version: String,
    pub revision: String,
}

/// A rule by which an engine throws away what it keeps; 0 for no limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub all: bool,
    pub filters: Vec<String>,
    pub keep: Duration,
    pub reserved: u64,
    pub free: u64,
    pub most: u64,
}

/// Something that an engine keeps to build faster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    pub id: String,
    pub parents: Vec<String>,
    pub description: String,
    /// `regular`, `source.local`, `exec.cachemount`
    pub kind: String,
    pub bytes: u64,
    pub created: Option<SystemTime>,
    pub last_used: Option<SystemTime>,
    pub uses: u64,
    pub in_use: bool,
    pub mutable: bool,
    /// With others of this list.
    pub shared: bool,
}

/// What a prune leaves; 0 for no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Keep {
    /// What was used within this time.
    pub within: Duration,
    /// The newest things, up to so many bytes.
    pub most: u64,
    /// So many bytes in any case.
    pub least: u64,
    /// No more goes once so many bytes of the disk are free.
    pub free: u64,
}

impl Client {
    pub fn connect(address: &Address, reach: &Reach, cancel: &Cancel) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("remote")
            .enable_all()
            .build()
            .map_err(|source| Error::Io { what: "start a thread".to_owned(), source })?;
        let opening = async {
            let io = connect::connect(address, reach).await?;
            let channel = Channel::open(io)
                .await
                .map_err(|error| Error::Connect { address: address.clone(), source: io::Error::other(error) })?;
            // At a port anything may listen; and TLS tells a client only now that its certificate is not believed.
            if let Address::Tcp { .. } = address {
                greet(&channel, address, reach).await?;
            }
            Ok(channel)
        };
        let channel = runtime.block_on(until(cancel, opening))?;
        Ok(Self { address: address.clone(), channel, runtime })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Those that pass one of the filters, which are containerd's; all where there is none.
    pub fn workers(&self, filters: &[String], cancel: &Cancel) -> Result<Vec<Worker>> {
        let question = Request::new(proto::ListWorkersRequest { filter: filters.to_vec() });
        let call = self.channel.unary(LIST_WORKERS, question);
        let answer: proto::ListWorkersResponse = self.wait("list the workers", cancel, call)?;
        Ok(answer.record.into_iter().map(worker).collect())
    }

    /// What the engine keeps and passes one of the filters, sorted by id.
    pub fn disk_usage(&self, filters: &[String], cancel: &Cancel) -> Result<Vec<Disk>> {
        let question = Request::new(proto::DiskUsageRequest { filter: filters.to_vec(), ..Default::default() });
        let call = self.channel.unary("/moby.buildkit.v1.Control/DiskUsage", question);
        let answer: proto::DiskUsageResponse = self.wait("ask what takes up space", cancel, call)?;
        let mut records: Vec<Disk> = answer.record.into_iter().map(disk).collect();
        records.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(records)
    }

    /// Removes what no build uses, and passes one of the filters; `all` means what frontends left, too. Returned is
    /// what went.
    pub fn prune(&self, all: bool, keep: &Keep, filters: &[String], cancel: &Cancel) -> Result<Vec<Disk>> {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let question = proto::PruneRequest {
            filter: filters.to_vec(),
            all,
            keep_duration: i64::try_from(keep.within.as_nanos()).unwrap_or(i64::MAX),
            // Engines of before 2025 have one limit, and it has this place.
            reserved_space: number(if keep.least == 0 && keep.free == 0 { keep.most } else { keep.least }),
            max_used_space: number(keep.most),
            min_free_space: number(keep.free),
        };
        let call = async {
            let mut answers = self
                .channel
                .answers::<_, proto::UsageRecord>("/moby.buildkit.v1.Control/Prune", Request::new(question))
                .await?;
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
        let call = async {
            match call.await {
                Ok(answer) => Ok(answer),
                Err(status) => Err(self.failed(what, status).await),
            }
        };
        self.runtime.block_on(until(cancel, call))
    }

    pub(super) async fn failed(&self, what: &'static str, status: Status) -> Error {
        let broken_by = self.channel.broken_by(&status).await;
        Error::Call { what, address: self.address.clone(), status: Said { status: Box::new(status), broken_by } }
    }
}

/// Makes sure that it is an engine that listens, by a question that every engine answers.
async fn greet(channel: &Channel, address: &Address, reach: &Reach) -> Result<()> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let question = Request::new(proto::ListWorkersRequest::default());
    let answer = channel.unary::<_, proto::ListWorkersResponse>(LIST_WORKERS, question);
    let status = match tokio::time::timeout(reach.patience.unwrap_or(connect::PATIENCE), answer).await {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(status)) => status,
        Err(_) => return Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer"))),
    };
    match channel.broken_by(&status).await {
        Some(why) => Err(failed(io::Error::other(why))),
        None => Err(Error::Protocol { address: address.clone(), answer: status.message().to_owned() }),
    }
}

fn worker(record: proto::types::WorkerRecord) -> Worker {
    let platform =
        |p: &crate::llb::pb::Platform| crate::base::Platform::new(&p.os, &p.architecture, &p.variant).to_string();
    Worker {
        id: record.id,
        platforms: record.platforms.iter().map(platform).collect(),
        labels: record.labels.into_iter().collect(),
        version: record.buildkit_version.filter(|version| !version.version.is_empty()).map(|version| Version {
            package: version.package,
            version: version.version,
            revision: version.revision,
        }),
        rules: record.gc_policy.into_iter().map(rule).collect(),
    }
}

fn rule(policy: proto::types::GcPolicy) -> Rule {
    Rule {
        all: policy.all,
        filters: policy.filters,
        keep: Duration::from_nanos(positive(policy.keep_duration)),
        reserved: positive(policy.reserved_space),
        free: positive(policy.min_free_space),
        most: positive(policy.max_used_space),
    }
}

fn disk(record: proto::UsageRecord) -> Disk {
    #[expect(deprecated, reason = "servers of before 2022 know one parent")]
    let first = record.parent;
    let parents = if record.parents.is_empty() { vec![first] } else { record.parents };
    Disk {
        id: record.id,
        parents: parents.into_iter().filter(|parent| !parent.is_empty()).collect(),
        description: record.description,
        kind: record.record_type,
        bytes: positive(record.size),
        created: record.created_at.and_then(status::time),
        last_used: record.last_used_at.and_then(status::time),
        uses: positive(record.usage_count),
        in_use: record.in_use,
        mutable: record.mutable,
        shared: record.shared,
    }
}

/// 0 for a number that makes no sense.
fn positive(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
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
