//! What an agent observes becomes records: outcomes of deployments, keys held. What changes by the second (tokens served,
//! what it is doing) stays in memory. Called by `rpc/agent_service`.

use std::collections::{HashMap, HashSet};

use proto::agent::v1::show_held_request::Message;
use proto::agent::v1::{ReportRequest, ShowHeldRequest, TargetReport};
use proto::clock::from_wire;
use proto::text::{many_lines, one_line};
use proto::types::v1::{self as types, StepReport};
use proto::x509::hex;
use tracing::warn;

use super::agent_service::publish_refusal;
use super::convert::{problem_in, status_in};
use super::peer::AgentCaller;
use super::status::Refusal;
use crate::lifecycle::certificate::{Custody, KeySlot};
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::order::Phase;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::target::{Drift, Status, Step, TARGET_ITEMS_MAX, Target, TargetState};
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::restore::Shown;
use crate::tasks::deletion::{self, DeletionError};
use crate::tasks::hub::Hub;
use crate::tasks::outcome;
use crate::tasks::publish;
use crate::tasks::restore::{self, RestoreError};
use crate::tasks::rollback;

/// Most steps kept of one deployment: files, commands and endpoints.
const STEPS_MAX: usize = 3 * TARGET_ITEMS_MAX;
/// Longest output kept of one step, characters.
const OUTPUT_CHARS_MAX: usize = 4_096;
/// Longest subject of a step, characters.
const SUBJECT_CHARS_MAX: usize = 512;
/// Longest line about a file that drifted, characters.
const DIFFERENCE_CHARS_MAX: usize = 300;
/// Longest id of a target, version or slot, characters.
const ID_CHARS_MAX: usize = 64;
/// Most keys an agent may say it holds, that are remembered.
const KEYS_MAX: usize = 10_000;
/// Most tokens an agent may say it serves.
const TOKENS_MAX: usize = 10_000;

/// Takes one report over. Returns whether the agent is to show what it holds first: the controller was restored.
pub(crate) async fn take(hub: &Hub, caller: &AgentCaller, report: ReportRequest) -> Result<bool, Refusal> {
    remember(hub, caller, &report);
    let has_shown = restore::has_shown(hub, &caller.id).await?;
    if !has_shown || hub.gate.is_closed() {
        return Ok(!has_shown);
    }
    let (name, ..) = publish::refresh(hub, &caller.id).await.map_err(publish_refusal)?;
    if let Some(ignored) = &report.ignored {
        warn!(
            agent = caller.name,
            offered = ignored.generation,
            "the agent holds a newer desired state than this database: was it restored?"
        );
    }
    // It left before the agent knew the present state: what it does not mention may be newer than it.
    let late = report.name.as_ref().is_none_or(|told| (told.epoch, told.generation) < (name.epoch, name.generation));
    let bundles = hub.store.bundles_of_agent(&caller.id).await?;
    for bundle in &bundles {
        let order = bundle.order.as_ref().map(|order| order.value.phase);
        if matches!(order, Some(Phase::Publishing | Phase::Starting | Phase::Waiting)) {
            hub.wake.certificates.ring(&bundle.certificate.value.id);
        }
        keys(hub, caller, bundle, &report, late).await?;
        for (target, state) in bundle.targets.iter().filter(|(target, _)| target.value.agent_id == caller.id) {
            let told = report.targets.iter().find(|told| told.target_id == target.value.id);
            // While it works the outcome is still open.
            if let Some(told) = told.filter(|told| told.doing.is_empty()) {
                take_outcome(hub, caller, bundle, (&target.value, state.as_ref()), told).await?;
            }
        }
        if bundle.certificate.value.purging {
            // Asked with every report, so that a crash between an outcome and the end of its purge does no harm.
            deletion::finish_purge(hub, &bundle.certificate.value.id).await.map_err(deletion_refusal)?;
        }
    }
    Ok(false)
}

/// Keeps what an agent shows after a restore.
pub(crate) async fn shown(hub: &Hub, caller: &AgentCaller, request: ShowHeldRequest) -> Result<(), Refusal> {
    match request.message {
        Some(Message::Held(held)) => {
            let id = |text: &str| one_line(text, ID_CHARS_MAX).replace('/', "");
            let shown = Shown {
                agent_id: caller.id.clone(),
                target_id: id(&held.target_id),
                certificate_name: one_line(&held.certificate_name, ID_CHARS_MAX),
                version_id: id(&held.version_id),
                key_slot_id: Some(id(&held.key_slot_id)).filter(|id| !id.is_empty()),
                leaf_pem: held.leaf_pem,
                chain_pem: held.chain_pem,
                at: hub.now(),
            };
            // Only while it is asked for.
            if !restore::has_shown(hub, &caller.id).await?
                && !shown.target_id.is_empty()
                && !shown.version_id.is_empty()
            {
                restore::keep(hub, shown).await?;
            }
        }
        Some(Message::Done(true)) => restore::shown_all(hub, &caller.id).await?,
        Some(Message::Done(false)) | None => {}
    }
    Ok(())
}

