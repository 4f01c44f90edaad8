//! One leaky bucket, held as the instant at which it will be empty: one number, as Let's Encrypt's boulder holds it.

use jiff::{SignedDuration, Timestamp};

use super::Limit;

/// How full something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bucket {
    /// When every place is free again; `None`: nothing was ever used.
    empty_at: Option<Timestamp>,
}

impl Bucket {
    /// Returns when one more fits. Never later than a whole period from now, even after the clock leapt back.
    pub(super) fn earliest(self, limit: Limit, now: Timestamp) -> Timestamp {
        match self.empty_at {
            Some(empty_at) => plus(empty_at, step(limit) - period(limit)).max(now),
            None => now,
        }
    }

    /// Takes a place at `at`.
    pub(super) fn spend(&mut self, limit: Limit, at: Timestamp) {
        self.empty_at = Some(plus(self.empty_at.map_or(at, |empty_at| empty_at.max(at)), step(limit)));
    }

    /// Returns a place.
    pub(super) fn give_back(&mut self, limit: Limit) {
        self.empty_at = self.empty_at.map(|empty_at| plus(empty_at, -step(limit)));
    }

    /// Makes it so full that the next place is free at `until`.
    pub(super) fn fill_until(&mut self, limit: Limit, until: Timestamp) {
        let empty_at = plus(until, period(limit) - step(limit));
        self.empty_at = Some(self.empty_at.map_or(empty_at, |known| known.max(empty_at)));
    }

    /// How many places are used, at most the limit.
    pub(super) fn used(self, limit: Limit, now: Timestamp) -> u32 {
        let Some(left) = self.empty_at.map(|empty_at| empty_at.duration_since(now)) else { return 0 };
        if left <= SignedDuration::ZERO {
            return 0;
        }
        let step = step(limit).as_millis().max(1);
        u32::try_from((left.as_millis() + step - 1) / step).unwrap_or(u32::MAX).min(limit.count)
    }

    /// When the next used place is free again.
    pub(super) fn refills_at(self, limit: Limit, now: Timestamp) -> Option<Timestamp> {
        let used = self.used(limit, now);
        let empty_at = self.empty_at.filter(|_| used > 0)?;
        // The places that are used are free one step after the other, the last at `empty_at`.
        let others = step(limit) * i32::try_from(used - 1).unwrap_or(i32::MAX);
        Some(plus(empty_at, -others).max(now))
    }

    pub(super) fn is_empty(self, now: Timestamp) -> bool {
        self.empty_at.is_none_or(|empty_at| empty_at <= now)
    }
}

fn period(limit: Limit) -> SignedDuration {
    SignedDuration::from_secs(i64::from(limit.period_s))
}

/// How long one place takes to be free again.
fn step(limit: Limit) -> SignedDuration {
    period(limit) / i32::try_from(limit.count.max(1)).unwrap_or(i32::MAX)
}

fn plus(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}
