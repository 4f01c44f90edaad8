//! PURE: files that are no longer as this agent wrote them: what is told, when they are repaired, and when the agent stops because
//! another program writes them as well. Only what was applied drifts: an attempt that failed is tried again anyway.
//!
//! ```text
//!  as written ──look finds another──▶ open ──target says repair──▶ Wait ──▶ Repair (the ordinary road) ──▶ ended
//!       ▲                              │ └──target says show, paused, or in the way of a repair──▶ Keep
//!       └───── a look finds it right ──┘
//!  open again and again: 2 s, 1 min, 5 min, 15 min before each repair, then Keep: an operator must look
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::types::v1::TargetStatus;
use serde::{Deserialize, Serialize};

use super::{Outcome, Status};
use crate::problem::Problem;
use crate::target::{OnDrift, Target};

/// Rests before the repairs of a row. The first lets the report of what was there leave before; the others are those of a target
/// that fails (`plan::RETRY_SECONDS`): whoever writes against us runs every few minutes or more often.
const REPAIR_SECONDS: [u64; 4] = [2, 60, 300, 900];
/// A drift that comes later than this after the one before has nothing to do with it. Jobs of one day are one row: certbot looks twice
/// a day, configuration management every half hour.
const CALM: SignedDuration = SignedDuration::from_hours(25);
/// First rest before a target that changes again and again is looked at once more; it grows.
const LOOK_REST: Duration = Duration::from_millis(200);

/// One file that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// What is different, for people.
    pub(crate) line: String,
    /// Something stands there that the agent does not replace.
    pub(crate) in_the_way: bool,
}

/// The drifts of one target; kept in the ledger with its outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Drift {
    /// What was different at the last drift.
    pub(crate) differences: Vec<Difference>,
    pub(crate) seen_at: Timestamp,
    /// When the files were right again; `None` while they are not.
    pub(crate) ended_at: Option<Timestamp>,
    /// When the first of this row was seen.
    pub(crate) first_at: Timestamp,
    /// Drifts of this row.
    pub(crate) times: u32,
    /// Repairs of this row.
    pub(crate) repairs: u32,
}

/// What to do about a target's drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriftStep {
    Keep,
    Wait(Timestamp),
    Repair,
}

impl Drift {
    pub(crate) fn is_open(&self) -> bool {
        self.ended_at.is_none()
    }

    /// Takes note of what a look found; `None` when that is no news.
    pub(crate) fn seen(before: Option<&Self>, found: &[Difference], now: Timestamp) -> Option<Self> {
        match before {
            Some(open) if open.is_open() && found.is_empty() => Some(Self { ended_at: Some(now), ..open.clone() }),
            Some(open) if open.is_open() && open.differences == found => None,
            // Still the same drift, but the operator must see the whole of it.
            Some(open) if open.is_open() => Some(Self { differences: found.to_vec(), seen_at: now, ..open.clone() }),
            _ if found.is_empty() => None,
            before => {
                let row = before.filter(|before| before.seen_at.duration_until(now) < CALM);
                let row = row.cloned().unwrap_or_else(|| Self { first_at: now, ..Self::default() });
                let times = row.times.saturating_add(1);
                Some(Self { differences: found.to_vec(), seen_at: now, ended_at: None, times, ..row })
            }
        }
    }

    /// What is left of it after an attempt: `None` when an operator asked for that attempt.
    pub(crate) fn after(before: Option<&Outcome>, done: &Outcome) -> Option<Self> {
        let before = before.filter(|before| before.deploy_wish == done.deploy_wish && !done.purged)?;
        let drift = before.drift.clone()?;
        let wrote = done.steps.iter().any(|step| step.name == "write" && step.ok);
        Some(if drift.is_open() && wrote {
            Self { ended_at: Some(done.finished_at), repairs: drift.repairs.saturating_add(1), ..drift }
        } else {
            drift
        })
    }

    /// How long a target that changes again and again is not looked at.
    pub(crate) fn look_rest(&self, jitter: u8) -> Duration {
        super::rest_after(LOOK_REST, self.times, jitter)
    }

    /// The rest before the next repair; `None` once the row is too long.
    fn rest(&self) -> Option<SignedDuration> {
        let seconds = REPAIR_SECONDS.get(usize::try_from(self.repairs).unwrap_or(usize::MAX))?;
        Some(SignedDuration::from_secs(i64::try_from(*seconds).unwrap_or(i64::MAX)))
    }

    fn is_in_the_way(&self) -> bool {
        self.differences.iter().any(|difference| difference.in_the_way)
    }

