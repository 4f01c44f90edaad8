//! Revokes what operators asked to revoke. The wish is a stored job; revoking twice is the same as once, so a crash at any
//! point only asks again. What was revoked and is current is replaced at once, by `tasks/issuance`. Called by `tasks::run`.

use std::time::Duration;

use jiff::Timestamp;
use proto::x509::Chain;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::Context;
use super::accounts::{self, AccountError};
use super::{private_ca, rollback};
use crate::acme::problem::{AcmeError, Retry};
use crate::lifecycle::backoff::{self, Cause, Failed};
use crate::lifecycle::certificate::{Certificate, Version};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::job::{Job, Outcome, State};
use crate::lifecycle::problem::{Problem, chain};
use crate::lifecycle::revocation::Revocation;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};

/// Open wishes are looked at this often, whatever rings.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Why a wish could not be looked at.
#[derive(Debug, thiserror::Error)]
enum RevocationError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// What came of asking the CA.
enum Asked {
    /// It is revoked, with what has to be kept of that.
    Done(Changes),
    Refused(Problem, Retry),
}

/// Revokes until `stop`.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    loop {
        let looked = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            looked = look(&context) => looked,
        };
        if let Err(error) = looked {
            error!(error = %chain(&error), "cannot revoke");
        }
        // Both arms are cancel-safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = context.hub.wake.revocations.wait() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn look(context: &Context) -> Result<(), RevocationError> {
    for job in context.hub.store.open_revocations().await? {
        let due =
            job.value.revocation.as_ref().is_some_and(|one| one.retry_at.is_none_or(|at| at <= context.hub.now()));
        if due {
            one(context, job).await?;
        }
    }
    Ok(())
}

async fn one(context: &Context, mut job: Versioned<Job>) -> Result<(), RevocationError> {
    let Some(mut revocation) = job.value.revocation.clone() else { return Ok(()) };
    let (hub, now) = (&context.hub, context.hub.now());
    if !revocation.begun {
        // From here on the wish cannot be taken back: nobody can say whether the CA was asked.
        revocation.begun = true;
        job.value.revocation = Some(revocation.clone());
        match hub.store.commit(Changes::new().update(&job)).await {
            Ok(revision) => job.revision = revision,
            Err(error) => return settled(Err(error)),
        }
    }
    let key = format!("{}/{}", job.value.certificate_id, revocation.version_id);
    let Some(version) = hub.store.load::<Version>(&key).await? else {
        let problem = Problem::new("VERSION_GONE", "the version is no longer known", "", "nothing is left to do");
        return close(context, job, State::Failed, Some(problem), Changes::new()).await;
    };
    match ask(context, &version.value, &revocation).await? {
        Asked::Done(changes) => {
            let issuer_id = version.value.facts.issuer_id.clone();
            let changes = mark(context, changes, version, &revocation, now).await?;
            let certificate_id = job.value.certificate_id.clone();
            close(context, job, State::Succeeded, None, changes).await?;
            // It may have ended a rollback.
            let bundle = hub.store.bundle(&certificate_id).await?;
            bundle.iter().flat_map(Bundle::target_agent_ids).for_each(|id| hub.wake.agents.ring(&id));
            // Its list, where it is ours.
            hub.wake.private_cas.ring(&issuer_id);
            Ok(())
        }
        Asked::Refused(problem, Retry::Never) => {
            close(context, job, State::Failed, Some(problem), Changes::new()).await
        }
        Asked::Refused(problem, retry) => {
            let (cause, retry_after) = match retry {
                Retry::Daily(asked) => (Cause::Standing, asked),
                Retry::After(asked) => (Cause::Passing, Some(asked)),
                Retry::Now | Retry::Never => (Cause::Passing, None),
            };
            let failures = revocation.failures.saturating_add(1);
            let failed = Failed { failures, cause, retry_after };
            let retry_at = Some(backoff::retry_at(now, failed, None, hub.jitter()));
            let event = hub
                .event(
                    "revocation.failed",
                    format!("serial {} is not revoked yet: {}", revocation.serial, problem.message),
                )
                .of_certificate(&job.value.certificate_name)
                .with_problem(Severity::Warn, problem.clone());
            job.value.revocation = Some(Revocation { failures, retry_at, problem: Some(problem), ..revocation });
            settled(hub.store.commit(Changes::new().update(&job).event(&event)).await)
        }
    }
}

