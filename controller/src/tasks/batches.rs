//! Acts on many certificates: makes the sub-jobs of a parent job a few per commit, takes back what has not begun once it is
//! cancelled, and ends it with the last of its sub-jobs. Where it is stands in the parent's record, written in the batch of
//! what it made: a crash at any commit neither loses a sub-job nor makes one twice. It orders nothing: it asks, as an
//! operator does, and `tasks/issuance` orders by urgency, within the CA's pace and limits. Called by `tasks::run` and `rpc`.

use std::collections::HashSet;
use std::time::Duration;

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use crate::lifecycle::batch::{Act, Batch, Facts, Members, Skip, skip};
use crate::lifecycle::certificate::Certificate;
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::job::{Job, Kind, Outcome, State};
use crate::lifecycle::pause::{Pause, held};
use crate::lifecycle::problem::chain;
use crate::lifecycle::revocation::{Revocation, RevocationReason};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::{Bundle, bundle};
use crate::store::job::sub_job_id;
use crate::store::pause::pause_all;
use crate::store::records::{Changes, Versioned};

/// Open acts are looked at this often, whatever rings.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Sub-jobs per commit: each has six keys, the parent one, and a batch holds 64.
const CHUNK: usize = 10;
/// Someone else writes the same record: so often it is read again at once.
const CONFLICTS_MAX: usize = 5;

/// Why an act could not go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BatchError {
    /// Reading.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Writing.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Looks at open acts until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    loop {
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            looked = look(&hub) => looked,
        };
        if let Err(error) = looked {
            error!(error = %chain(&error), "cannot go on with an act on many certificates");
        }
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = hub.wake.batches.wait() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(hub: &Hub) -> Result<(), BatchError> {
    for id in hub.store.open_batches().await? {
        one(hub, &id).await?;
    }
    Ok(())
}

/// Goes on with one act until nothing but its sub-jobs is waited for.
async fn one(hub: &Hub, id: &str) -> Result<(), BatchError> {
    let mut members = None;
    loop {
        let Some(parent) = hub.store.load::<Job>(id).await?.filter(|job| job.value.outcome.is_none()) else {
            return Ok(());
        };
        let Some(batch) = parent.value.batch.clone() else { return Ok(()) };
        let done = if !batch.is_made() {
            let members = match &members {
                Some(members) => members,
                None => members.insert(hub.store.load::<Members>(id).await?.map(|members| members.value)),
            };
            let ids = members.as_ref().map(|members| members.certificate_ids.as_slice()).unwrap_or_default();
            make(hub, parent, batch, ids).await
        } else if !batch.is_asked() {
            take_all_back(hub, parent, batch).await
        } else if hub.store.has_open_sub_jobs(id).await? {
            return Ok(());
        } else {
            end(hub, parent, &batch).await
        };
        match done {
            // A conflict: someone else wrote a record. Decide again on what is there now.
            Ok(()) | Err(BatchError::Commit(CommitError::Conflict { .. })) => {}
            Err(error) => return Err(error),
        }
    }
}

/// What a decision about members needs beside their bundles.
pub(crate) struct Surroundings {
    paused: Option<Pause>,
    issuers: HashSet<String>,
    private_cas: HashSet<String>,
}

/// Reads it.
///
/// # Errors
/// When the store cannot be read.
pub(crate) async fn surroundings(hub: &Hub) -> Result<Surroundings, StoreError> {
    let all: Vec<Versioned<Issuer>> = hub.store.issuers().await?;
    let private_cas = all.iter().filter(|issuer| issuer.value.private.is_some());
    let private_cas = private_cas.map(|issuer| issuer.value.id.clone()).collect();
    let issuers = all.into_iter().map(|issuer| issuer.value.id).collect();
    Ok(Surroundings { paused: hub.store.read(pause_all).await?, issuers, private_cas })
}

/// Returns why a certificate is passed over; `overridden` is the issuance lock's.
pub(crate) fn passed_over(
    hub: &Hub,
    around: &Surroundings,
    act: Act,
    overridden: bool,
    bundle: &Bundle,
) -> Option<Skip> {
    let certificate = &bundle.certificate.value;
    let facts = Facts {
        certificate,
        renewal_info: bundle.renewal_info(),
        order: bundle.order.as_ref().map(|order| &order.value),
        paused: held(certificate, around.paused.as_ref()).is_some(),
        issuer_known: around.issuers.contains(&certificate.specification.issuer_id),
        // An order of our own CA costs nothing.
        lock: (!overridden && !around.private_cas.contains(&certificate.specification.issuer_id))
            .then_some(hub.lock_share),
    };
    skip(act, facts, hub.now())
}

