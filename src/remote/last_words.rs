//! A stream whose other side may have said why it hung up. Who is still writing then hears only that nobody reads, and
//! what was said, such as that a certificate was wanted, would stay unread.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Io;

/// Where a write fails because the other side is gone, fails for the reason that reading gives.
pub struct LastWords<S> {
    stream: S,
    /// Why a write has failed, while it is listened for a better reason.
    broken: Option<io::Error>,
}

impl<S: Io> LastWords<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, broken: None }
    }

    /// Writes by `write`, unless that has failed already.
    fn poll_out<T>(
        &mut self,
        context: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.broken.is_none() {
            match ready!(write(Pin::new(&mut self.stream), context)) {
                Err(error) if is_gone(&error) => self.broken = Some(error),
                result => return Poll::Ready(result),
            }
        }
        // A connection that is over has something to read, if only its end.
        let mut room = [0; 4096];
        loop {
            let mut buffer = ReadBuf::new(&mut room);
            match ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)) {
                // Nobody will answer any more, so nobody needs it.
                Ok(()) if !buffer.filled().is_empty() => {}
                Err(said) if !is_gone(&said) => return Poll::Ready(Err(said)),
                _ => {
                    let error = self.broken.take();
                    return Poll::Ready(Err(error.unwrap_or_else(|| io::ErrorKind::BrokenPipe.into())));
                }
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<S: Io> AsyncRead for LastWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: Io> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_out(context, |stream, context| stream.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(context, |stream, context| stream.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_out(context, |stream, context| stream.poll_shutdown(context))
    }
}
