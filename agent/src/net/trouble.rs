//! Why the controller is not talked to, for the journal and for `certwright-agent status`: said once and then every hour, and
//! kept on the disk until the next good connection. Called by `session`, and read by `status`.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tracing::{debug, warn};

use crate::problem::Problem;
use crate::state::StateDir;

const FILE: &str = "trouble.json";
/// The same trouble is said again in the journal after this.
const SAID_EVERY: SignedDuration = SignedDuration::from_hours(1);

/// What stands between this agent and its controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    /// Since when.
    pub(crate) since: Timestamp,
    /// What and why, and what to do.
    pub(crate) problem: Problem,
}

/// Remembers the present trouble.
#[derive(Debug)]
pub(crate) struct Memory {
    state: StateDir,
    present: Option<Trouble>,
    said_at: Option<Timestamp>,
}

impl Trouble {
    /// Reads what the last connection ended with.
    pub(crate) fn load(state: &StateDir) -> Option<Self> {
        // It is a remark and no more: one that does not read is none.
        let bytes = state.read(FILE).ok().flatten()?;
        serde_json::from_slice(&bytes).ok()
    }
}

impl Memory {
    /// Goes on with what the disk says.
    pub(crate) fn open(state: StateDir) -> Self {
        Self { present: Trouble::load(&state), state, said_at: None }
    }

    /// The connection ended, or could not be had.
    pub(crate) async fn met(&mut self, problem: Problem, now: Timestamp) {
        let is_known = self.present.as_ref().is_some_and(|known| known.problem.reason == problem.reason);
        let is_fresh = self.said_at.is_some_and(|at| now.duration_since(at).abs() < SAID_EVERY);
        if is_known && is_fresh {
            debug!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
            return;
        }
        warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
        self.said_at = Some(now);
        if !is_known {
            let trouble = Trouble { since: now, problem };
            if let Ok(bytes) = serde_json::to_vec_pretty(&trouble) {
                self.on_disk(move |state| state.write(FILE, &bytes)).await;
            }
            self.present = Some(trouble);
        }
    }

    /// The controller took the connection.
    pub(crate) async fn over(&mut self) {
        self.said_at = None;
        if self.present.take().is_some() {
            self.on_disk(|state| state.remove(FILE)).await;
        }
    }

    async fn on_disk(&self, act: impl FnOnce(StateDir) -> Result<(), Problem> + Send + 'static) {
        let state = self.state.clone();
        let done = tokio::task::spawn_blocking(move || act(state)).await;
        let done = done.unwrap_or_else(|error| Err(Problem::internal(&format!("keeping a remark: {error}"))));
        if let Err(problem) = done {
            warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn trouble_is_kept_until_it_is_over_and_dated_from_its_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("state")).unwrap();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let problem = |reason: &str| Problem::new(reason, "message", "cause", "hint");
        let mut memory = Memory::open(state.clone());
        memory.met(problem("AWAY"), at(1)).await;
        memory.met(problem("AWAY"), at(7_200)).await;
        assert_eq!(Trouble::load(&state).unwrap().since, at(1));
        memory.met(problem("REFUSED"), at(7_201)).await;
        assert_eq!(Trouble::load(&state).unwrap().since, at(7_201));
        let mut restarted = Memory::open(state.clone());
        restarted.met(problem("REFUSED"), at(9_000)).await;
        assert_eq!(Trouble::load(&state).unwrap().since, at(7_201));
        restarted.over().await;
        assert_eq!(Trouble::load(&state), None);
        state.write(FILE, b"torn").unwrap();
        assert_eq!(Trouble::load(&state), None);
    }
}
