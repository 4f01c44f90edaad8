//! Watches the wall clock (issue 3, rule 24): whether it leaps against the time that passes, and what CAs and agents say of
//! it. While it is wrong every order rests where it is; once it is right, everything is looked at again. What is thought
//! is decided by `lifecycle/clock_skew`. Called by `tasks::run`, `tasks/issuance`, and by `rpc` for views.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::hub::Hub;
use super::{Context, accounts, limits};
use crate::lifecycle::clock_skew::Verdict;
use crate::lifecycle::event::Severity;
use crate::lifecycle::problem::chain;
use crate::store::records::Changes;

/// The wall clock is looked at this often (rule 24: it is polled), and CAs are asked so often while it is wrong.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Less than this between two looks is no leap: two clocks are read one after the other, and NTP moves them gently.
const LEAP_MIN: SignedDuration = SignedDuration::from_mins(1);
/// CAs asked for the time in one look.
const CAS_MAX: usize = 5;

/// What is known of the clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    /// Wall clock and passing time, read together.
    last: Mutex<Option<(Timestamp, Instant)>>,
    verdict: watch::Sender<Verdict>,
    /// Grows when the clock leapt or became right: all that was planned is looked at again.
    again: watch::Sender<u64>,
}

impl ClockWatch {
    /// Returns what is thought of the clock.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict.borrow().clone()
    }

    /// Grows when everything should be looked at again.
    #[must_use]
    pub fn again(&self) -> watch::Receiver<u64> {
        self.again.subscribe()
    }

    /// Returns by how much the wall clock leapt since the last look, if it did.
    fn leap(&self, now: Timestamp, instant: Instant) -> Option<SignedDuration> {
        let mut last = self.lock();
        let (then, since) = last.replace((now, instant))?;
        let passed = SignedDuration::try_from(instant.saturating_duration_since(since)).unwrap_or(SignedDuration::MAX);
        Some(now.duration_since(then).saturating_sub(passed)).filter(|leap| leap.abs() > LEAP_MIN)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(Timestamp, Instant)>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether anything may be done by the clock at this moment. Looks at it first, so that nothing happens between a leap and
/// its discovery.
pub(crate) fn is_right(context: &Context) -> bool {
    let (hub, watch) = (&context.hub, &context.hub.clock_watch);
    if let Some(leap) = watch.leap(hub.now(), Instant::now()) {
        warn!(seconds = leap.as_secs(), "the wall clock leapt");
        context.acme.clock_leapt(leap);
        watch.again.send_modify(|count| *count = count.wrapping_add(1));
        hub.wake.ring_all();
    }
    let verdict = context.acme.judge_clock(&hub.presence.clock_skews());
    let is_right = verdict == Verdict::Right;
    let is_news = watch.verdict.send_if_modified(|known| {
        let is_news = (*known == Verdict::Right) != is_right;
        if is_news {
            *known = verdict;
        }
        is_news
    });
    if is_news && is_right {
        watch.again.send_modify(|count| *count = count.wrapping_add(1));
        hub.wake.ring_all();
    }
    is_right
}

/// Looks at the clock until `stop`; says once when it is wrong, and once when it is right again.
pub(crate) async fn run(context: Context, stop: CancellationToken) {
    let watch = &context.hub.clock_watch;
    let (mut verdicts, mut leaps) = (watch.verdict.subscribe(), watch.again.subscribe());
    let mut said = Verdict::Right;
    loop {
        // Every arm is cancel-safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = verdicts.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let leapt = {
            is_right(&context);
            leaps.has_changed().unwrap_or(false)
        };
        if leapt {
            leaps.borrow_and_update();
            limits::reset(&context.hub).await;
        }
        if leapt || watch.verdict() != Verdict::Right {
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                asked = ask_time(&context) => asked,
            };
            asked.unwrap_or_else(|error| error!(error = %chain(&error), "cannot list issuers"));
            is_right(&context);
        }
        let verdict = verdicts.borrow_and_update().clone();
        if (said == Verdict::Right) != (verdict == Verdict::Right) {
            say(&context.hub, &verdict).await;
            said = verdict;
        }
    }
}

/// Asks the CAs: any answer of theirs tells the time.
async fn ask_time(context: &Context) -> Result<(), crate::store::StoreError> {
    let mut asked = Vec::new();
    for issuer in context.hub.store.issuers().await? {
        let directory = accounts::directory(&issuer.value);
        if asked.len() < CAS_MAX && !asked.contains(&directory) {
            // Whoever does not answer says nothing; `tasks/accounts` tells why.
            drop(context.acme.probe_directory(&directory).await);
            asked.push(directory);
        }
    }
    Ok(())
}

async fn say(hub: &Hub, verdict: &Verdict) {
    let event = match verdict.problem() {
        Some(problem) => {
            error!(reason = problem.reason, message = problem.message, "the clock is wrong");
            hub.event("clock.wrong", &problem.message).with_problem(Severity::Error, problem)
        }
        None => hub.event("clock.right", "this host's clock is right again; everything goes on"),
    };
    if let Err(error) = hub.store.commit(Changes::new().event(&event)).await {
        error!(error = %chain(&error), "cannot record what the clock did");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_leap_is_what_the_wall_clock_does_beyond_the_time_that_passed() {
        let watch = ClockWatch::default();
        let origin = Instant::now();
        let look = |wall: i64, passed: u64| {
            let now = Timestamp::from_second(1_000_000 + wall).unwrap();
            watch.leap(now, origin + Duration::from_secs(passed)).map(|leap| leap.as_secs())
        };
        assert_eq!(look(0, 0), None, "nothing to compare with");
        assert_eq!(look(3_600, 3_600), None);
        assert_eq!(look(3_660, 3_630), None, "half a minute is no leap");
        assert_eq!(look(3_690 + 34_560_000, 3_660), Some(34_560_000));
        assert_eq!(look(3_720, 3_690), Some(-34_560_000));
        assert_eq!(look(3_750, 3_720), None);
    }
}
