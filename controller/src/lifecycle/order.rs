//! The road of one order (design §4, rows 3 to 9) as one pure function: record and time to the single next step.
//! `tasks/issuance` performs the step, records the outcome and asks again; nothing else may move an order.
//!
//! ```text
//!  starting ──▶ checking ──▶ ordering ──▶ publishing ──▶ validating ──▶ finalizing ──▶ completed
//!     │            │            │             │              │              │
//!     └────────────┴────────────┴──────┬──────┴──────────────┴──────────────┘
//!                                      ▼
//!                      waiting (retry_at, or an agent returns) ──▶ starting
//!                      failed  (only an operator's act helps)  ──▶ starting
//! ```
//!
//! A private CA wants no proof: its road is starting, finalizing, completed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backoff::after;
use super::certificate::{Certificate, Custody, KeySlot, Specification};
use super::clock_skew::SKEW_MAX;
use super::fallback::{candidates, choose, is_of_issuer};
use super::issuer::Issuer;
use super::problem::Problem;
use super::rate_limit::PREDICTED;
use super::renewal::{Due, Reason, due};
use super::renewal_info::RenewalInfo;

/// How long an order waits for responders that are connected but do not serve the token yet (design §4 row 6).
pub const RESPONDERS_WAIT: Duration = Duration::from_secs(30);
/// How long a connected agent may take to make a key.
pub const KEY_WAIT: Duration = Duration::from_secs(120);
/// Longer than any wait between two polls.
const POLL_WAIT_MAX: SignedDuration = SignedDuration::from_hours(1);
/// How often an attempt looks again while it waits for an agent; a connection wakes it at once.
pub const OFFLINE_RETRY: Duration = Duration::from_secs(900);

/// Where an order stands (design §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// A key and its CSR are made.
    Starting,
    /// Names are looked up before any order.
    Checking,
    /// The order is created and its authorizations read.
    Ordering,
    /// Tokens are desired state; responders begin to serve.
    Publishing,
    /// Challenges are answered and the CA looks.
    Validating,
    /// The CSR is sent and the chain downloaded.
    Finalizing,
    /// The version is stored.
    Completed,
    /// The attempt failed or cannot start; it goes on at `retry_at`.
    Waiting,
    /// Only an operator's act helps.
    Failed,
}

impl Phase {
    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Checking => "checking",
            Self::Ordering => "ordering",
            Self::Publishing => "publishing",
            Self::Validating => "validating",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
        }
    }
}

impl Order {
    /// Begins an attempt. What an earlier attempt of the same wish left is kept: its key, its order at the CA, and how
    /// often it failed. A corrected wish starts afresh.
    #[must_use]
    pub fn begin(
        certificate: &Certificate,
        issuer_id: &str,
        reason: Reason,
        earlier: Option<&Self>,
        now: Timestamp,
    ) -> Self {
        let wanted = &certificate.specification;
        let unfinished = earlier.filter(|order| order.phase != Phase::Completed);
        let same = unfinished.filter(|order| order.answers(wanted));
        let rekey = certificate.rekey_asked;
        // An order at the CA belongs to one key.
        let at_same_ca = same.filter(|order| order.issuer_id == issuer_id && !order.rehearsal && !rekey);
        let new_key = rekey || unfinished.is_some_and(|order| order.new_key);
        Self {
            certificate_id: certificate.id.clone(),
            reason,
            phase: Phase::Starting,
            attempt: same.map_or(0, |order| order.failures).saturating_add(1),
            failures: same.map_or(0, |order| order.failures),
            same_failures: same.map_or(0, |order| order.same_failures),
            started_at: now,
            key_slot_id: unfinished
                .filter(|_| !rekey)
                .and_then(|order| order.key_slot_id.clone())
                .or_else(|| kept_key(certificate, reason).filter(|_| !new_key)),
            new_key,
            order_url: at_same_ca.and_then(|order| order.order_url.clone()),
            identifiers: wanted.identifiers.clone(),
            issuer_id: issuer_id.to_owned(),
            rehearsal: false,
            private: false,
            account_url: at_same_ca.and_then(|order| order.account_url.clone()),
            key_epoch: same.map_or(0, |order| order.key_epoch),
            issuers: candidates(wanted),
            wanted_profile: wanted.profile.clone(),
            profile: at_same_ca.and_then(|order| order.profile.clone()),
            tries: same.map(|order| order.tries.clone()).unwrap_or_default(),
            ca_status: CaStatus::Pending,
            // Read again from the CA; until then what it was told to look at is served.
            authorizations: at_same_ca
                .filter(|order| order.order_url.is_some())
                .map(|order| order.authorizations.clone())
                .unwrap_or_default(),
            replaces_refused: same.is_some_and(|order| order.replaces_refused),
            registered_again: false,
            visible: false,
            polls: 0,
            poll_at: None,
            retry_at: None,
            waits_for_agent: false,
            waits_for_issuer: false,
            error: same.and_then(|order| order.error.clone()),
            timeline: vec![PhaseAt { phase: Phase::Starting, at: now }],
            spent: same.and_then(|order| order.spent.clone()),
        }
    }

