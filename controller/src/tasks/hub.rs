//! What `rpc` and the tasks share: store, clock, signals, presence, and the making of events. It decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use proto::clock::Clock;
use proto::text::one_line;
use tokio::sync::watch;
use tracing::error;

use super::audit::Auditor;
use super::clock::ClockWatch;
use super::limits::Limits;
use super::presence::{OperatorsSeen, Presence};
use super::questions::Questions;
use super::restore::Gate;
use super::wake::Wake;
use crate::lifecycle::clock_skew::Verdict;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::lock::LockShare;
use crate::lifecycle::private_ca::RevokedLeaf;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::restore::{Removal, Removed};
use crate::lifecycle::rotation::Rotation;
use crate::store::records::Record as _;
use crate::store::removals::Removals;
use crate::store::{Store, StoreError};

/// Actor of what the controller does by itself.
pub(crate) const CONTROLLER: &str = "controller";
/// Longest event sentence, characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// Shared by `rpc` and the tasks; clones are the same hub.
#[derive(Clone, Debug)]
pub struct Hub {
    /// The truth.
    pub store: Store,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who is connected.
    pub presence: Arc<Presence>,
    /// What agents are asked and have not answered yet.
    pub questions: Arc<Questions>,
    /// "Look again".
    pub wake: Arc<Wake>,
    /// Whether the clock is right.
    pub clock_watch: Arc<ClockWatch>,
    /// What is used of the CAs' limits.
    pub limits: Arc<Limits>,
    /// The one writer of the audit.
    pub(crate) audit: Arc<Auditor>,
    /// When operators were last heard of.
    pub operators_seen: Arc<OperatorsSeen>,
    /// When an operator's new order is locked.
    pub lock_share: LockShare,
    /// How far the identity CA's rotation is; set by `app` and by whoever takes a step.
    pub(crate) rotation: Arc<watch::Sender<Rotation>>,
    /// Whether a restore waits to be accepted.
    pub gate: Arc<Gate>,
    /// What must stay refused whatever is restored.
    pub removals: Removals,
    event_seq: Arc<AtomicU64>,
}

impl Hub {
    /// Makes the hub of one controller.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open(store: Store, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        let event_seq = Arc::new(AtomicU64::new(store.last_event_seq().await?));
        let restore = store.restore_record().await?.map(|record| record.value);
        Ok(Self {
            gate: Arc::new(Gate::new(restore)),
            removals: Removals::default(),
            store,
            clock,
            presence: Arc::default(),
            questions: Arc::default(),
            wake: Arc::default(),
            clock_watch: Arc::default(),
            limits: Arc::default(),
            audit: Arc::default(),
            operators_seen: Arc::default(),
            lock_share: LockShare::default(),
            rotation: Arc::new(watch::Sender::new(Rotation::default())),
            event_seq,
        })
    }

    /// Returns the current instant.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns a number between 0 and 1 for jitter. Not for secrets.
    ///
    /// # Panics
    /// When the kernel gives no random bytes.
    #[must_use]
    pub fn jitter(&self) -> f64 {
        let mut bytes = [0_u8; 4];
        getrandom::fill(&mut bytes).expect("the kernel gives random bytes");
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    }

    /// Writes beside the database that an identity is refused from now on, so that no backup brings it back. Called before the
    /// refusal; a disk that fails does not put it off.
    pub(crate) async fn removed(&self, what: Removed, id: &str, name: &str) {
        self.write_down(Removal { at: self.now(), what, id: id.to_owned(), name: name.to_owned(), leaf: None }).await;
    }

    /// Does the same for a leaf of a private CA; `name` is its issuer's.
    pub(crate) async fn leaf_revoked(&self, leaf: RevokedLeaf, name: &str) {
        let (at, id, name) = (leaf.revoked_at, leaf.key(), name.to_owned());
        self.write_down(Removal { at, what: Removed::LeafRevoked, id, name, leaf: Some(leaf) }).await;
    }

    async fn write_down(&self, removal: Removal) {
        let name = removal.name.clone();
        let now = (self.clock_watch.verdict() == Verdict::Right).then(|| self.now());
        if let Err(error) = self.removals.add(removal, now).await {
            error!(%error, name, "a revocation is not written down beside the database: a restored backup would not know of it");
        }
    }

    /// Begins an event of this kind, by the controller itself and of severity info.
    #[must_use]
    pub fn event(&self, kind: &str, message: impl AsRef<str>) -> Event {
        Event {
            seq: self.event_seq.fetch_add(1, Ordering::Relaxed) + 1,
            at: self.now(),
            severity: Severity::Info,
            actor: CONTROLLER.to_owned(),
            kind: kind.to_owned(),
            certificate: None,
            agent: None,
            message: one_line(message.as_ref(), MESSAGE_CHARS_MAX),
            problem: None,
            outcome: None,
        }
    }
}

impl Event {
    /// Says which certificate it is about.
    #[must_use]
    pub fn of_certificate(mut self, name: &str) -> Self {
        self.certificate = Some(name.to_owned());
        self
    }

    /// Says which agent it is about.
    #[must_use]
    pub fn of_agent(mut self, name: &str) -> Self {
        self.agent = Some(name.to_owned());
        self
    }

    /// Says who did it.
    #[must_use]
    pub fn by(mut self, actor: &str) -> Self {
        actor.clone_into(&mut self.actor);
        self
    }

    /// Adds what went wrong.
    #[must_use]
    pub fn with_problem(mut self, severity: Severity, problem: Problem) -> Self {
        self.severity = severity;
        self.problem = Some(problem);
        self
    }
}
