//! PURE: which private keys this server makes, and which it no longer needs. A key that was never written into a
//! target's files is pending and stays, whatever the desired state says (design §4). `net::reconcile` asks here,
//! `apply::keys` makes and deletes.
//!
//! ```text
//!  made ──▶ pending ──files written──▶ live ──a later version applied, or purged──▶ retired ──3 more retired──▶ expendable
//!              │                        ▲                                              │
//!              └─ never deleted         └──────────── written again (rollback) ◀───────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Outcome, Status};

/// Retired slots that each target keeps, as many as generations of files.
const RETIRED_KEPT: usize = 3;

/// The single next step of a desired key slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyStep {
    Keep,
    /// Make the key, or find the CSR of the one that is here.
    Make,
    /// Send its CSR.
    Offer,
}

/// Decides the next step of a desired slot: `csr_wanted` while the controller has no CSR on record, `held` while the key
/// is on the disk, `csr_known` once its CSR was read.
pub(crate) fn key_step(csr_wanted: bool, held: bool, csr_known: bool) -> KeyStep {
    match (csr_wanted, csr_known) {
        // A CSR on record speaks for one key. If that key is lost, another one in its place would hide the loss, and
        // fit no certificate: the report says that the key is gone, and the controller asks for a new slot.
        (false, _) => KeyStep::Keep,
        (true, false) => KeyStep::Make,
        (true, true) if held => KeyStep::Offer,
        (true, true) => KeyStep::Keep,
    }
}

/// What one target did with key slots of this server; kept in the ledger, also when the target is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyUse {
    /// Followed by a version that was applied, or by a purge; oldest first.
    retired: Vec<String>,
    /// Written since the version that was applied last, that one included; oldest first.
    live: Vec<String>,
}

impl KeyUse {
    /// Takes note of what an attempt left behind; taking the same note twice changes nothing.
    pub(crate) fn record(&mut self, outcome: &Outcome) {
        let slot = outcome.key_slot_id.as_ref();
        self.retired.retain(|retired| Some(retired) != slot);
        self.live.retain(|live| Some(live) != slot);
        match outcome.status {
            Status::Applied | Status::Unproven => self.retired.append(&mut self.live),
            Status::Pending | Status::NotLive | Status::RolledBack | Status::Failed => {}
        }
        self.live.extend(slot.cloned());
    }

    /// Drops slots whose key is gone.
    pub(crate) fn forget(&mut self, held: &[String]) {
        self.retired.retain(|slot| held.contains(slot));
        self.live.retain(|slot| held.contains(slot));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.retired.is_empty() && self.live.is_empty()
    }

    fn expendable(&self) -> impl Iterator<Item = &String> {
        self.retired.iter().rev().skip(RETIRED_KEPT)
    }

    fn needed(&self) -> impl Iterator<Item = &String> {
        self.live.iter().chain(self.retired.iter().rev().take(RETIRED_KEPT))
    }
}

/// Returns the held slots whose keys may be deleted. `named` are all slots that the desired state names anywhere, also
/// in items that this agent refuses; it must be the state that the controller holds now.
pub(crate) fn expendable(
    held: &[String],
    uses: &BTreeMap<String, KeyUse>,
    named: &BTreeSet<String>,
) -> BTreeSet<String> {
    let needed: BTreeSet<&String> = uses.values().flat_map(KeyUse::needed).chain(named).collect();
    let old = uses.values().flat_map(KeyUse::expendable);
    old.filter(|slot| held.contains(slot) && !needed.contains(slot)).cloned().collect()
}

#[cfg(test)]
pub(crate) mod tests;
