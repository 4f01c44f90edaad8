//! Records: what a table holds, as JSON, with the revision that the API calls `expected_revision`. Called by `tasks` and
//! `rpc`.

use std::ops::Bound;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::batch::{Batch, CommitError};
use super::engine::{EngineError, Order, Snapshot, Stored};
use super::tables::Table;

/// Something stored as JSON in a table of its own.
pub trait Record: Serialize + DeserializeOwned {
    /// Its table.
    const TABLE: Table;

    /// Returns its key in the table.
    fn key(&self) -> String;
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    /// Revision of the change that wrote it.
    pub revision: u64,
    /// The record.
    pub value: T,
}

impl<R: Record> Versioned<R> {
    /// Reads a stored value.
    ///
    /// # Errors
    /// When it is not the JSON of an `R`.
    pub fn decode(key: &str, stored: &Stored) -> Result<Self, EngineError> {
        match serde_json::from_slice(&stored.bytes) {
            Ok(value) => Ok(Self { revision: stored.revision, value }),
            Err(source) => {
                Err(EngineError::Undecodable { table: R::TABLE, key: key.to_owned(), source: Arc::new(source) })
            }
        }
    }
}

impl Snapshot<'_> {
    /// Returns one record.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load<R: Record>(&self, key: &str) -> Result<Option<Versioned<R>>, EngineError> {
        self.get(R::TABLE, key)?.map(|stored| Versioned::decode(key, &stored)).transpose()
    }

    /// Returns up to `limit` records whose keys start with `prefix`, beginning at `from` in the given order.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn list<R: Record>(
        &self,
        prefix: &str,
        from: Bound<&str>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<Versioned<R>>, EngineError> {
        let rows = self.scan(R::TABLE, prefix, from, order, limit)?;
        rows.iter().map(|(key, stored)| Versioned::decode(key, stored)).collect()
    }
}

/// What happens together: a builder over [`Batch`] that speaks of records.
#[derive(Debug, Default)]
#[must_use = "changes do nothing until they are committed"]
pub struct Changes {
    batch: Batch,
    broken: Option<CommitError>,
}

impl Changes {
    /// Makes an empty set of changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record that must not exist yet.
    pub fn insert<R: Record>(self, record: &R) -> Self {
        let key = record.key();
        self.expect(R::TABLE, &key, 0).put(&key, record)
    }

    /// Writes a record that must not have changed since it was read.
    pub fn update<R: Record>(self, record: &Versioned<R>) -> Self {
        let key = record.value.key();
        self.expect(R::TABLE, &key, record.revision).put(&key, &record.value)
    }

    /// Writes a record, whatever is there.
    pub fn upsert<R: Record>(self, record: &R) -> Self {
        self.put(&record.key(), record)
    }

    /// Removes a record that must not have changed since it was read.
    pub fn remove<R: Record>(self, record: &Versioned<R>) -> Self {
        let key = record.value.key();
        self.expect(R::TABLE, &key, record.revision).delete_raw(R::TABLE, &key)
    }

    /// Demands that `key` has this revision; 0 means that it must not exist.
    pub fn expect(mut self, table: Table, key: &str, revision: u64) -> Self {
        self.batch.expect(table, key, revision);
        self
    }

    /// Writes bytes: index rows.
    pub fn put_raw(mut self, table: Table, key: &str, bytes: Vec<u8>) -> Self {
        self.batch.put(table, key, bytes);
        self
    }

    /// Removes a key, which need not exist: index rows.
    pub fn delete_raw(mut self, table: Table, key: &str) -> Self {
        self.batch.delete(table, key);
        self
    }

    pub(super) fn into_batch(self) -> Result<Batch, CommitError> {
        self.broken.map_or(Ok(self.batch), Err)
    }

    fn put<R: Record>(mut self, key: &str, record: &R) -> Self {
        match serde_json::to_vec(record) {
            Ok(bytes) => self.batch.put(R::TABLE, key, bytes),
            Err(source) => {
                let broken =
                    CommitError::NotEncodable { table: R::TABLE, key: key.to_owned(), source: Arc::new(source) };
                self.broken.get_or_insert(broken);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests;
