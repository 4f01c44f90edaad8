//! Wires the rooms: `enroll` joins a controller, `run` is the daemon. Holds no decision of its own; `main` and the
//! scenario tests call it.

use std::path::PathBuf;
use std::sync::Arc;

use proto::clock::Clock;
use proto::id::JoinToken;
use proto::tls::Trust;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::apply;
use crate::config;
use crate::host::Host;
use crate::net::client;
use crate::net::identity::{self, Identity};
use crate::net::reconcile::Reconciler;
use crate::net::session::{Link, Session};
use crate::net::witness::Witness;
use crate::policy::{default, explain, file};
use crate::problem::Problem;
use crate::state::StateDir;

/// What an agent is made of.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    /// The outside: connections, ports, commands.
    pub host: Arc<dyn Host>,
    /// The agent's own directory.
    pub state_dir: PathBuf,
    /// The local policy.
    pub policy_path: PathBuf,
}

/// A server that has joined.
#[derive(Clone, Debug)]
pub struct Enrolled {
    /// Random, never reused.
    pub agent_id: String,
    /// The name the operator gave.
    pub agent_name: String,
    /// A default policy was written, because there was none.
    pub policy_written: bool,
    /// What the policy allows, one sentence each.
    pub policy_allows: Vec<String>,
}

/// Joins a controller. Safe to repeat with the same token when the reply was lost: the key stays the same.
///
/// # Errors
/// A [`Problem`]: the token, the controller, the state directory or the policy is at fault.
pub async fn enroll(parts: &Parts, controller: &str, token: &SecretString) -> anyhow::Result<Enrolled> {
    let token = JoinToken::parse(token.expose_secret()).map_err(|error| {
        let hint = "copy the whole command that `certwright agents enroll NAME` printed";
        Problem::new("TOKEN_INVALID", "the join token cannot be read", error.to_string(), hint)
    })?;
    let state = StateDir::create(&parts.state_dir)?;
    let _lock = state.lock()?;
    let policy_written = !parts.policy_path.exists();
    if policy_written {
        default::install(&parts.policy_path)?;
    }
    let policy = file::read(&parts.policy_path)?;
    let opened =
        client::open(parts.host.as_ref(), controller, Trust::Pin(token.pin), None, Arc::clone(&parts.clock)).await;
    let mut client = opened.map_err(|error| error.problem())?;
    let identity = identity::enroll(&state, &mut client, &token, controller, config::hostname()).await?;
    Ok(Enrolled {
        agent_id: identity.agent_id,
        agent_name: identity.agent_name,
        policy_written,
        policy_allows: explain::lines(&policy),
    })
}

/// Runs the agent until it is stopped.
///
/// # Errors
/// A [`Problem`]: not enrolled, another agent runs on the same state directory, or the policy cannot be used.
pub async fn run(parts: Parts, stop: CancellationToken) -> anyhow::Result<()> {
    let state = StateDir::open(&parts.state_dir)?;
    let identity = Identity::load(&state)?;
    let _lock = state.lock()?;
    file::read(&parts.policy_path)?;

    // Each part has a token of its own, below the one of `main`: the room that touches files stops last.
    let (halt, halt_apply) = (stop.child_token(), CancellationToken::new());
    let (handle, server) = apply::open(state.clone(), parts.policy_path.clone(), Arc::clone(&parts.host));
    let mut rooms = JoinSet::new();
    rooms.spawn(server.serve(halt_apply.clone()));

    let (link, links) = watch::channel(Link::default());
    let witness = Arc::new(Witness::open(state.clone())?);
    let reconciler =
        Reconciler::load(handle.clone(), Arc::clone(&parts.host), Arc::clone(&parts.clock), links, witness).await?;
    info!(agent_id = identity.agent_id, agent_name = identity.agent_name, controller = identity.controller, "started");
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "the service manager was not told");
    }
    let session =
        Session { host: parts.host, clock: parts.clock, state, apply: handle, link, policy_path: parts.policy_path };
    let mut work = JoinSet::new();
    let session_halt = halt.clone();
    work.spawn(async move {
        session.hold(identity, session_halt).await;
        Ok(())
    });
    work.spawn(reconciler.run(halt.clone()));
    let mut outcome = Ok(());
    while let Some(ended) = work.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(Problem::internal(&format!("a part of the agent: {error}"))));
        outcome = outcome.and(ended);
        halt.cancel();
    }
    halt_apply.cancel();
    while rooms.join_next().await.is_some() {}
    info!("stopped");
    outcome.map_err(anyhow::Error::from)
}
