//! The audit: lines by number, each the JSON text that its successor names by hash, and the sealed key that signs heads.
//! Called by `tasks/audit` and `rpc`.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::engine::Order as ScanOrder;
use super::records::{Changes, Record};
use super::seal::Place;
use super::tables::Table;
use super::{Store, StoreError};
use crate::lifecycle::sealed::Sealed;

/// Most lines of one page.
pub const AUDIT_PAGE_MAX: usize = 1_000;

/// The key that signs heads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AuditKey {
    /// PKCS #8 PEM, sealed.
    pub key: Sealed,
}

impl AuditKey {
    /// Its key among the settings.
    pub const KEY: &'static str = "audit_key";

    /// Where it is sealed.
    #[must_use]
    pub const fn place() -> Place<'static> {
        Place { table: Table::Setting, key: Self::KEY, field: "key" }
    }
}

impl Record for AuditKey {
    const TABLE: Table = Table::Setting;

    fn key(&self) -> String {
        Self::KEY.to_owned()
    }
}

/// Twenty digits, so that keys sort as numbers do.
fn key(seq: u64) -> String {
    format!("{seq:020}")
}

impl Changes {
    /// Adds a line, which must not exist yet.
    pub fn audit_line(self, seq: u64, line: String) -> Self {
        let key = key(seq);
        self.expect(Table::Audit, &key, 0).put_raw(Table::Audit, &key, line.into_bytes())
    }

    /// Removes a line.
    pub fn remove_audit_line(self, seq: u64) -> Self {
        self.delete_raw(Table::Audit, &key(seq))
    }
}

impl Store {
    /// Returns up to `limit` lines in this order, beginning behind `from` (above it when ascending, below when descending;
    /// `None` is the beginning of that order), each with its number.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_lines(
        &self,
        from: Option<u64>,
        order: ScanOrder,
        limit: usize,
    ) -> Result<Vec<(u64, String)>, StoreError> {
        let from = from.map(key);
        self.read(move |snapshot| {
            let from = from.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let rows = snapshot.scan(Table::Audit, "", from, order, limit.min(AUDIT_PAGE_MAX))?;
            let line = |(key, stored): (String, super::engine::Stored)| {
                (key.parse().unwrap_or_default(), String::from_utf8_lossy(&stored.bytes).into_owned())
            };
            Ok(rows.into_iter().map(line).collect())
        })
        .await
    }

    /// Returns one line; `None` when it is not there, or not any more.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn audit_line(&self, seq: u64) -> Result<Option<String>, StoreError> {
        let key = key(seq);
        self.read(move |snapshot| {
            let row = snapshot.get(Table::Audit, &key)?;
            Ok(row.map(|stored| String::from_utf8_lossy(&stored.bytes).into_owned()))
        })
        .await
    }
}