    /// Takes note of the issuer's account: an order of an earlier account is not ours any more.
    pub fn adopt(&mut self, issuer: &Issuer) {
        if self.key_epoch != issuer.key_epoch {
            // What was computed with an earlier key is void.
            self.authorizations.clear();
        }
        self.key_epoch = issuer.key_epoch;
        if self.account_url.is_some() && self.account_url != issuer.account_url {
            self.order_url = None;
            self.account_url = None;
        }
    }

    /// The rehearsal is over: the same attempt goes on at the issuer itself.
    pub fn end_rehearsal(&mut self, now: Timestamp) {
        self.rehearsal = false;
        self.order_url = None;
        self.ca_status = CaStatus::Pending;
        self.authorizations.clear();
        self.visible = false;
        self.polls = 0;
        self.poll_at = None;
        self.enter(Phase::Ordering, now);
    }

    /// Whether it was begun for this wish: its failures and its order at the CA count for it.
    #[must_use]
    pub fn answers(&self, wanted: &Specification) -> bool {
        let same_issuers = match self.issuers.as_slice() {
            [] => self.issuer_id == wanted.issuer_id,
            issuers => issuers == candidates(wanted),
        };
        same_issuers && self.identifiers == wanted.identifiers && self.wanted_profile == wanted.profile
    }

    /// How often this issuer failed in this wish, by its own doing.
    #[must_use]
    pub fn failures_of(&self, issuer_id: &str) -> u32 {
        self.tries.iter().find(|one| one.issuer_id == issuer_id).map_or(0, |one| one.failures)
    }

    /// Enters a phase, and remembers when. Entering the phase it is in does nothing.
    pub fn enter(&mut self, phase: Phase, now: Timestamp) {
        if self.phase != phase {
            self.phase = phase;
            self.timeline.push(PhaseAt { phase, at: now });
        }
    }

    /// Waits until then for room in a limit: nothing was sent, so nothing failed.
    pub fn wait(&mut self, problem: Problem, until: Timestamp, now: Timestamp) {
        self.error = Some(problem);
        self.retry_at = Some(until);
        self.waits_for_agent = false;
        self.waits_for_issuer = false;
        self.enter(Phase::Waiting, now);
    }

    /// Whether its times were written by a clock that was far ahead: none of them means anything, and an attempt begins
    /// afresh. What only an operator mends stays as it is.
    #[must_use]
    pub fn is_of_the_future(&self, now: Timestamp) -> bool {
        let written = self.timeline.last().map_or(self.started_at, |entry| entry.at);
        self.phase != Phase::Failed && written.duration_since(now) > SKEW_MAX
    }

    /// Whether it waits for room in a limit.
    #[must_use]
    pub fn waits_for_limit(&self) -> bool {
        self.phase == Phase::Waiting
            && self.retry_at.is_some()
            && self.error.as_ref().is_some_and(|error| error.reason == PREDICTED)
    }

    /// Ends the attempt: it goes on at `retry_at`, or only an operator's act helps.
    pub fn fail(&mut self, problem: Problem, retry_at: Option<Timestamp>, now: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        if is_of_issuer(&problem.reason) {
            match self.tries.iter_mut().find(|one| one.issuer_id == self.issuer_id) {
                Some(one) => one.failures = one.failures.saturating_add(1),
                None => self.tries.push(Tries { issuer_id: self.issuer_id.clone(), failures: 1 }),
            }
        }
        self.error = Some(problem);
        self.retry_at = retry_at;
        self.waits_for_agent = false;
        self.waits_for_issuer = false;
        self.enter(if retry_at.is_some() { Phase::Waiting } else { Phase::Failed }, now);
    }
}

