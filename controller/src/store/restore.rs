//! What agents showed after a restore, until it is taken over. Called by `tasks/restore` and `rpc`.

use std::ops::Bound;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::engine::Order as ScanOrder;
use super::records::{Record, Versioned};
use super::tables::Table;
use super::{Store, StoreError};
use crate::lifecycle::restore::Restore;

/// Most versions kept of one agent.
const SHOWN_MAX: u64 = 2_000;

/// A version that lies in the files of a target. Key in the store: `agent_id/target_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Who showed it.
    pub agent_id: String,
    /// Of which target.
    pub target_id: String,
    /// What the agent calls the certificate; sanitised.
    pub certificate_name: String,
    /// The version's id.
    pub version_id: String,
    /// The slot of its key; `None` in controller custody.
    pub key_slot_id: Option<String>,
    /// PEM of the leaf.
    pub leaf_pem: String,
    /// PEM of the issuers.
    pub chain_pem: String,
    /// When it was shown.
    pub at: Timestamp,
}

/// That an agent showed everything. Key in the store: the agent's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownAll {
    /// Who.
    pub agent_id: String,
    /// To the controller of this epoch.
    pub epoch: u64,
}

impl Record for Shown {
    const TABLE: Table = Table::Shown;

    fn key(&self) -> String {
        format!("{}/{}", self.agent_id, self.target_id)
    }
}

impl Record for ShownAll {
    const TABLE: Table = Table::ShownAll;

    fn key(&self) -> String {
        self.agent_id.clone()
    }
}

impl Store {
    /// Returns the last restore; `None` in a database that was never restored.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn restore_record(&self) -> Result<Option<Versioned<Restore>>, StoreError> {
        self.load(Restore::KEY).await
    }

    /// Whether no more is kept of what this agent shows.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn has_shown_too_much(&self, agent_id: &str) -> Result<bool, StoreError> {
        let prefix = format!("{agent_id}/");
        self.read(move |snapshot| Ok(snapshot.count(Table::Shown, &prefix)? >= SHOWN_MAX)).await
    }

    /// Returns what is kept of what this agent showed; the empty id means every agent.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn shown_by(&self, agent_id: &str) -> Result<Vec<Versioned<Shown>>, StoreError> {
        let prefix = if agent_id.is_empty() { String::new() } else { format!("{agent_id}/") };
        self.read(move |snapshot| snapshot.list(&prefix, Bound::Unbounded, ScanOrder::Ascending, usize::MAX)).await
    }
}
