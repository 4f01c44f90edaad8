//! What all wishes of operators share: a request is answered once, whatever is sent twice; a wish becomes a job.

use proto::operator::v1 as wire;

use super::targets::concerned;
use crate::lifecycle::job::{Job, Kind};
use crate::lifecycle::order::Phase;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::rpc::views::{self, Names};
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::job::job_id;
use crate::store::records::Changes;
use crate::store::tables::Table;
use crate::tasks::hub::Hub;

/// Longer request ids are not remembered.
pub(super) const REQUEST_ID_MAX: usize = 64;

/// Most times that a wish is decided anew because the record changed between the reading and the writing.
const TRIES_MAX: usize = 8;

/// A wish on its way to a job.
pub(super) struct Wish<'a> {
    pub(super) kind: Kind,
    /// Only the target on this agent.
    pub(super) agent_id: Option<String>,
    pub(super) request_id: &'a str,
}

/// Acts on a wish, and anew on what the record is by then if it changed in between: the controller's own work changes a
/// certificate at any moment, and nobody can wait for a good one. An operator who names the revision they saw is refused each time.
pub(in crate::rpc) async fn anew<R: Clone, T, F>(asked: R, act: impl Fn(R) -> F) -> Result<T, Refusal>
where
    F: Future<Output = Result<T, Refusal>>,
{
    for _try in 1..TRIES_MAX {
        match act(asked.clone()).await {
            Err(refusal) if refusal.is_changed_meanwhile() => {}
            came => return came,
        }
    }
    act(asked).await
}

/// Returns the certificate with this name.
pub(super) async fn bundle(hub: &Hub, name: &str) -> Result<Bundle, Refusal> {
    let bundle = hub.store.bundle_by_name(name).await?;
    bundle.ok_or_else(|| Refusal::not_found("certificate", &proto::text::one_line(name, 80)))
}

/// Returns the certificate with this name if wishes may still change it.
pub(super) async fn changeable(hub: &Hub, name: &str) -> Result<Bundle, Refusal> {
    let bundle = bundle(hub, name).await?;
    if bundle.certificate.value.purging {
        return Err(Refusal::field(
            "name",
            format!("{} is being purged", bundle.certificate.value.name),
            "it is deleted as soon as its files are gone",
        ));
    }
    Ok(bundle)
}

/// Whether the certificate's order waits for its next try, or for an operator.
pub(super) fn is_stuck(bundle: &Bundle) -> bool {
    bundle.order.as_ref().is_some_and(|order| matches!(order.value.phase, Phase::Waiting | Phase::Failed))
}

/// Returns the job that this request made before.
pub(super) async fn job_of(hub: &Hub, request_id: &str) -> Result<Option<Job>, Refusal> {
    if request_id.is_empty() {
        return Ok(None);
    }
    let id = request_id.to_owned();
    let job_id =
        hub.store.read(move |snapshot| crate::store::certificate::id_by_name(snapshot, Table::Request, &id)).await?;
    let Some(job_id) = job_id else { return Ok(None) };
    Ok(hub.store.load::<Job>(&job_id).await?.map(|job| job.value))
}

/// Returns the answer that this request got before.
pub(super) async fn answered(hub: &Hub, request_id: &str) -> Result<Option<wire::CertificateAccepted>, Refusal> {
    let Some(job) = job_of(hub, request_id).await? else { return Ok(None) };
    let certificate = match hub.store.bundle(&job.certificate_id).await? {
        Some(bundle) => Some(views::certificate(hub, &Names::read(hub).await?, &bundle)),
        None => None,
    };
    Ok(Some(wire::CertificateAccepted { certificate, job_id: job.id, warnings: Vec::new() }))
}

/// Writes the changes, the job and the request in one batch, and wakes whoever must act.
pub(super) async fn commit(
    hub: &Hub,
    caller: &OperatorCaller,
    bundle: &Bundle,
    wish: Wish<'_>,
    changes: Changes,
    warnings: Vec<String>,
) -> Result<wire::CertificateAccepted, Refusal> {
    let record = &bundle.certificate.value;
    let job = Job {
        id: job_id(hub.now()),
        kind: wish.kind,
        certificate_id: record.id.clone(),
        certificate_name: record.name.clone(),
        actor: caller.name.clone(),
        created_at: hub.now(),
        version_before: record.current.as_ref().map(|current| current.version_id.clone()),
        agent_id: wish.agent_id,
        revocation: None,
        parent: None,
        batch: None,
        outcome: None,
    };
    commit_job(hub, bundle, job, wish.request_id, changes, warnings).await
}

/// The same for a job that is made already.
pub(super) async fn commit_job(
    hub: &Hub,
    bundle: &Bundle,
    job: Job,
    request_id: &str,
    changes: Changes,
    warnings: Vec<String>,
) -> Result<wire::CertificateAccepted, Refusal> {
    let record = &bundle.certificate.value;
    let mut changes = changes.open_job(&job);
    if (1..=REQUEST_ID_MAX).contains(&request_id.len()) {
        changes = changes.claim_name(Table::Request, request_id, &job.id);
    }
    match hub.store.commit(changes).await {
        Ok(_) => {}
        Err(CommitError::Conflict { .. }) => {
            // The same request a moment earlier, or someone else's change.
            return answered(hub, request_id).await?.ok_or_else(|| Refusal::changed("certificate", &record.name));
        }
        Err(error) => return Err(error.into()),
    }
    hub.wake.certificates.ring(&record.id);
    hub.wake.jobs.ring(&record.id);
    concerned(bundle).iter().for_each(|id| hub.wake.agents.ring(id));
    let fresh = hub.store.bundle(&record.id).await?;
    let certificate = views::certificate(hub, &Names::read(hub).await?, fresh.as_ref().unwrap_or(bundle));
    Ok(wire::CertificateAccepted { certificate: Some(certificate), job_id: job.id, warnings })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// What comes of a wish that is refused so often with this, and how often it was tried.
    async fn tried(refusals: usize, refusal: fn() -> Refusal) -> (Result<usize, String>, usize) {
        let tries = Cell::new(0);
        let came = anew((), |()| {
            tries.set(tries.get() + 1);
            let came = if tries.get() > refusals { Ok(tries.get()) } else { Err(refusal()) };
            async { came }
        });
        (came.await.map_err(|refusal| refusal.words()), tries.get())
    }

    #[tokio::test]
    async fn a_wish_is_decided_anew_while_the_record_changes_and_only_then() {
        let changed = || Refusal::changed("certificate", "web");
        assert_eq!(tried(0, changed).await, (Ok(1), 1));
        assert_eq!(tried(TRIES_MAX - 1, changed).await, (Ok(TRIES_MAX), TRIES_MAX));
        let (came, tries) = tried(TRIES_MAX, changed).await;
        assert!(came.unwrap_err().starts_with("CHANGED_MEANWHILE"));
        assert_eq!(tries, TRIES_MAX);
        let (came, tries) = tried(1, || Refusal::not_found("certificate", "web")).await;
        assert!(came.is_err());
        assert_eq!(tries, 1);
    }
}
