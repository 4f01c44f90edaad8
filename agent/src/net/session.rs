//! Keeps one connection to the controller: connects, renews the identity, attaches, sends heartbeats, passes hints on,
//! and starts again with full jitter when it ends. Knows nothing of what is desired; `reconcile` uses the link.

use std::sync::Arc;
use std::time::Duration;

use proto::agent::v1 as wire;
use proto::clock::{Clock, to_wire};
use proto::types::v1 as types;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};

use super::client::{self, Client};
use super::identity::Identity;
use super::jitter;
use super::pace::{self, Pace};
use super::questions::Asked;
use super::trouble::Memory;
use crate::apply::request::Handle;
use crate::host::Host;
use crate::plan::reconnect_ceiling;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::{FEATURES, StateName};

const HEARTBEAT: Duration = Duration::from_secs(30);
/// A connection that held this long was a good one: the next wait starts small again.
const GOOD: Duration = Duration::from_secs(30);
/// Longest sleep before the wall clock is asked again: it may have jumped.
const RENEW_LOOK_MAX: Duration = Duration::from_secs(3_600);
/// Shortest sleep between two looks.
const RENEW_LOOK_MIN: Duration = Duration::from_secs(1);
/// Rest between two attempts at a new leaf that is due, also when this server's clock is wrong by days.
const RENEW_REST: Duration = pace::REST_MAX;
/// When the controller asks all agents for it, each waits up to this or less, as it says, so that they do not come at once.
const RENEW_SPREAD: Duration = Duration::from_secs(60);
/// Hello and heartbeats that wait for the wire.
const OUTBOUND_MAX: usize = 8;

/// What `reconcile` knows of the connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// Grows with every connection.
    pub(crate) number: u64,
    pub(crate) client: Option<Client>,
    /// The state that the controller named last.
    pub(crate) announced: Option<StateName>,
}

/// Everything a session needs.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) state: StateDir,
    pub(crate) apply: Handle,
    pub(crate) link: watch::Sender<Link>,
    /// Where what operators ask goes.
    pub(crate) questions: mpsc::Sender<Asked>,
}

/// Who the agent is, and when it may ask for a new leaf again.
#[derive(Debug)]
struct Holder {
    identity: Identity,
    renew_not_before: Instant,
    /// When it may because the controller asks.
    asked: Pace,
    /// Since when the controller has taken this connection.
    attached_at: Option<Instant>,
    trouble: Memory,
    /// Random, of this start of the program.
    instance: String,
}

/// Why a connection ended.
enum End {
    Stopped,
    /// The identity or the policy changed: connect again at once.
    Changed,
    Lost(Problem),
}

