//! When a failed attempt is tried again (features.md A12). Pure: the jitter is drawn by the caller.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// After the first, second, third failure, and every later one (A12).
const STEPS: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6_000), Duration::from_secs(24 * 3_600)];
/// Never sooner than this, whatever a CA says.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// A Retry-After beyond this is not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(7 * 24 * 3_600);
/// The share of the step that jitter may add.
const JITTER_SHARE: f64 = 0.1;

/// Returns how long to wait after so many consecutive failures, without jitter.
#[must_use]
pub fn ladder(failures: u32) -> Duration {
    let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX).min(STEPS.len() - 1);
    STEPS.get(index).copied().unwrap_or(WAIT_MIN)
}

/// Returns when attempt number `failures` + 1 may start.
///
/// `failures` counts consecutive failures, this one included. `retry_after` is the CA's word and always wins when longer.
/// `jitter` is between 0 and 1.
#[must_use]
pub fn retry_at(now: Timestamp, failures: u32, retry_after: Option<Duration>, jitter: f64) -> Timestamp {
    let step = ladder(failures);
    let step = step + step.mul_f64(JITTER_SHARE * jitter.clamp(0.0, 1.0));
    let wait = retry_after.map_or(step, |asked| asked.min(RETRY_AFTER_MAX).max(step));
    after(now, wait.max(WAIT_MIN))
}

/// Returns when to poll an order again: at once at first, since a fast CA answers within milliseconds, then three times
/// slower with each poll, or when the CA says (RFC 8555 §7.5.1). A validation of two seconds costs five polls.
#[must_use]
pub fn poll_at(now: Timestamp, polls: u32, retry_after: Option<Duration>) -> Timestamp {
    const FIRST: Duration = Duration::from_millis(20);
    const SLOWER: u32 = 3;
    const SLOWEST: Duration = Duration::from_secs(60);
    let step = FIRST.saturating_mul(SLOWER.saturating_pow(polls)).min(SLOWEST);
    after(now, retry_after.map_or(step, |asked| asked.min(Duration::from_secs(300)).max(step)))
}

/// Adds a duration, saturating at the end of time.
#[must_use]
pub fn after(now: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn waits_one_ten_a_hundred_minutes_then_a_day() {
        for (failures, seconds) in [(1, 60), (2, 600), (3, 6_000), (4, 86_400), (99, 86_400)] {
            assert_eq!(retry_at(at(0), failures, None, 0.0), at(seconds));
        }
        assert_eq!(retry_at(at(0), 1, None, 1.0), at(66));
    }

    #[test]
    fn retry_after_wins_when_longer_and_is_capped() {
        assert_eq!(retry_at(at(0), 1, Some(Duration::from_secs(3_600)), 0.0), at(3_600));
        assert_eq!(retry_at(at(0), 4, Some(Duration::from_secs(1)), 0.0), at(86_400));
        assert_eq!(retry_at(at(0), 1, Some(Duration::from_secs(u64::MAX)), 0.0), at(7 * 86_400));
    }

    #[test]
    fn polls_slow_down_and_obey_the_ca() {
        assert_eq!(poll_at(at(0), 0, None), Timestamp::from_millisecond(20).unwrap());
        assert_eq!(poll_at(at(0), 31, None), at(60));
        assert_eq!(poll_at(at(0), 0, Some(Duration::from_secs(5))), at(5));
    }
}
