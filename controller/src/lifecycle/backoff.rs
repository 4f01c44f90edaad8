//! When a failed attempt is tried again (features.md A12). Pure: the jitter is drawn by the caller.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// After the first, second, third failure, and every later one (A12).
const STEPS: [Duration; 4] =
    [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6_000), Duration::from_secs(24 * 3_600)];
/// Never sooner than this, whatever a CA says.
const WAIT_MIN: Duration = Duration::from_secs(60);
/// Never longer than this share of the life that is left: the less there is, the more often it is tried.
const LEFT_SHARE: u32 = 8;
/// In the last such share of its life a certificate is tried for on the ladder even if its cause stands.
const LAST_SHARE: u32 = 10;
/// What an operator must change, here or in DNS: told by the CA, or seen by ourselves. The first tries may be early all
/// the same, since DNS and web servers are often being set up at that moment; once the same cause has failed as often as
/// the ladder has steps, it stands.
const STANDING: [&str; 10] = [
    "ACME_CAA",
    "ACME_CONNECTION",
    "ACME_DNS",
    "ACME_INCORRECT_RESPONSE",
    "ACME_TLS",
    "ACME_UNAUTHORIZED",
    "DNS_CAA_FORBIDS",
    "DNS_NO_ADDRESS",
    "DNS_NO_SUCH_NAME",
    "PREFLIGHT_WRONG_CONTENT",
];
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

/// How likely time alone heals a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It may pass by itself.
    Passing,
    /// It stands until someone changes something: tried once a day, and loudly.
    Standing,
}

impl Cause {
    /// Returns the cause of a failure that a CA or we gave this reason, so many times in a row.
    #[must_use]
    pub fn of(reason: &str, in_a_row: u32) -> Self {
        let often = usize::try_from(in_a_row).is_ok_and(|count| count >= STEPS.len());
        if often && STANDING.contains(&reason) { Self::Standing } else { Self::Passing }
    }
}

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    /// Consecutive failures, this one included.
    pub failures: u32,
    /// Whether it may pass.
    pub cause: Cause,
    /// The CA's word: it wins when longer.
    pub retry_after: Option<Duration>,
}

/// What is left of a certificate in use.
#[derive(Clone, Copy, Debug)]
pub struct Life {
    /// Until it expires.
    pub left: Duration,
    /// From its beginning to its end.
    pub whole: Duration,
}

/// Returns when the next attempt may start. `life` is absent when there is no version, or an expired one: then the ladder
/// alone counts. `jitter` is between 0 and 1.
#[must_use]
pub fn retry_at(now: Timestamp, failed: Failed, life: Option<Life>, jitter: f64) -> Timestamp {
    let step = ladder(failed.failures);
    let step = step + step.mul_f64(JITTER_SHARE * jitter.clamp(0.0, 1.0));
    let step = life.map_or(step, |life| step.min(life.left / LEFT_SHARE));
    let wait = match failed.cause {
        Cause::Passing => step,
        Cause::Standing => step.max(standing_wait(life)),
    };
    let wait = failed.retry_after.map_or(wait, |asked| asked.min(RETRY_AFTER_MAX).max(wait));
    after(now, wait.max(WAIT_MIN))
}

