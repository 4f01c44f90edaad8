//! Wires the rooms into a running controller. It decides nothing. Called by `main`, and by the simulation with other
//! edges.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::Stream;
use proto::clock::Clock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::acme::account::Acme;
use crate::acme::http::Transport;
use crate::ca::{CaError, IdentityCa};
use crate::config::Mail;
use crate::dns::lookup::Lookup;
use crate::lifecycle::lock::LockShare;
use crate::lifecycle::problem::Problem;
use crate::preflight::probe::Probe;
use crate::rpc::{self, Door, Installation, PeerUser, ServeError, Server};
use crate::store::removals::Removals;
use crate::store::{Store, StoreError};
use crate::tasks::hub::Hub;
use crate::tasks::rehearsal::Eyes;
use crate::tasks::{self, Context};

/// The edges of one controller.
#[derive(Debug)]
pub struct Parts {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The open database.
    pub store: Store,
    /// The way to ACME servers.
    pub transport: Arc<dyn Transport>,
    /// The way to DNS.
    pub lookup: Arc<dyn Lookup>,
    /// The way to look at a challenge as a CA would.
    pub probe: Arc<dyn Probe>,
    /// Host name, for titles.
    pub name: String,
    /// `HOST:PORT` that agents are told.
    pub advertise: Option<String>,
    /// The local mailer.
    pub mail: Mail,
    /// Where monitors come in.
    pub monitors: Door,
    /// Where clients fetch revocation lists of private CAs.
    pub lists: Option<TcpListener>,
    /// When an operator's new order is locked.
    pub lock_share: LockShare,
    /// What must stay refused whatever is restored.
    pub removals: Removals,
}

/// Why a controller ended.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The database refused a write; it must be opened again.
    #[error("the database failed")]
    StoreBroken,
    /// The identity CA.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// Serving.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

impl AppError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        match self {
            Self::Store(error) => error.problem(),
            Self::StoreBroken => Problem::new(
                "STORE_FAILED",
                self.to_string(),
                "the log above says which file and why",
                "mend it (a full disk, most often) and start again; systemd does so by itself",
            ),
            Self::Ca(error) | Self::Serve(ServeError::Ca(error)) => error.problem(),
            Self::Serve(error) => {
                let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
                Problem::new(
                    "CANNOT_SERVE",
                    error.to_string(),
                    cause,
                    "journalctl -u certwright-controller shows what came before",
                )
            }
        }
    }
}

/// Runs a controller until `stop`. `agents` are raw connections of agents, before TLS, with where they come from; `socket` those of operators on
/// this host.
///
/// # Errors
/// When it cannot start.
pub async fn run<AI, SI>(
    parts: Parts,
    agents: impl Stream<Item = io::Result<(AI, Option<IpAddr>)>> + Send,
    socket: impl Stream<Item = io::Result<(SI, PeerUser)>> + Send,
    stop: CancellationToken,
) -> Result<(), AppError>
where
    AI: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    SI: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let ca = Arc::new(IdentityCa::open_or_create(&parts.store, parts.clock.clone()).await?);
    let mut hub = Hub::open(parts.store, parts.clock.clone()).await?;
    hub.lock_share = parts.lock_share;
    hub.rotation.send_replace(ca.rotation());
    hub.removals = parts.removals;
    let eyes = Eyes { lookup: Arc::clone(&parts.lookup), probe: Arc::clone(&parts.probe) };
    let context = Context {
        hub: hub.clone(),
        acme: Arc::new(Acme::new(parts.transport, parts.clock)),
        lookup: parts.lookup,
        probe: parts.probe,
        mail: parts.mail.clone(),
        name: parts.name.clone(),
    };
    let server = Server {
        hub,
        ca,
        installation: Installation { name: parts.name, advertise: parts.advertise, mail: parts.mail },
        eyes,
        stop: stop.clone(),
    };
    let monitors = rpc::serve_monitors(server.hub.clone(), parts.monitors, stop.clone());
    let lists = rpc::serve_revocation_lists(server.hub.clone(), parts.lists, stop.clone());
    let broken = server.hub.store.engine.failed();
    let served = async {
        let served = tokio::select! {
            served = rpc::serve(server, agents, socket) => served.map_err(AppError::from),
            () = broken.cancelled() => Err(AppError::StoreBroken),
        };
        // Without its port a controller is of no use: the tasks end with it.
        stop.cancel();
        served
    };
    let ((), (), (), served) = tokio::join!(tasks::run(context, stop.clone()), monitors, lists, served);
    served
}
