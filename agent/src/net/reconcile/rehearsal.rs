//! Challenges that are served for a short while because an operator asked whether a CA could see them: beside those that are
//! desired, on the same ports and in the same web roots, and withdrawn by themselves.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::problem::Problem;
use crate::target::Challenge;

/// Rehearsals at the same time.
pub(crate) const AT_ONCE: usize = 4;

/// What came of each token: served, or why not.
pub(crate) type Served = BTreeMap<String, Result<(), Problem>>;

/// Serve these until then.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    pub(crate) challenges: Vec<Challenge>,
    pub(crate) until: Instant,
    /// Told once; dropped when there are too many.
    pub(crate) served: oneshot::Sender<Served>,
}

/// The rehearsals that run.
#[derive(Debug)]
pub(super) struct Rehearsals {
    sender: mpsc::Sender<Rehearsal>,
    queue: mpsc::Receiver<Rehearsal>,
    running: Vec<Running>,
}

#[derive(Debug)]
struct Running {
    challenges: Vec<Challenge>,
    until: Instant,
    served: Option<oneshot::Sender<Served>>,
}

impl Rehearsals {
    pub(super) fn new() -> Self {
        let (sender, queue) = mpsc::channel(AT_ONCE);
        Self { sender, queue, running: Vec::new() }
    }

    /// Where rehearsals are asked for.
    pub(super) fn sender(&self) -> mpsc::Sender<Rehearsal> {
        self.sender.clone()
    }

    /// Returns the next that is asked for. Cancel-safe.
    pub(super) async fn asked(&mut self) -> Option<Rehearsal> {
        self.queue.recv().await
    }

    /// Begins one; says whether there is room for it.
    pub(super) fn begin(&mut self, asked: Rehearsal) -> bool {
        let has_room = self.running.len() < AT_ONCE;
        if has_room {
            let Rehearsal { challenges, until, served } = asked;
            self.running.push(Running { challenges, until, served: Some(served) });
        }
        has_room
    }

    /// Ends those whose time is over; says whether there were any.
    pub(super) fn end(&mut self, now: Instant) -> bool {
        let before = self.running.len();
        self.running.retain(|running| running.until > now);
        self.running.len() < before
    }

    pub(super) fn challenges(&self) -> impl Iterator<Item = Challenge> {
        self.running.iter().flat_map(|running| running.challenges.iter().cloned())
    }

    /// Tells those who wait for it what came of their tokens, once every one of them was tried.
    pub(super) fn tell(&mut self, serving: &BTreeSet<String>, problems: &BTreeMap<String, Problem>) {
        for running in &mut self.running {
            let outcome = |challenge: &Challenge| {
                let token = &challenge.token;
                let problem = problems.get(token).cloned().map(Err);
                let served = problem.or_else(|| serving.contains(token).then_some(Ok(())))?;
                Some((token.clone(), served))
            };
            let all: Option<Served> = running.challenges.iter().map(outcome).collect();
            if let Some((all, served)) = all.and_then(|all| Some((all, running.served.take()?))) {
                // Who asked may be gone by now; it ends by its time.
                served.send(all).ok();
            }
        }
    }

    /// When the first of them is over.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.running.iter().map(|running| running.until).min()
    }
}