/// The longest step, or until the last share of the life begins; then no longer.
fn standing_wait(life: Option<Life>) -> Duration {
    let longest = ladder(u32::MAX);
    life.map_or(longest, |life| longest.min(life.left.saturating_sub(life.whole / LAST_SHARE)))
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

    fn wait(failures: u32, cause: Cause, retry_after: Option<u64>, life: Option<(u64, u64)>) -> i64 {
        let failed = Failed { failures, cause, retry_after: retry_after.map(Duration::from_secs) };
        let hours = |hours: u64| Duration::from_secs(hours * 3_600);
        let life = life.map(|(left, whole)| Life { left: hours(left), whole: hours(whole) });
        retry_at(at(0), failed, life, 0.0).as_second()
    }

    #[test]
    fn waits_one_ten_a_hundred_minutes_then_a_day() {
        for (failures, seconds) in [(1, 60), (2, 600), (3, 6_000), (4, 86_400), (99, 86_400)] {
            assert_eq!(wait(failures, Cause::Passing, None, None), seconds);
            assert_eq!(wait(failures, Cause::Passing, None, Some((720, 2160))), seconds);
        }
        let first = Failed { failures: 1, cause: Cause::Passing, retry_after: None };
        assert_eq!(retry_at(at(0), first, None, 1.0), at(66));
    }

    #[test]
    fn never_waits_longer_than_an_eighth_of_what_is_left_nor_less_than_a_minute() {
        assert_eq!(wait(4, Cause::Passing, None, Some((80, 160))), 36_000);
        assert_eq!(wait(99, Cause::Passing, None, Some((8, 160))), 3_600);
        assert_eq!(wait(3, Cause::Passing, None, Some((8, 160))), 3_600);
        assert_eq!(wait(99, Cause::Passing, None, Some((0, 160))), 60);
        assert_eq!(wait(1, Cause::Passing, Some(0), None), 60);
    }

    #[test]
    fn a_cause_that_stands_is_tried_daily_until_the_last_tenth() {
        assert_eq!(wait(1, Cause::Standing, None, None), 86_400, "nothing to lose");
        assert_eq!(wait(1, Cause::Standing, None, Some((720, 2160))), 86_400);
        assert_eq!(wait(9, Cause::Standing, None, Some((80, 160))), 86_400, "although an eighth would be ten hours");
        assert_eq!(wait(9, Cause::Standing, None, Some((20, 160))), 4 * 3_600, "no longer than until the last tenth");
        assert_eq!(wait(9, Cause::Standing, None, Some((16, 160))), 2 * 3_600);
        assert_eq!(wait(1, Cause::Standing, None, Some((16, 160))), 60);
        // Whatever the life, it is tried again before it ends.
        for whole in [1, 24, 160, 1080, 2160] {
            for left in 0..whole {
                let wait = wait(99, Cause::Standing, None, Some((left, whole)));
                assert!(wait <= 60 || wait < i64::try_from(left).unwrap() * 3_600, "{left} of {whole}");
            }
        }
    }

    #[test]
    fn what_an_operator_must_change_stands_once_the_ladder_is_climbed() {
        for (reason, in_a_row, cause) in [
            ("ACME_DNS", 1, Cause::Passing),
            ("ACME_DNS", 3, Cause::Passing),
            ("ACME_DNS", 4, Cause::Standing),
            ("ACME_UNAUTHORIZED", 9, Cause::Standing),
            ("CA_UNREACHABLE", 99, Cause::Passing),
            ("ACME_SERVER_INTERNAL", 99, Cause::Passing),
        ] {
            assert_eq!(Cause::of(reason, in_a_row), cause, "{reason} {in_a_row}");
        }
    }

    #[test]
    fn retry_after_wins_when_longer_and_is_capped() {
        assert_eq!(wait(1, Cause::Passing, Some(3_600), None), 3_600);
        assert_eq!(wait(4, Cause::Passing, Some(1), None), 86_400);
        assert_eq!(wait(1, Cause::Passing, Some(3_600), Some((2, 160))), 3_600, "even when little is left");
        assert_eq!(wait(1, Cause::Standing, Some(200_000), None), 200_000);
        assert_eq!(wait(1, Cause::Passing, Some(u64::MAX), None), 7 * 86_400);
    }

    #[test]
    fn polls_slow_down_and_obey_the_ca() {
        assert_eq!(poll_at(at(0), 0, None), Timestamp::from_millisecond(20).unwrap());
        assert_eq!(poll_at(at(0), 31, None), at(60));
        assert_eq!(poll_at(at(0), 0, Some(Duration::from_secs(5))), at(5));
    }
}
