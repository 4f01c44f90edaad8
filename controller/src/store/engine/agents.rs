//! When agents' records last changed: an open stream is checked against its agent's record on every message, and a record
//! that did not change need not be read again. Called by `writer`, before anyone hears of the commit.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::super::batch::Batch;
use super::super::tables::Table;

/// By agent: the revision of the last change since the start. As many as are enrolled at most, and those that were forgotten.
#[derive(Debug, Default)]
pub(super) struct AgentChanges(Mutex<HashMap<String, u64>>);

impl AgentChanges {
    /// Notes what was committed.
    pub(super) fn note(&self, batch: &Batch, revision: u64) {
        for (table, key) in batch.changes.keys() {
            if *table == Table::Agent {
                self.lock().insert(key.clone(), revision);
            }
        }
    }

    /// Whether the record changed after `revision`, which was read since the start.
    pub(super) fn is_newer(&self, id: &str, revision: u64) -> bool {
        self.lock().get(id).is_some_and(|changed| *changed > revision)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
