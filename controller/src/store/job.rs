//! Jobs and the requests that made them. An act on many is a job, and each of its sub-jobs another: their ids are of a
//! range of their own, so that a list of jobs does not wade through ten thousand of them. Called by `rpc` and `tasks`.

use std::collections::BTreeSet;
use std::ops::Bound;

use jiff::Timestamp;
use proto::id::random_id;

use super::Store;
use super::StoreError;
use super::engine::{EngineError, Order as ScanOrder, Snapshot};
use super::records::{Changes, Record, Versioned};
use super::tables::Table;
use crate::lifecycle::batch::{Counts, Members};
use crate::lifecycle::job::{Job, State};

/// Most jobs of one page, and most open jobs of one certificate that are settled at once.
pub const JOBS_PAGE_MAX: usize = 200;
/// First character of a sub-job's id. Other ids begin with hex digits, which sort before.
const SUB: char = 's';
/// Word of the index for sub-jobs that have not ended.
const OPEN: &str = "open";

impl Record for Job {
    const TABLE: Table = Table::Job;

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Record for Members {
    const TABLE: Table = Table::BatchMembers;

    fn key(&self) -> String {
        self.job_id.clone()
    }
}

/// Returns the id of a new job: it sorts by time.
#[must_use]
pub fn job_id(now: Timestamp) -> String {
    format!("{:012x}{}", now.as_millisecond(), random_id())
}

/// Returns the id of the sub-job for the member at `index`: made twice it is the same.
#[must_use]
pub fn sub_job_id(parent: &str, index: usize) -> String {
    format!("{SUB}{parent}.{index:05}")
}

fn is_sub(id: &str) -> bool {
    id.starts_with(SUB)
}

fn index_row(parent: &str, state: &str, id: &str) -> String {
    format!("{parent}/{state}/{id}")
}

impl Changes {
    /// Adds a job that is open until it has an outcome.
    pub fn open_job(self, job: &Job) -> Self {
        let changes =
            self.insert(job).put_raw(Table::JobOpen, &format!("{}/{}", job.certificate_id, job.id), Vec::new());
        match &job.parent {
            Some(parent) => changes.put_raw(Table::BatchJob, &index_row(parent, OPEN, &job.id), Vec::new()),
            None => changes,
        }
    }

    /// Writes a job's outcome.
    pub fn close_job(self, job: &Versioned<Job>) -> Self {
        let id = &job.value.id;
        let changes = self.update(job).delete_raw(Table::JobOpen, &format!("{}/{id}", job.value.certificate_id));
        let state = job.value.outcome.as_ref().map_or(OPEN, |outcome| outcome.state.word());
        match &job.value.parent {
            Some(parent) => changes.delete_raw(Table::BatchJob, &index_row(parent, OPEN, id)).put_raw(
                Table::BatchJob,
                &index_row(parent, state, id),
                Vec::new(),
            ),
            None => changes,
        }
    }
}

impl Changes {
    /// Removes a job that has ended, with what hangs on it. A parent's sub-jobs are removed before it.
    pub fn remove_job(self, job: &Job) -> Self {
        let changes = self.delete_raw(Table::Job, &job.id).delete_raw(Table::BatchMembers, &job.id);
        let state = job.outcome.as_ref().map_or(OPEN, |outcome| outcome.state.word());
        match &job.parent {
            Some(parent) => changes.delete_raw(Table::BatchJob, &index_row(parent, state, &job.id)),
            None => changes,
        }
    }
}

/// Reads how many sub-jobs of an act on many are where: index rows only.
fn counts(snapshot: &Snapshot<'_>, parent: &str) -> Result<Counts, EngineError> {
    let count = |state: &str| {
        let rows = snapshot.count(Table::BatchJob, &index_row(parent, state, ""))?;
        Ok::<_, EngineError>(usize::try_from(rows).unwrap_or(usize::MAX))
    };
    Ok(Counts {
        open: count(OPEN)?,
        succeeded: count(State::Succeeded.word())?,
        partial: count(State::Partial.word())?,
        failed: count(State::Failed.word())?,
        cancelled: count(State::Cancelled.word())?,
    })
}

impl Store {
    /// Returns the newest jobs before `before` (empty means from the newest), without sub-jobs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn jobs(&self, before: &str, limit: usize) -> Result<Vec<Job>, StoreError> {
        let (before, limit) = (before.to_owned(), limit.clamp(1, JOBS_PAGE_MAX));
        self.read(move |snapshot| {
            let before = if before.is_empty() { SUB.to_string() } else { before };
            let from = Bound::Excluded(before.as_str());
            let rows = snapshot.list::<Job>("", from, ScanOrder::Descending, limit)?;
            Ok(rows.into_iter().map(|row| row.value).collect())
        })
        .await
    }

    /// Returns jobs of one certificate, sub-jobs too: the newest `limit`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn jobs_of(&self, certificate_name: &str, limit: usize) -> Result<Vec<Job>, StoreError> {
        let (name, limit) = (certificate_name.to_owned(), limit.clamp(1, JOBS_PAGE_MAX));
        self.read(move |snapshot| {
            let rows = snapshot.list::<Job>("", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            let mut jobs: Vec<Job> =
                rows.into_iter().map(|row| row.value).filter(|job| job.certificate_name == name).collect();
            jobs.sort_by_key(|job| std::cmp::Reverse(job.created_at));
            jobs.truncate(limit);
            Ok(jobs)
        })
        .await
    }

