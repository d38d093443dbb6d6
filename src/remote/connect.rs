//! Opens a stream that speaks HTTP/2 to an engine: a socket, TLS on it, or a Docker socket that was upgraded.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::{Address, Error, Result};

/// An engine that does not even accept within this time is away.
const CONNECT_TIME: Duration = Duration::from_secs(20);

/// A socket is asked whether the other side is still there once it was silent for this long: a step may be quiet for
/// hours, and a machine that lost its power says nothing either.
const SILENCE: Duration = Duration::from_secs(60);

/// The answer to an upgrade is a few lines.
const MAX_ANSWER: usize = 16 << 10;

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub async fn connect(address: &Address, tls: Option<&Path>) -> Result<Box<dyn Io>> {
    let failed = |source| Error::Connect { address: address.clone(), source };
    let opening = open(address, tls);
    match tokio::time::timeout(CONNECT_TIME, opening).await {
        Ok(opened) => opened,
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "no answer"))),
    }
}

async fn open(address: &Address, tls: Option<&Path>) -> Result<Box<dyn Io>> {
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
            let Some(dir) = tls else { return Ok(Box::new(socket)) };
            let name = ServerName::try_from(host.clone())
                .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
            let connector = TlsConnector::from(Arc::new(trust(dir)?));
            Ok(Box::new(connector.connect(name, socket).await.map_err(failed)?))
        }
    }
}

/// A folder as `buildctl --tlsdir` has it: `ca.pem`, and `cert.pem` with `key.pem` where the engine wants to know its
/// clients.
fn trust(dir: &Path) -> Result<ClientConfig> {
    let bad = |path: &Path, why: String| Error::Io {
        what: path.display().to_string(),
        source: io::Error::new(io::ErrorKind::InvalidData, why),
    };
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|source| Error::Io { what: path.display().to_string(), source });
    let certificates = |path: &PathBuf| {
        CertificateDer::pem_slice_iter(&read(path)?)
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|error| bad(path, error.to_string()))
    };
    let authority = dir.join("ca.pem");
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&authority)? {
        roots.add(certificate).map_err(|error| bad(&authority, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| bad(dir, error.to_string()))?
        .with_root_certificates(roots);
    let (certificate, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let mut config = if certificate.exists() || key.exists() {
        let secret = PrivateKeyDer::from_pem_slice(&read(&key)?).map_err(|error| bad(&key, error.to_string()))?;
        config
            .with_client_auth_cert(certificates(&certificate)?, secret)
            .map_err(|error| bad(&certificate, error.to_string()))?
    } else {
        config.with_no_client_auth()
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
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
