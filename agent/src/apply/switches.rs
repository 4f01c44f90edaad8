//! The switches that are not confirmed yet: what a target's directory held before, so that it can come back. Written down before
//! the switch, so that a crash forgets none. One small file of the ledger; called by `apply`, which has the only turn.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::files::Before;
use super::ledger;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::Target;

const FILE: &str = "switches.json";

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Switch {
    dir: String,
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
        self.open.get(&target.id).filter(|switch| switch.dir == target.dir).map(|switch| &switch.before)
    }

    pub(super) fn has(&self, target_id: &str) -> bool {
        self.open.contains_key(target_id)
    }

    /// The generations of a directory that must stay.
    pub(super) fn pinned(&self, dir: &str) -> BTreeSet<u64> {
        self.open.values().filter(|switch| switch.dir == dir).map(|switch| switch.before.generation()).collect()
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
        self.open.insert(target.id.clone(), Switch { dir: target.dir.clone(), before: before.clone() });
        self.save()
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