/// Makes the next few sub-jobs. What changed since the certificates were picked is looked at once more.
async fn make(hub: &Hub, mut parent: Versioned<Job>, mut batch: Batch, ids: &[String]) -> Result<(), BatchError> {
    let around = surroundings(hub).await?;
    let chunk: Vec<String> = ids.iter().skip(batch.made).take(CHUNK).cloned().collect();
    if chunk.is_empty() {
        // Never so: the members are written in the batch of their parent.
        batch.made = batch.total;
    }
    let wanted = chunk.clone();
    let bundles =
        hub.store.read(move |snapshot| wanted.iter().map(|id| bundle(snapshot, id)).collect::<Result<Vec<_>, _>>());
    let now = hub.now();
    let mut changes = Changes::new();
    let mut asked = Vec::new();
    for found in bundles.await? {
        let index = batch.made;
        batch.made = batch.made.saturating_add(1);
        let Some(found) = found else {
            batch.pass_over("(deleted)", Skip::Deleted);
            continue;
        };
        let name = &found.certificate.value.name;
        if let Some(skip) = passed_over(hub, &around, batch.act, !batch.override_lock.is_empty(), &found) {
            batch.pass_over(name, skip);
            continue;
        }
        let locked = passed_over(hub, &around, batch.act, false, &found).is_some();
        let sub = sub_job(&parent.value, &batch, index, &found.certificate.value, now);
        changes = changes.open_job(&sub).event(&event(hub, &parent.value, &batch, name, locked));
        if batch.act != Act::Revoke {
            let mut certificate = found.certificate;
            certificate.value.renew_asked_at = Some(now);
            certificate.value.rekey_asked |= batch.act == Act::Rekey;
            changes = changes.update(&certificate);
        }
        asked.push(sub);
    }
    parent.value.batch = Some(batch);
    hub.store.commit(changes.update(&parent)).await?;
    for sub in asked {
        let bell = if sub.revocation.is_some() { &hub.wake.revocations } else { &hub.wake.certificates };
        bell.ring(&sub.certificate_id);
        hub.wake.jobs.ring(&sub.certificate_id);
    }
    Ok(())
}

fn sub_job(parent: &Job, batch: &Batch, index: usize, certificate: &Certificate, now: Timestamp) -> Job {
    let current = certificate.current.as_ref();
    let revocation = current.filter(|_| batch.act == Act::Revoke).map(|current| Revocation {
        version_id: current.version_id.clone(),
        serial: current.serial.clone(),
        reason: batch.reason.unwrap_or(RevocationReason::Unspecified),
        begun: false,
        failures: 0,
        retry_at: None,
        problem: None,
    });
    Job {
        id: sub_job_id(&parent.id, index),
        kind: if batch.act == Act::Renew && current.is_none() { Kind::Issue } else { batch.act.kind() },
        certificate_id: certificate.id.clone(),
        certificate_name: certificate.name.clone(),
        actor: parent.actor.clone(),
        created_at: now,
        version_before: current.map(|current| current.version_id.clone()),
        agent_id: None,
        revocation,
        parent: Some(parent.id.clone()),
        batch: None,
        outcome: None,
    }
}

fn event(hub: &Hub, parent: &Job, batch: &Batch, name: &str, locked: bool) -> Event {
    let of = format!("one of {} in job {}", batch.total, parent.id);
    let mut event = match batch.act {
        Act::Renew if locked => {
            let message = format!("renew now, although locked: {}; {of}", batch.override_lock);
            hub.event("certificate.lock_overridden", message)
        }
        Act::Renew => hub.event("certificate.renew_asked", format!("renew now; {of}")),
        Act::Rekey => hub.event("certificate.rekey_asked", format!("renew now with a new key; {of}")),
        Act::Revoke => {
            let why = batch.reason.map_or("", RevocationReason::word);
            hub.event("certificate.revoke_asked", format!("revoke the current version ({why}); {of}"))
        }
    };
    if locked || batch.act == Act::Revoke {
        event.severity = Severity::Warn;
    }
    event.of_certificate(name).by(&parent.actor)
}

