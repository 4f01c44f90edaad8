//! What the agent remembers over a restart: the last desired state, what came of each target, and which keys each used.
//! JSON, written whole and durably. Holds no secret but challenge answers, and never a private key. Each half of the agent
//! keeps its own files here, in a directory of its own.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message as _;
use proto::agent::v1 as wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::plan::Outcome;
use crate::plan::slots::KeyUse;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::StateName;

const DESIRED: &str = "desired.json";
const OUTCOMES: &str = "outcomes.json";
const KEY_USES: &str = "key_uses.json";
/// Reason of a file that was read and not understood.
const BROKEN: &str = "LEDGER_BROKEN";

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

/// The part that `net` keeps, for a loop that must not wait for the disk itself.
#[derive(Clone, Debug)]
pub(crate) struct Ledger(StateDir);

impl Ledger {
    pub(crate) fn new(state: StateDir) -> Self {
        Self(state)
    }

    pub(crate) async fn recover(&self) -> Result<Loaded, Problem> {
        self.on_disk(|state| recover(&state)).await
    }

    pub(crate) async fn save_desired(&self, response: wire::GetDesiredResponse) -> Result<(), Problem> {
        self.on_disk(move |state| save_desired(&state, &response)).await
    }

    pub(crate) async fn save_outcomes(
        &self,
        outcomes: Vec<Outcome>,
        key_uses: BTreeMap<String, KeyUse>,
    ) -> Result<(), Problem> {
        self.on_disk(move |state| save_outcomes(&state, &outcomes, &key_uses)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        act: impl FnOnce(StateDir) -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let state = self.0.clone();
        let done = tokio::task::spawn_blocking(move || act(state)).await;
        done.unwrap_or_else(|error| Err(Problem::internal(&format!("the ledger: {error}"))))
    }
}

/// Reads everything and changes nothing; a file that cannot be understood is an error.
pub(crate) fn load(state: &StateDir) -> Result<Loaded, Problem> {
    Ok(Loaded {
        desired: desired(state)?,
        outcomes: read(state, OUTCOMES)?.unwrap_or_default(),
        key_uses: read(state, KEY_USES)?.unwrap_or_default(),
    })
}

/// Reads everything; a file that cannot be understood is set aside, because all of it can be found out again: the
/// controller is asked, every target is looked at and reloaded once more, and keys in doubt stay.
fn recover(state: &StateDir) -> Result<Loaded, Problem> {
    Ok(Loaded {
        desired: or_set_aside(state, DESIRED, desired(state))?.unwrap_or_default(),
        outcomes: or_set_aside(state, OUTCOMES, read(state, OUTCOMES))?.flatten().unwrap_or_default(),
        key_uses: or_set_aside(state, KEY_USES, read(state, KEY_USES))?.flatten().unwrap_or_default(),
    })
}

fn desired(state: &StateDir) -> Result<Option<wire::GetDesiredResponse>, Problem> {
    let Some(stored) = read::<StoredDesired>(state, DESIRED)? else { return Ok(None) };
    let bytes = STANDARD.decode(stored.response).map_err(|error| broken(DESIRED, &error))?;
    wire::GetDesiredResponse::decode(bytes.as_slice()).map(Some).map_err(|error| broken(DESIRED, &error))
}

/// A disk that cannot be read stays an error: what is on it may be whole.
pub(crate) fn or_set_aside<T>(state: &StateDir, name: &str, part: Result<T, Problem>) -> Result<Option<T>, Problem> {
    match part {
        Err(problem) if problem.reason == BROKEN => {
            state.set_aside(name)?;
            warn!(
                reason = problem.reason,
                cause = problem.cause,
                "{name} cannot be understood: set aside as {name}.broken"
            );
            Ok(None)
        }
        part => part.map(Some),
    }
}

fn save_desired(state: &StateDir, response: &wire::GetDesiredResponse) -> Result<(), Problem> {
    let name = response.name.clone().unwrap_or_default().into();
    write(state, DESIRED, &StoredDesired { name, response: STANDARD.encode(response.encode_to_vec()) })
}

/// Keys first: an outcome that is lost is made again, and its key noted again; one that is kept is not.
fn save_outcomes(state: &StateDir, outcomes: &[Outcome], key_uses: &BTreeMap<String, KeyUse>) -> Result<(), Problem> {
    write(state, KEY_USES, key_uses)?;
    write(state, OUTCOMES, outcomes)
}

pub(crate) fn read<T: DeserializeOwned>(state: &StateDir, name: &str) -> Result<Option<T>, Problem> {
    let bytes = state.read(name)?;
    bytes.map(|bytes| serde_json::from_slice(&bytes).map_err(|error| broken(name, &error))).transpose()
}

pub(crate) fn write<T: Serialize + ?Sized>(state: &StateDir, name: &str, value: &T) -> Result<(), Problem> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|error| broken(name, &error))?;
    state.write(name, &bytes)
}

fn broken(name: &str, error: &dyn std::error::Error) -> Problem {
    Problem::new(
        BROKEN,
        format!("{name} in the state directory cannot be understood"),
        error.to_string(),
        format!("remove {name}: the agent then asks the controller again and checks every target"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Status;
    use crate::plan::tests::{outcome, target};

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

    #[test]
    fn what_cannot_be_understood_is_set_aside_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let target = target();
        let done = outcome(&target, Status::Applied, 1, None);
        save_outcomes(&state, std::slice::from_ref(&done), &BTreeMap::new()).unwrap();
        state.write(DESIRED, b"{\"name\": 1}").unwrap();
        let loaded = recover(&state).unwrap();
        assert_eq!((loaded.desired, loaded.outcomes), (None, vec![done]));
        assert_eq!(state.read("desired.json.broken").unwrap().unwrap(), b"{\"name\": 1}");

        // Written by a later release with a status that this one does not know.
        let stored = String::from_utf8(state.read(OUTCOMES).unwrap().unwrap()).unwrap();
        state.write(OUTCOMES, stored.replace("applied", "sublimated").as_bytes()).unwrap();
        assert!(recover(&state).unwrap().outcomes.is_empty());
        assert!(state.read("outcomes.json.broken").unwrap().is_some());
        assert!(load(&state).unwrap().outcomes.is_empty(), "the next start finds nothing broken");
    }

    #[test]
    fn an_outcome_of_an_earlier_release_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        state.write(OUTCOMES, br#"[{"target_id": "t", "wish": "w", "status": "applied"}]"#).unwrap();
        let outcomes = load(&state).unwrap().outcomes;
        assert_eq!((outcomes[0].wish.as_str(), outcomes[0].status), ("w", Status::Applied));
    }
}