/// A pinned key goes into the next version as well, unless it is the key that is wrong.
fn kept_key(certificate: &Certificate, reason: Reason) -> Option<String> {
    let key_is_bad = matches!(reason, Reason::KeyLost | Reason::Revoked);
    let current = certificate.current.as_ref().filter(|_| certificate.specification.reuse_key && !key_is_bad)?;
    (!current.key_lost && current.revoked_at.is_none()).then(|| current.key_slot_id.clone())
}

/// How often an issuer failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tries {
    /// Which.
    pub issuer_id: String,
    /// Since the last success.
    pub failures: u32,
}

/// What the CA last said about the order (RFC 8555 §7.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaStatus {
    /// Authorizations are open.
    Pending,
    /// It waits for the CSR.
    Ready,
    /// The CA issues.
    Processing,
    /// The chain can be downloaded.
    Valid,
}

/// One authorization of the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// The identifier it proves.
    pub identifier: String,
    /// The HTTP-01 token; checked characters.
    pub token: String,
    /// What responders answer.
    pub key_authorization: String,
    /// How far it is.
    pub state: AuthorizationState,
}

/// How far an authorization is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthorizationState {
    /// The challenge is not answered yet.
    Pending,
    /// The CA was told to look.
    Answered,
    /// Proven.
    Valid,
}

/// When a phase began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseAt {
    /// Which phase.
    pub phase: Phase,
    /// When.
    pub at: Timestamp,
}

/// The latest order of a certificate. Key in the store: the certificate's id, so there is at most one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Whose order.
    pub certificate_id: String,
    /// Why it was begun.
    pub reason: Reason,
    /// Where it stands.
    pub phase: Phase,
    /// Number of this attempt since the last success.
    pub attempt: u32,
    /// Failures since the last success, for the back-off.
    pub failures: u32,
    /// How many of them, the latest included, had the same reason.
    #[serde(default)]
    pub same_failures: u32,
    /// When this attempt began.
    pub started_at: Timestamp,
    /// The key it will certify.
    pub key_slot_id: Option<String>,
    /// An operator asked for a new key: a pinned one is not taken, in this attempt nor in the next ones.
    #[serde(default)]
    pub new_key: bool,
    /// RFC 8555 order resource; kept over attempts while the CA holds it open and the wish is the same.
    pub order_url: Option<String>,
    /// The identifiers and the issuer that `order_url` belongs to.
    pub identifiers: Vec<String>,
    /// See `identifiers`.
    pub issuer_id: String,
    /// This attempt is made at the issuer's staging directory first.
    #[serde(default)]
    pub rehearsal: bool,
    /// Our own CA signs: nothing is proven, looked up or limited.
    #[serde(default)]
    pub private: bool,
    /// The account that `order_url` belongs to.
    #[serde(default)]
    pub account_url: Option<String>,
    /// [`Issuer::key_epoch`] when the attempt began.
    #[serde(default)]
    pub key_epoch: u32,
    /// The issuers that this wish may ask, in their order.
    #[serde(default)]
    pub issuers: Vec<String>,
    /// The profile in the wish.
    #[serde(default)]
    pub wanted_profile: Option<String>,
    /// The profile that was ordered.
    #[serde(default)]
    pub profile: Option<String>,
    /// Issuers that failed.
    #[serde(default)]
    pub tries: Vec<Tries>,
    /// What the CA last said.
    pub ca_status: CaStatus,
    /// Its authorizations.
    pub authorizations: Vec<Authorization>,
    /// The CA refused to take this order as the successor of the version before: it is asked without (RFC 9773 §5).
    #[serde(default)]
    pub replaces_refused: bool,
    /// The account was registered again in this attempt, because the CA did not know it: not twice.
    pub registered_again: bool,
    /// Whether the visible check passed in this attempt.
    pub visible: bool,
    /// Polls since the last answer or finalize.
    pub polls: u32,
    /// Not before then.
    pub poll_at: Option<Timestamp>,
    /// In `Waiting`: when it goes on.
    pub retry_at: Option<Timestamp>,
    /// In `Waiting`: an agent's return ends the wait.
    pub waits_for_agent: bool,
    /// In `Waiting`: an operator's act on the issuer ends the wait.
    #[serde(default)]
    pub waits_for_issuer: bool,
    /// Why the last attempt failed or waits.
    pub error: Option<Problem>,
    /// When the phases of this attempt began.
    pub timeline: Vec<PhaseAt>,
    /// What `order_url` spent of the CA's limits: id of the ledger's entry.
    #[serde(default)]
    pub spent: Option<String>,
}

