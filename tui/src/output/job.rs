//! Jobs: the list and the record.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::Job;
use serde::Serialize;

use super::batch::{self, BatchView};
use super::block::Block;
use super::failure::ProblemView;
use super::table::Table;
use super::{safe, some, time};
use crate::client::batch_words;

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
    /// The act on many that it is a part of.
    parent: Option<String>,
    /// How often it failed, while it waits for its next try.
    failures: u32,
    /// Set for an act on many.
    batch: Option<BatchView>,
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
            parent: some(&job.parent),
            failures: job.failures,
            batch: job.batch.as_ref().map(BatchView::from),
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
            subject(job),
            job.state.clone(),
            job.batch.as_ref().map_or_else(|| job.phase.clone(), batch_words),
            time::short(now, job.created_at),
            time::short(now, job.finished_at),
            time::short(now, job.retry_at),
            job.actor.clone(),
        ]);
    }
    table
}

/// Returns what a job is about: a certificate, or how many.
pub(crate) fn subject(job: &Job) -> String {
    job.batch.as_ref().map_or_else(|| job.certificate.clone(), |batch| format!("{} certificates", batch.total))
}

/// Returns why a job waits, in words: `attempt 3 failed: …; next try in 34m`. Empty while it does not wait.
pub(crate) fn waits(job: &Job, now: Timestamp) -> String {
    let Some(problem) = job.problem.as_ref().filter(|_| job.state == "waiting") else { return String::new() };
    let what = if job.failures > 0 { format!("attempt {} failed: ", job.failures) } else { String::new() };
    let next = from_wire(job.retry_at).map(|at| format!("; next try {}", time::relative(now, at)));
    format!("{what}{}{}", problem.message, next.unwrap_or_default())
}

/// Returns one job on one line.
pub(crate) fn line(job: &Job, now: Timestamp) -> String {
    let how = job.batch.as_ref().map_or_else(|| job.phase.clone(), batch_words);
    safe(&format!("{} {} {}: {} {how} {}", job.id, job.kind, subject(job), job.state, waits(job, now)))
}

/// Returns one job for people; of an act on many also its first sub-jobs, what needs someone first.
pub(crate) fn describe(job: &Job, subs: &[Job], now: Timestamp) -> String {
    let mut block = Block::titled(&format!("{}: {} {}, {}", job.id, job.kind, subject(job), job.state));
    if let Some(batch) = &job.batch {
        block.field("picked by", &batch.selection);
        block.field("so far", &batch_words(batch));
    }
    block.field("phase", &job.phase);
    block.field("part of", &job.parent);
    block.field("asked by", &job.actor);
    block.field("created", &time::both(now, job.created_at));
    block.field("finished", &time::both(now, job.finished_at));
    if from_wire(job.retry_at).is_some() {
        block.field("next try", &time::both(now, job.retry_at));
    }
    if job.failures > 0 {
        block.field("failed", &format!("{} times so far; certwright jobs retry {} tries now", job.failures, job.id));
    }
    let Some(batch) = &job.batch else {
        block.problem(job.problem.as_ref());
        return block.render();
    };
    if batch.cancelled_at > 0 {
        block.field("cancelled", &format!("{} by {}", time::both(now, batch.cancelled_at), batch.cancelled_by));
    }
    block.problem(job.problem.as_ref());
    if batch.skipped_total > 0 {
        block.section(&format!("{} passed over", batch.skipped_total));
        batch::skipped(&mut block, &batch.skipped, batch.skipped_total);
    }
    block.section("each certificate, what needs someone first");
    for sub in subs {
        let why = sub.problem.as_ref().map(|problem| problem.message.clone()).unwrap_or_default();
        let why = if sub.state == "waiting" { waits(sub, now) } else { why };
        block.line(&format!("{:<32} {:<10} {:<12} {why}", safe(&sub.certificate), sub.state, sub.phase));
    }
    let made = usize::try_from(batch.made).unwrap_or(usize::MAX);
    if made > subs.len() {
        block.line(&format!("and more: certwright jobs ls --parent {}", job.id));
    }
    block.render()
}