    /// Returns sub-jobs of an act on many, and the token of the next page: what needs someone first (cancelled, failed, then
    /// open, partial, succeeded), in the order of the members.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sub_jobs(
        &self,
        parent: &str,
        after: &str,
        limit: usize,
    ) -> Result<(Vec<Versioned<Job>>, String), StoreError> {
        let (prefix, limit) = (format!("{parent}/"), limit.clamp(1, JOBS_PAGE_MAX));
        let from = format!("{prefix}{after}");
        let is_first = after.is_empty();
        self.read(move |snapshot| {
            let from = if is_first { Bound::Unbounded } else { Bound::Excluded(from.as_str()) };
            let rows = snapshot.scan(Table::BatchJob, &prefix, from, ScanOrder::Ascending, limit)?;
            let next = rows.last().filter(|_| rows.len() == limit).and_then(|(key, _)| key.strip_prefix(&prefix));
            let next = next.map(ToOwned::to_owned).unwrap_or_default();
            let mut jobs = Vec::with_capacity(rows.len());
            for (key, _) in rows {
                jobs.extend(snapshot.load::<Job>(key.rsplit('/').next().unwrap_or_default())?);
            }
            Ok((jobs, next))
        })
        .await
    }

    /// Returns all sub-jobs of an act on many that are in one of these states; an open one is `Running`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sub_jobs_in(&self, parent: &str, states: &[State]) -> Result<Vec<Versioned<Job>>, StoreError> {
        let word = |state: &State| if state.is_final() { state.word() } else { OPEN };
        let prefixes: Vec<String> = states.iter().map(|state| index_row(parent, word(state), "")).collect();
        self.read(move |snapshot| {
            let mut jobs = Vec::new();
            for prefix in prefixes {
                let rows =
                    snapshot.scan(Table::BatchJob, &prefix, Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
                for (key, _) in rows {
                    jobs.extend(snapshot.load::<Job>(key.strip_prefix(&prefix).unwrap_or_default())?);
                }
            }
            Ok(jobs)
        })
        .await
    }

    /// Returns how many sub-jobs of an act on many are where.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn sub_job_counts(&self, parent: &str) -> Result<Counts, StoreError> {
        let parent = parent.to_owned();
        self.read(move |snapshot| counts(snapshot, &parent)).await
    }

    /// Whether a sub-job has not ended.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn has_open_sub_jobs(&self, parent: &str) -> Result<bool, StoreError> {
        let prefix = index_row(parent, OPEN, "");
        self.read(move |snapshot| {
            Ok(!snapshot.scan(Table::BatchJob, &prefix, Bound::Unbounded, ScanOrder::Ascending, 1)?.is_empty())
        })
        .await
    }

    /// Returns the ids of the acts on many that have not ended, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open_batches(&self) -> Result<Vec<String>, StoreError> {
        self.read(|snapshot| {
            let rows = snapshot.scan(Table::JobOpen, "/", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            Ok(rows.into_iter().filter_map(|(key, _)| key.strip_prefix('/').map(ToOwned::to_owned)).collect())
        })
        .await
    }

    /// Returns the newest open jobs, without sub-jobs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn newest_open_jobs(&self, limit: usize) -> Result<Vec<Job>, StoreError> {
        self.read(move |snapshot| {
            let rows = snapshot.scan(Table::JobOpen, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            let ids = rows.iter().filter_map(|(key, _)| key.split_once('/').map(|(_, id)| id));
            let mut ids: Vec<&str> = ids.filter(|id| !is_sub(id)).collect();
            ids.sort_unstable_by(|one, other| other.cmp(one));
            let mut jobs = Vec::new();
            for id in ids.into_iter().take(limit) {
                jobs.extend(snapshot.load::<Job>(id)?.map(|job| job.value));
            }
            Ok(jobs)
        })
        .await
    }

    /// Returns the ids of the certificates that have open jobs.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn certificates_with_open_jobs(&self) -> Result<BTreeSet<String>, StoreError> {
        self.read(|snapshot| {
            let rows = snapshot.scan(Table::JobOpen, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            let ids = rows.into_iter().filter_map(|(key, _)| key.split_once('/').map(|(id, _)| id.to_owned()));
            // An act on many names no certificate.
            Ok(ids.filter(|id| !id.is_empty()).collect())
        })
        .await
    }

    /// Returns the open wishes to revoke, oldest certificate first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open_revocations(&self) -> Result<Vec<Versioned<Job>>, StoreError> {
        self.read(|snapshot| {
            let rows = snapshot.scan(Table::JobOpen, "", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            let mut jobs = Vec::new();
            for (key, _) in rows {
                let id = key.split_once('/').map_or("", |(_, id)| id);
                jobs.extend(snapshot.load::<Job>(id)?.filter(|job| job.value.revocation.is_some()));
            }
            Ok(jobs)
        })
        .await
    }

    /// Returns the open jobs of a certificate, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open_jobs(&self, certificate_id: &str) -> Result<Vec<Versioned<Job>>, StoreError> {
        let prefix = format!("{certificate_id}/");
        self.read(move |snapshot| {
            let rows = snapshot.scan(Table::JobOpen, &prefix, Bound::Unbounded, ScanOrder::Ascending, JOBS_PAGE_MAX)?;
            let mut jobs = Vec::with_capacity(rows.len());
            for (key, _) in rows {
                let id = key.split_once('/').map_or("", |(_, id)| id);
                jobs.extend(snapshot.load::<Job>(id)?);
            }
            Ok(jobs)
        })
        .await
    }
}
