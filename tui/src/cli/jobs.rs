//! `jobs`: what was asked for, and waiting for its end.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Subcommand;
use proto::operator::v1::{ActOnCertificatesRequest, CancelJobRequest, GetJobRequest, Job, ListJobsRequest};

use super::certs::many::{self, Consent};
use super::session::{PAGE_SIZE, Session, WAIT_DEFAULT, WaitOptions};
use super::wait;
use crate::client::ClientError;
use crate::output::{job, time};

/// Sub-jobs shown with their parent.
const SUBS_SHOWN: u32 = 50;
/// `jobs watch ID` has no limit of its own.
const WATCH_MAX: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists jobs, newest first
    Ls {
        /// Only those of this certificate
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
        /// Only those of this act on many, what needs someone first
        #[arg(long, value_name = "ID", conflicts_with = "certificate")]
        parent: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Shows one job; of an act on many each certificate too
    Get { id: String },
    /// Follows a job to its end, or without an ID all jobs until interrupted
    Watch { id: Option<String> },
    /// Follows a job to its end and exits with its result
    Wait {
        id: String,
        /// How long at most
        #[arg(long, value_name = "TIME", default_value = WAIT_DEFAULT, value_parser = time::parse_duration)]
        timeout: Duration,
    },
    /// Takes back what has not begun of a job; what has begun goes on
    Cancel { id: String },
    /// Does again what a job failed to do, or did not do because it was cancelled
    Retry {
        id: String,
        /// Order although the issuance lock holds; says why, for the events
        #[arg(long, value_name = "REASON", default_value = "", hide_default_value = true)]
        override_lock: String,
        #[command(flatten)]
        consent: Consent,
        #[command(flatten)]
        wait: WaitOptions,
    },
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls { certificate, parent, limit } => {
            let request = ListJobsRequest {
                certificate: certificate.unwrap_or_default(),
                parent: parent.unwrap_or_default(),
                ..Default::default()
            };
            ls(request, limit, session).await
        }
        Verb::Get { id } => {
            let found = session.client.get_job(GetJobRequest { id }).await?;
            show(&found, session).await
        }
        Verb::Watch { id: Some(id) } => follow(&id, WATCH_MAX, session).await,
        Verb::Watch { id: None } => watch(session).await,
        Verb::Wait { id, timeout } => follow(&id, timeout, session).await,
        Verb::Cancel { id } => {
            let found = session.client.cancel_job(CancelJobRequest { id }).await?;
            if found.batch.is_some() {
                session.console.note("what has not begun is taken back; what has begun goes on");
            }
            show(&found, session).await
        }
        Verb::Retry { id, override_lock, consent, wait } => {
            let request = ActOnCertificatesRequest {
                failed_of: id,
                override_lock,
                request_id: proto::id::random_id(),
                ..Default::default()
            };
            many::run(request, &consent, &wait, session).await
        }
    }
}

async fn follow(id: &str, limit: Duration, session: &mut Session<'_>) -> Result<(), ClientError> {
    let end = wait::follow(session, id, limit).await?;
    show(&end.job, session).await?;
    end.result()
}

/// Prints one line for each job that is new or has changed, until interrupted.
async fn watch(session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = session.client.watch().await?;
    loop {
        changes.next().await?;
        let request = ListJobsRequest { page_size: PAGE_SIZE, ..Default::default() };
        let page = session.client.list_jobs(request).await?.items;
        let first = told.is_empty();
        // Oldest first, as they happened. What had ended before is history.
        for found in page.iter().rev() {
            let line = job::line(found, session.now());
            let is_news = told.insert(found.id.clone(), line.clone()).is_none_or(|before| before != line);
            if is_news && !(first && found.finished_at > 0) {
                let at = time::clock(session.now());
                session.console.print(&format!("{at}  {line}\n"))?;
            }
        }
        told.retain(|id, _| page.iter().any(|found| found.id == *id));
    }
}

async fn show(found: &Job, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut subs = Vec::new();
    if found.batch.is_some() {
        let request = ListJobsRequest { parent: found.id.clone(), page_size: SUBS_SHOWN, ..Default::default() };
        subs = session.client.list_jobs(request).await?.items;
    }
    session.record(&found.id, || job::json(found), |now| job::describe(found, &subs, now))
}

async fn ls(mut request: ListJobsRequest, limit: usize, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut jobs: Vec<Job> = Vec::new();
    request.page_size = PAGE_SIZE;
    loop {
        let page = session.client.list_jobs(request.clone()).await?;
        jobs.extend(page.items);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() || jobs.len() >= limit {
            break;
        }
    }
    jobs.truncate(limit);
    session.list(
        || jobs.iter().map(|job| job.id.clone()).collect(),
        || job::json_list(&jobs),
        |now, _| job::table(&jobs, now),
    )
}
