//! Does one step of an order and records what came of it. It decides nothing but how to record: the step comes from
//! `lifecycle/order`. Called by `tasks/issuance`.

mod ca;
mod finish;

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tracing::info;

use super::facts::Gathered;
use super::keys::{self, KeyError};
use crate::acme::order::AcmeOrder;
use crate::acme::problem::{AcmeError, Retry};
use crate::lifecycle::backoff::{self, Cause, Failed};
use crate::lifecycle::certificate::{Certificate, Custody, KeySlot};
use crate::lifecycle::due::Place;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::fallback::{choose, rehearses};
use crate::lifecycle::order::{AuthorizationState, OFFLINE_RETRY, Order, Phase, Step};
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::rate_limit::PREDICTED;
use crate::lifecycle::renewal::{self, Reason};
use crate::preflight::{self, Verdict};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::Context;
use crate::tasks::accounts::{self, AccountError};
use crate::tasks::clock;
use crate::tasks::limits::LimitError;
use crate::tasks::outcome;

/// Events about names that could not be seen from here, at most: with 100 names they all say the same, and a batch is small.
const DOUBTS_MAX: usize = 5;

/// While the clock is wrong; `tasks/clock` lets everything be looked at once it is right.
const CLOCK_RETRY: Duration = Duration::from_secs(600);
/// Orders that wait for the same moment go on within this share of the wait after it, at most so late.
const SPREAD_SHARE: f64 = 0.1;
const SPREAD_MAX: Duration = Duration::from_secs(360);

/// What to do after a step.
#[derive(Debug)]
pub(super) enum After {
    /// Decide again.
    Again,
    /// Nothing until then, or until the due index brings it again.
    Sleep {
        /// When, by the order's own next step.
        until: Option<Timestamp>,
        /// Where the index has it.
        place: Option<Place>,
    },
}

/// Why a step could not be done or recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum StepError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
    /// The CA; recorded on the order.
    #[error(transparent)]
    Acme(#[from] AcmeError),
    /// No account; the CA's part is recorded on the order.
    #[error(transparent)]
    Account(AccountError),
    /// No key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A finding of ours that ends the attempt; recorded on the order, whose resource at the CA is given up.
    #[error("the attempt cannot go on")]
    Refused(Problem),
}

impl From<LimitError> for StepError {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Store(error) => Self::Store(error),
            LimitError::Commit(error) => Self::Commit(error),
        }
    }
}

impl From<AccountError> for StepError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Acme(error) => Self::Acme(error),
            AccountError::Commit(error) => Self::Commit(error),
            other => Self::Account(other),
        }
    }
}

/// Decides on and does one step for a certificate.
///
/// # Errors
/// When the outcome could not be recorded; the step is then repeated.
pub(super) async fn step(
    context: &Context,
    certificate_id: &str,
    handle: &mut Option<AcmeOrder>,
) -> Result<After, StepError> {
    let Some(gathered) = Gathered::read(&context.hub, certificate_id).await? else {
        *handle = None;
        return Ok(After::Sleep { until: None, place: None });
    };
    let now = context.hub.now();
    let attempt = Attempt { context, gathered, now };
    let (next, place) = (attempt.gathered.decide(now), Some(attempt.gathered.place()));
    if !matches!(next, Step::Sleep(_)) && !clock::is_right(context) {
        // Whatever the step is: by a wrong clock it may be done too early, or fail. `tasks/clock` wakes all.
        return Ok(After::Sleep { until: Some(backoff::after(now, CLOCK_RETRY)), place });
    }
    let done = match next {
        Step::Sleep(until) => return Ok(After::Sleep { until, place }),
        Step::Begin(reason) => {
            // What an earlier attempt knew of the order may be old: this one reads it from the CA again.
            *handle = None;
            attempt.begin(reason).await
        }
        Step::MakeKey => attempt.make_key().await,
        Step::CheckNames => attempt.check_names().await,
        Step::Hold(problem) => attempt.hold(problem).await,
        Step::HoldForIssuer(problem) => attempt.hold_for_issuer(problem).await,
        Step::Pause => {
            *handle = None;
            attempt.pause().await
        }
        Step::Fail(problem) => attempt.fail(problem, Retry::Now, false).await,
        Step::CheckVisible => attempt.check_visible().await,
        Step::CreateOrder => attempt.create_order(handle).await,
        Step::ReadAuthorizations => attempt.read_authorizations(handle).await,
        Step::Answer(identifier) => attempt.answer(handle, &identifier).await,
        Step::Poll => attempt.poll(handle).await,
        Step::Sign => attempt.sign().await,
        Step::Finalize => attempt.finalize(handle).await,
        Step::Download => attempt.download(handle).await,
    };
    let recorded = match done {
        Ok(()) => Ok(()),
        Err(StepError::Acme(error)) => attempt.refused_by_ca(error, handle).await,
        Err(StepError::Refused(problem)) => {
            *handle = None;
            attempt.fail(problem, Retry::Now, true).await
        }
        // The next decision sees that it is halted.
        Err(StepError::Account(AccountError::Halted)) => Ok(()),
        Err(StepError::Account(error @ (AccountError::NoIssuer | AccountError::Seal(_)))) => {
            attempt.fail(account_problem(attempt.certificate(), &error), Retry::Never, false).await
        }
        Err(StepError::Key(error)) => attempt.fail(key_problem(attempt.certificate(), &error), Retry::Now, false).await,
        Err(error) => Err(error),
    };
    match recorded {
        // A conflict: someone else wrote the record. Decide again on what is there now.
        Ok(()) | Err(StepError::Commit(CommitError::Conflict { .. })) => Ok(After::Again),
        Err(error) => Err(error),
    }
}