/// Takes back every sub-job that has not begun. Those that have go on.
async fn take_all_back(hub: &Hub, mut parent: Versioned<Job>, mut batch: Batch) -> Result<(), BatchError> {
    let Some(cancelled) = batch.cancelled.as_mut() else { return Ok(()) };
    for sub in hub.store.sub_jobs_in(&parent.value.id, &[State::Running]).await? {
        take_back(hub, &sub.value.id, &cancelled.by).await?;
    }
    cancelled.unasked = true;
    parent.value.batch = Some(batch);
    hub.store.commit(Changes::new().update(&parent)).await?;
    Ok(())
}

/// Takes a wish back if nothing was done for it yet, and says whether it did.
///
/// # Errors
/// When the store fails, or others write the same records all the time.
pub(crate) async fn take_back(hub: &Hub, job_id: &str, actor: &str) -> Result<bool, BatchError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_take_back(hub, job_id, actor).await {
            Err(BatchError::Commit(CommitError::Conflict { .. })) if tries < CONFLICTS_MAX => {}
            done => return done,
        }
    }
}

async fn try_take_back(hub: &Hub, job_id: &str, actor: &str) -> Result<bool, BatchError> {
    let Some(mut job) = hub.store.load::<Job>(job_id).await?.filter(|job| job.value.outcome.is_none()) else {
        return Ok(false);
    };
    let mut changes = Changes::new();
    match job.value.kind {
        Kind::Deploy => return Ok(false),
        Kind::Revoke if job.value.revocation.as_ref().is_none_or(|revocation| revocation.begun) => return Ok(false),
        Kind::Revoke => {}
        Kind::Issue | Kind::Renew | Kind::Rekey => {
            let found = hub.store.load::<Certificate>(&job.value.certificate_id).await?;
            // An order that took the wish up cleared it.
            let asked = found.filter(|found| found.value.renew_asked_at.is_some() && found.value.current.is_some());
            let Some(mut certificate) = asked else { return Ok(false) };
            let others = hub.store.open_jobs(&certificate.value.id).await?;
            let others = others.iter().filter(|other| other.value.id != job_id).map(|other| other.value.kind);
            let others: Vec<Kind> =
                others.filter(|kind| matches!(kind, Kind::Issue | Kind::Renew | Kind::Rekey)).collect();
            if others.is_empty() {
                certificate.value.renew_asked_at = None;
            }
            certificate.value.rekey_asked &= others.contains(&Kind::Rekey);
            changes = changes.update(&certificate);
        }
    }
    let event = hub
        .event("job.cancelled", format!("{} asked by {} is taken back", job.value.kind.word(), job.value.actor))
        .of_certificate(&job.value.certificate_name)
        .by(actor);
    job.value.outcome = Some(Outcome { at: hub.now(), state: State::Cancelled, problem: None });
    hub.store.commit(changes.close_job(&job).event(&event)).await?;
    hub.wake.certificates.ring(&job.value.certificate_id);
    job.value.parent.iter().for_each(|parent| hub.wake.batches.ring(parent));
    Ok(true)
}

/// Ends an act whose sub-jobs have all ended.
async fn end(hub: &Hub, mut parent: Versioned<Job>, batch: &Batch) -> Result<(), BatchError> {
    let counts = hub.store.sub_job_counts(&parent.value.id).await?;
    let progress = batch.progress(&parent.value.id, counts);
    let (act, total, actor) = (batch.act.word(), batch.total, &parent.value.actor);
    let message = format!(
        "{act} of {total} certificates asked by {actor}: {}; {} ok, {} in part, {} failed, {} taken back, {} passed over",
        progress.state.word(),
        counts.succeeded,
        counts.partial,
        counts.failed,
        counts.cancelled,
        batch.skipped_total
    );
    let mut event = hub.event("batch.ended", message);
    if let Some(problem) = &progress.problem {
        let severity = if progress.state == State::Failed { Severity::Error } else { Severity::Warn };
        event = event.with_problem(severity, problem.clone());
    }
    parent.value.outcome = Some(Outcome { at: hub.now(), state: progress.state, problem: progress.problem });
    hub.store.commit(Changes::new().close_job(&parent).event(&event)).await?;
    Ok(())
}
