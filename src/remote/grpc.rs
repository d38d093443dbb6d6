//! gRPC over a stream that is already open, both ways: calls to the other side, and answers to its calls.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tonic::body::Body;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

/// What BuildKit's own client and server take: a definition with its Dockerfile, a batch of log lines.
const MAX_MESSAGE: usize = 16 << 20;

/// Room for data on its way in one stream; the 64 KiB of the specification make contexts and archives crawl.
const WINDOW: u32 = 1 << 20;

/// How many messages wait for a slow reader.
const QUEUE: usize = 32;

/// A call that broke with its connection waits so long for what broke it.
const END: Duration = Duration::from_secs(1);

/// A connection to a gRPC server. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    grpc: tonic::client::Grpc<Sender>,
    /// What ended the connection, once it is over.
    end: watch::Receiver<Option<String>>,
}

#[derive(Clone)]
struct Sender(client::SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

impl Channel {
    pub async fn open(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> hyper::Result<Self> {
        let (sender, connection) = client::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(io))
            .await?;
        let (told, end) = watch::channel(None);
        tokio::spawn(async move {
            let why = match connection.await {
                Ok(()) => "it hung up".to_owned(),
                Err(error) => innermost(&error).to_string(),
            };
            told.send_replace(Some(why));
        });
        let origin = http::Uri::from_static("http://buildkit");
        let grpc = tonic::client::Grpc::with_origin(Sender(sender), origin);
        Ok(Self { grpc: grpc.max_decoding_message_size(MAX_MESSAGE), end })
    }

    /// What broke the connection, where a call failed because of that: the call itself knows only that it did.
    pub async fn broken_by(&self, status: &Status) -> Option<String> {
        // A status that came from the other side has no cause here.
        std::error::Error::source(status)?;
        let mut end = self.end.clone();
        let ended = tokio::time::timeout(END, end.wait_for(Option::is_some)).await;
        ended.ok()?.ok()?.clone()
    }

    async fn ready(&self) -> Result<tonic::client::Grpc<Sender>, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
        Ok(grpc)
    }

    pub async fn unary<Q, A>(&self, path: &'static str, question: Request<Q>) -> Result<A, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let answer = self.ready().await?.unary(question, path, ProstCodec::<Q, A>::new()).await?;
        Ok(answer.into_inner())
    }

    /// One question, many answers.
    pub async fn answers<Q, A>(&self, path: &'static str, question: Request<Q>) -> Result<Streaming<A>, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::new();
        Ok(self.ready().await?.server_streaming(question, path, codec).await?.into_inner())
    }

    /// Messages both ways, until one side has no more.
    pub async fn both<Q, A>(
        &self,
        path: &'static str,
        questions: Request<mpsc::Receiver<Q>>,
    ) -> Result<Streaming<A>, Status>
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
    {
        let path = PathAndQuery::from_static(path);
        let codec = ProstCodec::<Q, A>::new();
        Ok(self.ready().await?.streaming(questions.map(received), path, codec).await?.into_inner())
    }
}

/// The cause of all: what is around it tells of our own layers.
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error
}

fn received<T: Send>(receiver: mpsc::Receiver<T>) -> impl Stream<Item = T> + Send {
    stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) })
}

/// Messages of a call on their way out.
pub type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A place to put messages, and the stream that they come out of.
pub fn outgoing<T: Send + 'static>() -> (mpsc::Sender<Result<T, Status>>, Outgoing<T>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (sender, Box::pin(received(receiver)))
}

/// Answers calls on a stream until it ends. `answer` is given each call and chooses by its path.
pub async fn serve<F, A>(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, answer: F) -> hyper::Result<()>
where
    F: Fn(http::Request<Incoming>) -> A + Send + Clone + 'static,
    A: Future<Output = http::Response<Body>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request| {
        let answer = answer(request);
        async { Ok::<_, Infallible>(answer.await) }
    });
    server::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .serve_connection(TokioIo::new(io), service)
        .await
}

/// Answers a call of one message with one.
pub async fn one<Q, A, F, W>(call: http::Request<Incoming>, work: W) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<A, Status>> + Send,
    W: FnOnce(Request<Q>) -> F + Send,
{
    let work = Work(Some(|request| async { work(request).await.map(Response::new) }));
    tonic::server::Grpc::new(ProstCodec::<A, Q>::new()).unary(work, call).await
}

/// Answers a call of one message with a stream.
pub async fn answers<Q, A, F, W>(call: http::Request<Incoming>, work: W) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<Outgoing<A>, Status>> + Send,
    W: FnOnce(Request<Q>) -> F + Send,
{
    let work = Work(Some(|request| async { work(request).await.map(Response::new) }));
    tonic::server::Grpc::new(ProstCodec::<A, Q>::new()).server_streaming(work, call).await
}

/// Answers a call that streams with a stream.
pub async fn many<Q, A, F, W>(call: http::Request<Incoming>, work: W) -> http::Response<Body>
where
    Q: Message + Default + 'static,
    A: Message + Default + 'static,
    F: Future<Output = Result<Outgoing<A>, Status>> + Send,
    W: FnOnce(Request<Streaming<Q>>) -> F + Send,
{
    let work = Work(Some(|request| async { work(request).await.map(Response::new) }));
    let mut grpc = tonic::server::Grpc::new(ProstCodec::<A, Q>::new()).max_decoding_message_size(MAX_MESSAGE);
    grpc.streaming(work, call).await
}

pub fn refuse(status: Status) -> http::Response<Body> {
    status.into_http()
}

/// One call's work as the service that tonic wants.
struct Work<W>(Option<W>);

impl<Q, R, F, W> Service<Request<Q>> for Work<W>
where
    F: Future<Output = Result<Response<R>, Status>>,
    W: FnOnce(Request<Q>) -> F,
{
    type Response = Response<R>;
    type Error = Status;
    type Future = F;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Q>) -> F {
        let work = self.0.take().unwrap_or_else(|| unreachable!("a call is answered once"));
        work(request)
    }
}

/// Carries the bytes of a stream in the messages of another: a session inside a call.
pub async fn carry<M>(
    io: tokio::io::DuplexStream,
    mut incoming: Streaming<M>,
    outgoing: mpsc::Sender<M>,
    data: fn(M) -> Vec<u8>,
    message: fn(Vec<u8>) -> M,
) where
    M: Send + 'static,
{
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let (mut reader, mut writer) = tokio::io::split(io);
    let out = async {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = reader.read(&mut buffer).await {
            if outgoing.send(message(buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let into = async {
        while let Ok(Some(next)) = incoming.message().await {
            if writer.write_all(&data(next)).await.is_err() {
                return;
            }
        }
    };
    // Either end of it ends both: half a session is none.
    tokio::select! { () = out => {}, () = into => {} }
}

/// Pieces in which bytes are carried.
pub const CHUNK: usize = 32 << 10;

/// A body that is fed from elsewhere.
pub struct Fed(pub mpsc::Receiver<std::io::Result<Bytes>>);

impl hyper::body::Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<hyper::body::Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|next| next.map(|next| next.map(hyper::body::Frame::data)))
    }
}
