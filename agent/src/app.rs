//! Wires the rooms: `enroll` joins a controller, `run` is the daemon, `run_apply` and `run_net` are its two halves. Holds no
//! decision of its own; `main` and the scenario tests call it.

use std::path::PathBuf;
use std::sync::Arc;

use proto::clock::Clock;
use proto::id::JoinToken;
use proto::tls::Trust;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::apply;
use crate::apply::request::Handle;
use crate::apply::socket::{self, Door};
use crate::config;
use crate::host::Host;
use crate::ledger::Ledger;
use crate::net::client;
use crate::net::identity::{self, Identity};
use crate::net::questions::{self, Answerer, Questioned};
use crate::net::reconcile::Reconciler;
use crate::net::session::{Link, Session};
use crate::net::trial::Tester;
use crate::net::witness::Witness;
use crate::policy::{default, explain, file};
use crate::problem::Problem;
use crate::state::{self, StateDir};
use crate::unit;

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

/// What the half is made of that writes files and runs commands.
#[derive(Clone, Debug)]
pub struct ApplyParts {
    /// What it runs commands on.
    pub host: Arc<dyn Host>,
    /// Its own directory; made when it is missing.
    pub state_dir: PathBuf,
    /// The local policy.
    pub policy_path: PathBuf,
    /// Where the other half asks.
    pub socket: PathBuf,
    /// The one user that may ask; `None` is this process's.
    pub net_user: Option<String>,
}

/// What the half is made of that talks with the controller and looks at services.
#[derive(Clone, Debug)]
pub struct NetParts {
    /// The one clock.
    pub clock: Arc<dyn Clock>,
    /// Connections and ports.
    pub host: Arc<dyn Host>,
    /// The directory that was enrolled.
    pub state_dir: PathBuf,
    /// Where the other half answers.
    pub socket: PathBuf,
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
    let policy_written = !parts.policy_path.exists();
    if policy_written {
        default::install(&parts.policy_path)?;
    }
    let policy = file::read(&parts.policy_path)?;
    unit::install(&policy)?;
    // What follows talks with the network, and writes files that are not root's.
    state::become_owner(&parts.state_dir)?;
    let state = StateDir::create(&parts.state_dir)?;
    let _lock = state.lock()?;
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

/// Runs both halves of the agent in one process until it is stopped.
///
/// # Errors
/// A [`Problem`]: not enrolled, another agent runs on the same state directory, or the policy cannot be used.
pub async fn run(parts: Parts, stop: CancellationToken) -> anyhow::Result<()> {
    let state = StateDir::open(&parts.state_dir)?;
    let identity = Identity::load(&state)?;
    let _lock = state.lock()?;
    file::read(&parts.policy_path)?;

    // The room that touches files stops last.
    let halt_apply = CancellationToken::new();
    let (handle, server) = apply::open(state.clone(), parts.policy_path, Arc::clone(&parts.host));
    let mut rooms = JoinSet::new();
    rooms.spawn(server.serve(halt_apply.clone()));
    let outcome = work(parts.host, parts.clock, state, identity, handle, stop).await;
    halt_apply.cancel();
    while rooms.join_next().await.is_some() {}
    outcome
}

/// Runs the half that writes files and runs commands, and has no network, until it is stopped.
///
/// # Errors
/// A [`Problem`]: another one runs on the same state directory, the policy cannot be used, the user does not exist, or the
/// socket cannot be opened.
pub async fn run_apply(parts: ApplyParts, stop: CancellationToken) -> anyhow::Result<()> {
    let peer = account(parts.net_user.as_deref())?;
    let state = StateDir::create(&parts.state_dir)?;
    let _lock = state.lock()?;
    file::read(&parts.policy_path)?;
    let door = Door::open(&parts.socket, peer)?;
    info!(socket = %parts.socket.display(), uid = peer.0, "waiting for the other half of the agent");
    ready();
    apply::serve_at(door, state, parts.policy_path, parts.host, stop).await;
    info!("stopped");
    Ok(())
}

/// Runs the half that talks with the controller and with services, and needs no privilege but its ports, until it is stopped.
///
/// # Errors
/// A [`Problem`]: not enrolled, another agent runs on the same state directory, or the other half does not answer.
pub async fn run_net(parts: NetParts, stop: CancellationToken) -> anyhow::Result<()> {
    let state = StateDir::open(&parts.state_dir)?;
    let identity = Identity::load(&state)?;
    let _lock = state.lock()?;
    let halt_remote = CancellationToken::new();
    let (handle, remote) = socket::remote(parts.socket);
    let mut rooms = JoinSet::new();
    rooms.spawn(remote.serve(halt_remote.clone()));
    let outcome = work(parts.host, parts.clock, state, identity, handle, stop).await;
    halt_remote.cancel();
    while rooms.join_next().await.is_some() {}
    outcome
}

/// What `net` does, wherever `apply` is.
async fn work(
    host: Arc<dyn Host>,
    clock: Arc<dyn Clock>,
    state: StateDir,
    identity: Identity,
    apply: Handle,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    // A token of its own, below the one of `main`: one part that ends takes the other along.
    let halt = stop.child_token();
    let (link, links) = watch::channel(Link::default());
    let witness = Arc::new(Witness::open(state.clone())?);
    let ledger = Ledger::new(state.clone());
    let reconciler =
        Reconciler::load(apply.clone(), ledger, Arc::clone(&host), Arc::clone(&clock), links, witness).await?;
    info!(agent_id = identity.agent_id, agent_name = identity.agent_name, controller = identity.controller, "started");
    ready();
    let (asked, inbox) = mpsc::channel(questions::QUEUE_MAX);
    let tester = Tester { apply: apply.clone(), host: Arc::clone(&host), clock: Arc::clone(&clock) };
    let session = Session { host, clock, state, apply, link, questions: asked };
    let answerer = Answerer { tester, rehearsals: reconciler.rehearsals() };
    let mut work = JoinSet::new();
    let session_halt = halt.clone();
    work.spawn(async move {
        session.hold(identity, session_halt).await;
        Ok(())
    });
    work.spawn(reconciler.run(halt.clone()));
    work.spawn(Questioned::new(answerer, inbox).run(halt.clone()));
    let mut outcome = Ok(());
    while let Some(ended) = work.join_next().await {
        let ended = ended.unwrap_or_else(|error| Err(Problem::internal(&format!("a part of the agent: {error}"))));
        outcome = outcome.and(ended);
        halt.cancel();
    }
    info!("stopped");
    outcome.map_err(anyhow::Error::from)
}

fn ready() {
    if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
        warn!(%error, "the service manager was not told");
    }
}

/// Returns uid and gid of a user.
fn account(name: Option<&str>) -> Result<(u32, u32), Problem> {
    let Some(name) = name else {
        return Ok((rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw()));
    };
    let found = nix::unistd::User::from_name(name).ok().flatten();
    found.map(|user| (user.uid.as_raw(), user.gid.as_raw())).ok_or_else(|| {
        Problem::new(
            "USER_UNKNOWN",
            format!("there is no user {name:?}"),
            "",
            "the package makes the user certwright-agent; by hand: useradd --system certwright-agent",
        )
    })
}