/// One step in its surroundings.
struct Attempt<'a> {
    context: &'a Context,
    gathered: Gathered,
    now: Timestamp,
}

impl Attempt<'_> {
    fn certificate(&self) -> &Certificate {
        &self.gathered.bundle.certificate.value
    }

    /// The order, to be changed and saved. Every step but the first has one.
    fn order(&self) -> Result<Versioned<Order>, StepError> {
        let gone =
            || StepError::Commit(CommitError::Conflict { table: Table::Order, key: self.certificate().id.clone() });
        self.gathered.bundle.order.clone().ok_or_else(gone)
    }

    fn event(&self, kind: &str, message: impl AsRef<str>) -> Event {
        self.context.hub.event(kind, message).of_certificate(&self.certificate().name)
    }

    async fn save(&self, order: &Versioned<Order>, changes: Changes) -> Result<(), StepError> {
        self.context.hub.store.commit(changes.update(order)).await?;
        if matches!(order.value.phase, Phase::Failed | Phase::Completed) {
            self.context.hub.wake.jobs.ring(&order.value.certificate_id);
        }
        let (certificate, phase) = (&self.certificate().name, order.value.phase.word());
        info!(certificate, certificate_id = order.value.certificate_id, phase, "order recorded");
        Ok(())
    }

    fn wake_agents(&self) {
        let bundle = &self.gathered.bundle;
        bundle
            .responder_ids()
            .iter()
            .chain(&bundle.target_agent_ids())
            .for_each(|id| self.context.hub.wake.agents.ring(id));
    }

    async fn begin(&self, reason: Reason) -> Result<(), StepError> {
        let bundle = &self.gathered.bundle;
        let earlier = bundle.order.as_ref().map(|order| &order.value);
        let wanted = &self.certificate().specification;
        let same_wish = earlier.filter(|order| order.phase != Phase::Completed && order.answers(wanted));
        let issuer_id = choose(self.certificate(), same_wish, &self.gathered.issuers, self.now);
        let mut order = Order::begin(self.certificate(), &issuer_id, reason, earlier, self.now);
        if let Some(issuer) = self.gathered.issuers.iter().find(|issuer| issuer.id == issuer_id) {
            order.adopt(issuer);
            order.private = issuer.private.is_some();
            order.rehearsal = rehearses(self.certificate(), same_wish, issuer, self.now);
            if order.rehearsal {
                order.order_url = None;
            }
        }
        let mut changes = match &bundle.order {
            Some(earlier) => Changes::new().update(&Versioned { revision: earlier.revision, value: order.clone() }),
            None => Changes::new().insert(&order),
        };
        let waited = |earlier: &Order| earlier.waits_for_agent || earlier.waits_for_issuer || earlier.waits_for_limit();
        if !earlier.is_some_and(waited) {
            let message = format!("attempt {} begins: {}", order.attempt, reason.word());
            changes = changes.event(&self.event("order.started", message));
        }
        if issuer_id != wanted.issuer_id && earlier.is_none_or(|earlier| earlier.issuer_id != issuer_id) {
            changes = changes.event(&self.fallback(&issuer_id));
        }
        if bundle.certificate.value.renew_asked_at.is_some() {
            let mut certificate = bundle.certificate.clone();
            certificate.value.renew_asked_at = None;
            certificate.value.rekey_asked = false;
            changes = changes.update(&certificate);
            changes = self.given_up_key(order.key_slot_id.as_deref()).into_iter().fold(changes, Changes::remove);
        } else {
            // Not for a certificate that is deleted or changed at this moment.
            let certificate = &bundle.certificate;
            changes = changes.expect(Table::Certificate, &certificate.value.id, certificate.revision);
        }
        self.context.hub.store.commit(changes).await?;
        if earlier.is_some_and(|earlier| !earlier.authorizations.is_empty()) {
            // Tokens of the attempt before are withdrawn.
            self.wake_agents();
        }
        Ok(())
    }

    /// The key of the attempt before, when this one does not take it and nothing was ever issued for it.
    fn given_up_key(&self, taken: Option<&str>) -> Option<&Versioned<KeySlot>> {
        let current = self.certificate().current.as_ref().map(|current| current.key_slot_id.as_str());
        let unfinished = self.gathered.bundle.order.as_ref().is_some_and(|order| order.value.phase != Phase::Completed);
        let slot = self.gathered.bundle.order_slot().filter(|_| unfinished)?;
        let id = Some(slot.value.id.as_str());
        (id != taken && id != current).then_some(slot)
    }

    /// Says that another issuer is asked, and why.
    fn fallback(&self, issuer_id: &str) -> Event {
        let name = |id: &str| {
            let issuer = self.gathered.issuers.iter().find(|issuer| issuer.id == id);
            issuer.map_or_else(|| "(removed)".to_owned(), |issuer| issuer.name.clone())
        };
        let (asked, first) = (name(issuer_id), name(&self.certificate().specification.issuer_id));
        let message = format!("issuer {asked} is asked instead of {first}, which does not issue while time is short");
        let mut event = self.event("order.fallback", message);
        event.severity = Severity::Warn;
        event
    }

    async fn make_key(&self) -> Result<(), StepError> {
        let mut order = self.order()?;
        let certificate = self.certificate();
        let slot = match (certificate.specification.custody, self.gathered.key_agent_id()) {
            (Custody::Agent, Some(agent_id)) => keys::agent_slot(certificate, agent_id),
            // `lifecycle/order` holds an order without a key agent.
            (Custody::Agent, None) => return Ok(()),
            (Custody::Controller, _) => keys::controller_slot(certificate, &self.context.hub.store.keyring).await?,
        };
        let mut changes = Changes::new().insert(&slot);
        // The slot that does not fit any more was never certified: nothing refers to it.
        let current = certificate.current.as_ref().map(|current| current.key_slot_id.as_str());
        if let Some(unfit) = self.gathered.bundle.order_slot().filter(|unfit| current != Some(unfit.value.id.as_str()))
        {
            changes = changes.remove(unfit);
        }
        if order.value.key_slot_id.is_some() {
            // An order at the CA belongs to one key: it may already have been finalized for the old one.
            order.value.order_url = None;
        }
        order.value.key_slot_id = Some(slot.id.clone());
        self.save(&order, changes).await?;
        self.wake_agents();
        Ok(())
    }

    async fn check_names(&self) -> Result<(), StepError> {
        let mut order = self.order()?;
        if order.value.phase == Phase::Starting {
            order.value.enter(Phase::Checking, self.now);
            return self.save(&order, Changes::new()).await;
        }
        let names = &self.certificate().specification.identifiers;
        let verdicts =
            preflight::names(self.context.lookup.as_ref(), names).await.into_iter().map(|(_, verdict)| verdict);
        match self.weigh(verdicts) {
            Err(problem) => self.fail(problem, Retry::Now, false).await,
            Ok(changes) => {
                order.value.enter(Phase::Ordering, self.context.hub.now());
                self.save(&order, changes).await
            }
        }
    }

    async fn check_visible(&self) -> Result<(), StepError> {
        let mut order = self.order()?;
        let (lookup, probe) = (self.context.lookup.as_ref(), self.context.probe.as_ref());
        let open = order.value.authorizations.iter().filter(|one| one.state == AuthorizationState::Pending);
        // At most 100, each with its own time limit.
        let looks =
            open.map(|one| preflight::visible(lookup, probe, &one.identifier, &one.token, &one.key_authorization));
        match self.weigh(join_all(looks).await.into_iter()) {
            Err(problem) => self.fail(problem, Retry::Now, false).await,
            Ok(changes) => {
                order.value.visible = true;
                self.save(&order, changes).await
            }
        }
    }

    /// What was seen ends the attempt with the first contradiction; what could not be seen from here becomes events.
    fn weigh(&self, verdicts: impl Iterator<Item = Verdict>) -> Result<Changes, Problem> {
        let mut doubts = Vec::new();
        for verdict in verdicts {
            match verdict {
                Verdict::Ok => {}
                Verdict::Contradicted(problem) => return Err(problem),
                Verdict::Unknown(problem) => doubts.push(problem),
            }
        }
        let events = doubts.into_iter().take(DOUBTS_MAX).map(|problem| self.doubt(problem));
        Ok(events.fold(Changes::new(), |changes, event| changes.event(&event)))
    }

    /// Something could not be seen from here; the CA may see it.
    fn doubt(&self, problem: Problem) -> Event {
        self.event("preflight.unknown", format!("{}; the CA is asked all the same", problem.message))
            .with_problem(Severity::Info, problem)
    }

    async fn hold(&self, problem: Problem) -> Result<(), StepError> {
        let mut order = self.order()?;
        let mut changes = Changes::new();
        if order.value.error.as_ref() != Some(&problem) {
            changes = changes
                .event(&self.event("order.waiting", &problem.message).with_problem(Severity::Warn, problem.clone()));
        }
        order.value.error = Some(problem);
        order.value.waits_for_agent = true;
        order.value.retry_at = Some(backoff::after(self.now, OFFLINE_RETRY));
        order.value.enter(Phase::Waiting, self.now);
        self.save(&order, changes).await
    }

    /// The issuer's own event is the alarm: its orders wait without one each.
    async fn hold_for_issuer(&self, problem: Problem) -> Result<(), StepError> {
        let mut order = self.order()?;
        order.value.error = Some(problem);
        order.value.waits_for_agent = false;
        order.value.waits_for_issuer = true;
        order.value.retry_at = None;
        order.value.enter(Phase::Waiting, self.now);
        self.save(&order, Changes::new()).await?;
        self.wake_agents();
        Ok(())
    }

    /// Lets go of the attempt. With no time to go on, it begins anew as soon as nothing pauses it any more.
    async fn pause(&self) -> Result<(), StepError> {
        let mut order = self.order()?;
        order.value.retry_at = None;
        order.value.waits_for_agent = false;
        order.value.enter(Phase::Waiting, self.now);
        let event = self.event("order.paused", "paused: it goes on when the pause is lifted");
        self.save(&order, Changes::new().event(&event)).await?;
        self.wake_agents();
        Ok(())
    }

    /// Nothing was sent: the order goes on once a limit of the CA has room for it.
    async fn wait_for_limit(&self, problem: Problem, until: Timestamp) -> Result<(), StepError> {
        let mut order = self.order()?;
        let mut changes = Changes::new();
        if order.value.error.as_ref() != Some(&problem) {
            let message = format!("{}; it goes on at {until}", problem.message);
            changes =
                changes.event(&self.event("order.waiting", message).with_problem(Severity::Warn, problem.clone()));
        }
        order.value.wait(problem, until, self.context.hub.now());
        self.save(&order, changes).await
    }

    /// Ends the attempt. `give_up_order` forgets the order resource, so that the next attempt makes a new one.
    async fn fail(&self, problem: Problem, retry: Retry, give_up_order: bool) -> Result<(), StepError> {
        let mut order = self.order()?;
        let now = self.context.hub.now();
        if give_up_order {
            order.value.order_url = None;
        }
        let failures = order.value.failures.saturating_add(1);
        let same = order.value.error.as_ref().is_some_and(|before| before.reason == problem.reason);
        let in_a_row = if same { order.value.same_failures.saturating_add(1) } else { 1 };
        order.value.same_failures = in_a_row;
        let passing = Cause::of(&problem.reason, in_a_row);
        let (cause, retry_after) = match retry {
            Retry::Daily(asked) => (Cause::Standing, asked),
            Retry::After(asked) => (passing, Some(asked)),
            Retry::Now | Retry::Never => (passing, None),
        };
        let life = self.certificate().current.as_ref().and_then(|current| renewal::life(current, now));
        let failed = Failed { failures, cause, retry_after };
        let retry_at = (retry != Retry::Never).then(|| backoff::retry_at(now, failed, life, self.context.hub.jitter()));
        let severity = if retry_at.is_some() && cause == Cause::Passing { Severity::Warn } else { Severity::Error };
        let event = self
            .event("order.failed", format!("attempt {failures} failed: {}", problem.message))
            .with_problem(severity, problem.clone());
        let ended = outcome::not_issued(&self.context.hub, &self.gathered.bundle, severity, problem.clone()).await?;
        order.value.fail(problem, retry_at, now);
        self.save(&order, Changes::new().event(&event).event(&ended)).await?;
        outcome::told(&self.context.hub, &ended);
        self.wake_agents();
        Ok(())
    }

    async fn refused_by_ca(&self, error: AcmeError, handle: &mut Option<AcmeOrder>) -> Result<(), StepError> {
        if let Some(wait) = error.not_sent() {
            let spread = wait.mul_f64(SPREAD_SHARE * self.context.hub.jitter()).min(SPREAD_MAX);
            let until = backoff::after(self.context.hub.now(), wait.saturating_add(spread));
            let problem = error.problem();
            let hint = "nothing: it goes on by itself, and nothing was sent";
            let message = format!("{} waits for its CA", self.certificate().name);
            return self.wait_for_limit(Problem::new(PREDICTED, message, problem.cause, hint), until).await;
        }
        let mut order = self.order()?;
        if order.value.rehearsal {
            *handle = None;
            return self.refused_at_rehearsal(order, error).await;
        }
        self.learn(&error).await?;
        if error.is_account_gone() && !order.value.registered_again {
            *handle = None;
            accounts::forget(self.context, &order.value.issuer_id).await?;
            order.value.order_url = None;
            order.value.registered_again = true;
            // Tokens of the account that is gone mean nothing to the CA any more.
            order.value.authorizations.clear();
            order.value.visible = false;
            order.value.enter(Phase::Ordering, self.context.hub.now());
            return self.save(&order, Changes::new()).await;
        }
        let issuer_id = &order.value.issuer_id;
        let halted = if error.halt().is_some() {
            accounts::fail(self.context, issuer_id, &error).await?
        } else {
            error.is_account_refused() && accounts::halt_if_closed(self.context, issuer_id).await?
        };
        if halted {
            // The next decision sees it.
            *handle = None;
            return Ok(());
        }
        let order_is_dead =
            matches!(error, AcmeError::OrderInvalid { .. }) || error.is_order_gone() || error.is_account_gone();
        if order_is_dead {
            *handle = None;
        }
        self.fail(error.problem(), error.retry(), order_is_dead).await
    }
}

fn account_problem(certificate: &Certificate, error: &AccountError) -> Problem {
    let name = &certificate.name;
    let hint = format!("certwright certs set {name} --issuer OTHER (certwright issuers ls shows them)");
    Problem::new("NO_ACCOUNT", format!("{name} has no account to order with"), chain(error), hint)
}

fn key_problem(certificate: &Certificate, error: &KeyError) -> Problem {
    let hint = "the log of the controller says more; it is tried again";
    Problem::new("KEY_FAILED", format!("cannot make a key for {}", certificate.name), chain(error), hint)
}
