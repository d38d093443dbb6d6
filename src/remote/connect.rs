//! Opens a stream that speaks HTTP/2 to an engine: a socket, TLS on it, or a Docker socket that was upgraded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::last_words::LastWords;
use super::{Address, Error, Result, Tls};

/// An engine that does not even accept within this time is away, unless somebody says another.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A socket is asked whether the other side is still there once it was silent for this long: a step may be quiet for
/// hours, and a machine that lost its power says nothing either.
const SILENCE: Duration = Duration::from_secs(60);

/// The answer to an upgrade is a few lines.
const MAX_ANSWER: usize = 16 << 10;

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// How an engine is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// For engines at a host.
    pub tls: Option<Tls>,
    /// How long it may take to answer.
    pub patience: Option<Duration>,
    /// Tries again, within that time, while nobody listens.
    pub wait: bool,
}

/// How soon an engine that was not there is looked for again.
const AGAIN: Duration = Duration::from_millis(100);

pub async fn connect(address: &Address, reach: &Reach) -> Result<Box<dyn Io>> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let opening = async {
        loop {
            match open(address, reach.tls.as_ref()).await {
                Err(Error::Connect { source, .. }) if reach.wait && is_absent(&source) => {
                    tokio::time::sleep(AGAIN).await;
                }
                other => return other,
            }
        }
    };
    match tokio::time::timeout(reach.patience.unwrap_or(PATIENCE), opening).await {
        Ok(opened) => opened,
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer"))),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

async fn open(address: &Address, tls: Option<&Tls>) -> Result<Box<dyn Io>> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    match address {
        Address::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Address::Docker(path) => {
            let socket = UnixStream::connect(path).await.map_err(failed)?;
            upgrade(socket, address).await.map(|io| Box::new(io) as _)
        }
        Address::Tcp { host, port } => {
            let socket = TcpStream::connect((host.as_str(), *port)).await.map_err(failed)?;
            socket.set_nodelay(true).map_err(failed)?;
            rustix::net::sockopt::set_socket_keepalive(&socket, true).map_err(|error| failed(error.into()))?;
            rustix::net::sockopt::set_tcp_keepidle(&socket, SILENCE).map_err(|error| failed(error.into()))?;
            let Some(tls) = tls else { return Ok(Box::new(socket)) };
            let name = ServerName::try_from(tls.server_name.as_ref().unwrap_or(host).clone())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let connector = TlsConnector::from(Arc::new(tls.trust()?));
            // TLS 1.3 refuses a client only after the client was told that all is well.
            Ok(Box::new(LastWords::new(connector.connect(name, socket).await.map_err(failed)?)))
        }
    }
}

/// Asks a Docker daemon to let its BuildKit speak on this connection.
async fn upgrade<S: Io>(mut socket: S, address: &Address) -> Result<S> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let words = "POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
    socket.write_all(words.as_bytes()).await.map_err(failed)?;
    // Byte by byte: what follows the blank line is not ours to take.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") && answer.len() < MAX_ANSWER {
        match socket.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(failed(error)),
        }
    }
    if answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n") {
        return Ok(socket);
    }
    let first = String::from_utf8_lossy(&answer).lines().next().unwrap_or_default().to_owned();
    let answer = if first.is_empty() { "it hung up".to_owned() } else { first };
    Err(Error::Protocol { address: address.clone(), answer })
}
