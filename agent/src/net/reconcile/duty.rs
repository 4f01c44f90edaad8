//! Work that the reconciler gives to one task at a time, with a rest that grows while it fails.

use std::time::Duration;

use tokio::time::Instant;

use crate::net::jitter;
use crate::plan::rest_after;

/// First rest after a call that failed on a connection that is still there; it grows.
pub(super) const CALL_RETRY: Duration = Duration::from_secs(5);

/// Work that at most one task does at a time.
#[derive(Debug, Default)]
pub(super) struct Duty {
    pub(super) wanted: bool,
    pub(super) busy: bool,
    pub(super) not_before: Option<Instant>,
    /// In a row.
    pub(super) failures: u32,
}

impl Duty {
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.wanted && !self.busy && self.not_before.is_none_or(|at| at <= now)
    }

    pub(super) fn begin(&mut self) {
        *self = Self { wanted: false, busy: true, not_before: None, failures: self.failures };
    }

    pub(super) fn succeed(&mut self) {
        self.busy = false;
        self.failures = 0;
    }

    pub(super) fn retry(&mut self, after: Duration) {
        let not_before = Some(Instant::now() + after);
        *self = Self { wanted: true, busy: false, not_before, failures: self.failures };
    }

    /// Tries again after a rest that grows with every failure.
    pub(super) fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        self.retry(rest_after(CALL_RETRY, self.failures, jitter()));
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.wanted && !self.busy)
    }
}
