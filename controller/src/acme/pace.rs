//! How fast one CA is asked: so many requests at once, then so many per second, and none while it said "not now". Waiting
//! is fair (first come, first served), bounded by who may ask at all, and may be given up at any time: a turn that is
//! not taken is lost. Called by `acme/http`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::lifecycle::rate_limit::{NONCES, RequestPace};

/// The turns at one CA, shared by all accounts there.
#[derive(Debug)]
pub(crate) struct Pacer {
    turns: Mutex<Turns>,
}

#[derive(Debug)]
struct Turns {
    pace: RequestPace,
    requests: Option<Instant>,
    nonces: Option<Instant>,
    closed_until: Option<Instant>,
}

impl Pacer {
    pub(crate) fn new(pace: RequestPace) -> Self {
        Self { turns: Mutex::new(Turns { pace, requests: None, nonces: None, closed_until: None }) }
    }

    /// Changes the pace from now on.
    pub(crate) fn set(&self, pace: RequestPace) {
        self.lock().pace = pace;
    }

    /// The CA asks to be left alone for so long.
    pub(crate) fn close(&self, wait: Duration) {
        let until = Instant::now().checked_add(wait);
        let mut turns = self.lock();
        turns.closed_until = turns.closed_until.max(until);
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// While the CA asks to be left alone: for how much longer. Nothing may be sent then.
    pub(crate) async fn turn(&self, is_nonce: bool) -> Result<(), Duration> {
        let wait = {
            let mut turns = self.lock();
            let now = Instant::now();
            if let Some(left) = turns.closed_until.map(|until| until.saturating_duration_since(now))
                && !left.is_zero()
            {
                return Err(left);
            }
            let pace = turns.pace;
            let nonce = if is_nonce { take(&mut turns.nonces, NONCES, now) } else { Duration::ZERO };
            take(&mut turns.requests, pace, now).max(nonce)
        };
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the next turn of a leaky bucket that will be empty at `empty_at`, and returns how long it is away.
fn take(empty_at: &mut Option<Instant>, pace: RequestPace, now: Instant) -> Duration {
    let step = Duration::from_micros(pace.step_us);
    let filled = empty_at.map_or(now, |at| at.max(now)) + step;
    *empty_at = Some(filled);
    filled.saturating_duration_since(now + step.saturating_mul(pace.burst))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_goes_at_once_and_the_rest_in_step() {
        let pacer = Pacer::new(RequestPace { burst: 10, step_us: 100_000 });
        let started = Instant::now();
        for _request in 0..10 {
            pacer.turn(false).await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _request in 0..20 {
            pacer.turn(false).await.unwrap();
        }
        assert_eq!(started.elapsed().as_millis() / 100, 20);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let started = Instant::now();
        for _request in 0..10 {
            pacer.turn(false).await.unwrap();
        }
        assert_eq!(started.elapsed(), Duration::ZERO, "after a pause the burst is there again");
    }

    #[tokio::test(start_paused = true)]
    async fn no_second_has_more_than_200_requests_whoever_asks() {
        let pacer = Pacer::new(crate::lifecycle::rate_limit::pace(crate::lifecycle::rate_limit::Limit {
            count: 100,
            period_s: 1,
        }));
        let started = Instant::now();
        let turns = (0..1_000).map(|_request| async {
            pacer.turn(false).await.unwrap();
            started.elapsed().as_millis()
        });
        let times = futures_util::future::join_all(turns).await;
        for second in 0..10 {
            let in_it = times.iter().filter(|at| **at >= second * 1_000 && **at < (second + 1) * 1_000).count();
            assert!(in_it <= 200, "{in_it} in second {second}");
        }
        assert!(times.iter().max().is_some_and(|last| (8_900..9_100).contains(last)), "{:?}", times.iter().max());
    }

    #[tokio::test(start_paused = true)]
    async fn nonces_have_a_narrower_way_and_a_closed_ca_is_not_asked() {
        let pacer = Pacer::new(RequestPace { burst: 100, step_us: 10_000 });
        let started = Instant::now();
        for _nonce in 0..30 {
            pacer.turn(true).await.unwrap();
        }
        assert_eq!(started.elapsed().as_secs(), 1);
        pacer.close(Duration::from_secs(120));
        pacer.close(Duration::from_secs(5));
        let left = pacer.turn(false).await.unwrap_err();
        assert_eq!(left.as_secs(), 120);
        tokio::time::sleep(left).await;
        pacer.turn(false).await.unwrap();
    }
}
