//! Agents, their join tokens and the names of their desired states. Called by `rpc` and `tasks`.

use std::ops::Bound;

use super::Store;
use super::StoreError;
use super::certificate::id_by_name;
use super::engine::Order as ScanOrder;
use super::records::{Record, Versioned};
use super::tables::Table;
use crate::lifecycle::agent::{Agent, JoinToken};
use crate::lifecycle::desired::Name;
use crate::lifecycle::detected::Detected;

impl Record for Agent {
    const TABLE: Table = Table::Agent;

    fn key(&self) -> String {
        self.id.clone()
    }
}

impl Record for Detected {
    const TABLE: Table = Table::Detected;

    fn key(&self) -> String {
        self.agent_id.clone()
    }
}

impl Record for JoinToken {
    const TABLE: Table = Table::JoinToken;

    fn key(&self) -> String {
        self.hash.clone()
    }
}

impl Record for Name {
    const TABLE: Table = Table::Desired;

    fn key(&self) -> String {
        self.agent_id.clone()
    }
}

impl Store {
    /// Whether the agent's record changed after `revision`, one that [`Store::revision`] told. Asks no disk.
    #[must_use]
    pub fn agent_changed_after(&self, id: &str, revision: u64) -> bool {
        self.engine.agent_changed_after(id, revision)
    }

    /// Returns the agent with this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agent_by_name(&self, name: &str) -> Result<Option<Versioned<Agent>>, StoreError> {
        let name = name.to_owned();
        self.read(move |snapshot| match id_by_name(snapshot, Table::AgentName, &name)? {
            Some(id) => snapshot.load(&id),
            None => Ok(None),
        })
        .await
    }

    /// Returns every agent, in the order of their names.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn agents(&self) -> Result<Vec<Versioned<Agent>>, StoreError> {
        let mut agents = self
            .read(|snapshot| snapshot.list::<Agent>("", Bound::Unbounded, ScanOrder::Ascending, usize::MAX))
            .await?;
        agents.sort_by(|left, right| left.value.name.cmp(&right.value.name));
        Ok(agents)
    }
}
