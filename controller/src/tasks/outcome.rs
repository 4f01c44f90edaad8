//! The event that every attempt ends with (features.md M7): made here from what is recorded, written by the caller in the
//! batch of its cause, told to the journal once it is durable. Called by `tasks/issuance` and `rpc/report`.

use tracing::{info, warn};

use super::hub::Hub;
use crate::lifecycle::agent::Agent;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::outcome::{AttemptOutcome, AttemptResult, TargetOutcome};
use crate::lifecycle::problem::Problem;
use crate::lifecycle::target::{Status, TargetState};
use crate::store::StoreError;
use crate::store::certificate::Bundle;

/// Kind of the event.
pub(crate) const ATTEMPT_ENDED: &str = "attempt.ended";

/// The order ended without a version.
pub(crate) async fn not_issued(
    hub: &Hub,
    bundle: &Bundle,
    severity: Severity,
    problem: Problem,
) -> Result<Event, StoreError> {
    let outcome = AttemptOutcome::not_issued(targets(hub, bundle, |_, _| None).await?);
    Ok(event(hub, bundle, outcome).with_problem(severity, problem))
}

/// A version was issued that no target waits for.
pub(crate) fn issued(hub: &Hub, bundle: &Bundle, serial: &str) -> Event {
    event(hub, bundle, AttemptOutcome::deployed(serial, Vec::new()))
}

/// A target reported `fresh`; `None` while other targets are still at it and nothing went wrong here.
pub(crate) async fn deployed(
    hub: &Hub,
    bundle: &Bundle,
    stored: Option<&TargetState>,
    fresh: &TargetState,
) -> Result<Option<Event>, StoreError> {
    let Some(current) = bundle.certificate.value.deployed().filter(|_| !fresh.purged) else { return Ok(None) };
    let same_attempt = |before: &TargetState| {
        let reason = |state: &TargetState| state.problem.as_ref().map(|problem| problem.reason.clone());
        (&before.version_id, before.deploy_wish, before.status) == (&fresh.version_id, fresh.deploy_wish, fresh.status)
            && reason(before) == reason(fresh)
    };
    // A drift, and its end, is no attempt to issue or deploy.
    if fresh.is_drift() || fresh.ends_drift(stored) {
        return Ok(None);
    }
    // The agent tries again and again; it is told once that it fails, and once that it no longer does.
    if fresh.status == Status::Pending || stored.is_some_and(same_attempt) {
        return Ok(None);
    }
    let version = Some(current.version_id.as_str());
    let state = |id: &str, stored: Option<&TargetState>| {
        if id == fresh.target_id { Some(fresh.clone()) } else { stored.cloned() }
    };
    let open = bundle.targets.iter().any(|(target, stored)| {
        let known = state(&target.value.id, stored.as_ref().map(|stored| &stored.value));
        target.value.status(known.as_ref(), version) == Status::Pending
    });
    if open && matches!(fresh.status, Status::Applied | Status::Unproven) {
        return Ok(None);
    }
    let outcome = AttemptOutcome::deployed(&current.serial, targets(hub, bundle, state).await?);
    let ended = event(hub, bundle, outcome);
    Ok(Some(match (&fresh.problem, fresh.status) {
        (Some(problem), Status::Applied | Status::Unproven) => ended.with_problem(Severity::Warn, problem.clone()),
        (Some(problem), _) => ended.with_problem(Severity::Error, problem.clone()),
        (None, _) => ended,
    }))
}

/// Tells the journal of an event that is durable now, and wakes the mailer.
pub(crate) fn told(hub: &Hub, event: &Event) {
    let Some(outcome) = &event.outcome else { return };
    let join = |items: Vec<String>| items.join(", ");
    let hosts = join(outcome.targets.iter().map(|target| target.host.clone()).collect());
    let targets = join(outcome.targets.iter().map(|target| format!("{}:{}", target.host, target.dir)).collect());
    let files = join(outcome.targets.iter().flat_map(|target| target.files.clone()).collect());
    let commands = outcome.targets.iter().flat_map(|target| &target.commands).map(|command| command.argv.clone());
    let commands = join(commands.collect());
    let certificate = event.certificate.as_deref().unwrap_or_default();
    let (result, serial) = (outcome.result.word(), outcome.serial.as_str());
    match &event.problem {
        None => info!(certificate, result, serial, hosts, targets, files, commands, "attempt ended"),
        Some(Problem { reason, message, cause, hint }) => warn!(
            certificate,
            result,
            serial,
            hosts,
            targets,
            files,
            commands,
            reason,
            error = message,
            cause,
            hint,
            "attempt ended"
        ),
    }
    hub.wake.mail.ring(certificate);
}

fn event(hub: &Hub, bundle: &Bundle, outcome: AttemptOutcome) -> Event {
    let mut event = hub.event(ATTEMPT_ENDED, outcome.sentence()).of_certificate(&bundle.certificate.value.name);
    if outcome.result != AttemptResult::Succeeded {
        event.severity = Severity::Warn;
    }
    event.outcome = Some(Box::new(outcome));
    event
}

async fn targets(
    hub: &Hub,
    bundle: &Bundle,
    state: impl Fn(&str, Option<&TargetState>) -> Option<TargetState>,
) -> Result<Vec<TargetOutcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(bundle.targets.len());
    for (target, stored) in &bundle.targets {
        let agent = hub.store.load::<Agent>(&target.value.agent_id).await?;
        let host = agent.map_or_else(|| "(forgotten)".to_owned(), |agent| agent.value.name);
        let known = state(&target.value.id, stored.as_ref().map(|stored| &stored.value));
        outcomes.push(TargetOutcome::of(&host, &target.value, known.as_ref()));
    }
    Ok(outcomes)
}
