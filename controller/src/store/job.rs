//! Jobs and the requests that made them. Called by `rpc` and `tasks/jobs`.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::engine::Order as ScanOrder;
use super::records::{Changes, Record, Versioned};
use super::tables::Table;
use crate::lifecycle::job::{Job, Kind};

/// Most jobs of one page, and most open jobs of one certificate that are settled at once.
pub const JOBS_PAGE_MAX: usize = 200;

impl Record for Job {
    const TABLE: Table = Table::Job;

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Changes {
    /// Adds a job that is open until it has an outcome.
    pub fn open_job(self, job: &Job) -> Self {
        self.insert(job).put_raw(Table::JobOpen, &format!("{}/{}", job.certificate_id, job.id), Vec::new())
    }

    /// Writes a job's outcome.
    pub fn close_job(self, job: &Versioned<Job>) -> Self {
        self.update(job).delete_raw(Table::JobOpen, &format!("{}/{}", job.value.certificate_id, job.value.id))
    }
}

impl Store {
    /// Returns the newest jobs before `before` (empty means from the newest).
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn jobs(&self, before: &str, limit: usize) -> Result<Vec<Job>, StoreError> {
        let (before, limit) = (before.to_owned(), limit.clamp(1, JOBS_PAGE_MAX));
        self.read(move |snapshot| {
            let from = if before.is_empty() { Bound::Unbounded } else { Bound::Excluded(before.as_str()) };
            let rows = snapshot.list::<Job>("", from, ScanOrder::Descending, limit)?;
            Ok(rows.into_iter().map(|row| row.value).collect())
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
            Ok(rows.into_iter().filter_map(|(key, _)| key.split_once('/').map(|(id, _)| id.to_owned())).collect())
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
                jobs.extend(snapshot.load::<Job>(id)?.filter(|job| job.value.kind == Kind::Revoke));
            }
            Ok(jobs)
        })
        .await
    }

    /// Returns the open jobs of a certificate, or of all when `certificate_id` is empty; oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn open_jobs(&self, certificate_id: &str) -> Result<Vec<Versioned<Job>>, StoreError> {
        let prefix = if certificate_id.is_empty() { String::new() } else { format!("{certificate_id}/") };
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
