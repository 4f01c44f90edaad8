//! Writes the outcome of jobs that ended. What ended is decided by `lifecycle/job`. Called by `tasks::run`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::error;

use super::hub::Hub;
use crate::lifecycle::event::Severity;
use crate::lifecycle::job::{Outcome, State, progress};
use crate::lifecycle::problem::chain;
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::records::Changes;

/// Every open job is looked at this often, whatever rings.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Settles jobs until `stop`.
pub(crate) async fn run(hub: Hub, stop: CancellationToken) {
    let mut sweeps = tokio::time::interval(SWEEP_EVERY);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            // The first tick comes at once: the sweep at start.
            _ = sweeps.tick() => sweep(&hub).await,
            ids = hub.wake.jobs.wait() => {
                for id in ids {
                    log(settle(&hub, &id).await);
                }
            }
        }
    }
}

async fn sweep(hub: &Hub) {
    match hub.store.certificates_with_open_jobs().await {
        Ok(ids) => ids.iter().for_each(|id| hub.wake.jobs.ring(id)),
        Err(error) => error!(error = %chain(&error), "cannot list open jobs"),
    }
}

/// Settles the open jobs of one certificate.
async fn settle(hub: &Hub, certificate_id: &str) -> Result<(), StoreError> {
    let jobs = hub.store.open_jobs(certificate_id).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let bundle = hub.store.bundle(certificate_id).await?;
    let targets = bundle.as_ref().map(crate::store::certificate::Bundle::target_values).unwrap_or_default();
    let certificate = bundle.as_ref().map(|bundle| &bundle.certificate.value);
    let order = bundle.as_ref().and_then(|bundle| bundle.order.as_ref()).map(|order| &order.value);
    for mut job in jobs {
        let progress = progress(&job.value, certificate, order, &targets);
        if !progress.state.is_final() {
            continue;
        }
        job.value.outcome = Some(Outcome { at: hub.now(), state: progress.state, problem: progress.problem.clone() });
        let word = progress.state.word();
        let mut event = hub
            .event("job.ended", format!("{} asked by {}: {word}", job.value.kind.word(), job.value.actor))
            .of_certificate(&job.value.certificate_name);
        if let Some(problem) = progress.problem {
            let severity = if progress.state == State::Failed { Severity::Error } else { Severity::Warn };
            event = event.with_problem(severity, problem);
        }
        match hub.store.commit(Changes::new().close_job(&job).event(&event)).await {
            Ok(_) => job.value.parent.iter().for_each(|parent| hub.wake.batches.ring(parent)),
            // Someone else settled it.
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => {
                error!(job = job.value.id, error = %chain(&error), "cannot write a job's outcome")
            }
        }
    }
    Ok(())
}

fn log(result: Result<(), StoreError>) {
    if let Err(error) = result {
        error!(error = %chain(&error), "cannot settle jobs");
    }
}
