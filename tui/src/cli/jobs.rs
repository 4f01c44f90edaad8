//! `jobs`: what was asked for, and waiting for its end.

use std::time::Duration;

use clap::Subcommand;
use proto::operator::v1::{GetJobRequest, Job, ListJobsRequest};

use super::session::{PAGE_SIZE, Session, WAIT_DEFAULT};
use super::wait;
use crate::client::ClientError;
use crate::output::{job, time};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Lists jobs, newest first
    Ls {
        /// Only those of this certificate
        #[arg(long, value_name = "NAME")]
        certificate: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Shows one job
    Get { id: String },
    /// Follows a job to its end and exits with its result
    Wait {
        id: String,
        /// How long at most
        #[arg(long, value_name = "TIME", default_value = WAIT_DEFAULT, value_parser = time::parse_duration)]
        timeout: Duration,
    },
}

pub(super) async fn run(verb: Verb, session: &mut Session<'_>) -> Result<(), ClientError> {
    match verb {
        Verb::Ls { certificate, limit } => ls(certificate.unwrap_or_default(), limit, session).await,
        Verb::Get { id } => {
            let found = session.client.get_job(GetJobRequest { id }).await?;
            show(&found, session)
        }
        Verb::Wait { id, timeout } => {
            let end = wait::follow(session, &id, timeout).await?;
            show(&end.job, session)?;
            end.result()
        }
    }
}

fn show(found: &Job, session: &mut Session<'_>) -> Result<(), ClientError> {
    session.record(&found.id, || job::json(found), |now| job::describe(found, now))
}

async fn ls(certificate: String, limit: usize, session: &mut Session<'_>) -> Result<(), ClientError> {
    let mut jobs: Vec<Job> = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListJobsRequest { certificate: certificate.clone(), page_size: PAGE_SIZE, page_token };
        let page = session.client.list_jobs(request).await?;
        jobs.extend(page.items);
        page_token = page.next_page_token;
        if page_token.is_empty() || jobs.len() >= limit {
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