/// What an order needs to know of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Responder {
    /// Which agent.
    pub agent_id: String,
    /// Its name, for people.
    pub name: String,
    /// Whether its stream is open.
    pub connected: bool,
    /// It is refused everything: only a new enrolment brings it back.
    pub revoked: bool,
    /// Tokens it reported to serve.
    pub serving: Vec<String>,
    /// Why it cannot serve.
    pub problem: Option<Problem>,
}

/// Everything a decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The certificate.
    pub certificate: &'a Certificate,
    /// What the CA says about renewing its current version.
    pub renewal_info: Option<&'a RenewalInfo>,
    /// Its latest order.
    pub order: Option<&'a Order>,
    /// The order's key slot.
    pub slot: Option<&'a KeySlot>,
    /// In agent custody: the agent that holds the key.
    pub key_agent: Option<&'a Responder>,
    /// Agents that answer challenges.
    pub responders: &'a [Responder],
    /// The issuers it may be ordered from, the first one first.
    pub issuers: &'a [Issuer],
    /// A pause holds the certificate still.
    pub paused: bool,
}

/// The single next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until then, or until something changes.
    Sleep(Option<Timestamp>),
    /// Begin an attempt: phase starting.
    Begin(Reason),
    /// Make a key slot that fits the specification.
    MakeKey,
    /// Look names up.
    CheckNames,
    /// newOrder.
    CreateOrder,
    /// Read the authorizations of the recorded order.
    ReadAuthorizations,
    /// Look at the token as the CA will.
    CheckVisible,
    /// Tell the CA to look at this identifier.
    Answer(String),
    /// Ask the CA for the order once.
    Poll,
    /// Sign the recorded CSR with our own CA.
    Sign,
    /// Send the recorded CSR.
    Finalize,
    /// Download the chain.
    Download,
    /// Wait for an agent; spend nothing.
    Hold(Problem),
    /// Wait for an operator's act on the issuer; ask nothing.
    HoldForIssuer(Problem),
    /// An operator paused it: let go of what is under way, so that it begins anew when the pause is lifted.
    Pause,
    /// The attempt failed.
    Fail(Problem),
}

/// Decides the single next step.
#[must_use]
pub fn next_step(facts: Facts<'_>, now: Timestamp) -> Step {
    if facts.paused && !is_issued(facts.order) {
        return paused(facts.order);
    }
    let Some(order) = facts.order.filter(|order| order.phase != Phase::Completed) else {
        return match due(facts.certificate, facts.renewal_info, now) {
            Due::Now(reason) => Step::Begin(reason),
            Due::At(at) => Step::Sleep(Some(at)),
            Due::Never => Step::Sleep(None),
        };
    };
    if facts.certificate.purging {
        return Step::Sleep(None);
    }
    if facts.certificate.renew_asked_at.is_some() {
        // In every unfinished phase the wish means: begin now, on what is wanted now. Beginning clears it.
        return Step::Begin(if order.answers(&facts.certificate.specification) {
            order.reason
        } else {
            Reason::SpecificationChanged
        });
    }
    if order.is_of_the_future(now) {
        return Step::Begin(order.reason);
    }
    let halted =
        facts.issuers.iter().find(|one| one.id == order.issuer_id).and_then(|one| one.waits(&facts.certificate.name));
    match (order.phase, halted) {
        (Phase::Failed | Phase::Completed, _) => return Step::Sleep(None),
        (Phase::Waiting, Some(_)) if order.waits_for_issuer => {
            // Looked at every hour: time gets short by itself.
            let next = choose(facts.certificate, Some(order), facts.issuers, now);
            return if next == order.issuer_id { Step::Sleep(None) } else { Step::Begin(order.reason) };
        }
        (Phase::Waiting, _) => return waiting(facts, order, now),
        (_, Some(problem)) => return Step::HoldForIssuer(problem),
        (_, None) => {}
    }
    let issuer = facts.issuers.iter().find(|one| one.id == order.issuer_id);
    if issuer.is_some_and(|issuer| issuer.key_epoch != order.key_epoch) {
        // The CA expects answers to its challenges that name the new key (RFC 8555 §8.1).
        return Step::Begin(order.reason);
    }
    match order.phase {
        Phase::Starting => starting(facts, order, now),
        Phase::Checking | Phase::Ordering | Phase::Publishing | Phase::Validating | Phase::Finalizing
            if !slot_fits(facts) =>
        {
            let lost = facts.slot.is_some_and(|slot| slot.lost);
            Step::Begin(if lost { Reason::KeyLost } else { Reason::SpecificationChanged })
        }
        Phase::Checking => Step::CheckNames,
        Phase::Ordering if order.order_url.is_none() => Step::CreateOrder,
        Phase::Ordering => Step::ReadAuthorizations,
        Phase::Publishing => publishing(facts, order, now),
        Phase::Validating => validating(order, now),
        Phase::Finalizing => finalizing(order, now),
        Phase::Waiting | Phase::Failed | Phase::Completed => Step::Sleep(None),
    }
}