fn remember(hub: &Hub, caller: &AgentCaller, report: &ReportRequest) {
    let serving =
        report.challenges.iter().filter(|one| one.serving).take(TOKENS_MAX).map(|one| one.token.clone()).collect();
    let problems = report.challenges.iter().filter(|one| !one.serving).take(TOKENS_MAX);
    let problems: HashMap<_, _> =
        problems.filter_map(|one| Some((one.token.clone(), problem_in(one.problem.clone()?)))).collect();
    let doing = report.targets.iter().filter(|one| !one.doing.is_empty());
    let doing = doing.map(|one| (one.target_id.clone(), one_line(&one.doing, 32))).collect();
    let generation = report.name.as_ref().map_or(0, |name| name.generation);
    hub.presence.update(&caller.id, |connected| {
        connected.serving = serving;
        connected.challenge_problems = problems;
        connected.doing = doing;
        connected.keys_held = report.key_slots_held.iter().take(KEYS_MAX).cloned().collect();
        connected.generation_reported = generation;
    });
}

/// Stores one target's outcome if it is news.
async fn take_outcome(
    hub: &Hub,
    caller: &AgentCaller,
    bundle: &Bundle,
    (target, stored): (&Target, Option<&Versioned<TargetState>>),
    told: &TargetReport,
) -> Result<(), Refusal> {
    let certificate = &bundle.certificate.value;
    let fresh = state(target, told);
    if stored.is_some_and(|stored| stored.value == fresh) {
        return Ok(());
    }
    let known = bundle.deployed_id() == Some(fresh.version_id.as_str());
    // An outcome about a version that is no longer wanted is history: only what an agent last did for the current one counts.
    if !known && !fresh.purged {
        return Ok(());
    }
    let before = stored.map(|stored| &stored.value);
    let event = event(hub, caller, &certificate.name, target, before, &fresh);
    let drifted = drift_event(hub, caller, &certificate.name, target, before, &fresh);
    let ended = outcome::deployed(hub, bundle, before, &fresh).await?;
    let changes = match stored {
        Some(stored) => Changes::new().update(&Versioned { revision: stored.revision, value: fresh }),
        None => Changes::new().insert(&fresh),
    };
    let changes = drifted.iter().fold(changes, |changes, drifted| changes.event(drifted)).event(&event);
    let changes = ended.iter().fold(changes, |changes, ended| changes.event(ended));
    match hub.store.commit(changes).await {
        Ok(_) => ended.iter().for_each(|ended| outcome::told(hub, ended)),
        // A newer report of the same agent was faster.
        Err(CommitError::Conflict { .. }) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    hub.wake.jobs.ring(&certificate.id);
    if certificate.delivery.rollout.is_some() {
        // It may let others go, or hold them.
        bundle.target_agent_ids().iter().for_each(|id| hub.wake.agents.ring(id));
    }
    Ok(())
}

impl From<RestoreError> for Refusal {
    fn from(error: RestoreError) -> Self {
        match error {
            RestoreError::Store(error) => error.into(),
            RestoreError::Commit(error) => error.into(),
        }
    }
}

/// What a deletion refuses, as a refusal of the call.
pub(crate) fn deletion_refusal(error: DeletionError) -> Refusal {
    match error {
        DeletionError::Store(error) => error.into(),
        DeletionError::Commit(error) => error.into(),
    }
}

fn state(target: &Target, told: &TargetReport) -> TargetState {
    TargetState {
        certificate_id: target.certificate_id.clone(),
        target_id: target.id.clone(),
        version_id: one_line(&told.version_id, 64),
        deploy_wish: told.deploy_wish,
        status: status_in(told.status()),
        served_fingerprint_sha256: if told.served_fingerprint_sha256.len() == 32 {
            hex(&told.served_fingerprint_sha256)
        } else {
            String::new()
        },
        problem: told.problem.clone().map(problem_in),
        steps: told.steps.iter().take(STEPS_MAX).map(step).collect(),
        started_at: from_wire(told.started_at),
        finished_at: from_wire(told.finished_at),
        retry_at: from_wire(told.retry_at),
        attempt: told.attempt,
        purged: told.purged,
        drift: told.drift.as_ref().map(drift),
    }
}

fn drift(told: &types::Drift) -> Drift {
    let lines = told.differences.iter().take(TARGET_ITEMS_MAX);
    Drift {
        differences: lines.map(|line| one_line(line, DIFFERENCE_CHARS_MAX)).collect(),
        seen_at: from_wire(told.seen_at),
        ended_at: from_wire(told.ended_at),
        times: told.times,
        repairs: told.repairs,
    }
}

fn step(step: &StepReport) -> Step {
    Step {
        name: one_line(&step.name, 32),
        subject: one_line(&step.subject, SUBJECT_CHARS_MAX),
        ok: step.ok,
        exit_status: step.exit_status,
        output: many_lines(&step.output, OUTPUT_CHARS_MAX),
        took_ms: step.took_ms,
    }
}

/// A drift that ended before it was told: the agent repaired it while it had no connection, or between two reports.
fn drift_event(
    hub: &Hub,
    caller: &AgentCaller,
    certificate: &str,
    target: &Target,
    before: Option<&TargetState>,
    state: &TargetState,
) -> Option<Event> {
    let drift = state.drift.as_ref().filter(|drift| drift.ended_at.is_some())?;
    if !state.has_new_drift(before) {
        return None;
    }
    let told = TargetState {
        status: Status::Drifted,
        purged: false,
        problem: Some(Problem {
            reason: "DRIFTED".to_owned(),
            message: format!("files in {} were not as the agent wrote them", target.dir),
            cause: drift.differences.join("; "),
            hint: format!("they are right again, after {} repairs in a row", drift.repairs),
        }),
        ..state.clone()
    };
    Some(event(hub, caller, certificate, target, before, &told))
}

fn event(
    hub: &Hub,
    caller: &AgentCaller,
    certificate: &str,
    target: &Target,
    before: Option<&TargetState>,
    state: &TargetState,
) -> Event {
    let (kind, words, severity) = match state.status {
        Status::Pending => ("target.pending", "waits", Severity::Info),
        Status::Applied => ("target.applied", "applied and proven by handshake", Severity::Info),
        Status::Unproven => {
            ("target.unproven", "files are in place; nothing proves that they are served", Severity::Warn)
        }
        Status::NotLive => ("target.not_live", "files are in place, but the new leaf is not served", Severity::Error),
        Status::RolledBack => ("target.rolled_back", "rolled back to the previous files", Severity::Error),
        Status::Failed => ("target.failed", "not deployed", Severity::Error),
        Status::NeedsOperator => ("target.needs_operator", "stopped; an operator must look", Severity::Error),
        Status::Drifted => ("target.drifted", "files on the host were changed", Severity::Warn),
    };
    let (kind, words) = match (state.purged, state.ends_drift(before)) {
        (true, _) => ("target.purged", "files removed"),
        (false, true) => ("target.repaired", "files are again as the agent wrote them"),
        (false, false) => (kind, words),
    };
    let event = hub
        .event(kind, format!("{} on {}: {words}", target.dir, caller.name))
        .of_certificate(certificate)
        .of_agent(&caller.name);
    let mut event = event.by(&format!("agent:{}", caller.name));
    event.severity = severity;
    event.problem = state.problem.clone();
    event
}

/// A key that was held and is gone is a reason to re-issue; a key that cannot be made ends the attempt.
async fn keys(
    hub: &Hub,
    caller: &AgentCaller,
    bundle: &Bundle,
    report: &ReportRequest,
    late: bool,
) -> Result<(), Refusal> {
    let held: HashSet<&str> = report.key_slots_held.iter().map(String::as_str).collect();
    let mine = |slot: &&Versioned<KeySlot>| {
        slot.value.custody == Custody::Agent && slot.value.agent_id.as_deref() == Some(&caller.id)
    };
    for slot in bundle.slots.iter().filter(mine) {
        let told = report.key_problems.iter().find(|told| told.key_slot_id == slot.value.id);
        // A late report may have left before a fresh key was made: only the key in use cannot be newer than it.
        let in_use =
            bundle.certificate.value.current.as_ref().is_some_and(|current| current.key_slot_id == slot.value.id);
        let gone = slot.value.csr.is_some() && !held.contains(slot.value.id.as_str());
        let lost = gone && !slot.value.lost && (in_use || !late);
        let mut fresh = slot.clone();
        fresh.value.lost |= lost;
        fresh.value.problem =
            told.and_then(|told| told.problem.clone()).map(problem_in).filter(|_| slot.value.csr.is_none());
        if fresh.value == slot.value {
            continue;
        }
        let mut changes = Changes::new().update(&fresh);
        if lost {
            changes = changes.event(&lost_event(hub, caller, bundle));
        }
        let mut certificate = bundle.certificate.clone();
        let went_back = certificate.value.rollback.as_ref();
        let ends = lost && went_back.is_some_and(|rollback| rollback.version.key_slot_id == slot.value.id);
        if ends {
            changes = changes.event(&rollback::ended(hub, &certificate.value, "its key is gone"));
            certificate.value.back_to_current();
        }
        if let Some(current) = certificate.value.current.as_mut().filter(|_| lost && in_use) {
            current.key_lost = true;
        }
        if ends || (lost && in_use) {
            changes = changes.update(&certificate);
        }
        match hub.store.commit(changes).await {
            Ok(_) | Err(CommitError::Conflict { .. }) => {
                hub.wake.certificates.ring(&bundle.certificate.value.id);
                hub.wake.agents.ring(&caller.id);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn lost_event(hub: &Hub, caller: &AgentCaller, bundle: &Bundle) -> Event {
    let message = format!("{} no longer has the key; a new one is made and certified", caller.name);
    let mut event =
        hub.event("key.lost", message).of_certificate(&bundle.certificate.value.name).of_agent(&caller.name);
    event.severity = Severity::Warn;
    event
}
