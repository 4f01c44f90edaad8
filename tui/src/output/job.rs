//! Jobs: the list and the record.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::Job;
use serde::Serialize;

use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::{safe, some, time};

/// A job in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct JobView {
    id: String,
    kind: String,
    certificate: Option<String>,
    actor: String,
    state: String,
    phase: Option<String>,
    created_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    retry_at: Option<Timestamp>,
    error: Option<ProblemView>,
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        Self {
            id: safe(&job.id),
            kind: safe(&job.kind),
            certificate: some(&job.certificate),
            actor: safe(&job.actor),
            state: safe(&job.state),
            phase: some(&job.phase),
            created_at: from_wire(job.created_at),
            finished_at: from_wire(job.finished_at),
            retry_at: from_wire(job.retry_at),
            error: job.problem.as_ref().map(ProblemView::from),
        }
    }
}

/// Returns one job as a JSON document.
pub(crate) fn json(job: &Job) -> String {
    super::json(None, JobView::from(job))
}

/// Returns jobs as a JSON list.
pub(crate) fn json_list(jobs: &[Job]) -> String {
    super::json_list("JobList", jobs.iter().map(JobView::from).collect())
}

/// Returns jobs as a table.
pub(crate) fn table(jobs: &[Job], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["ID", "KIND", "CERTIFICATE", "STATE", "PHASE", "CREATED", "FINISHED", "RETRY", "ACTOR"]);
    for job in jobs {
        table.row([
            job.id.clone(),
            job.kind.clone(),
            job.certificate.clone(),
            job.state.clone(),
            job.phase.clone(),
            time::short(now, job.created_at),
            time::short(now, job.finished_at),
            time::short(now, job.retry_at),
            job.actor.clone(),
        ]);
    }
    table
}

/// Returns one job for people.
pub(crate) fn describe(job: &Job, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("{}: {} {}, {}", job.id, job.kind, job.certificate, job.state));
    block.field("phase", &job.phase);
    block.field("asked by", &job.actor);
    block.field("created", &time::both(now, job.created_at));
    block.field("finished", &time::both(now, job.finished_at));
    if from_wire(job.retry_at).is_some() {
        block.field("next try", &time::both(now, job.retry_at));
    }
    block.problem(job.problem.as_ref());
    block.render()
}