/// Asks the CA. What is of our own store is an error, what is of the CA an answer.
async fn ask(context: &Context, version: &Version, revocation: &Revocation) -> Result<Asked, RevocationError> {
    let issuer_id = &version.facts.issuer_id;
    let unusable = |cause: String| {
        let hint = "revoke it at the CA's own site with its serial";
        let message = format!("serial {} cannot be revoked from here", revocation.serial);
        Asked::Refused(Problem::new("CANNOT_REVOKE", message, cause, hint), Retry::Never)
    };
    let leaf = match Chain::parse_pem(version.leaf_pem.as_bytes()) {
        Ok(chain) => chain.certificates.first().map(|der| der.to_vec()).unwrap_or_default(),
        Err(error) => return Ok(unusable(error.to_string())),
    };
    if let Some(issuer) = ours(context, issuer_id).await? {
        let revoked = private_ca::revoke(&context.hub, &issuer, version, revocation.reason).await?;
        return Ok(revoked.map_or_else(|problem| Asked::Refused(problem, Retry::Daily(None)), Asked::Done));
    }
    for again in [true, false] {
        let asked = match accounts::account(context, issuer_id).await {
            Ok(account) => account.revoke(&leaf, revocation.reason).await,
            Err(AccountError::Acme(error)) => Err(error),
            Err(AccountError::Store(error)) => return Err(error.into()),
            Err(AccountError::Commit(error)) => return Err(error.into()),
            Err(other) => return Ok(unusable(chain(&other))),
        };
        match asked {
            Ok(()) => return Ok(Asked::Done(Changes::new())),
            Err(error) if again && error.is_account_gone() => forget(context, issuer_id).await?,
            Err(error) => return Ok(refused(&error)),
        }
    }
    Ok(unusable("the CA does not know our account".to_owned()))
}

/// The issuer, where it is a CA of our own.
async fn ours(context: &Context, issuer_id: &str) -> Result<Option<Issuer>, StoreError> {
    let issuer = context.hub.store.load::<Issuer>(issuer_id).await?;
    Ok(issuer.map(|issuer| issuer.value).filter(|issuer| issuer.private.is_some()))
}

fn refused(error: &AcmeError) -> Asked {
    Asked::Refused(error.problem(), error.retry())
}

async fn forget(context: &Context, issuer_id: &str) -> Result<(), RevocationError> {
    match accounts::forget(context, issuer_id).await {
        Ok(()) => Ok(()),
        Err(AccountError::Store(error)) => Err(error.into()),
        Err(AccountError::Commit(error)) => Err(error.into()),
        // Nothing else touches the store.
        Err(_) => Ok(()),
    }
}

/// Notes on the version, and on the certificate while it is the current one, that it is revoked.
async fn mark(
    context: &Context,
    changes: Changes,
    mut version: Versioned<Version>,
    revocation: &Revocation,
    now: Timestamp,
) -> Result<Changes, RevocationError> {
    let reason = revocation.reason.word().to_owned();
    version.value.facts.revoked_at = Some(now);
    version.value.facts.revoked_reason = Some(reason.clone());
    let mut changes = changes.update(&version);
    if let Some(mut certificate) = context.hub.store.load::<Certificate>(&version.value.certificate_id).await? {
        let went_back = certificate.value.rollback.as_ref();
        let ends = went_back.is_some_and(|rollback| rollback.version.version_id == version.value.id);
        if ends {
            changes = changes.event(&rollback::ended(&context.hub, &certificate.value, "it was revoked"));
            certificate.value.back_to_current();
        }
        let current = certificate.value.current.as_mut().filter(|current| current.version_id == version.value.id);
        let is_current = current.is_some();
        if let Some(current) = current {
            current.revoked_at = Some(now);
            current.revoked_reason = Some(reason);
        }
        if ends || is_current {
            changes = changes.update(&certificate);
        }
    }
    Ok(changes)
}

async fn close(
    context: &Context,
    mut job: Versioned<Job>,
    state: State,
    problem: Option<Problem>,
    changes: Changes,
) -> Result<(), RevocationError> {
    let hub = &context.hub;
    let Some(revocation) = job.value.revocation.clone() else { return Ok(()) };
    let (serial, reason, actor) = (&revocation.serial, revocation.reason.word(), &job.value.actor);
    let event = match &problem {
        None => {
            hub.event("version.revoked", format!("serial {serial} was revoked at the CA ({reason}), asked by {actor}"))
        }
        Some(problem) => hub
            .event("revocation.failed", format!("serial {serial} was not revoked: {}", problem.message))
            .with_problem(Severity::Error, problem.clone()),
    };
    let event = event.of_certificate(&job.value.certificate_name);
    job.value.outcome = Some(Outcome { at: hub.now(), state, problem });
    settled(hub.store.commit(changes.close_job(&job).event(&event)).await)?;
    hub.wake.certificates.ring(&job.value.certificate_id);
    job.value.parent.iter().for_each(|parent| hub.wake.batches.ring(parent));
    Ok(())
}

/// A conflict: someone else wrote a record. The next look decides on what is there then, and revoking again is harmless.
fn settled(result: Result<u64, CommitError>) -> Result<(), RevocationError> {
    match result {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
