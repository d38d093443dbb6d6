//! An existing BuildKit, spoken to over gRPC: definitions go out, progress comes back, and through a session the
//! other side asks for what a build needs of this machine: files of the shared folders, credentials, secrets, an ssh
//! agent. It gets what the request names and nothing else.
//!
//! tonic frames the messages; connections are opened here, because a Docker socket must be upgraded first and a
//! session is an HTTP/2 server on a stream inside an HTTP/2 stream.

mod address;
mod client;
mod connect;
mod docker;
mod grpc;
mod last_words;
mod session;
mod solve;
mod status;
pub mod stores;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

pub use address::{Address, InvalidAddress};
pub use client::{Client, Disk, Keep, Rule, Version, Worker};
pub use connect::Reach;
pub use solve::{CacheEntry, Caches, Shared, Solve, Work};
pub use stores::{Store, Stores};
pub use tls::Tls;

use std::io;

/// What keeps an engine from being used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("reach the engine at {address}: {source}")]
    Connect { address: Address, source: io::Error },
    #[error("the engine at {address} does not speak BuildKit's protocol: {answer}")]
    Protocol { address: Address, answer: String },
    #[error("{what} at {address}: {status}")]
    Call { what: &'static str, address: Address, status: Said },
    #[error("{what} at {address}: {answer}")]
    Docker { what: String, address: Address, answer: String },
    #[error(transparent)]
    Cancelled(#[from] crate::base::cancel::Cancelled),
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Whether the engine is gone, or going, rather than what it was asked for wrong: another one may do it.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Protocol { .. } => true,
            Self::Call { status, .. } => status.is_lost(),
            Self::Docker { .. } | Self::Cancelled(_) | Self::Io { .. } => false,
        }
    }
}

/// What a server said of a call: its words, and the code only where there are none; or what broke the connection
/// before it said anything.
#[derive(Debug)]
pub struct Said {
    status: Box<tonic::Status>,
    broken_by: Option<String>,
}

impl Said {
    /// No server said it, and the connection broke; or one says that it ends: it cancels what we did not cancel.
    fn is_lost(&self) -> bool {
        std::error::Error::source(&*self.status).is_some()
            || matches!(self.status.code(), tonic::Code::Unavailable | tonic::Code::Cancelled)
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.broken_by, self.status.message()) {
            (Some(why), _) => write!(f, "the connection broke: {why}"),
            (None, "") => write!(f, "{}", self.status.code().description()),
            (None, words) => f.write_str(words),
        }
    }
}
