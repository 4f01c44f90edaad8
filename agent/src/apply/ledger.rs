//! What the agent remembers over a restart: the last desired state, what came of each target, and which keys each used.
//! JSON, written whole and durably. Holds no secret but challenge answers, and never a private key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::agent::v1 as wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::plan::Outcome;
use crate::plan::slots::KeyUse;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::StateName;

const DESIRED: &str = "desired.json";
const OUTCOMES: &str = "outcomes.json";
const KEY_USES: &str = "key_uses.json";

/// What was on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) desired: Option<wire::GetDesiredResponse>,
    pub(crate) outcomes: Vec<Outcome>,
    /// By target id.
    pub(crate) key_uses: BTreeMap<String, KeyUse>,
}

/// The wire form is kept, so that an upgraded agent understands items that an older one refused.
#[derive(Serialize, Deserialize)]
struct StoredDesired {
    name: StateName,
    response: String,
}

pub(crate) fn load(state: &StateDir) -> Result<Loaded, Problem> {
    let desired = match read::<StoredDesired>(state, DESIRED)? {
        None => None,
        Some(stored) => {
            let bytes = STANDARD.decode(stored.response).map_err(|error| broken(DESIRED, &error))?;
            Some(wire::GetDesiredResponse::decode(bytes.as_slice()).map_err(|error| broken(DESIRED, &error))?)
        }
    };
    let outcomes = read(state, OUTCOMES)?.unwrap_or_default();
    Ok(Loaded { desired, outcomes, key_uses: read(state, KEY_USES)?.unwrap_or_default() })
}

pub(crate) fn save_desired(state: &StateDir, response: &wire::GetDesiredResponse) -> Result<(), Problem> {
    let name = response.name.clone().unwrap_or_default().into();
    write(state, DESIRED, &StoredDesired { name, response: STANDARD.encode(response.encode_to_vec()) })
}

/// Keys first: an outcome that is lost is made again, and its key noted again; one that is kept is not.
pub(crate) fn save_outcomes(
    state: &StateDir,
    outcomes: &[Outcome],
    key_uses: &BTreeMap<String, KeyUse>,
) -> Result<(), Problem> {
    write(state, KEY_USES, key_uses)?;
    write(state, OUTCOMES, outcomes)
}

pub(super) fn read<T: DeserializeOwned>(state: &StateDir, name: &str) -> Result<Option<T>, Problem> {
    let bytes = state.read(name)?;
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|error| broken(name, &error))).transpose()
}

pub(super) fn write<T: Serialize + ?Sized>(state: &StateDir, name: &str, value: &T) -> Result<(), Problem> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| broken(name, &error))?;
    state.write(name, &bytes)
}

fn broken(name: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(
        "LEDGER_BROKEN",
        format!("{name} in the state directory cannot be read"),
        error.to_string(),
        format!("remove {name}: the agent then asks the controller again and checks every target"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_desired_state() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        assert!(load(&state).unwrap().desired.is_none());
        let response = wire::GetDesiredResponse {
            name: Some(wire::StateName { epoch: 1, generation: 2, digest: vec![3] }),
            ..wire::GetDesiredResponse::default()
        };
        save_desired(&state, &response).unwrap();
        assert_eq!(load(&state).unwrap().desired, Some(response));
        let key_uses = BTreeMap::from([("t1".to_owned(), KeyUse::default())]);
        save_outcomes(&state, &[], &key_uses).unwrap();
        assert_eq!(load(&state).unwrap().key_uses, key_uses);
        state.write(OUTCOMES, b"{").unwrap();
        assert_eq!(load(&state).unwrap_err().reason, "LEDGER_BROKEN");
    }
}
