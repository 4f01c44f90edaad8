//! The ledger of rate limits, line by line. Called by `tasks/limits` and `tasks/retention`.

use std::ops::Bound;

use jiff::Timestamp;

use super::Store;
use super::StoreError;
use super::engine::Order as ScanOrder;
use super::records::Record;
use super::tables::Table;
use crate::lifecycle::rate_limit::Entry;

impl Record for Entry {
    const TABLE: Table = Table::Limit;

    fn key(&self) -> String {
        self.id.clone()
    }
}

/// Returns the smallest id that an entry of this instant may have.
#[must_use]
pub fn first_id(at: Timestamp) -> String {
    format!("{:012x}", at.as_millisecond().max(0))
}

impl Store {
    /// Returns every entry, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn limit_entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.read(|snapshot| {
            let rows = snapshot.list::<Entry>("", Bound::Unbounded, ScanOrder::Ascending, usize::MAX)?;
            Ok(rows.into_iter().map(|row| row.value).collect())
        })
        .await
    }

    /// Returns up to `most` ids of entries that are older than `before`, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn limit_entries_before(&self, before: Timestamp, most: usize) -> Result<Vec<String>, StoreError> {
        let before = first_id(before);
        self.read(move |snapshot| {
            let rows = snapshot.scan(Table::Limit, "", Bound::Unbounded, ScanOrder::Ascending, most)?;
            Ok(rows.into_iter().map(|(id, _)| id).take_while(|id| *id < before).collect())
        })
        .await
    }
}
