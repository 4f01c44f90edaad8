//! Power: every simulated program hangs on a `PowerSwitch`; when it is cut, the program can do nothing more to the
//! world, and what its disk had not synced is gone. Nothing here knows what the programs do. Called by `world` and by
//! every fake of the outside.

pub mod disk;
pub mod pipe;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// What a program does to the world, counted so that it can be killed at any of these instants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// The store is about to sync: what was written since the last sync is lost when the power goes here.
    BeforeSync,
    /// The store has synced, and nobody was told yet.
    AfterSync,
    /// A request is about to leave for the CA.
    CaRequest,
    /// The CA has done what was asked, and its answer did not arrive yet.
    CaReply,
    /// Bytes are about to leave through a network connection.
    NetworkWrite,
    /// A host operation (connect, bind, command) is about to happen.
    HostCall,
    /// A host operation has happened, and its outcome is not known to the program yet.
    HostReturn,
}

/// Kills the program when it makes its `nth` step (from 1) of this kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KillPoint {
    /// The kind of step.
    pub step: Step,
    /// Which one, counted from 1 since the start of the program.
    pub nth: u64,
}

/// One life of one program. Once cut it never comes back: a restarted program gets a new one.
#[derive(Clone, Debug, Default)]
pub struct PowerSwitch(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    off: CancellationToken,
    plan: Mutex<Option<KillPoint>>,
    counts: Mutex<BTreeMap<Step, u64>>,
}

impl PowerSwitch {
    /// A program's life without a planned end.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Plans the end; `None` plans none. Steps made before count.
    pub fn plan(&self, kill: Option<KillPoint>) {
        *self.0.plan.lock().unwrap_or_else(PoisonError::into_inner) = kill;
    }

    /// Cuts the power.
    pub fn cut(&self) {
        self.0.off.cancel();
    }

    /// Whether the power is cut.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.0.off.is_cancelled()
    }

    /// Returns the token that is cancelled when the power is cut.
    #[must_use]
    pub fn off(&self) -> CancellationToken {
        self.0.off.clone()
    }

    /// Counts a step, and cuts the power when the plan says so. Returns whether the power is still on.
    pub fn step(&self, step: Step) -> bool {
        if self.is_off() {
            return false;
        }
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(step).or_default();
        *count += 1;
        let plan = *self.0.plan.lock().unwrap_or_else(PoisonError::into_inner);
        if plan == Some(KillPoint { step, nth: *count }) {
            self.cut();
        }
        !self.is_off()
    }

    /// Returns how many steps of this kind the program has made.
    #[must_use]
    pub fn count(&self, step: Step) -> u64 {
        let counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&step).copied().unwrap_or(0)
    }

    /// Runs a deed on the world: never ends once the power is cut, because then nobody is there to see the end.
    pub async fn run<T>(&self, deed: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.0.off.cancelled() => std::future::pending().await,
            done = deed => if self.is_off() { std::future::pending().await } else { done },
        }
    }

    /// Runs a deed between two counted steps.
    pub async fn deed<T>(&self, before: Step, after: Step, deed: impl Future<Output = T>) -> T {
        self.step(before);
        self.run(async {
            let done = deed.await;
            self.step(after);
            done
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_planned_kill_happens_at_its_step_and_no_later_deed_ends() {
        let switch = PowerSwitch::new();
        switch.plan(Some(KillPoint { step: Step::CaReply, nth: 2 }));
        let mut reached = 0;
        for expected in [true, false] {
            let deed = switch.deed(Step::CaRequest, Step::CaReply, async { reached += 1 });
            assert_eq!(timeout(Duration::from_secs(1), deed).await.is_ok(), expected);
        }
        assert_eq!(reached, 2, "the CA acted on the second request");
        let deed = switch.deed(Step::CaRequest, Step::CaReply, async { reached += 1 });
        assert!(timeout(Duration::from_secs(1), deed).await.is_err());
        assert_eq!(reached, 2, "nothing leaves a dead program");
        assert_eq!(switch.count(Step::CaRequest), 2);
    }
}
