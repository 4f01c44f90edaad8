//! One atomic change of the store and why it can be refused. Knows nothing of redb, so that a second engine can follow.
//! Built by `records::Changes`, applied by `engine`.

use std::collections::{BTreeMap, BTreeSet};

use super::engine::EngineError;
use super::tables::Table;
use crate::lifecycle::problem::Problem;
use crate::lifecycle::problem::causes;

/// Most keys that one batch may name (design §3: what every distributed store can do at once).
pub const BATCH_KEYS_MAX: usize = 64;
/// Most keys with what the store adds to them (etcd's limit of a transaction).
const KEYS_MAX: usize = 128;
/// Most bytes that one batch may put (etcd's limit of a request is 1.5 MiB).
pub const BATCH_BYTES_MAX: usize = 1 << 20;
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 1024;

/// Puts and deletes that happen together, or not at all when an expectation does not hold.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub(super) expects: Vec<(Table, String, u64)>,
    pub(super) changes: BTreeMap<(Table, String), Option<Vec<u8>>>,
    /// Keys that the store itself added: rows of an index, and what they follow from.
    pub(super) added: usize,
}

impl Batch {
    /// Makes an empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Demands that `key` has this revision; 0 means that it must not exist.
    pub fn expect(&mut self, table: Table, key: &str, revision: u64) {
        self.expects.push((table, key.to_owned(), revision));
    }

    /// Writes `bytes` under `key`; a later change of the same key replaces this one.
    pub fn put(&mut self, table: Table, key: &str, bytes: Vec<u8>) {
        self.changes.insert((table, key.to_owned()), Some(bytes));
    }

    /// Removes `key`; it need not exist.
    pub fn delete(&mut self, table: Table, key: &str) {
        self.changes.insert((table, key.to_owned()), None);
    }

    /// Whether every limit is kept.
    pub(super) fn fits(&self) -> bool {
        let keys: BTreeSet<_> = self
            .expects
            .iter()
            .map(|(table, key, _)| (*table, key.as_str()))
            .chain(self.changes.keys().map(|(table, key)| (*table, key.as_str())))
            .collect();
        let bytes: usize = self.changes.values().flatten().map(Vec::len).sum();
        keys.len() <= (BATCH_KEYS_MAX + self.added).min(KEYS_MAX)
            && bytes <= BATCH_BYTES_MAX
            && keys.iter().all(|(_, key)| !key.is_empty() && key.len() <= KEY_BYTES_MAX)
    }
}

/// Why a batch was not applied.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// A key has another revision than expected: someone else was first.
    #[error("{key} of {table} was changed by someone else meanwhile")]
    Conflict {
        /// Where the key is.
        table: Table,
        /// The first key whose expectation did not hold.
        key: String,
    },
    /// More keys or bytes than a batch may have, or a key too long or empty.
    #[error("a change may have {BATCH_KEYS_MAX} keys, {BATCH_BYTES_MAX} bytes, and keys of 1 to {KEY_BYTES_MAX} bytes")]
    TooLarge,
    /// A record did not serialise: a bug.
    #[error("{key} of {table} cannot be written as JSON")]
    NotEncodable {
        /// Where the record belongs.
        table: Table,
        /// Its key.
        key: String,
        /// What serde says.
        #[source]
        source: std::sync::Arc<serde_json::Error>,
    },
    /// The database failed. Whether the batch is durable is known only after a restart.
    #[error("the change could not be stored")]
    Storage(#[from] EngineError),
}

impl CommitError {
    /// Returns the error for people.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let (reason, hint) = match self {
            Self::Conflict { .. } => ("REVISION_CONFLICT", "look at it again, then repeat the change"),
            Self::TooLarge => ("CHANGE_TOO_LARGE", "change less at once"),
            Self::NotEncodable { .. } => ("RECORD_NOT_ENCODABLE", "this is a bug: report it with the controller's log"),
            Self::Storage(error) => return error.problem(),
        };
        Problem::new(reason, self.to_string(), causes(self), hint)
    }
}
