//! Limits the bytes that data-driven frames may send: what is queued inside an SSH channel delays the next key, and
//! nothing on this side can see it. Keys may overdraw. A token bucket; pure, time is a parameter (tui.md §4.4).

use std::time::Duration;

use tokio::time::Instant;

/// Frames of at most this many bytes are free of the bucket's start.
const BURST_SECONDS: f64 = 1.0;

/// Why a frame is to be painted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// The operator did something.
    Input,
    /// Something changed by itself.
    Data,
}

/// The numbers of one kind of link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between two frames that data asked for.
    pub(crate) gap: Duration,
    /// Bytes per second.
    pub(crate) rate: f64,
    /// How far keys may overdraw.
    pub(crate) overdraw: f64,
}

/// The bucket.
#[derive(Debug)]
pub(crate) struct Pacer {
    pace: Pace,
    tokens: f64,
    filled_at: Option<Instant>,
    data_at: Option<Instant>,
}

impl Pacer {
    /// Returns a full bucket.
    pub(crate) fn new(pace: impl Into<Pace>) -> Self {
        let pace = pace.into();
        Self { pace, tokens: pace.rate * BURST_SECONDS, filled_at: None, data_at: None }
    }

    fn tokens_at(&self, now: Instant) -> f64 {
        let since = self.filled_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        (self.tokens + self.pace.rate * since.as_secs_f64()).min(self.pace.rate * BURST_SECONDS)
    }

    /// Returns how long a frame has to wait; zero means now.
    pub(crate) fn wait(&self, why: Why, now: Instant) -> Duration {
        let floor = match why {
            Why::Input => -self.pace.overdraw,
            Why::Data => 0.0,
        };
        let missing = floor - self.tokens_at(now);
        let for_bytes =
            if missing < 0.0 { Duration::ZERO } else { Duration::from_secs_f64(missing / self.pace.rate + 0.001) };
        let for_gap = match (why, self.data_at) {
            (Why::Data, Some(at)) => self.pace.gap.saturating_sub(now.saturating_duration_since(at)),
            (Why::Data, None) | (Why::Input, _) => Duration::ZERO,
        };
        for_bytes.max(for_gap)
    }

    /// Takes account of a frame.
    pub(crate) fn painted(&mut self, why: Why, bytes: usize, now: Instant) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.tokens = self.tokens_at(now) - f64::from(bytes);
        self.filled_at = Some(now);
        if why == Why::Data && bytes > 0 {
            self.data_at = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { gap: Duration::from_millis(250), rate: 4_000.0, overdraw: 8_000.0 };

    #[test]
    fn data_is_limited_in_frames_and_in_bytes() {
        let start = Instant::now();
        let mut pacer = Pacer::new(PACE);
        let (mut sent, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            if pacer.wait(Why::Data, now).is_zero() {
                pacer.painted(Why::Data, 1_200, now);
                sent += 1_200;
            }
            now += Duration::from_millis(10);
        }
        assert!((36_000..=48_000).contains(&sent), "{sent} bytes in 10 s");
    }

    #[test]
    fn a_key_shows_at_once_even_when_data_used_everything_up() {
        let now = Instant::now();
        let mut pacer = Pacer::new(PACE);
        pacer.painted(Why::Data, 7_000, now);
        assert!(!pacer.wait(Why::Data, now).is_zero());
        assert!(pacer.wait(Why::Input, now).is_zero());
        pacer.painted(Why::Input, 20_000, now);
        assert!(!pacer.wait(Why::Input, now).is_zero(), "but not without end");
    }

    #[test]
    fn a_frame_without_bytes_delays_nothing() {
        let now = Instant::now();
        let mut pacer = Pacer::new(PACE);
        pacer.painted(Why::Data, 0, now);
        assert!(pacer.wait(Why::Data, now).is_zero());
    }
}
