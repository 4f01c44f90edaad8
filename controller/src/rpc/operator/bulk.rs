//! Acts on many certificates, and the end of jobs before their time. Recorded in one commit: the parent job, its members and
//! the request; `tasks/batches` makes the sub-jobs.

use std::collections::{BTreeMap, HashMap};

use proto::clock::to_wire;
use proto::operator::v1 as wire;
use proto::text::one_line;
use tonic::Code;

use super::lists::job_view;
use super::selection::{self, Picked};
use super::wishes::{self, REQUEST_ID_MAX};
use crate::lifecycle::batch::{Act, Batch, Cancelled, Members, Skip, Skipped};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::job::Job;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::rate_limit::{Ask, exemption, same_names};
use crate::lifecycle::revocation::RevocationReason;
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::job::job_id;
use crate::store::records::Changes;
use crate::store::tables::Table;
use crate::tasks::batches::{self, BatchError};
use crate::tasks::hub::Hub;
use crate::tasks::limits;

/// Longest reason for an override that is kept, characters.
const REASON_CHARS_MAX: usize = 200;
/// For more orders than this it is not told when the last one goes: each is compared with all that wait.
const FORETOLD_MAX: usize = 2_000;
/// Names told of those that are acted on.
const NAMES_TOLD: usize = 200;

/// What an act would do.
struct Plan {
    will: Vec<Bundle>,
    skipped: Vec<Skipped>,
}

/// Acts on many certificates, or says what that would do.
pub(crate) async fn act(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::ActOnCertificatesRequest,
) -> Result<wire::ActOnCertificatesResponse, Refusal> {
    if let Some(job) = wishes::job_of(hub, &request.request_id).await?.filter(|_| !request.rehearse) {
        return Ok(answered(&job));
    }
    let picked = selection::pick(hub, &request).await?;
    let reason = revocation_reason(hub, &picked, &request).await?;
    let override_lock = one_line(request.override_lock.trim(), REASON_CHARS_MAX);
    let around = batches::surroundings(hub).await?;
    let mut plan = Plan { will: Vec::new(), skipped: Vec::new() };
    for bundle in picked.bundles {
        match batches::passed_over(hub, &around, picked.act, !override_lock.is_empty(), &bundle) {
            None => plan.will.push(bundle),
            Some(skip) => plan.skipped.push(Skipped { name: bundle.certificate.value.name.clone(), skip }),
        }
    }
    if request.rehearse {
        return rehearsed(hub, picked.act, &plan).await;
    }
    refuse_nothing(&plan)?;
    refuse_another_number(&plan, request.expected)?;
    let mut batch = Batch {
        act: picked.act,
        selection: picked.words,
        total: plan.will.len(),
        made: 0,
        skipped: Vec::new(),
        skipped_total: 0,
        override_lock,
        reason,
        cancelled: None,
    };
    plan.skipped.iter().for_each(|one| batch.pass_over(&one.name, one.skip));
    record(hub, caller, &request.request_id, batch, &plan).await
}

async fn record(
    hub: &Hub,
    caller: &OperatorCaller,
    request_id: &str,
    batch: Batch,
    plan: &Plan,
) -> Result<wire::ActOnCertificatesResponse, Refusal> {
    let now = hub.now();
    let (act, total, picked) = (batch.act.word(), batch.total, &batch.selection);
    let why = if batch.override_lock.is_empty() {
        String::new()
    } else {
        format!("; locks are overridden: {}", batch.override_lock)
    };
    let message = format!("{act} {total} certificates ({picked}), {} passed over{why}", batch.skipped_total);
    let mut event = hub.event("batch.asked", message).by(&caller.name);
    if batch.act == Act::Revoke || !batch.override_lock.is_empty() {
        event.severity = Severity::Warn;
    }
    let job = Job {
        id: job_id(now),
        kind: batch.act.kind(),
        certificate_id: String::new(),
        certificate_name: String::new(),
        actor: caller.name.clone(),
        created_at: now,
        version_before: None,
        agent_id: None,
        revocation: None,
        parent: None,
        batch: Some(batch),
        outcome: None,
    };
    let certificate_ids = plan.will.iter().map(|bundle| bundle.certificate.value.id.clone()).collect();
    let members = Members { job_id: job.id.clone(), certificate_ids };
    let mut changes = Changes::new().open_job(&job).insert(&members).event(&event);
    if (1..=REQUEST_ID_MAX).contains(&request_id.len()) {
        changes = changes.claim_name(Table::Request, request_id, &job.id);
    }
    match hub.store.commit(changes).await {
        Ok(_) => {}
        Err(CommitError::Conflict { .. }) => {
            // The same request a moment earlier.
            let job = wishes::job_of(hub, request_id).await?;
            return job.map(|job| answered(&job)).ok_or_else(|| Refusal::changed("job", &job_words(&members)));
        }
        Err(error) => return Err(error.into()),
    }
    hub.wake.batches.ring(&job.id);
    Ok(answered(&job))
}

