//! What a request still sends when it is answered already: read and dropped, so that its client comes to the answer.
//! Many clients send all first, and else find the connection (HTTP/1.1) or the stream (HTTP/2) broken.
//! In: a request, its answer. Out: the answer, once the rest has come or is too much.
//! Invariant: who waits to be told to go on (`expect: 100-continue`) is not told so for nothing.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use hyper::body::{Frame, SizeHint};
use tokio::sync::oneshot;

/// What is read and dropped of one request.
const BYTES_MAX: usize = 32 << 20;
/// How long it may take, beyond the deadline of the answer itself.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn read_out(request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits = request.headers().contains_key(header::EXPECT);
    let (back, mut left) = oneshot::channel();
    let answer = next.run(request.map(|body| Body::new(Lent::new(body, back)))).await;
    // One that was too slow for its deadline sends nothing.
    if answer.status() != StatusCode::REQUEST_TIMEOUT
        && let Ok((body, read)) = left.try_recv()
        && (read == Read::Begun || read == Read::Untouched && !waits)
    {
        let _ = tokio::time::timeout(PATIENCE, read_and_drop(body)).await;
    }
    answer
}

async fn read_and_drop(body: Body) {
    let (mut body, mut bytes) = (body.into_data_stream(), 0);
    while let Some(Ok(piece)) = body.next().await {
        bytes += piece.len();
        if bytes > BYTES_MAX {
            return;
        }
    }
}

/// How much of a body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    Untouched,
    Begun,
    All,
}

/// A body that comes back when who reads it is done with it.
struct Lent {
    body: Body,
    read: Read,
    back: Option<oneshot::Sender<(Body, Read)>>,
}

impl Lent {
    fn new(body: Body, back: oneshot::Sender<(Body, Read)>) -> Self {
        Self {
            body,
            read: Read::Untouched,
            back: Some(back),
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.read = Read::Begun;
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.read = Read::All;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            let _ = back.send((std::mem::take(&mut self.body), self.read));
        }
    }
}
