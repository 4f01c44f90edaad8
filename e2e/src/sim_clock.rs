//! The wall clock of the simulation: a fixed start plus tokio's (paused) time. It never reads the system's clock.
//! `World` hands one to every simulated program.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};
use proto::clock::Clock;
use tokio::time::Instant;

/// 2026-11-21T00:00:00Z: where every simulation starts.
const START_SECOND: i64 = 1_795_219_200;

/// Tells the start plus what tokio's clock has advanced since.
#[derive(Clone, Debug)]
pub struct SimClock {
    start: Timestamp,
    origin: Instant,
    /// Milliseconds; what the clock was set wrong by, for all clones.
    wrong_by: Arc<AtomicI64>,
    /// What all clocks of the simulation leapt together.
    leapt_seconds: Arc<AtomicI64>,
}

impl SimClock {
    /// Starts at 2026-11-21T00:00:00Z. To be called on the paused runtime.
    #[must_use]
    pub fn new() -> Self {
        let start = Timestamp::from_second(START_SECOND).expect("a second of this century is a timestamp");
        Self { start, origin: Instant::now(), wrong_by: Arc::default(), leapt_seconds: Arc::default() }
    }

    /// Returns the same clock, wrong by `by`: a host with clock skew.
    #[must_use]
    pub fn skewed(&self, by: SignedDuration) -> Self {
        let start = self.start.saturating_add(by).unwrap_or(self.start);
        Self { start, wrong_by: Arc::default(), ..self.clone() }
    }

    /// Sets the clock wrong by so much, as an operator or NTP may; zero sets it right. Time passes as before.
    pub fn set_wrong_by(&self, by: SignedDuration) {
        self.wrong_by.store(i64::try_from(by.as_millis()).unwrap_or(0), Ordering::Relaxed);
    }
}

impl SimClock {
    /// Moves this clock and all that were made from it at once, as for machines that were suspended together: no timer
    /// sees the time in between.
    pub fn leap(&self, by: SignedDuration) {
        self.leapt_seconds.fetch_add(by.as_secs(), Ordering::Relaxed);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let passed = SignedDuration::try_from(self.origin.elapsed()).unwrap_or(SignedDuration::MAX);
        let wrong_by = SignedDuration::from_millis(self.wrong_by.load(Ordering::Relaxed));
        let leapt = SignedDuration::from_secs(self.leapt_seconds.load(Ordering::Relaxed));
        self.start.saturating_add(passed.saturating_add(wrong_by).saturating_add(leapt)).unwrap_or(Timestamp::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ninety_days_pass_at_once_and_blocking_threads_agree() {
        let clock = SimClock::new();
        let start = clock.now();
        tokio::time::sleep(Duration::from_secs(90 * 86_400)).await;
        let passed = clock.now().duration_since(start);
        assert!(passed >= SignedDuration::from_hours(90 * 24) && passed < SignedDuration::from_hours(90 * 24 + 1));
        let other = clock.clone();
        let seen = tokio::task::spawn_blocking(move || other.now()).await.unwrap();
        assert_eq!(seen, clock.now());
        let late = clock.skewed(SignedDuration::from_mins(-10));
        assert_eq!(late.now(), clock.now() - SignedDuration::from_mins(10));
        clock.leap(SignedDuration::from_hours(5));
        assert_eq!(clock.now().duration_since(start).as_hours(), 90 * 24 + 5);
        assert_eq!(late.now(), clock.now() - SignedDuration::from_mins(10));
    }
}
