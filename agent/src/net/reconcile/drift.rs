//! Looks for files that are no longer as they were written: where `apply` says that something changed, and everywhere now and then,
//! so that a change that nobody told is found as well. `plan::drift` decides what follows.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::{Done, PULL, Reconciler};
use crate::apply::request::Handle;
use crate::net::jitter;
use crate::plan::drift::{Difference, Drift, can_drift};
use crate::problem::Problem;
use crate::target::Target;

/// What was found at each target; with the outcome that was looked at, by its end.
pub(super) type Found = Vec<(String, Timestamp, Result<Vec<Difference>, Problem>)>;

/// Targets of one look: the next one takes the rest, so that an end of the agent waits for few.
const LOOK_MAX: usize = 64;

/// What is watched and what is to be looked at.
#[derive(Debug)]
pub(super) struct Looks {
    /// The targets that can drift, with their directories; made anew when `is_stale`.
    watched: BTreeMap<String, String>,
    pub(super) is_stale: bool,
    wanted: BTreeSet<String>,
    /// Of targets that change again and again.
    rests: BTreeMap<String, Instant>,
    is_looking: bool,
    /// When everything is looked at.
    all_at: Instant,
    /// The directories that `apply` was asked to watch, and how many requests there were.
    asked: Option<Vec<String>>,
    requests: u64,
    trouble: Option<Problem>,
}

impl Looks {
    pub(super) fn new() -> Self {
        Self {
            watched: BTreeMap::new(),
            is_stale: true,
            wanted: BTreeSet::new(),
            rests: BTreeMap::new(),
            is_looking: false,
            all_at: Instant::now(),
            asked: None,
            requests: 0,
            trouble: None,
        }
    }

    /// Returns when there is something to look at again.
    pub(super) fn wakes_at(&self) -> Instant {
        let rest = |id: &String| self.rests.get(id).copied();
        let rests = self.wanted.iter().filter_map(rest).filter(|_| !self.is_looking);
        rests.fold(self.all_at, Instant::min)
    }
}

impl Reconciler {
    /// Starts the looks that are due, and has the right directories watched.
    pub(super) fn start_looks(&mut self) {
        let now = Instant::now();
        if self.looks.is_stale {
            self.see_watched();
        }
        if now >= self.looks.all_at {
            self.looks.all_at = now + PULL - PULL * u32::from(jitter()) / 255 / 5;
            self.looks.wanted.extend(self.looks.watched.keys().cloned());
            if self.looks.trouble.is_some() {
                self.looks.asked = None;
            }
        }
        let mut dirs: Vec<String> = self.looks.watched.values().cloned().collect();
        dirs.sort_unstable();
        dirs.dedup();
        let is_asked = self.looks.asked.as_ref() == Some(&dirs) || (dirs.is_empty() && self.looks.asked.is_none());
        if !is_asked {
            self.looks.requests += 1;
            self.looks.asked = Some(dirs.clone());
            self.work.spawn(wait_for_change(self.apply.clone(), self.looks.requests, dirs));
        }
        self.looks.rests.retain(|_, until| *until > now);
        if self.looks.is_looking {
            return;
        }
        let Some(desired) = &self.desired else { return };
        let is_due = |target: &&Target| {
            let id = &target.id;
            self.looks.wanted.contains(id) && !self.looks.rests.contains_key(id) && !self.doing.contains_key(id)
        };
        let with_end = |target: &Target| Some((target.clone(), self.outcomes.get(&target.id)?.finished_at));
        let due: Vec<_> = desired.targets.iter().filter(is_due).filter_map(with_end).take(LOOK_MAX).collect();
        if due.is_empty() {
            return;
        }
        for (target, _) in &due {
            self.looks.wanted.remove(&target.id);
        }
        self.looks.is_looking = true;
        self.work.spawn(look(self.apply.clone(), due));
    }

    /// Only what this agent applied, and still wants as it was applied, can drift.
    fn see_watched(&mut self) {
        self.looks.is_stale = false;
        let targets = self.desired.iter().flat_map(|desired| &desired.targets);
        let applied = targets.filter(|target| {
            let last = self.outcomes.get(&target.id);
            last.is_some_and(|last| can_drift(last) && last.wish == target.digest())
        });
        self.looks.watched = applied.map(|target| (target.id.clone(), target.dir.clone())).collect();
        let watched = &self.looks.watched;
        self.looks.wanted.retain(|id| watched.contains_key(id));
    }

    /// Something changed in these directories, or they are watched from now on.
    pub(super) fn see_changed(&mut self, request: u64, changed: Result<Vec<String>, Problem>) {
        let is_latest = request == self.looks.requests;
        match changed {
            Ok(dirs) => {
                if is_latest {
                    self.looks.asked = None;
                    self.looks.trouble = None;
                }
                // Also what an earlier request was told: nobody is told it again.
                let changed = self.looks.watched.iter().filter(|(_, dir)| dirs.contains(dir)).map(|(id, _)| id.clone());
                self.looks.wanted.extend(changed);
            }
            Err(_) if !is_latest => {}
            // Not asked again before everything is looked at, and said once.
            Err(problem) => {
                if self.looks.trouble.as_ref() != Some(&problem) {
                    warn!(reason = problem.reason, cause = problem.cause, hint = problem.hint, "{}", problem.message);
                }
                self.looks.trouble = Some(problem);
            }
        }
    }

    /// Takes note of what a look found, where nothing was done meanwhile.
    pub(super) fn see_found(&mut self, found: Found) {
        self.looks.is_looking = false;
        let mut is_news = false;
        for (id, looked_at, found) in found {
            let last = self.outcomes.get_mut(&id).filter(|last| last.finished_at == looked_at);
            let Some(last) = last.filter(|_| self.looks.watched.contains_key(&id) && !self.doing.contains_key(&id))
            else {
                continue;
            };
            let found = match found {
                Ok(found) => found,
                // The policy changed, or the disk cannot be read: nothing is known, and the next attempt says it.
                Err(problem) => {
                    debug!(target_id = id, reason = problem.reason, cause = problem.cause, "not looked at");
                    continue;
                }
            };
            let Some(drift) = Drift::seen(last.drift.as_ref(), &found, self.clock.now()) else { continue };
            let lines: Vec<&str> = found.iter().map(|difference| difference.line.as_str()).collect();
            warn!(target_id = id, times = drift.times, repairs = drift.repairs, found = ?lines, "files drifted, or are right again");
            self.looks.rests.insert(id, Instant::now() + drift.look_rest(jitter()));
            last.drift = Some(drift);
            self.save.wanted = true;
            is_news = true;
        }
        if is_news {
            self.want_report();
        }
    }
}

async fn look(apply: Handle, targets: Vec<(Target, Timestamp)>) -> Done {
    let mut found = Found::new();
    for (target, finished_at) in targets {
        found.push((target.id.clone(), finished_at, apply.differences(target).await));
    }
    Done::Looked(found)
}

async fn wait_for_change(apply: Handle, request: u64, dirs: Vec<String>) -> Done {
    Done::Changed { request, dirs: apply.wait_for_change(dirs).await }
}
