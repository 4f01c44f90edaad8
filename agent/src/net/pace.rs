//! How soon the agent makes its identity anew because the controller asks: soon, so that a rotation of its CA does not wait for it, and the less
//! often the more it is asked, so that a controller that asks without end costs little. Pure. Called by `session`.

use std::time::Duration;

use tokio::time::Instant;

/// Rest after the first attempt; each further one doubles it. The steps of a rotation and one back again, taken one after the other, find
/// no rest longer than a minute.
const REST_MIN: Duration = Duration::from_secs(5);
/// No rest is longer: as long as between attempts that nobody asked for.
pub(super) const REST_MAX: Duration = Duration::from_secs(600);
/// After this long without an attempt the rests begin anew.
const CALM: Duration = Duration::from_secs(3_600);

/// The attempts so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    in_a_row: u32,
    last: Option<Instant>,
}

impl Pace {
    /// Returns when the next attempt may be; it may lie in the past.
    pub(super) fn may_at(&self, now: Instant) -> Instant {
        self.last.map_or(now, |last| last + self.rest())
    }

    /// An attempt begins, whatever comes of it.
    pub(super) fn attempt(&mut self, now: Instant) {
        let is_calm = self.last.is_none_or(|last| now.saturating_duration_since(last) >= CALM);
        self.in_a_row = if is_calm { 1 } else { self.in_a_row.saturating_add(1) };
        self.last = Some(now);
    }

    fn rest(&self) -> Duration {
        let doublings = self.in_a_row.saturating_sub(1).min(16);
        REST_MIN.saturating_mul(1 << doublings).min(REST_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_steps_of_a_rotation_rest_a_minute_at_most() {
        let start = Instant::now();
        let (mut pace, mut now) = (Pace::default(), start);
        assert!(pace.may_at(now) <= now);
        let rests: Vec<u64> = (0..8)
            .map(|_| {
                pace.attempt(now);
                let rest = pace.may_at(now) - now;
                now += rest;
                rest.as_secs()
            })
            .collect();
        assert_eq!(rests, [5, 10, 20, 40, 80, 160, 320, 600]);
        pace.attempt(now + CALM);
        assert_eq!(pace.may_at(now), now + CALM + REST_MIN, "an hour of calm begins anew");
    }

    #[test]
    fn who_asks_without_end_gets_twelve_attempts_an_hour() {
        let start = Instant::now();
        let (mut pace, mut attempts) = (Pace::default(), Vec::new());
        for second in 0..10 * 3_600 {
            let now = start + Duration::from_secs(second);
            if pace.may_at(now) <= now {
                pace.attempt(now);
                attempts.push(second);
            }
        }
        let hour = |from: &u64| attempts.iter().filter(|at| (*from..from + 3_600).contains(at)).count();
        assert_eq!(attempts.iter().map(hour).max(), Some(12));
        assert_eq!(attempts.iter().map(hour).nth(20), Some(6), "once it goes on and on");
    }
}
