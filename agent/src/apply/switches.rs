//! The switches that are not confirmed yet: what a target's directory held before, so that it can come back. Written down before
//! the switch, so that a crash forgets none. One small file of the ledger; called by `apply`, which has the only turn.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::files::Before;
use crate::ledger;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::Target;

const FILE: &str = "switches.json";

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Switch {
    target: Target,
    before: Before,
}

/// All of them, by target id.
#[derive(Debug)]
pub(super) struct Switches<'a> {
    state: &'a StateDir,
    open: BTreeMap<String, Switch>,
}

impl<'a> Switches<'a> {
    /// Reads them. A file that cannot be understood is set aside: nothing rolls back then, and the new files stay.
    pub(super) fn load(state: &'a StateDir) -> Result<Self, Problem> {
        let read = ledger::or_set_aside(state, FILE, ledger::read(state, FILE))?;
        Ok(Self { state, open: read.flatten().unwrap_or_default() })
    }

    /// What the target's directory held when it was proven last.
    pub(super) fn before(&self, target: &Target) -> Option<&Before> {
        self.open.get(&target.id).filter(|switch| switch.target.dir == target.dir).map(|switch| &switch.before)
    }

    /// The targets whose switch is not confirmed.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Target> {
        self.open.values().map(|switch| &switch.target)
    }

    /// The generations of a directory that must stay.
    pub(super) fn pinned(&self, dir: &str) -> BTreeSet<u64> {
        self.open.values().filter(|switch| switch.target.dir == dir).map(|switch| switch.before.generation).collect()
    }

    /// Notes what is there before a switch. What was proven stays noted until something else is: a switch that follows an
    /// unconfirmed one does not make that one worth going back to.
    pub(super) fn open(&mut self, target: &Target, before: &Before, was_proven: bool) -> Result<(), Problem> {
        if self.before(target).is_some() {
            return Ok(());
        }
        if !was_proven {
            return self.close(&target.id);
        }
        self.open.insert(target.id.clone(), Switch { target: target.clone(), before: before.clone() });
        self.save()
    }

    /// Forgets those of targets that are nobody's any more: what they pin holds a key.
    pub(super) fn retain(&mut self, target_ids: &BTreeSet<String>) -> Result<(), Problem> {
        let before = self.open.len();
        self.open.retain(|id, _| target_ids.contains(id));
        if self.open.len() == before { Ok(()) } else { self.save() }
    }

    /// Forgets the target's, if there is one.
    pub(super) fn close(&mut self, target_id: &str) -> Result<(), Problem> {
        match self.open.remove(target_id) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    fn save(&self) -> Result<(), Problem> {
        ledger::write(self.state, FILE, &self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::target;

    #[test]
    fn a_target_that_is_nobodys_any_more_pins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let leaf = [1u8; 32];
        let before = serde_json::json!({"generation": 7, "leaf": leaf, "names": [], "added": []});
        let switch = serde_json::json!({"target": target(), "before": before});
        ledger::write(&state, FILE, &serde_json::json!({"kept": switch, "gone": switch})).unwrap();
        let named = ["kept", "new"].map(str::to_owned).into();
        Switches::load(&state).unwrap().retain(&named).unwrap();
        let left = Switches::load(&state).unwrap();
        assert_eq!(left.open.keys().collect::<Vec<_>>(), ["kept"]);
        assert_eq!(left.pinned(&target().dir), BTreeSet::from([7]));
        Switches::load(&state).unwrap().retain(&BTreeSet::new()).unwrap();
        assert!(Switches::load(&state).unwrap().pinned(&target().dir).is_empty());
    }
}
