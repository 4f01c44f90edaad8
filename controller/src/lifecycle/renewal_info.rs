//! What a CA says about when to renew one version (RFC 9773): the window it suggests, the instant drawn in it, and when
//! to ask again. Pure: `tasks/renewal_info` asks, keeps the answer and hands in the random numbers; `lifecycle/renewal`
//! decides by it. A window that makes no sense changes nothing: then the fraction of the lifetime counts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::backoff::{after, ladder};
use super::certificate::CurrentVersion;
use super::problem::Problem;

/// RFC 9773 §4.3.3 lets a client bound what Retry-After says: not more often than this…
const ASK_AGAIN_MIN: Duration = Duration::from_secs(60);
/// …and not less often than this, or a moved window is learned too late.
const ASK_AGAIN_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Without a usable Retry-After; what Let's Encrypt says.
const ASK_AGAIN: Duration = Duration::from_secs(6 * 3_600);
/// The share of a wait that may be added to it, so that what was issued together is not asked about together for ever.
const SPREAD_SHARE: f64 = 0.1;

/// What is known of one version. Key in the store: `certificate_id/version_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalInfo {
    /// Whose version.
    pub certificate_id: String,
    /// Which version.
    pub version_id: String,
    /// The window that stands; none when the CA never told one that makes sense.
    pub window: Option<Window>,
    /// Where the CA explains the window; sanitised.
    pub explanation_url: Option<String>,
    /// When the CA last answered.
    pub answered_at: Option<Timestamp>,
    /// When it is asked again.
    pub ask_at: Timestamp,
    /// Failures to ask since the last answer.
    pub failures: u32,
    /// Why the last question or answer was of no use.
    pub problem: Option<Problem>,
}

/// A suggested window and the instant drawn in it, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its start.
    pub start: Timestamp,
    /// Its end.
    pub end: Timestamp,
    /// When this version is renewed: the same for as long as the window stands.
    pub instant: Timestamp,
}

/// An answer of the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suggestion {
    /// Start of the window.
    pub start: Timestamp,
    /// End of the window.
    pub end: Timestamp,
    /// Where the CA explains it; sanitised.
    pub explanation_url: Option<String>,
    /// When the CA wants to be asked again.
    pub retry_after: Option<Duration>,
}

/// Random numbers between 0 and 1.
#[derive(Clone, Copy, Debug)]
pub struct Draws {
    /// Where in a new window.
    pub instant: f64,
    /// How much is added to a wait.
    pub spread: f64,
}

impl RenewalInfo {
    /// Takes an answer in. A window that stands keeps its instant; a new one gets a new instant; one that makes no sense
    /// for `current` is not believed, and what stood before stands.
    #[must_use]
    pub fn answered(
        earlier: Option<&Self>,
        current: &CurrentVersion,
        (certificate_id, said): (&str, Suggestion),
        now: Timestamp,
        draws: Draws,
    ) -> Self {
        let stands = earlier.and_then(|earlier| earlier.window);
        let problem = nonsense(current, &said);
        let window = match stands {
            _ if problem.is_some() => stands,
            Some(window) if (window.start, window.end) == (said.start, said.end) => Some(window),
            _ => Some(draw(said.start, said.end, now, draws.instant)),
        };
        Self {
            certificate_id: certificate_id.to_owned(),
            version_id: current.version_id.clone(),
            window,
            explanation_url: said.explanation_url,
            answered_at: Some(now),
            ask_at: ask_at(now, said.retry_after.unwrap_or(ASK_AGAIN), draws.spread),
            failures: 0,
            problem,
        }
    }

    /// Takes a failure in: what was known stands.
    #[must_use]
    pub fn failed(
        earlier: Option<&Self>,
        (certificate_id, version_id): (&str, &str),
        (problem, retry_after): (Problem, Option<Duration>),
        now: Timestamp,
        spread: f64,
    ) -> Self {
        let failures = earlier.map_or(0, |earlier| earlier.failures).saturating_add(1);
        let wait = ladder(failures).min(ASK_AGAIN).max(retry_after.unwrap_or_default());
        Self {
            certificate_id: certificate_id.to_owned(),
            version_id: version_id.to_owned(),
            window: earlier.and_then(|earlier| earlier.window),
            explanation_url: earlier.and_then(|earlier| earlier.explanation_url.clone()),
            answered_at: earlier.and_then(|earlier| earlier.answered_at),
            ask_at: ask_at(now, wait, spread),
            failures,
            problem: Some(problem),
        }
    }

    /// Takes note that the CA does not say anything about this version. It is looked at again: it may begin to.
    #[must_use]
    pub fn not_offered((certificate_id, version_id): (&str, &str), now: Timestamp) -> Self {
        Self {
            certificate_id: certificate_id.to_owned(),
            version_id: version_id.to_owned(),
            window: None,
            explanation_url: None,
            answered_at: None,
            ask_at: after(now, ASK_AGAIN_MAX),
            failures: 0,
            problem: None,
        }
    }

    /// Whether the next question was planned by a clock that was far ahead: no wait is that long.
    #[must_use]
    pub fn is_of_the_future(&self, now: Timestamp) -> bool {
        self.ask_at > after(now, ASK_AGAIN_MAX)
    }

    /// Whether the CA moved the renewal: a window stood before, and the instant drawn then is not in the new one.
    #[must_use]
    pub fn moved(&self, earlier: Option<&Self>) -> bool {
        match (earlier.and_then(|earlier| earlier.window), self.window) {
            (Some(old), Some(new)) => old.instant < new.start || new.end < old.instant,
            (None, _) | (_, None) => false,
        }
    }
}

fn ask_at(now: Timestamp, wait: Duration, spread: f64) -> Timestamp {
    let wait = wait.clamp(ASK_AGAIN_MIN, ASK_AGAIN_MAX);
    after(now, (wait + wait.mul_f64(SPREAD_SHARE * spread.clamp(0.0, 1.0))).min(ASK_AGAIN_MAX))
}

fn nonsense(current: &CurrentVersion, said: &Suggestion) -> Option<Problem> {
    let cause = if said.end <= said.start {
        format!("its window ends at {}, which is not after its start at {}", said.end, said.start)
    } else if said.end <= current.not_before {
        format!("its window ends at {}, before the certificate was valid", said.end)
    } else {
        return None;
    };
    let hint = "nothing to do: the certificate is renewed by the share of its life that has passed";
    Some(Problem::new("RENEWAL_WINDOW_UNUSABLE", "the CA suggests a renewal window that makes no sense", cause, hint))
}

/// Draws evenly from what is left of the window: of one that is open already, the part that is past would otherwise fall
/// on this moment for every certificate at once. A window that is over means now (RFC 9773 §4.2).
fn draw(start: Timestamp, end: Timestamp, now: Timestamp, draw: f64) -> Window {
    let from = start.max(now);
    let width = Duration::try_from(end.duration_since(from)).unwrap_or_default();
    let offset = SignedDuration::try_from(width.mul_f64(draw.clamp(0.0, 1.0))).unwrap_or_default();
    let instant = if end <= now { end } else { from.checked_add(offset).unwrap_or(from).min(end) };
    Window { start, end, instant }
}

#[cfg(test)]
mod tests;
