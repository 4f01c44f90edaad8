//! Pause: a certificate, or everything, that an operator holds still (features.md C15, O10). Nothing is ordered and nothing
//! is deployed until it is lifted; what is served goes on being served. Called by `lifecycle/order`, `tasks` and `rpc`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::job::{Progress, State};
use super::problem::Problem;
use super::restore::RESTORE;

/// Longest reason kept, characters.
pub const REASON_CHARS_MAX: usize = 200;

/// Who holds something still, since when and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// Why; sanitised, may be empty for one certificate.
    pub reason: String,
}

/// The kill switch. Key in the store: a constant; absent until it was used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseAll {
    /// Set while everything is paused.
    pub pause: Option<Pause>,
}

/// The pause that holds a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// Everything is paused.
    All(&'a Pause),
    /// Only this certificate is.
    Certificate(&'a Pause),
}

/// Returns the pause that holds `certificate`; `all` is the kill switch, which stands above it.
#[must_use]
pub fn held<'a>(certificate: &'a Certificate, all: Option<&'a Pause>) -> Option<Held<'a>> {
    all.map(Held::All).or_else(|| certificate.paused.as_ref().map(Held::Certificate))
}

impl Held<'_> {
    /// Returns the pause itself.
    #[must_use]
    pub fn pause(&self) -> &Pause {
        match self {
            Self::All(pause) | Self::Certificate(pause) => pause,
        }
    }

    /// Returns the pause for people; `name` is the certificate that waits.
    #[must_use]
    pub fn problem(&self, name: &str) -> Problem {
        let (what, hint) = match self {
            Self::All(pause) if pause.by == RESTORE => (
                "everything is held still".to_owned(),
                "certwright restore status, then certwright restore accept".to_owned(),
            ),
            Self::All(_) => ("everything is paused".to_owned(), "certwright resume --all".to_owned()),
            Self::Certificate(_) => (format!("{name} is paused"), format!("certwright certs resume {name}")),
        };
        let Pause { at, by, reason } = self.pause();
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let cause = format!("paused by {by} since {at:.0}{why}");
        Problem::new("PAUSED", format!("{what}: nothing is ordered and nothing is deployed"), cause, hint)
    }
}

/// Returns how far a job is while `held`: what is not over waits for the pause to be lifted.
#[must_use]
pub fn over(progress: Progress, held: Option<Held<'_>>, name: &str) -> Progress {
    match held {
        Some(held) if !progress.state.is_final() => {
            Progress { state: State::Waiting, phase: "paused", retry_at: None, problem: Some(held.problem(name)) }
        }
        Some(_) | None => progress,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::renewal::tests::certificate;

    fn pause(reason: &str) -> Pause {
        Pause { at: Timestamp::UNIX_EPOCH, by: "local:root".into(), reason: reason.into() }
    }

    #[test]
    fn the_kill_switch_stands_above_the_pause_of_one() {
        let (all, own) = (pause("the CA is broken"), pause(""));
        let mut one = certificate(90 * 24);
        assert_eq!(held(&one, None), None);
        one.paused = Some(own.clone());
        assert_eq!(held(&one, None), Some(Held::Certificate(&own)));
        assert_eq!(held(&one, Some(&all)), Some(Held::All(&all)));
        let problem = Held::All(&all).problem("web");
        assert_eq!(problem.hint, "certwright resume --all");
        assert_eq!(problem.cause, "paused by local:root since 1970-01-01T00:00:00Z: the CA is broken");
        let problem = Held::Certificate(&own).problem("web");
        assert_eq!(
            (problem.hint.as_str(), problem.message.starts_with("web is paused")),
            ("certwright certs resume web", true)
        );
    }

    #[test]
    fn only_what_is_not_over_waits_for_the_pause() {
        let all = pause("x");
        let at = |state| Progress { state, phase: "ordering", retry_at: None, problem: None };
        assert_eq!(over(at(State::Running), Some(Held::All(&all)), "web").phase, "paused");
        assert_eq!(over(at(State::Running), Some(Held::All(&all)), "web").state, State::Waiting);
        assert_eq!(over(at(State::Succeeded), Some(Held::All(&all)), "web"), at(State::Succeeded));
        assert_eq!(over(at(State::Running), None, "web"), at(State::Running));
    }
}