/// Whether the CA has the CSR: what it issues is downloaded also during a pause, for it was spent already.
fn is_issued(order: Option<&Order>) -> bool {
    order.is_some_and(|order| order.phase == Phase::Finalizing && order.ca_status != CaStatus::Ready)
}

/// Nothing more is spent at the CA. Tokens that it was not told of are withdrawn; its open order is kept.
fn paused(order: Option<&Order>) -> Step {
    match order.map(|order| order.phase) {
        None | Some(Phase::Completed | Phase::Waiting | Phase::Failed) => Step::Sleep(None),
        Some(
            Phase::Starting
            | Phase::Checking
            | Phase::Ordering
            | Phase::Publishing
            | Phase::Validating
            | Phase::Finalizing,
        ) => Step::Pause,
    }
}

fn fits(facts: Facts<'_>, slot: &KeySlot) -> bool {
    slot.fits(&facts.certificate.specification, facts.key_agent.map(|agent| agent.agent_id.as_str()))
}

fn slot_fits(facts: Facts<'_>) -> bool {
    facts.slot.is_some_and(|slot| fits(facts, slot))
}

fn waiting(facts: Facts<'_>, order: &Order, now: Timestamp) -> Step {
    let agent_back = order.waits_for_agent && agents_ready(facts);
    if agent_back || order.waits_for_issuer || order.retry_at.is_none_or(|at| at <= now) {
        Step::Begin(order.reason)
    } else {
        Step::Sleep(order.retry_at)
    }
}

/// Whether no agent that this order needs is missing.
fn agents_ready(facts: Facts<'_>) -> bool {
    let makes_key =
        facts.certificate.specification.custody == Custody::Agent && facts.slot.is_none_or(|slot| slot.csr.is_none());
    let answers =
        facts.order.is_some_and(|order| order.private) || facts.responders.iter().any(|responder| responder.connected);
    answers && (!makes_key || facts.key_agent.is_some_and(|agent| agent.connected))
}

fn starting(facts: Facts<'_>, order: &Order, now: Timestamp) -> Step {
    if !order.private && facts.responders.is_empty() {
        return Step::Hold(no_responder(facts.certificate));
    }
    if !order.private && !facts.responders.iter().any(|responder| responder.connected) {
        return Step::Hold(offline(facts, "answers its HTTP-01 challenges"));
    }
    if facts.certificate.specification.custody == Custody::Agent && facts.key_agent.is_none() {
        return Step::Hold(no_key_agent(facts.certificate));
    }
    let Some(slot) = facts.slot.filter(|slot| fits(facts, slot)) else { return Step::MakeKey };
    if slot.csr.is_some() {
        return if order.private { Step::Sign } else { Step::CheckNames };
    }
    if let Some(problem) = &slot.problem {
        return Step::Fail(problem.clone());
    }
    debug_assert_eq!(slot.custody, Custody::Agent, "a controller's key is made together with its CSR");
    if !facts.key_agent.is_some_and(|agent| agent.connected) {
        return Step::Hold(offline(facts, "makes and keeps its key"));
    }
    let until = after(order.started_at, KEY_WAIT);
    if now < until { Step::Sleep(Some(until)) } else { Step::Fail(no_csr(facts)) }
}

