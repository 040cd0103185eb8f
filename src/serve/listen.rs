//! Connections: accepted up to a limit, given up when the other side dawdles, drained at the end.
//! In: a listener, a router. Out: answers over HTTP/1.1 and HTTP/2, with TLS if there is a certificate.
//! Invariant: no client holds a connection without sending a request or taking its answer; nobody waits for it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::tls::Tls;

/// How long a client may take for its first byte, its TLS handshake, the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take none of an answer that is ready for it.
const WRITE_PATIENCE: Duration = Duration::from_secs(30);
/// The pause when no connection can be accepted (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The largest head of a request.
pub(super) const HEAD_BYTES_MAX: usize = 32 << 10;
/// The largest that is read, so that one over the limit gets an answer that says so, and a connection's read buffer.
/// What is larger still gets the status alone.
const HEAD_BYTES_READ: usize = 2 * HEAD_BYTES_MAX;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 250;
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);

const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nconnection: close\r\nretry-after: 1\r\n\
    content-length: 84\r\n\r\n{\"error\":{\"code\":\"too_many_connections\",\"message\":\"try again later\",\"detail\":null}}\n";

/// Serves until `stop`, then lets open requests come to their end.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Tls>,
    connections_max: usize,
    stop: CancellationToken,
) {
    let builder = builder();
    let graceful = GracefulShutdown::new();
    let room = std::sync::Arc::new(Semaphore::new(connections_max));
    let mut tasks = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "no connection can be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let Ok(permit) = std::sync::Arc::clone(&room).try_acquire_owned() else {
            tasks.spawn(turn_away(stream));
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (builder, watcher) = (builder.clone(), graceful.watcher());
        let (router, tls) = (router.clone(), tls.clone());
        tasks.spawn(async move {
            let Some(io) = shake_hands(tls, Patient::new(stream)).await else {
                return;
            };
            let service = TowerToHyperService::new(router);
            let connection = builder.serve_connection(TokioIo::new(io), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!(%error, "connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    graceful.shutdown().await;
    while tasks.join_next().await.is_some() {}
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_READ);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_EVERY)
        .max_header_list_size(HEAD_BYTES_READ as u32);
    builder
}

/// Both kinds of connection under one name.
type Io = Box<dyn Both>;

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

async fn shake_hands(tls: Option<Tls>, stream: Patient) -> Option<Io> {
    let Some(tls) = tls else {
        return Some(Box::new(stream));
    };
    match tokio::time::timeout(HEAD_PATIENCE, tls.accept(stream)).await {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            debug!(%error, "TLS handshake");
            None
        }
        Err(_) => None,
    }
}

async fn turn_away(mut stream: TcpStream) {
    let _ = tokio::time::timeout(Duration::from_secs(1), async {
        stream.write_all(FULL).await?;
        stream.shutdown().await
    })
    .await;
}

/// A connection that ends when nothing came first, or when what is written is not taken, for too long.
pub(super) struct Patient {
    stream: TcpStream,
    first_byte: Option<Pin<Box<Sleep>>>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            first_byte: Some(Box::pin(sleep(HEAD_PATIENCE))),
            stalled: None,
        }
    }

    /// What came of a write; an error once it has stood still for too long.
    fn settle<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(WRITE_PATIENCE)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.first_byte = None;
        } else if let Some(first) = &mut self.first_byte {
            ready!(first.as_mut().poll(cx));
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client sends nothing")));
        }
        read
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.settle(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bytes);
        self.settle(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.settle(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// As many open files as the system allows: each connection is one.
pub(crate) fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: now.maximum,
        maximum: now.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        debug!(%error, ?now, "the limit of open files stays");
    }
}

#[cfg(test)]
mod tests {
    use super::FULL;

    #[test]
    fn the_answer_of_a_full_server_has_the_length_that_it_says() {
        let text = std::str::from_utf8(FULL).expect("ASCII");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(
            head.contains(&format!("content-length: {}", body.len())),
            "{}",
            body.len()
        );
    }
}
