//! What was written for each target, so that a look tells any change from it: one small file per target in the state directory.
//! Noted before the switch; of another version than the desired one it says nothing. Called by `apply`, which has the turn.

use std::collections::BTreeSet;
use std::fs;
use std::io;

use super::files::drift::Written;
use crate::ledger;
use crate::problem::Problem;
use crate::state::{StateDir, problem};

const DIR: &str = "written";

/// Reads a target's; one that cannot be understood is set aside, and the look then tells less.
pub(super) fn load(state: &StateDir, target_id: &str) -> Result<Option<Written>, Problem> {
    let name = file(target_id);
    Ok(ledger::or_set_aside(state, &name, ledger::read(state, &name))?.flatten())
}

/// Notes what is about to be written.
pub(super) fn note(state: &StateDir, target_id: &str, written: &Written) -> Result<(), Problem> {
    if load(state, target_id)?.as_ref() == Some(written) {
        return Ok(());
    }
    state.make_dir(DIR)?;
    ledger::write(state, &file(target_id), written)
}

/// Forgets those of targets that are nobody's any more.
pub(super) fn retain(state: &StateDir, target_ids: &BTreeSet<String>) -> Result<(), Problem> {
    let path = state.path().join(DIR);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(problem(&path, "list", &error)),
    };
    for entry in entries {
        let name = entry.map_err(|error| problem(&path, "list", &error))?.file_name();
        let name = name.to_string_lossy();
        if name.strip_suffix(".json").is_none_or(|id| !target_ids.contains(id)) {
            state.remove(&format!("{DIR}/{name}"))?;
        }
    }
    Ok(())
}

/// Ids were checked when the desired state was parsed: no path can be made of one.
fn file(target_id: &str) -> String {
    format!("{DIR}/{target_id}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_kept_as_long_as_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        retain(&state, &BTreeSet::new()).unwrap();
        assert_eq!(load(&state, "t1").unwrap(), None);
        let written: Written =
            serde_json::from_value(serde_json::json!({"version_id": "v", "digests": {"key.pem": "00"}})).unwrap();
        for id in ["t1", "t2"] {
            note(&state, id, &written).unwrap();
        }
        retain(&state, &BTreeSet::from(["t1".to_owned()])).unwrap();
        assert_eq!((load(&state, "t1").unwrap(), load(&state, "t2").unwrap()), (Some(written), None));
        state.write("written/t1.json", b"{").unwrap();
        assert_eq!(load(&state, "t1").unwrap(), None, "set aside");
        retain(&state, &BTreeSet::from(["t1".to_owned()])).unwrap();
        assert_eq!(fs::read_dir(state.path().join(DIR)).unwrap().count(), 0);
    }
}