fn job_words(members: &Members) -> String {
    format!("over {} certificates", members.certificate_ids.len())
}

/// Takes back what has not begun of a job.
pub(crate) async fn cancel(hub: &Hub, caller: &OperatorCaller, id: &str) -> Result<wire::Job, Refusal> {
    let found = hub.store.load::<Job>(id).await?;
    let mut job = found.ok_or_else(|| Refusal::not_found("job", &one_line(id, 80)))?;
    if let Some(outcome) = &job.value.outcome {
        let message = format!("job {} has ended: {}", job.value.id, outcome.state.word());
        let problem = Problem::new("JOB_ENDED", message, "", "nothing is left to take back");
        return Err(Refusal::new(Code::FailedPrecondition, problem));
    }
    if let Some(batch) = &mut job.value.batch {
        if batch.cancelled.is_none() {
            batch.cancelled = Some(Cancelled { at: hub.now(), by: caller.name.clone(), unasked: false });
            let event = hub
                .event("batch.cancelled", format!("job {id} is cancelled: what has not begun is taken back"))
                .by(&caller.name);
            hub.store.commit(Changes::new().update(&job).event(&event)).await?;
            hub.wake.batches.ring(id);
        }
        return job_view(hub, &job.value).await;
    }
    match batches::take_back(hub, id, &caller.name).await {
        Ok(true) => {}
        Ok(false) => return Err(begun(&job.value)),
        Err(BatchError::Store(error)) => return Err(error.into()),
        Err(BatchError::Commit(error)) => return Err(error.into()),
    }
    let fresh = hub.store.load::<Job>(id).await?;
    job_view(hub, &fresh.unwrap_or(job).value).await
}

fn begun(job: &Job) -> Refusal {
    let name = &job.certificate_name;
    let message = format!("job {} has begun: it can no longer be taken back", job.id);
    let hint = format!("certwright certs pause {name} holds it; certwright certs explain {name} says where it is");
    Refusal::new(Code::FailedPrecondition, Problem::new("JOB_BEGUN", message, "", hint))
}

/// Why to revoke; what was revoked in vain is revoked for the same reason.
async fn revocation_reason(
    hub: &Hub,
    picked: &Picked,
    request: &wire::ActOnCertificatesRequest,
) -> Result<Option<RevocationReason>, Refusal> {
    if picked.act != Act::Revoke {
        return Ok(None);
    }
    if let Some(job) = hub.store.load::<Job>(&request.failed_of).await?.map(|job| job.value) {
        let one = job.revocation.map(|revocation| revocation.reason);
        return Ok(job.batch.and_then(|batch| batch.reason).or(one));
    }
    let words = RevocationReason::ALL.map(RevocationReason::word).join(", ");
    let message = || format!("\"{}\" is no reason for a revocation", one_line(&request.reason, 40));
    let reason = RevocationReason::parse(&request.reason);
    reason.map(Some).ok_or_else(|| Refusal::field("reason", message(), format!("one of {words}")))
}

