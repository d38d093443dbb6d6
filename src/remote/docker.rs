//! The few calls of Docker's own interface that its BuildKit leaves us to make: images in and out as archives.

use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::pin::Pin;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use hyper_util::rt::TokioIo;
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tonic::body::Body;

use super::grpc::{CHUNK, Fed};
use super::{Address, Error, Result};

/// An answer that is no archive is a sentence in JSON.
const MAX_WORDS: usize = 64 << 10;

/// One call on a connection of its own.
struct Docker<'a> {
    address: &'a Address,
    socket: &'a Path,
}

/// Writes the archive of an image to a file.
pub async fn save(address: &Address, socket: &Path, name: &str, file: &Path) -> Result<()> {
    let docker = Docker { address, socket };
    let mut answer = docker.call(Method::GET, &format!("/images/{name}/get"), Body::empty()).await?;
    if answer.status() != StatusCode::OK {
        return Err(docker.refused(format!("fetch {name}"), answer).await);
    }
    let failed = |source| Error::Io { what: format!("write {}", file.display()), source };
    let mut out = File::create(file).await.map_err(failed)?;
    while let Some(data) = next(answer.body_mut()).await.map_err(|error| docker.lost(&error))? {
        out.write_all(&data).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)
}

/// Takes a name from an image. Ok when there is none of the name.
pub async fn untag(address: &Address, socket: &Path, name: &str) -> Result<()> {
    let docker = Docker { address, socket };
    let answer = docker.call(Method::DELETE, &format!("/images/{name}"), Body::empty()).await?;
    match answer.status() {
        StatusCode::OK | StatusCode::NOT_FOUND => Ok(()),
        _ => Err(docker.refused(format!("remove {name}"), answer).await),
    }
}

/// Whether the daemon has an image of the name.
pub async fn has(address: &Address, socket: &Path, name: &str) -> Result<bool> {
    let docker = Docker { address, socket };
    let answer = docker.call(Method::GET, &format!("/images/{name}/json"), Body::empty()).await?;
    match answer.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(docker.refused(format!("look for {name}"), answer).await),
    }
}

/// Gives the daemon the images of an archive.
pub async fn load(address: &Address, socket: &Path, archive: &Path) -> Result<()> {
    let docker = Docker { address, socket };
    let failed = |source| Error::Io { what: format!("read {}", archive.display()), source };
    let mut file = File::open(archive).await.map_err(failed)?;
    let (sender, receiver) = mpsc::channel(4);
    let feeding = tokio::spawn(async move {
        loop {
            let mut piece = vec![0; CHUNK];
            let read = match file.read(&mut piece).await {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(Bytes::from(piece))
                }
                Err(error) => Err(error),
            };
            if sender.send(read).await.is_err() {
                return;
            }
        }
    });
    let answer = docker.call(Method::POST, "/images/load?quiet=1", Body::new(Fed(receiver))).await?;
    let status = answer.status();
    let words = docker.words(answer).await;
    feeding.abort();
    // A failure in the middle is told in the stream, after the status.
    if status == StatusCode::OK && !words.contains("\"error\"") {
        return Ok(());
    }
    Err(Error::Docker { what: "load an image".to_owned(), address: address.clone(), answer: words })
}

impl Docker<'_> {
    async fn call(&self, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
        let failed = |source| Error::Connect { address: self.address.clone(), source };
        let socket = UnixStream::connect(self.socket).await.map_err(failed)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the Docker daemon ended");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, "docker")
            .header(http::header::CONTENT_TYPE, "application/x-tar")
            .body(body)
            .map_err(|error| failed(io::Error::other(error)))?;
        sender.send_request(request).await.map_err(|error| self.lost(&error))
    }

    fn lost(&self, error: &hyper::Error) -> Error {
        Error::Connect { address: self.address.clone(), source: io::Error::other(error.to_string()) }
    }

    async fn refused(&self, what: String, answer: Response<Incoming>) -> Error {
        let status = answer.status();
        let words = self.words(answer).await;
        let answer = if words.is_empty() { status.to_string() } else { words };
        Error::Docker { what, address: self.address.clone(), answer }
    }

    /// What the daemon says: `{"message": …}`, or its lines.
    async fn words(&self, mut answer: Response<Incoming>) -> String {
        let mut text = Vec::new();
        while let Ok(Some(data)) = next(answer.body_mut()).await {
            text.extend_from_slice(&data[..data.len().min(MAX_WORDS.saturating_sub(text.len()))]);
        }
        let message = serde_json::from_slice::<serde_json::Value>(&text)
            .ok()
            .and_then(|value| value["message"].as_str().map(str::to_owned));
        message.unwrap_or_else(|| String::from_utf8_lossy(&text).trim().to_owned())
    }
}

async fn next(body: &mut Incoming) -> hyper::Result<Option<Bytes>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await.transpose()? {
            None => return Ok(None),
            Some(frame) => match frame.into_data() {
                Ok(data) => return Ok(Some(data)),
                // Trailers: nothing is said in them.
                Err(_) => continue,
            },
        }
    }
}
