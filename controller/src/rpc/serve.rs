//! One gRPC server over both the agents' port and the operators' socket. Who may call what is decided in `rpc/peer`.
//! Called by `app`.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::Stream;
use jiff::Timestamp;
use proto::agent::v1::agent_service_server::AgentServiceServer;
use proto::operator::v1::operator_service_server::OperatorServiceServer;
use rustls::ServerConfig;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server as Tonic;
use tracing::{error, info};

use super::agent_service::AgentApi;
use super::listener::{self, Io, PeerUser};
use super::operator::identity_ca;
use super::operator_service::OperatorApi;
use super::peer::Guard;
use crate::ca::{CaError, IdentityCa};
use crate::config::Mail;
use crate::lifecycle::backoff::after;
use crate::lifecycle::clock_skew::Verdict;
use crate::lifecycle::problem::chain;
use crate::tasks::hub::Hub;
use crate::tasks::rehearsal::Eyes;

/// Largest message of a peer. Reports with all targets of a busy agent stay far below.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// A dead peer is noticed after this and [`KEEPALIVE_ANSWER`]. Agents say something every 30 s: those are not asked.
const KEEPALIVE: Duration = Duration::from_secs(45);
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(20);
/// Streams of one connection.
const STREAMS_MAX: u32 = 64;
/// How long calls in flight may take when the controller ends.
const DRAIN: Duration = Duration::from_secs(5);
/// The wall clock may leap: look at it at least this often.
const CLOCK_LOOK_EVERY: Duration = Duration::from_secs(3_600);

/// What views say about this installation.
#[derive(Clone, Debug)]
pub(crate) struct Installation {
    /// Host name of the controller.
    pub(crate) name: String,
    /// `HOST:PORT` that agents are told.
    pub(crate) advertise: Option<String>,
    /// The local mailer.
    pub(crate) mail: Mail,
}

/// What serving needs.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    pub(crate) hub: Hub,
    pub(crate) ca: Arc<IdentityCa>,
    pub(crate) installation: Installation,
    /// For looks at challenges.
    pub(crate) eyes: Eyes,
    /// Ends long-lived streams.
    pub(crate) stop: CancellationToken,
}

/// Why the controller cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No certificate for ourselves.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Our certificate is not usable.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// tonic stopped.
    #[error("gRPC ended")]
    Tonic(#[from] tonic::transport::Error),
}

/// Serves agents and operators until `server.stop`.
///
/// # Errors
/// When the controller's own certificate cannot be made or used.
pub(crate) async fn serve<AI, SI>(
    server: Server,
    agents: impl Stream<Item = io::Result<(AI, Option<IpAddr>)>> + Send,
    socket: impl Stream<Item = io::Result<(SI, PeerUser)>> + Send,
) -> Result<(), ServeError>
where
    AI: Io + 'static,
    SI: Io + 'static,
{
    let stop = server.stop.clone();
    let (config, renew_at) = tls(&server)?;
    let config = Arc::new(ArcSwap::from_pointee(config));
    let (out, accepted) = listener::channel();
    let accepting = listener::accept(agents, socket, config.clone(), out, stop.clone());
    let agent_api =
        AgentServiceServer::new(AgentApi { server: server.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let operator_api =
        OperatorServiceServer::new(OperatorApi { server: server.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let tonic = Tonic::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_ANSWER))
        .max_concurrent_streams(STREAMS_MAX)
        .layer(Guard { hub: server.hub.clone() })
        .add_service(agent_api)
        .add_service(operator_api)
        .serve_with_incoming_shutdown(ReceiverStream::new(accepted), stop.clone().cancelled_owned());
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = tonic => ended?,
        () = drained => info!("calls still open at the end were cut"),
        () = async { tokio::join!(accepting, renew(&server, &config, renew_at)); } => {}
    }
    Ok(())
}

fn tls(server: &Server) -> Result<(ServerConfig, Timestamp), ServeError> {
    let credentials = server.ca.issue_controller()?;
    let leaf = credentials.chain.first().and_then(|der| proto::x509::LeafFacts::parse(der).ok());
    let renew_at = leaf.map_or_else(|| server.hub.now(), |leaf| crate::ca::renew_at(leaf.not_before, leaf.not_after));
    Ok((proto::tls::server_config(&server.ca.roots(), credentials, server.hub.clock.clone())?, renew_at))
}

/// Replaces the controller's own certificate at half its life, and with every step of a rotation; new handshakes use the
/// new one. Never ends.
async fn renew(server: &Server, config: &ArcSwap<ServerConfig>, mut renew_at: Timestamp) {
    let life = renew_at.duration_since(server.hub.now());
    let mut rotation = server.hub.rotation.subscribe();
    loop {
        // Both are cancel-safe.
        let rotated = tokio::select! {
            changed = rotation.changed() => changed.is_ok(),
            () = tokio::time::sleep(CLOCK_LOOK_EVERY) => false,
        };
        if let Err(error) = identity_ca::refresh(server).await {
            error!(error = %chain(&error), "cannot read the identity CA");
        }
        let now = server.hub.now();
        // One that was dated by a clock far ahead is not valid for anyone yet.
        let is_of_the_future = renew_at.duration_since(now) > life;
        let is_due = renew_at <= now || is_of_the_future;
        if !rotated && (!is_due || server.hub.clock_watch.verdict() != Verdict::Right) {
            continue;
        }
        match tls(server) {
            Ok((fresh, next)) => {
                config.store(Arc::new(fresh));
                renew_at = next;
                info!("the controller's own certificate was renewed");
            }
            Err(error) => {
                error!(error = %chain(&error), "cannot renew the controller's own certificate");
                renew_at = after(server.hub.now(), CLOCK_LOOK_EVERY);
            }
        }
    }
}
