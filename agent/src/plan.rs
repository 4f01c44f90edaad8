//! PURE: from a target, its last outcome and the time to the single next step. Asks no clock, does no I/O.
//! `net::reconcile` acts on it.
//!
//! ```text
//!            new wish                 every endpoint shows the leaf
//!  Nothing ───────────▶ Apply ──────────────────────────────────────▶ Keep
//!                         ▲  ├── failed, not live ──────────▶ Wait(retry_at) ──┐
//!                         │  └── and others were proven before ▶ RollBack ─────┤
//!                         └──────────────── time reached ◀────────────────────┘
//!  Keep ──files changed on the disk──▶ Wait ──▶ Repair, on the same road (`plan::drift`)
//! ```

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::types::v1::TargetStatus;
use serde::{Deserialize, Serialize};

use crate::problem::Problem;
use crate::target::{StateName, Target};
use drift::{Drift, DriftStep};

pub(crate) mod drift;
pub(crate) mod slots;
pub(crate) mod trial;

/// When a failed target is tried again: 1 min, 5 min, then every 15 min (reliability.md FS3).
const RETRY_SECONDS: [u64; 3] = [60, 300, 900];

/// Longest rest of what is not a target (reliability.md FS3 asks for at most 15 min).
const REST_MAX: Duration = Duration::from_secs(300);
/// Reloads that end well and change nothing, before only a new write or a new wish reloads again.
pub(crate) const RELOADS_MAX: u32 = 3;
/// When a version that was rolled back is tried again: each attempt disturbs a service that works with the version before.
const ROLLED_BACK_RETRY_SECONDS: [u64; 3] = [300, 3_600, 21_600];

/// What came of a target's last attempt; kept in the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Outcome {
    pub(crate) target_id: String,
    /// Digest of the wish that was tried.
    pub(crate) wish: String,
    pub(crate) version_id: String,
    /// The slot whose key this attempt left in the target's files; `None` when nothing was written, or in controller
    /// custody.
    pub(crate) key_slot_id: Option<String>,
    pub(crate) deploy_wish: u64,
    pub(crate) status: Status,
    pub(crate) served_fingerprint_sha256: Option<[u8; 32]>,
    pub(crate) problem: Option<Problem>,
    pub(crate) steps: Vec<Step>,
    pub(crate) started_at: Timestamp,
    pub(crate) finished_at: Timestamp,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) attempt: u32,
    /// Reloads of this wish that ended well since its files were written last.
    pub(crate) reloads: u32,
    pub(crate) purged: bool,
    /// The version before was proven and this one is not: it comes back before anything else is tried.
    pub(crate) roll_back: bool,
    /// Where files were written, so that a name no longer listed can be removed.
    pub(crate) dir: String,
    pub(crate) names: Vec<String>,
    /// What became of the files since they were written.
    pub(crate) drift: Option<Drift>,
}

/// Outcome of the latest attempt, in the ledger's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    #[default]
    Pending,
    Applied,
    Unproven,
    NotLive,
    RolledBack,
    Failed,
}

impl From<Status> for TargetStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Pending => Self::Pending,
            Status::Applied => Self::Applied,
            Status::Unproven => Self::Unproven,
            Status::NotLive => Self::NotLive,
            Status::RolledBack => Self::RolledBack,
            Status::Failed => Self::Failed,
        }
    }
}

/// One step of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) name: String,
    pub(crate) subject: String,
    pub(crate) ok: bool,
    pub(crate) exit_status: Option<i32>,
    pub(crate) output: String,
    pub(crate) took_ms: u64,
}

/// The single next step of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetStep {
    /// No version exists yet, or it is paused.
    Nothing,
    /// The wish was fulfilled.
    Keep,
    /// Write, reload, prove.
    Apply { attempt: u32 },
    /// The same again: the files are no longer as they were written.
    Repair,
    /// Put the files of before back, reload, prove them.
    RollBack,
    /// Remove our files once nothing serves them any more.
    Purge { attempt: u32 },
    /// Not before this instant.
    Wait(Timestamp),
}

