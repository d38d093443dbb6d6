//! What an engine may ask of this machine while it builds for us. Whatever the request did not name is refused, and
//! so is every method that is not here.

mod agent;
pub mod content;
mod credentials;
mod files;
mod receive;
pub mod upload;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bollard_buildkit_proto::health::{HealthCheckRequest, HealthCheckResponse, health_check_response};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;

use super::Shared;
use super::grpc::{answers, many, one, refuse};
use crate::base::Hasher;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const FILES: &str = "/moby.filesync.v1.FileSync/DiffCopy";
const RECEIVE: &str = "/moby.filesync.v1.FileSend/DiffCopy";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CHECK_AGENT: &str = "/moby.sshforward.v1.SSH/CheckAgent";
const CONTENT_INFO: &str = "/containerd.services.content.v1.Content/Info";
const CONTENT_READ: &str = "/containerd.services.content.v1.Content/Read";
const CONTENT_WRITE: &str = "/containerd.services.content.v1.Content/Write";
const FORWARD_AGENT: &str = "/moby.sshforward.v1.SSH/ForwardAgent";

/// One build's session. Cheap to clone.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    shared: Shared,
    receive: Mutex<Receive>,
}

/// Where the one archive of a build goes.
enum Receive {
    Unwanted,
    Expected(PathBuf),
    Running,
    Done,
}

impl Session {
    pub const METHODS: &[&str] = &[
        HEALTH,
        FILES,
        RECEIVE,
        CREDENTIALS,
        SECRET,
        CHECK_AGENT,
        FORWARD_AGENT,
        CONTENT_INFO,
        CONTENT_READ,
        CONTENT_WRITE,
    ];

    pub fn new(shared: Shared, receive: Option<PathBuf>) -> Self {
        let receive = Mutex::new(receive.map_or(Receive::Unwanted, Receive::Expected));
        Self(Arc::new(Inner { shared, receive }))
    }

    /// Equal for builds of the same folders: the engine keeps a copy of them under it, and asks for files whose size or
    /// mtime is another. Where such a file would not tell, it gets a new copy.
    pub fn shared_key(&self) -> String {
        let mut hasher = Hasher::new();
        hasher.field(nix::unistd::gethostname().unwrap_or_default().as_encoded_bytes());
        for (name, dir) in &self.0.shared.locals {
            hasher.field(name);
            hasher.field(dir.as_os_str().as_encoded_bytes());
        }
        if let Some(changes) = &self.0.shared.behind_mtimes {
            hasher.field(changes.as_bytes());
        }
        hasher.finish().hex().clone()
    }

    /// Whether the archive came, and to its end.
    pub fn received(&self) -> bool {
        matches!(*self.receive(), Receive::Done)
    }

    fn receive(&self) -> std::sync::MutexGuard<'_, Receive> {
        self.0.receive.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn answer(self, call: http::Request<Incoming>) -> http::Response<Body> {
        let shared = &self.0.shared;
        match call.uri().path() {
            HEALTH => {
                let status = health_check_response::ServingStatus::Serving.into();
                one(call, |_: tonic::Request<HealthCheckRequest>| async move { Ok(HealthCheckResponse { status }) })
                    .await
            }
            FILES => many(call, |request| files::send(&shared.locals, request)).await,
            RECEIVE => many(call, |request| receive::archive(&self, request)).await,
            CREDENTIALS => one(call, |request| credentials::find(shared.registry.clone(), request)).await,
            SECRET => one(call, |request| async { self.secret(request) }).await,
            CHECK_AGENT => one(call, |request| async { agent::check(&shared.ssh, request) }).await,
            FORWARD_AGENT => many(call, |request| agent::forward(&shared.ssh, request)).await,
            CONTENT_INFO => one(call, |request| async { content::info(&shared.stores, request) }).await,
            CONTENT_READ => answers(call, |request| async { content::read(&shared.stores, request) }).await,
            CONTENT_WRITE => many(call, |request| async { upload::write(&shared.stores, request) }).await,
            path => {
                tracing::debug!(path, "the engine asked for what is not offered");
                refuse(Status::unimplemented(format!("{path} is not offered")))
            }
        }
    }

    fn secret(&self, request: tonic::Request<GetSecretRequest>) -> Result<GetSecretResponse, Status> {
        let id = request.into_inner().id;
        match self.0.shared.secrets.get(&id) {
            Some(secret) => Ok(GetSecretResponse { data: secret.expose().to_vec() }),
            None => Err(Status::not_found(format!("secret {id} was not given"))),
        }
    }
}