    fn lines(&self) -> String {
        let lines: Vec<&str> = self.differences.iter().map(|difference| difference.line.as_str()).collect();
        lines.join("; ")
    }
}

/// Decides what to do about the drift of a target that was applied.
pub(crate) fn step(target: &Target, drift: Option<&Drift>, now: Timestamp) -> DriftStep {
    let Some(drift) = drift.filter(|drift| drift.is_open()) else { return DriftStep::Keep };
    // A pause keeps what is there, also when it is wrong.
    if target.on_drift == OnDrift::Show || target.hold || drift.is_in_the_way() {
        return DriftStep::Keep;
    }
    let Some(rest) = drift.rest() else { return DriftStep::Keep };
    match drift.seen_at.checked_add(rest) {
        // Further away than the rest: the clock was ahead when it was written down (reliability.md TM3).
        Ok(at) if now < at && now.duration_until(at) <= rest => DriftStep::Wait(at),
        Ok(_) | Err(_) => DriftStep::Repair,
    }
}

/// Whether a look can find a drift of what this outcome left behind.
pub(crate) fn can_drift(outcome: &Outcome) -> bool {
    matches!(outcome.status, Status::Applied | Status::Unproven) && !outcome.purged
}

/// What is told of a target whose files drifted, in place of its outcome.
pub(crate) fn told(target: &Target, outcome: &Outcome) -> Option<(TargetStatus, Problem)> {
    let drift = outcome.drift.as_ref().filter(|drift| drift.is_open() && can_drift(outcome))?;
    let dir = &target.dir;
    let drifted = |hint: String| {
        let message = format!("files in {dir} are not as the agent wrote them");
        (TargetStatus::Drifted, Problem::new("DRIFTED", message, drift.lines(), hint))
    };
    let kept = format!("what stands there now is kept in {dir}/.certwright");
    Some(if drift.is_in_the_way() {
        drifted("the agent replaces only files and its own links: remove what stands there, or choose other names or another \
                 directory for the target"
            .to_owned())
    } else if target.on_drift == OnDrift::Show {
        drifted(format!(
            "this target only shows it: certwright targets deploy NAME writes the files again, and {kept}; or put them back as \
             they were"
        ))
    } else if drift.rest().is_none() {
        let message = format!("another program writes the files in {dir}: they drifted {} times", drift.times);
        let cause = format!("since {:.0}, and after {} repairs: {}", drift.first_at, drift.repairs, drift.lines());
        let hint = "the agent stopped: find who writes there (certbot, configuration management) and stop it, or give this target \
                    a directory of its own; then: certwright targets deploy NAME";
        (TargetStatus::NeedsOperator, Problem::new("DRIFTS_AGAIN", message, cause, hint))
    } else if target.hold {
        drifted("it is paused: the files are written again once it is resumed".to_owned())
    } else {
        drifted(format!("the agent writes them again by itself, reloads and proves; {kept}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{outcome, target};
    use crate::plan::{Step, TargetStep, next_step};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn found(line: &str) -> Vec<Difference> {
        vec![Difference { line: line.to_owned(), in_the_way: false }]
    }

    fn drifted(drift: Drift) -> Outcome {
        Outcome { drift: Some(drift), ..outcome(&target(), Status::Applied, 1, None) }
    }

    fn repaired(before: &Outcome, second: i64) -> Outcome {
        let step = Step {
            name: "write".into(),
            subject: "/etc/x".into(),
            ok: true,
            exit_status: None,
            output: String::new(),
            took_ms: 1,
        };
        let mut done = outcome(&target(), Status::Applied, 1, None);
        (done.finished_at, done.steps) = (at(second), vec![step]);
        done.drift = Drift::after(Some(before), &done);
        done
    }

    #[test]
    fn a_drift_is_told_and_repaired_after_a_moment() {
        let target = target();
        assert_eq!(Drift::seen(None, &[], at(0)), None);
        let drift = Drift::seen(None, &found("key.pem is missing"), at(0)).unwrap();
        assert_eq!(Drift::seen(Some(&drift), &found("key.pem is missing"), at(1)), None, "no news");
        let outcome = drifted(drift);
        let (status, problem) = told(&target, &outcome).unwrap();
        assert_eq!((status, problem.reason.as_str()), (TargetStatus::Drifted, "DRIFTED"));
        assert_eq!(problem.cause, "key.pem is missing");
        assert!(problem.message.contains("/etc/x") && problem.hint.contains("by itself"), "{problem:?}");
        assert_eq!(next_step(&target, Some(&outcome), at(1)), TargetStep::Wait(at(2)));
        assert_eq!(next_step(&target, Some(&outcome), at(2)), TargetStep::Repair);
        let done = repaired(&outcome, 3);
        assert_eq!((told(&target, &done), next_step(&target, Some(&done), at(9))), (None, TargetStep::Keep));
        assert_eq!(done.drift.unwrap().repairs, 1);
    }

    #[test]
    fn a_target_that_only_shows_or_is_paused_keeps_what_is_there() {
        let open = drifted(Drift::seen(None, &found("key.pem has mode 0644, not 0600"), at(0)).unwrap());
        let shows = Target { on_drift: OnDrift::Show, ..target() };
        assert_eq!(next_step(&shows, Some(&open), at(9_000)), TargetStep::Keep);
        let hint = told(&shows, &open).unwrap().1.hint;
        assert!(hint.contains("targets deploy NAME") && hint.contains("/etc/x/.certwright"), "{hint}");
        let held = Target { hold: true, ..target() };
        assert_eq!(next_step(&held, Some(&open), at(9_000)), TargetStep::Nothing);
        assert!(told(&held, &open).unwrap().1.hint.contains("paused"));
        // Whoever did it undoes it.
        let ended = Drift::seen(open.drift.as_ref(), &[], at(60)).unwrap();
        assert_eq!((ended.ended_at, told(&shows, &drifted(ended))), (Some(at(60)), None));
    }

    #[test]
    fn what_is_no_file_is_never_replaced() {
        let link = Difference { line: "key.pem is a symbolic link".into(), in_the_way: true };
        let open = drifted(Drift::seen(None, &[link], at(0)).unwrap());
        assert_eq!(next_step(&target(), Some(&open), at(9_000)), TargetStep::Keep);
        assert!(told(&target(), &open).unwrap().1.hint.contains("remove what stands there"));
    }

    #[test]
    fn two_writers_back_off_and_end_with_an_operator() {
        let target = target();
        let mut now = 0;
        let mut last = outcome(&target, Status::Applied, 1, None);
        let mut rests = Vec::new();
        loop {
            last.drift = Drift::seen(last.drift.as_ref(), &found("cert.pem was changed"), at(now));
            match next_step(&target, Some(&last), at(now)) {
                TargetStep::Wait(until) => {
                    rests.push(until.as_second() - at(now).as_second());
                    now = until.as_second() - at(0).as_second();
                    assert_eq!(next_step(&target, Some(&last), at(now)), TargetStep::Repair);
                    last = repaired(&last, now);
                    now += 1;
                }
                step => {
                    assert_eq!(step, TargetStep::Keep);
                    break;
                }
            }
        }
        assert_eq!(rests, [2, 60, 300, 900]);
        let (status, problem) = told(&target, &last).unwrap();
        assert_eq!((status, problem.reason.as_str()), (TargetStatus::NeedsOperator, "DRIFTS_AGAIN"));
        assert!(
            problem.message.contains("another program writes") && problem.message.contains("5 times"),
            "{problem:?}"
        );
        assert!(problem.cause.contains("4 repairs") && problem.hint.contains("certbot"), "{problem:?}");
        // A renewal goes through and forgets nothing; an operator's wish begins anew.
        assert_eq!(Drift::after(Some(&last), &repaired(&last, now)).unwrap().times, 5);
        let asked = Outcome { deploy_wish: 1, ..repaired(&last, now) };
        assert_eq!(Drift::after(Some(&last), &asked), None);
    }

    #[test]
    fn a_drift_long_after_another_is_the_first_of_its_row() {
        let first = Drift::seen(None, &found("a was changed"), at(0)).unwrap();
        let ended = Drift { ended_at: Some(at(5)), repairs: 4, ..first };
        let soon = Drift::seen(Some(&ended), &found("a was changed"), at(86_400)).unwrap();
        assert_eq!((soon.times, soon.repairs, soon.first_at), (2, 4, at(0)));
        let late = Drift::seen(Some(&ended), &found("a was changed"), at(90_000)).unwrap();
        assert_eq!((late.times, late.repairs, late.first_at), (1, 0, at(90_000)));
        assert!(soon.look_rest(0) > late.look_rest(0));
    }

    #[test]
    fn a_clock_that_was_ahead_stops_no_repair() {
        let open = drifted(Drift::seen(None, &found("a was changed"), at(86_400)).unwrap());
        assert_eq!(next_step(&target(), Some(&open), at(0)), TargetStep::Repair);
    }
}
