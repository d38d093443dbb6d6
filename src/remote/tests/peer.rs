//! A peer of our own that speaks BuildKit's protocol, as well or as badly as a test wants.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::frontend;
use futures_util::FutureExt as _;
use tokio::net::UnixListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tonic::{Request, Status};

use crate::remote::Address;
use crate::remote::grpc::{self, Channel};

pub type Deed = dyn Fn(Channel) -> Pin<Box<dyn Future<Output = Result<(), Status>> + Send>> + Send + Sync;

/// A client that is the frontend of its own build: the build id that it names, what it has made, and what it returns.
#[derive(Default)]
pub struct Gateway {
    pub made: Mutex<Vec<(String, frontend::SolveRequest)>>,
    pub returned: Mutex<Vec<(String, frontend::ReturnRequest)>>,
    over: Notify,
}

/// Listens until it is dropped.
pub struct Peer {
    pub address: Address,
    pub dead: Arc<Notify>,
    /// What was to be built.
    pub asked: Arc<Mutex<Vec<proto::SolveRequest>>>,
    /// What a client that was the frontend did.
    pub gateway: Arc<Gateway>,
    // Its tasks end before the folder of its socket goes.
    _runtime: Runtime,
    pub dir: tempfile::TempDir,
}

impl Peer {
    /// A peer that does this with a build's session, and then calls the build done or not.
    pub fn solving<F>(deed: impl Fn(Channel) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let deed: Arc<Deed> = Arc::new(move |session| deed(session).boxed());
        let dead = Arc::new(Notify::new());
        let told = dead.clone();
        let asked: Arc<Mutex<Vec<proto::SolveRequest>>> = Arc::default();
        let heard = asked.clone();
        let gateway: Arc<Gateway> = Arc::default();
        let given = gateway.clone();
        let mut peer = Self::listening(move |socket| {
            let (deed, told, heard, given) = (deed.clone(), told.clone(), heard.clone(), given.clone());
            async move {
                // One build a connection.
                let (opened, session) = watch::channel(None);
                let opened = Arc::new(opened);
                let serving = grpc::serve(socket, move |call| {
                    let asked = (heard.clone(), given.clone());
                    control(call, deed.clone(), asked, opened.clone(), session.clone()).boxed()
                });
                tokio::select! { _ = serving => {}, () = told.notified() => {} }
            }
        });
        (peer.dead, peer.asked, peer.gateway) = (dead, asked, gateway);
        peer
    }

    /// A peer that does what it likes with whoever connects.
    pub fn listening<F>(connected: impl Fn(tokio::net::UnixStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _inside = runtime.enter();
            UnixListener::bind(&path).unwrap()
        };
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connected(socket));
            }
        });
        let (dead, asked, gateway) = (Arc::default(), Arc::default(), Arc::default());
        Self { address: Address::Unix(path), dead, asked, gateway, _runtime: runtime, dir }
    }

    /// The socket, as a Docker daemon's.
    pub fn docker(&self) -> Address {
        match &self.address {
            Address::Unix(path) => Address::Docker(path.clone()),
            other => panic!("{other}"),
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// The build that a frontend's call says it is of.
fn build<T>(request: &Request<T>) -> String {
    let id = request.metadata().get("buildkit-controlapi-buildid");
    id.and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned()
}

async fn control(
    call: http::Request<hyper::body::Incoming>,
    deed: Arc<Deed>,
    (asked, gateway): (Arc<Mutex<Vec<proto::SolveRequest>>>, Arc<Gateway>),
    opened: Arc<watch::Sender<Option<Channel>>>,
    mut session: watch::Receiver<Option<Channel>>,
) -> http::Response<tonic::body::Body> {
    match call.uri().path() {
        "/moby.buildkit.v1.Control/Session" => {
            grpc::many(call, |request: Request<tonic::Streaming<proto::BytesMessage>>| async move {
                let (ours, theirs) = tokio::io::duplex(1 << 16);
                let (messages, mut sent) = mpsc::channel(1);
                let (sender, outgoing) = grpc::outgoing();
                tokio::spawn(async move {
                    while let Some(message) = sent.recv().await {
                        if sender.send(Ok(message)).await.is_err() {
                            return;
                        }
                    }
                });
                let incoming = request.into_inner();
                tokio::spawn(grpc::carry(ours, incoming, messages, |m| m.data, |data| proto::BytesMessage { data }));
                tokio::spawn(async move {
                    let channel = Channel::open(theirs).await.unwrap();
                    opened.send_replace(Some(channel));
                });
                Ok(outgoing)
            })
            .await
        }
        "/moby.buildkit.v1.Control/Solve" => {
            grpc::one(call, |request: Request<proto::SolveRequest>| async move {
                let request = request.into_inner();
                let is_frontend = request.definition.is_none() && request.frontend.is_empty();
                asked.lock().unwrap().push(request);
                if is_frontend {
                    gateway.over.notified().await;
                }
                let found = session.wait_for(Option::is_some).await.map(|found| found.clone());
                let session = found.ok().flatten().ok_or_else(|| Status::internal("there is no session"))?;
                deed(session).await?;
                let exporter_response = HashMap::from([("said".to_owned(), "so".to_owned())]);
                Ok(proto::SolveResponse { exporter_response })
            })
            .await
        }
        "/moby.buildkit.v1.frontend.LLBBridge/Solve" => {
            grpc::one(call, |request: Request<frontend::SolveRequest>| async move {
                let mut made = gateway.made.lock().unwrap();
                let id = format!("made {}", made.len());
                made.push((build(&request), request.into_inner()));
                let made = frontend::result::Result::Ref(frontend::Ref { id, def: None });
                let result = frontend::Result { result: Some(made), ..Default::default() };
                Ok(frontend::SolveResponse { result: Some(result), ..Default::default() })
            })
            .await
        }
        "/moby.buildkit.v1.frontend.LLBBridge/Return" => {
            grpc::one(call, |request: Request<frontend::ReturnRequest>| async move {
                gateway.returned.lock().unwrap().push((build(&request), request.into_inner()));
                gateway.over.notify_one();
                Ok(frontend::ReturnResponse {})
            })
            .await
        }
        "/moby.buildkit.v1.Control/ListWorkers" => {
            grpc::one(call, |_: Request<proto::ListWorkersRequest>| async {
                let version = proto::types::BuildkitVersion {
                    package: "peer.example/kit".to_owned(),
                    version: "v9".to_owned(),
                    revision: "abc".to_owned(),
                };
                let record = proto::types::WorkerRecord {
                    id: "w1".to_owned(),
                    buildkit_version: Some(version),
                    ..Default::default()
                };
                Ok(proto::ListWorkersResponse { record: vec![record] })
            })
            .await
        }
        path => grpc::refuse(Status::unimplemented(path.to_owned())),
    }
}