fn refuse_nothing(plan: &Plan) -> Result<(), Refusal> {
    if !plan.will.is_empty() {
        return Ok(());
    }
    if plan.skipped.is_empty() {
        let hint = "certwright certs ls --filter WORDS shows what a filter finds";
        let problem = Problem::new("NOT_FOUND", "no certificate is picked", "", hint);
        return Err(Refusal::new(Code::NotFound, problem));
    }
    let locked = plan.skipped.iter().all(|one| matches!(one.skip, Skip::Locked(_)));
    let reason = if locked { "ISSUANCE_LOCKED" } else { "NOTHING_TO_DO" };
    let hint = if locked { "say why it is needed now: --override-lock REASON" } else { "mend that first" };
    let message = format!("all {} are passed over", plan.skipped.len());
    let causes = plan.skipped.iter().take(5).map(|one| format!("{}: {}", one.name, one.skip.why()));
    let problem = Problem::new(reason, message, causes.collect::<Vec<_>>().join("\n"), hint);
    Err(Refusal::new(Code::FailedPrecondition, problem))
}

fn refuse_another_number(plan: &Plan, expected: u64) -> Result<(), Refusal> {
    if expected == 0 || usize::try_from(expected).is_ok_and(|expected| expected == plan.will.len()) {
        return Ok(());
    }
    let message = format!("{} certificates are picked now, not {expected}", plan.will.len());
    let problem = Problem::new("CHANGED_MEANWHILE", message, "", "look again, then repeat");
    Err(Refusal::new(Code::Aborted, problem))
}

fn answered(job: &Job) -> wire::ActOnCertificatesResponse {
    let Some(batch) = &job.batch else { return wire::ActOnCertificatesResponse::default() };
    wire::ActOnCertificatesResponse {
        job_id: job.id.clone(),
        act: batch.act.word().to_owned(),
        total: convert::count(batch.total),
        skipped_total: convert::count(batch.skipped_total),
        skipped: batch.skipped.iter().map(convert::skipped).collect(),
        ..Default::default()
    }
}

async fn rehearsed(hub: &Hub, act: Act, plan: &Plan) -> Result<wire::ActOnCertificatesResponse, Refusal> {
    let mut by: BTreeMap<&str, u64> = BTreeMap::new();
    plan.skipped.iter().for_each(|one| *by.entry(one.skip.word()).or_default() += 1);
    let last_order_at = if act == Act::Revoke { None } else { last_order(hub, &plan.will).await? };
    let name = |bundle: &Bundle| bundle.certificate.value.name.clone();
    let kept = crate::lifecycle::batch::SKIPPED_KEPT;
    Ok(wire::ActOnCertificatesResponse {
        job_id: String::new(),
        total: convert::count(plan.will.len()),
        names: plan.will.iter().take(NAMES_TOLD).map(name).collect(),
        skipped_total: convert::count(plan.skipped.len()),
        skipped: plan.skipped.iter().take(kept).map(convert::skipped).collect(),
        skipped_by: by.into_iter().map(|(state, count)| wire::Count { state: state.to_owned(), count }).collect(),
        last_order_at: to_wire(last_order_at),
        act: act.word().to_owned(),
    })
}

/// When the limits let the last order go. Whether a CA takes an order as a replacement (RFC 9773 §5) is known only when it
/// is asked: it is not counted on.
async fn last_order(hub: &Hub, will: &[Bundle]) -> Result<Option<jiff::Timestamp>, Refusal> {
    if will.len() > FORETOLD_MAX {
        return Ok(None);
    }
    let issuers = hub.store.issuers().await?.into_iter().map(|issuer| (issuer.value.id.clone(), issuer.value));
    let issuers: HashMap<String, Issuer> = issuers.collect();
    let asks: Vec<Ask<'_>> = will
        .iter()
        .filter_map(|bundle| {
            let record = &bundle.certificate.value;
            let issuer = issuers.get(&record.specification.issuer_id).filter(|issuer| issuer.private.is_none())?;
            let identifiers = record.specification.identifiers.as_slice();
            let current = record.current.as_ref().filter(|current| current.issuer_id == issuer.id);
            let same_set = current.is_some_and(|current| same_names(&current.identifiers, identifiers));
            let exemption = exemption(issuer, false, same_set);
            // Behind all that wait already: what is told is the latest.
            Some(Ask { certificate_id: &record.id, issuer, identifiers, exemption, urgency: u32::MAX })
        })
        .collect();
    Ok(limits::predict(hub, &asks).await?)
}