impl Session {
    /// Connects for ever, until it is stopped.
    pub(crate) async fn hold(self, identity: Identity, stop: CancellationToken) {
        let trouble = Memory::open(self.state.clone());
        let instance = proto::id::random_id();
        let renew_not_before = Instant::now();
        let mut holder =
            Holder { identity, renew_not_before, asked: Pace::default(), attached_at: None, trouble, instance };
        let mut attempt = 0;
        loop {
            holder.attached_at = None;
            // Cancel-safe: a connection that is dropped is only lost.
            let end = tokio::select! {
                biased;
                () = stop.cancelled() => End::Stopped,
                end = self.connect(&mut holder) => end,
            };
            self.link.send_modify(|link| link.client = None);
            // A controller that takes TLS and then hangs is no good connection, however long it took.
            let was_good = holder.attached_at.is_some_and(|at| at.elapsed() >= GOOD);
            attempt = if was_good { 0 } else { attempt };
            match end {
                End::Stopped => return,
                End::Changed => continue,
                End::Lost(problem) => {
                    // A host that slept for long right after a renewal need not rest: the controller says so.
                    if problem.reason == "IDENTITY_EXPIRED" {
                        holder.renew_not_before = Instant::now();
                    }
                    holder.trouble.met(problem, self.clock.now()).await;
                }
            }
            let pause = reconnect_ceiling(attempt) * u32::from(jitter()) / 255;
            attempt += 1;
            // Cancel-safe: a timer.
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }

    async fn connect(&self, holder: &mut Holder) -> End {
        let identity = &holder.identity;
        let credentials = match identity.credentials() {
            Ok(credentials) => credentials,
            Err(problem) => return End::Lost(problem),
        };
        let opened = client::open(
            self.host.as_ref(),
            &identity.controller,
            identity.trust(),
            Some(credentials),
            Arc::clone(&self.clock),
        );
        let mut client = match opened.await {
            Ok(client) => client,
            Err(error) => return End::Lost(error.problem()),
        };
        if self.renew_after(holder).is_zero() {
            match self.renew(holder, &mut client).await {
                Ok(()) => return End::Changed,
                Err(problem) if self.clock.now() >= holder.identity.not_after => return End::Lost(problem),
                // The leaf is still good: go on with it, and ask again later.
                Err(problem) => warn!(reason = problem.reason, cause = problem.cause, "identity not renewed"),
            }
        }
        self.attach(holder, client).await
    }

    async fn renew(&self, holder: &mut Holder, client: &mut Client) -> Result<(), Problem> {
        let renewed = holder.identity.renew(&self.state, client).await;
        // An expired leaf can do nothing but ask again; `hold` paces it.
        if renewed.is_ok() || self.clock.now() < holder.identity.not_after {
            holder.renew_not_before = Instant::now() + RENEW_REST;
        }
        holder.identity = renewed?;
        info!(not_after = %holder.identity.not_after, "identity renewed");
        Ok(())
    }

    async fn attach(&self, holder: &mut Holder, mut client: Client) -> End {
        let policy = self.policy().await;
        let (outbound, messages) = mpsc::channel(OUTBOUND_MAX);
        if outbound.send(message(hello(policy.clone(), holder.instance.clone()))).await.is_err() {
            return End::Lost(Problem::internal("saying hello"));
        }
        let attached = timeout(client::CALL, client.attach(ReceiverStream::new(messages))).await;
        let mut hints = match attached.unwrap_or_else(|_| Err(Status::deadline_exceeded("attach"))) {
            Ok(response) => response.into_inner(),
            Err(status) => return End::Lost(client::refusal(&status)),
        };
        info!(controller = holder.identity.controller, "attached");
        holder.attached_at = Some(Instant::now());
        holder.trouble.over().await;
        self.link.send_modify(|link| {
            *link = Link { number: link.number + 1, client: Some(client.clone()), announced: None };
        });
        let mut beat_at = Instant::now() + HEARTBEAT;
        let mut look_at = Instant::now() + self.renew_after(holder);
        let mut is_asked = false;
        loop {
            // Cancel-safe: `message` keeps its buffer in the stream, timers lose nothing.
            tokio::select! {
                biased;
                hint = hints.message() => match hint {
                    Ok(Some(hint)) => {
                        if hint.renew_identity && !is_asked {
                            is_asked = true;
                            let now = Instant::now();
                            let soon = now + spread(&hint) * u32::from(jitter()) / 255;
                            look_at = look_at.min(soon.max(holder.asked.may_at(now)));
                        }
                        self.ask(&hint, &client);
                        self.announce(hint);
                    }
                    Ok(None) => return End::Lost(lost("the controller ended the stream")),
                    Err(status) => return End::Lost(client::refusal(&status)),
                },
                () = tokio::time::sleep_until(beat_at) => {
                    beat_at = Instant::now() + HEARTBEAT;
                    if self.policy().await != policy {
                        return End::Changed;
                    }
                    let beat = wire::Heartbeat { clock_at: to_wire(Some(self.clock.now())) };
                    if outbound.try_send(message(wire::attach_request::Message::Heartbeat(beat))).is_err() {
                        return End::Lost(lost("the controller takes no heartbeat"));
                    }
                }
                () = tokio::time::sleep_until(look_at) => {
                    let now = Instant::now();
                    if self.renew_after(holder).is_zero() || (is_asked && holder.asked.may_at(now) <= now) {
                        if is_asked {
                            holder.asked.attempt(now);
                        }
                        match self.renew(holder, &mut client).await {
                            Ok(()) => return End::Changed,
                            Err(problem) => warn!(reason = problem.reason, cause = problem.cause, "identity not renewed"),
                        }
                    }
                    let now = Instant::now();
                    let rest = if is_asked {
                        holder.asked.may_at(now).saturating_duration_since(now)
                    } else {
                        self.renew_after(holder)
                    };
                    look_at = now + rest.max(RENEW_LOOK_MIN);
                }
            }
        }
    }

    /// Returns how long to wait before a new leaf is due, as far as can be said now.
    fn renew_after(&self, holder: &Holder) -> Duration {
        let due = self.clock.now().duration_until(holder.identity.renew_at());
        let rest = holder.renew_not_before.saturating_duration_since(Instant::now());
        Duration::try_from(due).unwrap_or_default().max(rest).min(RENEW_LOOK_MAX)
    }

    /// Passes a question on. One too many is dropped: its asker gives up by itself.
    fn ask(&self, hint: &wire::AttachResponse, client: &Client) {
        let Some(question) = hint.question.clone() else { return };
        if self.questions.try_send(Asked { question, client: client.clone() }).is_err() {
            warn!("a question of an operator is dropped: too many wait");
        }
    }

    fn announce(&self, hint: wire::AttachResponse) {
        let Some(name) = hint.desired else { return };
        self.link.send_modify(|link| link.announced = Some(name.into()));
    }

    /// The policy as the controller may know it; an unreadable one allows nothing.
    async fn policy(&self) -> types::Policy {
        match self.apply.policy().await {
            Ok(policy) => types::Policy::from(&policy),
            Err(problem) => {
                warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
                types::Policy::default()
            }
        }
    }
}

/// How long the agents take together for what this one is asked.
fn spread(hint: &wire::AttachResponse) -> Duration {
    match hint.renew_within_seconds {
        0 => RENEW_SPREAD,
        seconds => Duration::from_secs(seconds.into()).min(RENEW_SPREAD),
    }
}

fn message(message: wire::attach_request::Message) -> wire::AttachRequest {
    wire::AttachRequest { message: Some(message) }
}

fn hello(policy: types::Policy, instance: String) -> wire::attach_request::Message {
    wire::attach_request::Message::Hello(wire::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        features: FEATURES.iter().map(|feature| (*feature).to_owned()).collect(),
        policy: Some(policy),
        hostname: crate::config::hostname(),
        os: crate::config::os_name(),
        instance,
    })
}

fn lost(cause: &str) -> Problem {
    Problem::new(
        "CONTROLLER_LOST",
        "the connection to the controller ended",
        cause,
        "the agent connects again by itself",
    )
}
