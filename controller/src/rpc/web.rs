//! Plain HTTP for machines that only read: bounded in connections and in time. What is answered is its callers' own. Called by
//! `rpc/metrics` and `rpc/revocation_list`.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::listener::{Io, pause};

/// Connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 16;
/// One connection, from its first byte to its last.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(120);
/// A request's head must come within this.
const HEAD_TIME_MAX: Duration = Duration::from_secs(5);

/// Answers until `stop`.
pub(crate) async fn serve<I, A, F>(
    connections: impl Stream<Item = io::Result<I>> + Send,
    answer: A,
    stop: CancellationToken,
) where
    I: Io + 'static,
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut open = JoinSet::new();
    let mut connections = std::pin::pin!(connections.fuse());
    loop {
        // Every arm is cancel-safe: nothing is taken before the arm wins.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = open.join_next(), if !open.is_empty() => {}
            (permit, Some(accepted)) = async { (room.clone().acquire_owned().await, connections.next().await) } => {
                match (permit, accepted) {
                    (Ok(permit), Ok(io)) => {
                        let answer = answer.clone();
                        open.spawn(async move {
                            one(answer, io).await;
                            drop(permit);
                        });
                    }
                    // Without descriptors the next one fails at once, too.
                    (_, Err(error)) => pause("reader", &error).await,
                    // Nobody closes the semaphore.
                    (Err(_), Ok(_)) => break,
                }
            }
            else => break,
        }
    }
    open.shutdown().await;
}

async fn one<A, F>(answer: A, io: impl Io)
where
    A: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<Full<Bytes>>>,
{
    let answer = service_fn(move |request: Request<Incoming>| {
        let answered = answer(request);
        async move { Ok::<_, Infallible>(answered.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(io), answer);
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "a reader's connection broke"),
        Err(_elapsed) => debug!("a reader's connection was open for too long"),
    }
}