/// Decides the next step of one target.
pub(crate) fn next_step(target: &Target, last: Option<&Outcome>, now: Timestamp) -> TargetStep {
    let last = last.filter(|last| last.wish == target.digest());
    // Further away than any rest: the clock was ahead when it was written down (reliability.md TM3).
    let rests = |at: Timestamp, longest| now < at && now.duration_until(at) <= longest;
    let rest = last.and_then(|last| last.retry_at.filter(|at| rests(*at, longest_retry(last.status))));
    // Also while it is paused: a pause keeps what works.
    if last.is_some_and(|last| last.roll_back) {
        return rest.map_or(TargetStep::RollBack, TargetStep::Wait);
    }
    if target.hold || (target.version.is_none() && !target.purge) {
        return TargetStep::Nothing;
    }
    let step = |attempt| if target.purge { TargetStep::Purge { attempt } } else { TargetStep::Apply { attempt } };
    let Some(last) = last else { return step(1) };
    match last.status {
        Status::Applied | Status::Unproven => match drift::step(target, last.drift.as_ref(), now) {
            DriftStep::Keep => TargetStep::Keep,
            DriftStep::Wait(at) => TargetStep::Wait(at),
            DriftStep::Repair => TargetStep::Repair,
        },
        Status::Pending | Status::NotLive | Status::RolledBack | Status::Failed => {
            rest.map_or_else(|| step(last.attempt.saturating_add(1)), TargetStep::Wait)
        }
    }
}

/// How an attempt goes on once the files are in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadStep {
    Reload,
    /// Reload only if an endpoint does not show the leaf yet.
    LookFirst,
    LookOnly,
}

/// Decides whether an attempt reloads: `reloads` ended well since the files were written, and did not make the leaf
/// live. Doing it for ever would drain the workers of a service whose verify endpoint is merely wrong.
pub(crate) fn reload_step(reloads: u32) -> ReloadStep {
    match reloads {
        0 => ReloadStep::Reload,
        1..RELOADS_MAX => ReloadStep::LookFirst,
        RELOADS_MAX.. => ReloadStep::LookOnly,
    }
}

/// What to do with an offered desired state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offer {
    /// It is the one held.
    Same,
    /// Take it.
    Newer,
    /// A lower generation in the same epoch, or a lower epoch: ignore it and say so.
    Older,
}

/// Compares an offered desired state with the one held.
pub(crate) fn judge(held: Option<&StateName>, offered: &StateName) -> Offer {
    match held {
        Some(held) if held == offered => Offer::Same,
        // A restored controller has a higher epoch, and tells nothing before an operator accepted it; whoever has a lower one is
        // the machine that it took the place of.
        Some(held) if (offered.epoch, offered.generation) < (held.epoch, held.generation) => Offer::Older,
        Some(_) | None => Offer::Newer,
    }
}

/// Returns how long a target rests after its n-th failed attempt; `jitter` is in 0..=255 and takes up to a fifth away.
pub(crate) fn retry_after(status: Status, attempt: u32, jitter: u8) -> Duration {
    let ladder = retry_seconds(status);
    let [.., longest] = ladder;
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let seconds = ladder.get(index).copied().unwrap_or(longest);
    Duration::from_millis(seconds * 1000 - seconds * 200 * u64::from(jitter) / 255)
}

fn retry_seconds(status: Status) -> [u64; 3] {
    if status == Status::RolledBack { ROLLED_BACK_RETRY_SECONDS } else { RETRY_SECONDS }
}

fn longest_retry(status: Status) -> SignedDuration {
    let [.., longest] = retry_seconds(status).map(Duration::from_secs);
    SignedDuration::try_from(longest).unwrap_or(SignedDuration::MAX)
}

/// Returns how long a call, a key or a write of the agent's own rests after its n-th failure: `first` doubling to 5 min;
/// `jitter` is in 0..=255 and takes up to a fifth away.
pub(crate) fn rest_after(first: Duration, failures: u32, jitter: u8) -> Duration {
    let rest = first.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(REST_MAX);
    rest - rest * u32::from(jitter) / 255 / 5
}

