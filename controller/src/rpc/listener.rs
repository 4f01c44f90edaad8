//! From connections to streams that tonic can serve: TLS handshakes in bounded tasks with a time limit, and who the peer
//! is. tonic's own TLS cannot swap its certificate, so the handshake is ours (design §8). Called by `rpc/serve`.

use std::fmt::Debug;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::{Stream, StreamExt as _};
use proto::tls;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::peer::{Origin, Peer};

/// Handshakes at the same time: 0.5 ms of CPU each, so thousands of agents are back within seconds.
const HANDSHAKES_MAX: usize = 256;
/// A peer that has not finished its handshake by then is gone.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Accepted connections that tonic has not taken yet.
const ACCEPTED_MAX: usize = 64;
/// After a failed accept (out of descriptors, most often).
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The user at the other end of the Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerUser {
    /// Whom the kernel names.
    pub uid: u32,
    /// Who logged in, before any sudo; absent where the kernel does not audit logins.
    pub login_uid: Option<u32>,
}

/// Anything bytes flow through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection and who is at its other end.
pub(crate) struct PeerIo {
    io: Box<dyn Io>,
    peer: Peer,
}

impl Debug for PeerIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerIo").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Connected for PeerIo {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for PeerIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for PeerIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Accepts both kinds of connections until `stop`, and hands them over through the returned channel.
pub(crate) async fn accept<A, S, AI, SI>(
    agents: A,
    socket: S,
    config: Arc<ArcSwap<ServerConfig>>,
    out: mpsc::Sender<io::Result<PeerIo>>,
    stop: CancellationToken,
) where
    A: Stream<Item = io::Result<(AI, Option<IpAddr>)>> + Send,
    S: Stream<Item = io::Result<(SI, PeerUser)>> + Send,
    AI: Io + 'static,
    SI: Io + 'static,
{
    let limit = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    let mut handshakes = JoinSet::new();
    let mut number = 0;
    let (mut agents, mut socket) = (std::pin::pin!(agents.fuse()), std::pin::pin!(socket.fuse()));
    loop {
        // Every arm is cancel-safe: nothing is taken before the arm wins.
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(done) = handshakes.join_next(), if !handshakes.is_empty() => {
                if let Err(panic) = done {
                    warn!(%panic, "a handshake ended by a bug");
                }
            }
            Some(accepted) = socket.next() => match accepted {
                Ok((io, user)) => { handshakes.spawn(hand_over(out.clone(), PeerIo { io: Box::new(io), peer: Peer::Local(user) })); }
                Err(error) => pause("socket", &error).await,
            },
            (permit, accepted) = next_agent(&limit, &mut agents) => match accepted {
                Some(Ok((io, address))) => {
                    number += 1;
                    let origin = Origin { address, number };
                    handshakes.spawn(handshake(io, origin, config.load_full(), out.clone(), permit));
                }
                Some(Err(error)) => pause("port", &error).await,
                None => stop.cancelled().await,
            },
        }
    }
    handshakes.shutdown().await;
}

/// Takes the next connection only when there is room for its handshake.
async fn next_agent<AI>(
    limit: &Arc<Semaphore>,
    agents: &mut (impl Stream<Item = io::Result<AI>> + Unpin),
) -> (Option<OwnedSemaphorePermit>, Option<io::Result<AI>>) {
    let permit = limit.clone().acquire_owned().await.ok();
    (permit, agents.next().await)
}

async fn handshake(
    io: impl Io + 'static,
    origin: Origin,
    config: Arc<ServerConfig>,
    out: mpsc::Sender<io::Result<PeerIo>>,
    permit: Option<OwnedSemaphorePermit>,
) {
    let accepted = tokio::time::timeout(HANDSHAKE_TIME_MAX, TlsAcceptor::from(config).accept(io)).await;
    drop(permit);
    match accepted {
        Ok(Ok(stream)) => {
            let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let peer = Peer::Tls(leaf.and_then(|leaf| tls::Peer::from_leaf(leaf)), origin);
            hand_over(out, PeerIo { io: Box::new(stream), peer }).await;
        }
        Ok(Err(error)) => debug!(%error, "TLS handshake refused"),
        Err(_elapsed) => debug!("TLS handshake took too long"),
    }
}

async fn hand_over(out: mpsc::Sender<io::Result<PeerIo>>, io: PeerIo) {
    if out.send(Ok(io)).await.is_err() {
        debug!("connection came while the controller ends");
    }
}

/// Rests after a connection that could not be accepted.
pub(super) async fn pause(what: &str, error: &io::Error) {
    warn!(what, %error, "cannot accept a connection; trying again");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Returns the channel between [`accept`] and tonic.
pub(crate) fn channel() -> (mpsc::Sender<io::Result<PeerIo>>, mpsc::Receiver<io::Result<PeerIo>>) {
    mpsc::channel(ACCEPTED_MAX)
}
