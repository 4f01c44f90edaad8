//! The other half may be gone, or somebody else: a switch that nobody confirms in time is taken back without being asked.
//! Counts from the switch, and after a restart of this half from its start.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::Room;
use super::switches::Switches;
use crate::problem::Problem;
use crate::target::Target;

/// How long `net` may take to prove what is served, beside what its target's commands may take. It looks for seconds; this
/// is for a machine that is slow or asleep.
const CONFIRM: Duration = Duration::from_secs(600);

/// When each unconfirmed switch is taken back, by target id.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    held: Mutex<Held>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Held {
    due: BTreeMap<String, Instant>,
    /// Taken back since they were written last: a confirmation comes too late.
    reverted: BTreeSet<String>,
}

impl Deadlines {
    pub(super) fn begin(&self, target_id: &str, after: Duration) {
        self.held().due.insert(target_id.to_owned(), Instant::now() + after);
        self.changed.notify_one();
    }

    /// The files are those of the desired version again: what was taken back before is no matter any more.
    pub(super) fn written(&self, target_id: &str) {
        self.held().reverted.remove(target_id);
    }

    pub(super) fn end(&self, target_id: &str) {
        self.held().due.remove(target_id);
    }

    /// Refuses the confirmation of what is no longer there.
    pub(super) fn check(&self, target_id: &str) -> Result<(), Problem> {
        if !self.held().reverted.contains(target_id) {
            return Ok(());
        }
        Err(Problem::new(
            "SWITCH_TAKEN_BACK",
            "the files of before are back: nobody confirmed the new ones in time",
            "",
            "the agent writes and proves the new ones again",
        ))
    }

    fn first(&self) -> Option<(String, Instant)> {
        self.held().due.iter().min_by_key(|(_, at)| **at).map(|(id, at)| (id.clone(), *at))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// How long the target's switch may stay unconfirmed.
    pub(super) fn confirm_within(&self, target: &Target) -> Duration {
        let policy = self.policy.current().ok();
        let limit = |argv: &Vec<String>| policy.as_ref().and_then(|policy| policy.permit_command(argv).ok());
        CONFIRM + target.commands().filter_map(limit).sum::<Duration>()
    }

    /// Takes back what nobody confirms; never ends.
    pub(super) async fn keep_deadlines(self: Arc<Self>) {
        let room = Arc::clone(&self);
        let loaded = spawn_blocking(move || Switches::load(&room.state).map(|open| open.targets().cloned().collect()));
        let open: Vec<Target> = loaded.await.ok().and_then(Result::ok).unwrap_or_default();
        for target in open {
            self.deadlines.begin(&target.id, self.confirm_within(&target));
        }
        loop {
            let first = self.deadlines.first();
            // Cancel-safe: a timer, and a notification that stays until it is taken.
            tokio::select! {
                () = self.deadlines.changed.notified() => {}
                () = sleep_until(first.as_ref().map_or_else(Instant::now, |(_, at)| *at)), if first.is_some() => {
                    if let Some((target_id, _)) = first {
                        self.take_back(target_id).await;
                    }
                }
            }
        }
    }

    async fn take_back(self: &Arc<Self>, target_id: String) {
        let (room, id) = (Arc::clone(self), target_id.clone());
        let done = spawn_blocking(move || room.take_back_files(&id)).await;
        match done.unwrap_or_else(|error| Err(Problem::internal(&format!("taking files back: {error}")))) {
            Ok(None) => self.deadlines.end(&target_id),
            Ok(Some(target)) => {
                warn!(dir = target.dir, "nobody confirmed the new files in time: those of before are back");
                for argv in &target.reload {
                    match self.run(argv).await {
                        Ok(run) => info!(command = argv.join(" "), exit = ?run.exit, "reloaded the files of before"),
                        Err(problem) => warn!(reason = problem.reason, cause = problem.cause, "{}", problem.message),
                    }
                }
            }
            Err(problem) => {
                warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
                self.deadlines.begin(&target_id, CONFIRM);
            }
        }
    }

    /// Returns the target whose files are back; `None` when it was confirmed meanwhile.
    fn take_back_files(&self, target_id: &str) -> Result<Option<Target>, Problem> {
        let open = Switches::load(&self.state)?;
        let Some(target) = open.targets().find(|target| target.id == target_id).cloned() else { return Ok(None) };
        // Before the files, so that no confirmation comes between.
        self.deadlines.held().reverted.insert(target_id.to_owned());
        let back = self.roll_back(&target).map(|back| back.map(|_| target));
        if !matches!(back, Ok(Some(_))) {
            self.deadlines.written(target_id);
        }
        back
    }
}