/// Returns the limit of the wait before the n-th reconnect: 0.5 s doubling to 60 s. The caller draws below it.
pub(crate) fn reconnect_ceiling(attempt: u32) -> Duration {
    Duration::from_millis(500_u64.saturating_mul(1 << attempt.min(7))).min(Duration::from_secs(60))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::target::{OnDrift, Version};

    pub(crate) fn target() -> Target {
        Target {
            id: "t".into(),
            certificate_name: "web".into(),
            identifiers: vec!["a.test".into()],
            version: Some(Version { id: "v1".into(), fingerprint_sha256: [1; 32] }),
            key_slot_id: None,
            dir: "/etc/x".into(),
            files: vec![],
            validate: vec![],
            reload: vec![],
            verify: vec![],
            deploy_wish: 0,
            purge: false,
            rollback: false,
            hold: false,
            on_drift: OnDrift::Repair,
        }
    }

    pub(crate) fn outcome(target: &Target, status: Status, attempt: u32, retry_at: Option<Timestamp>) -> Outcome {
        Outcome {
            target_id: target.id.clone(),
            wish: target.digest(),
            version_id: "v1".into(),
            key_slot_id: None,
            deploy_wish: target.deploy_wish,
            status,
            served_fingerprint_sha256: None,
            problem: None,
            steps: vec![],
            started_at: at(0),
            finished_at: at(0),
            retry_at,
            attempt,
            reloads: 0,
            purged: false,
            roll_back: false,
            dir: target.dir.clone(),
            names: vec![],
            drift: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_pause_begins_nothing_and_is_no_reason_to_deploy_again_once_it_is_lifted() {
        let one = target();
        let held = Target { hold: true, ..one.clone() };
        let check = |last: Option<&Outcome>, step| {
            assert_eq!(next_step(&held, last, at(10_000)), TargetStep::Nothing);
            assert_eq!(next_step(&one, last, at(10_000)), step);
        };
        check(None, TargetStep::Apply { attempt: 1 });
        check(Some(&outcome(&one, Status::Applied, 1, None)), TargetStep::Keep);
        check(Some(&outcome(&one, Status::Failed, 1, Some(at(5)))), TargetStep::Apply { attempt: 2 });
        assert_eq!(held.digest(), one.digest());
    }

    #[test]
    fn without_a_version_there_is_nothing_to_do() {
        let target = Target { version: None, ..target() };
        assert_eq!(next_step(&target, None, at(0)), TargetStep::Nothing);
    }

    #[test]
    fn a_fulfilled_wish_is_kept_until_the_wish_changes() {
        let one = target();
        let done = outcome(&one, Status::Applied, 1, None);
        assert_eq!(next_step(&one, Some(&done), at(0)), TargetStep::Keep);
        let again = Target { deploy_wish: 1, ..one.clone() };
        assert_eq!(next_step(&again, Some(&done), at(0)), TargetStep::Apply { attempt: 1 });
        let purge = Target { purge: true, ..one };
        assert_eq!(next_step(&purge, Some(&done), at(0)), TargetStep::Purge { attempt: 1 });
    }

    #[test]
    fn a_failure_waits_and_then_tries_again() {
        let target = target();
        for status in [Status::Failed, Status::NotLive, Status::Pending] {
            let failed = outcome(&target, status, 2, Some(at(60)));
            assert_eq!(next_step(&target, Some(&failed), at(59)), TargetStep::Wait(at(60)));
            assert_eq!(next_step(&target, Some(&failed), at(60)), TargetStep::Apply { attempt: 3 });
        }
    }

    #[test]
    fn a_clock_that_was_ahead_stops_no_retry() {
        let target = target();
        let retry_at = at(900);
        let failed = outcome(&target, Status::Failed, 3, Some(retry_at));
        for (now, expected) in [
            (0, TargetStep::Wait(retry_at)),
            (-1, TargetStep::Apply { attempt: 4 }),
            (-86_400, TargetStep::Apply { attempt: 4 }),
            (-5 * 31_536_000, TargetStep::Apply { attempt: 4 }),
        ] {
            assert_eq!(next_step(&target, Some(&failed), at(now)), expected, "{now}");
        }
    }

    #[test]
    fn a_reload_that_changes_nothing_is_not_repeated_for_ever() {
        let steps: Vec<ReloadStep> = (0..5).map(reload_step).collect();
        let (reload, first, only) = (ReloadStep::Reload, ReloadStep::LookFirst, ReloadStep::LookOnly);
        assert_eq!(steps, [reload, first, first, only, only]);
    }

    #[test]
    fn retries_back_off_to_a_quarter_of_an_hour_and_to_six_where_each_disturbs_what_works() {
        let seconds = |status| [1, 2, 3, 4, 99].map(|attempt| retry_after(status, attempt, 0).as_secs());
        assert_eq!(seconds(Status::Failed), [60, 300, 900, 900, 900]);
        assert_eq!(seconds(Status::RolledBack), [300, 3_600, 21_600, 21_600, 21_600]);
        assert_eq!(retry_after(Status::NotLive, 1, 255), Duration::from_secs(48));
        for status in [Status::NotLive, Status::RolledBack] {
            let longest = SignedDuration::try_from(retry_after(status, 9, 0)).unwrap();
            assert_eq!(longest, longest_retry(status), "a wait is never longer");
        }
    }

    #[test]
    fn what_was_proven_comes_back_before_anything_else() {
        let mut target = target();
        let failed = Outcome { roll_back: true, ..outcome(&target, Status::NotLive, 2, None) };
        assert_eq!(next_step(&target, Some(&failed), at(0)), TargetStep::RollBack);
        target.hold = true;
        assert_eq!(next_step(&target, Some(&failed), at(0)), TargetStep::RollBack, "also while it is paused");
        let resting = Outcome { retry_at: Some(at(60)), ..failed.clone() };
        assert_eq!(next_step(&target, Some(&resting), at(59)), TargetStep::Wait(at(60)));
        assert_eq!(next_step(&target, Some(&resting), at(60)), TargetStep::RollBack);
        target.hold = false;
        let back = outcome(&target, Status::RolledBack, 2, Some(at(3_600)));
        assert_eq!(next_step(&target, Some(&back), at(3_599)), TargetStep::Wait(at(3_600)));
        assert_eq!(next_step(&target, Some(&back), at(3_600)), TargetStep::Apply { attempt: 3 });
        target.deploy_wish += 1;
        assert_eq!(next_step(&target, Some(&back), at(0)), TargetStep::Apply { attempt: 1 }, "an operator asks");
        assert_eq!(
            next_step(&target, Some(&failed), at(0)),
            TargetStep::Apply { attempt: 1 },
            "another wish is not this one"
        );
    }

    #[test]
    fn rests_grow_to_five_minutes() {
        let seconds = |failures| rest_after(Duration::from_secs(3), failures, 0).as_secs();
        assert_eq!([0, 1, 2, 3, 7, 8, 99].map(seconds), [3, 3, 6, 12, 192, 300, 300]);
        assert_eq!(rest_after(Duration::from_secs(5), 1, 255), Duration::from_secs(4));
    }

    #[test]
    fn reconnects_back_off_to_a_minute() {
        assert_eq!(reconnect_ceiling(0), Duration::from_millis(500));
        assert_eq!(reconnect_ceiling(3), Duration::from_secs(4));
        assert_eq!(reconnect_ceiling(99), Duration::from_secs(60));
    }

    #[test]
    fn a_lower_generation_of_the_same_epoch_is_ignored() {
        let name = |epoch, generation, digest: u8| StateName { epoch, generation, digest: vec![digest] };
        let held = name(7, 5, 1);
        for (offered, expected) in [
            (name(7, 5, 1), Offer::Same),
            (name(7, 5, 2), Offer::Newer),
            (name(7, 6, 1), Offer::Newer),
            (name(7, 4, 1), Offer::Older),
            (name(8, 1, 1), Offer::Newer),
            (name(6, 9, 1), Offer::Older),
        ] {
            assert_eq!(judge(Some(&held), &offered), expected, "{offered:?}");
        }
        assert_eq!(judge(None, &held), Offer::Newer);
    }
}