fn publishing(facts: Facts<'_>, order: &Order, now: Timestamp) -> Step {
    let tokens: Vec<&str> = order
        .authorizations
        .iter()
        .filter(|one| one.state == AuthorizationState::Pending)
        .map(|one| one.token.as_str())
        .collect();
    let serves =
        |responder: &Responder| tokens.iter().all(|token| responder.serving.iter().any(|served| served == token));
    let connected: Vec<&Responder> = facts.responders.iter().filter(|responder| responder.connected).collect();
    if connected.is_empty() {
        return Step::Hold(offline(facts, "answers its HTTP-01 challenges"));
    }
    let serving = connected.iter().filter(|responder| serves(responder)).count();
    let refused = connected.iter().filter(|responder| !serves(responder) && responder.problem.is_some()).count();
    let since = order
        .timeline
        .iter()
        .rev()
        .find(|entry| entry.phase == Phase::Publishing)
        .map_or(order.started_at, |entry| entry.at);
    let until = after(since, RESPONDERS_WAIT);
    let decided = serving + refused == connected.len() || now >= until;
    match (decided, serving) {
        (false, _) => Step::Sleep(Some(until)),
        (true, 0) => Step::Fail(not_serving(&connected)),
        (true, _) if !order.visible => Step::CheckVisible,
        (true, _) => order
            .authorizations
            .iter()
            .find(|one| one.state == AuthorizationState::Pending)
            .map_or(Step::Poll, |one| Step::Answer(one.identifier.clone())),
    }
}

fn validating(order: &Order, now: Timestamp) -> Step {
    match order.authorizations.iter().find(|one| one.state == AuthorizationState::Pending) {
        Some(one) => Step::Answer(one.identifier.clone()),
        None => poll(order, now),
    }
}

fn finalizing(order: &Order, now: Timestamp) -> Step {
    match order.ca_status {
        CaStatus::Ready => Step::Finalize,
        CaStatus::Valid => Step::Download,
        CaStatus::Pending | CaStatus::Processing => poll(order, now),
    }
}

fn poll(order: &Order, now: Timestamp) -> Step {
    match order.poll_at {
        // No poll is planned that far ahead, but by a clock that was wrong.
        Some(at) if now < at && at.duration_since(now) <= POLL_WAIT_MAX => Step::Sleep(Some(at)),
        _ => Step::Poll,
    }
}

fn offline(facts: Facts<'_>, duty: &str) -> Problem {
    // Nobody answers for a private CA.
    let responders = if facts.order.is_some_and(|order| order.private) { &[] } else { facts.responders };
    let away = || responders.iter().chain(facts.key_agent).filter(|agent| !agent.connected);
    let mut names: Vec<&str> = away().map(|agent| agent.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let name = names.join(", ");
    let certificate = &facts.certificate.name;
    let (cause, hint) = if away().any(|agent| agent.revoked) {
        ("it was revoked", format!("enroll it again: certwright agents enroll {name} --replace"))
    } else {
        (
            "no connection from it is open",
            format!(
                "start it there: systemctl start certwright-agent (journalctl -u certwright-agent says why it stopped); {certificate} goes on by itself when it returns"
            ),
        )
    };
    Problem::new("AGENT_OFFLINE", format!("{certificate} waits for agent {name}, which {duty}"), cause, hint)
}

fn no_key_agent(certificate: &Certificate) -> Problem {
    Problem::new(
        "NO_KEY_AGENT",
        format!("{} has no agent to hold its key", certificate.name),
        "its custody is agent, and it has no target",
        format!(
            "certwright targets add {0} --agent NAME --dir DIR, or certwright certs set {0} --custody controller",
            certificate.name
        ),
    )
}

fn no_responder(certificate: &Certificate) -> Problem {
    Problem::new(
        "NO_RESPONDER",
        format!("{} has no agent that answers HTTP-01", certificate.name),
        "it has neither a target nor a responder",
        format!(
            "certwright targets add {0} --agent NAME --dir DIR, or certwright certs set {0} --responder NAME",
            certificate.name
        ),
    )
}

fn no_csr(facts: Facts<'_>) -> Problem {
    let name = facts.key_agent.map_or("", |agent| agent.name.as_str());
    Problem::new(
        "KEY_NOT_MADE",
        format!("agent {name} did not offer a key for {}", facts.certificate.name),
        "it is connected, but sent no CSR in time",
        format!(
            "journalctl -u certwright-agent on {name} says why; or let the controller hold the key: certwright certs set {} --custody controller",
            facts.certificate.name
        ),
    )
}

fn not_serving(connected: &[&Responder]) -> Problem {
    match connected.iter().find_map(|responder| responder.problem.clone()) {
        Some(problem) => problem,
        None => {
            let names: Vec<&str> = connected.iter().map(|responder| responder.name.as_str()).collect();
            Problem::new(
                "CHALLENGE_NOT_SERVED",
                format!("no responder began to serve the challenge ({})", names.join(", ")),
                "each is connected, but none reported the token as served in time",
                "look at journalctl -u certwright-agent on the responder",
            )
        }
    }
}

#[cfg(test)]
mod tests;
