//! An operator's act on many certificates (features.md C12): one parent job with a sub-job for each. What is passed over,
//! and why; how far the whole is; how it ended. Pure; called by `rpc` and `tasks/batches`.

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::job::{Kind, Progress, State};
use super::lock::{self, LockShare};
use super::order::{Order, Phase};
use super::problem::Problem;
use super::renewal_info::RenewalInfo;
use super::revocation::RevocationReason;

/// Most certificates of one act: their ids are stored in one row, of at most 1 MiB.
pub const MEMBERS_MAX: usize = 20_000;
/// Most certificates that are named as passed over; the rest is counted.
pub const SKIPPED_KEPT: usize = 200;

/// What is done to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// A new version.
    Renew,
    /// A new version with a new key, also where the key is pinned.
    Rekey,
    /// The current version is revoked.
    Revoke,
}

/// The part of a parent job that other jobs do not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// What is done.
    pub act: Act,
    /// How the certificates were picked, for people.
    pub selection: String,
    /// How many were picked and not passed over.
    pub total: usize,
    /// How many of them were looked at, from the front: each is a sub-job or was passed over after all.
    pub made: usize,
    /// The first that were passed over.
    pub skipped: Vec<Skipped>,
    /// How many were.
    pub skipped_total: usize,
    /// Why the lock is overridden; empty respects it.
    pub override_lock: String,
    /// Why, in `Revoke`.
    pub reason: Option<RevocationReason>,
    /// Set once it was cancelled.
    pub cancelled: Option<Cancelled>,
}

/// Who cancelled it, when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancelled {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What had not begun was unasked.
    pub unasked: bool,
}

/// One certificate that is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Its name.
    pub name: String,
    /// Why.
    pub skip: Skip,
}

/// The certificates of a parent job, in their order. Key in the store: the job's id. Written once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// Whose.
    pub job_id: String,
    /// Ids of certificates.
    pub certificate_ids: Vec<String>,
}

/// Why a certificate is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// A purge waits for its targets.
    Deleting,
    /// It was deleted since it was picked.
    Deleted,
    /// It is paused, or everything is.
    Paused,
    /// Its issuer is not known any more.
    NoIssuer,
    /// An order for it is under way, or asked for already.
    UnderWay,
    /// The issuance lock holds until then.
    Locked(Timestamp),
    /// Nothing was issued that could be revoked.
    NoVersion,
    /// It is revoked already.
    Revoked,
    /// It is no longer valid anyway.
    Expired,
}

impl Act {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Renew => "renew",
            Self::Rekey => "rekey",
            Self::Revoke => "revoke",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Renew, Self::Rekey, Self::Revoke].into_iter().find(|act| act.word() == word)
    }

    /// The act that does once more what a job failed to do.
    #[must_use]
    pub fn of(kind: Kind) -> Option<Self> {
        match kind {
            Kind::Issue | Kind::Renew => Some(Self::Renew),
            Kind::Rekey => Some(Self::Rekey),
            Kind::Revoke => Some(Self::Revoke),
            Kind::Deploy => None,
        }
    }

    /// The kind of a parent job.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Renew => Kind::Renew,
            Self::Rekey => Kind::Rekey,
            Self::Revoke => Kind::Revoke,
        }
    }
}

impl Skip {
    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Deleting => "deleting",
            Self::Deleted => "deleted",
            Self::Paused => "paused",
            Self::NoIssuer => "no_issuer",
            Self::UnderWay => "under_way",
            Self::Locked(_) => "locked",
            Self::NoVersion => "no_version",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// Why, for people.
    #[must_use]
    pub fn why(self) -> String {
        match self {
            Self::Deleting => "it is being purged".to_owned(),
            Self::Deleted => "it was deleted".to_owned(),
            Self::Paused => "it is paused".to_owned(),
            Self::NoIssuer => "its issuer is gone".to_owned(),
            Self::UnderWay => "an order for it is under way".to_owned(),
            Self::Locked(until) => format!("locked until {}", until.round(Unit::Second).unwrap_or(until)),
            Self::NoVersion => "it has no version".to_owned(),
            Self::Revoked => "it is revoked already".to_owned(),
            Self::Expired => "it has expired".to_owned(),
        }
    }
}

/// What the decision about one certificate needs.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The certificate.
    pub certificate: &'a Certificate,
    /// What the CA says about renewing its current version.
    pub renewal_info: Option<&'a RenewalInfo>,
    /// Its latest order.
    pub order: Option<&'a Order>,
    /// A pause holds it.
    pub paused: bool,
    /// Its first issuer exists.
    pub issuer_known: bool,
    /// When an operator's order is locked; `None` overrides the lock.
    pub lock: Option<LockShare>,
}

/// Returns why a certificate is passed over; `None` when it is not.
#[must_use]
pub fn skip(act: Act, facts: Facts<'_>, now: Timestamp) -> Option<Skip> {
    let Facts { certificate, order, .. } = facts;
    let runs = order.filter(|order| !matches!(order.phase, Phase::Completed | Phase::Waiting | Phase::Failed));
    let locked = || lock::opens_at(certificate, facts.renewal_info, order, facts.lock?, now);
    let current = certificate.current.as_ref();
    match act {
        Act::Revoke if current.is_none() => Some(Skip::NoVersion),
        Act::Revoke if current.is_some_and(|current| current.revoked_at.is_some()) => Some(Skip::Revoked),
        Act::Revoke if current.is_some_and(|current| current.not_after <= now) => Some(Skip::Expired),
        Act::Revoke => None,
        Act::Renew | Act::Rekey if certificate.purging => Some(Skip::Deleting),
        Act::Renew | Act::Rekey if facts.paused => Some(Skip::Paused),
        Act::Renew | Act::Rekey if !facts.issuer_known => Some(Skip::NoIssuer),
        // An order that is under way may be for the very key that must go: only one for a new key will do.
        Act::Rekey => (certificate.rekey_asked || runs.is_some_and(|order| order.new_key)).then_some(Skip::UnderWay),
        Act::Renew if runs.is_some() || certificate.renew_asked_at.is_some() => Some(Skip::UnderWay),
        Act::Renew => locked().map(Skip::Locked),
    }
}

/// How many sub-jobs are where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not ended.
    pub open: usize,
    /// Done.
    pub succeeded: usize,
    /// Done in part.
    pub partial: usize,
    /// Not done.
    pub failed: usize,
    /// Unasked before they began.
    pub cancelled: usize,
}

impl Batch {
    /// Takes note of one that is passed over.
    pub fn pass_over(&mut self, name: &str, skip: Skip) {
        if self.skipped.len() < SKIPPED_KEPT {
            self.skipped.push(Skipped { name: name.to_owned(), skip });
        }
        self.skipped_total = self.skipped_total.saturating_add(1);
    }

    /// Whether no further sub-job will be made.
    #[must_use]
    pub fn is_made(&self) -> bool {
        self.made >= self.total || self.cancelled.is_some()
    }

    /// Whether nothing but the end of its sub-jobs is waited for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.is_made() && self.cancelled.as_ref().is_none_or(|cancelled| cancelled.unasked)
    }

    /// Returns how far it is.
    #[must_use]
    pub fn progress(&self, id: &str, counts: Counts) -> Progress {
        if !self.is_asked() || counts.open > 0 {
            let phase = match (&self.cancelled, self.is_made()) {
                (Some(_), _) => "cancelling",
                (None, false) => "asking",
                (None, true) => "running",
            };
            return Progress { state: State::Running, phase, retry_at: None, problem: None };
        }
        let bad = counts.failed + counts.partial;
        let state = match (&self.cancelled, counts.succeeded, bad) {
            (Some(_), _, _) => State::Cancelled,
            (None, _, 0) => State::Succeeded,
            (None, 0, _) if counts.partial == 0 => State::Failed,
            (None, _, _) => State::Partial,
        };
        let problem = (bad > 0).then(|| problem(id, counts));
        Progress { state, phase: "completed", retry_at: None, problem }
    }
}

fn problem(id: &str, counts: Counts) -> Problem {
    let ended = counts.succeeded + counts.partial + counts.failed;
    let message = format!("{} of {ended} did not succeed", counts.failed + counts.partial);
    let cause = format!("{} failed, {} deployed in part only", counts.failed, counts.partial);
    let hint =
        format!("certwright jobs get {id} says which and why; certwright jobs retry {id} does the failed ones again");
    Problem::new("BATCH_NOT_WHOLE", message, cause, hint)
}

#[cfg(test)]
mod tests {
    use super::super::renewal::Reason;
    use super::super::renewal::tests::certificate;
    use super::*;
    use jiff::SignedDuration;

    fn check(act: Act, facts: Facts<'_>, expected: Option<&str>) {
        let now = facts.certificate.created_at + SignedDuration::from_hours(1);
        let found = skip(act, facts, now);
        assert_eq!(found.map(Skip::word), expected, "{act:?} {facts:?}");
        assert!(found.is_none_or(|skip| !skip.why().is_empty()));
    }

    fn facts(certificate: &Certificate) -> Facts<'_> {
        let lock = Some(LockShare::default());
        Facts { certificate, renewal_info: None, order: None, paused: false, issuer_known: true, lock }
    }

    #[test]
    fn each_that_is_passed_over_has_its_reason() {
        let healthy = certificate(90 * 24);
        check(Act::Renew, facts(&healthy), Some("locked"));
        check(Act::Renew, Facts { lock: None, ..facts(&healthy) }, None);
        for act in [Act::Renew, Act::Rekey] {
            check(act, facts(&Certificate { purging: true, ..healthy.clone() }), Some("deleting"));
            check(act, Facts { paused: true, ..facts(&healthy) }, Some("paused"));
            check(act, Facts { issuer_known: false, ..facts(&healthy) }, Some("no_issuer"));
        }
        let asked = Certificate { renew_asked_at: Some(healthy.created_at), ..healthy.clone() };
        check(Act::Renew, facts(&asked), Some("under_way"));
        check(Act::Rekey, facts(&asked), None);
        check(Act::Rekey, facts(&Certificate { rekey_asked: true, ..asked }), Some("under_way"));
        check(Act::Renew, facts(&Certificate { current: None, ..healthy.clone() }), None);
    }

    #[test]
    fn a_lock_never_stands_before_a_new_key_nor_an_old_order() {
        let healthy = certificate(90 * 24);
        check(Act::Rekey, facts(&healthy), None);
        let mut order = Order::begin(&healthy, "i", Reason::OperatorAsked, None, healthy.created_at);
        check(Act::Renew, Facts { order: Some(&order), ..facts(&healthy) }, Some("under_way"));
        check(Act::Rekey, Facts { order: Some(&order), ..facts(&healthy) }, None);
        order.new_key = true;
        check(Act::Rekey, Facts { order: Some(&order), ..facts(&healthy) }, Some("under_way"));
        // It waits for its next try: asked for again it goes on at once.
        order.phase = Phase::Waiting;
        check(Act::Renew, Facts { order: Some(&order), ..facts(&healthy) }, None);
        check(Act::Rekey, Facts { order: Some(&order), ..facts(&healthy) }, None);
    }

    #[test]
    fn only_what_is_valid_is_revoked_and_no_pause_holds_that() {
        let healthy = certificate(90 * 24);
        check(Act::Revoke, Facts { paused: true, ..facts(&healthy) }, None);
        check(Act::Revoke, facts(&Certificate { current: None, ..healthy.clone() }), Some("no_version"));
        let mut one = healthy.clone();
        one.current.as_mut().unwrap().revoked_at = Some(one.created_at);
        check(Act::Revoke, facts(&one), Some("revoked"));
        let mut one = healthy;
        one.current.as_mut().unwrap().not_after = one.created_at;
        check(Act::Revoke, facts(&one), Some("expired"));
    }

    #[test]
    fn a_parent_ends_with_the_last_of_its_sub_jobs() {
        let mut batch = Batch {
            act: Act::Renew,
            selection: String::new(),
            total: 3,
            made: 2,
            skipped: Vec::new(),
            skipped_total: 0,
            override_lock: String::new(),
            reason: None,
            cancelled: None,
        };
        let check = |batch: &Batch, counts: Counts, state: State, phase: &str| {
            let progress = batch.progress("j1", counts);
            assert_eq!((progress.state, progress.phase), (state, phase), "{batch:?} {counts:?}");
            assert_eq!(progress.problem.is_some(), phase == "completed" && counts.failed + counts.partial > 0);
        };
        let all = Counts { succeeded: 3, ..Counts::default() };
        check(&batch, Counts { succeeded: 2, ..Counts::default() }, State::Running, "asking");
        batch.made = 3;
        check(&batch, Counts { open: 1, succeeded: 2, ..Counts::default() }, State::Running, "running");
        check(&batch, all, State::Succeeded, "completed");
        check(&batch, Counts { succeeded: 2, failed: 1, ..Counts::default() }, State::Partial, "completed");
        check(&batch, Counts { partial: 1, failed: 2, ..Counts::default() }, State::Partial, "completed");
        check(&batch, Counts { failed: 3, ..Counts::default() }, State::Failed, "completed");
        batch.made = 1;
        batch.cancelled = Some(Cancelled { at: Timestamp::UNIX_EPOCH, by: "x".into(), unasked: false });
        check(&batch, Counts { succeeded: 1, ..Counts::default() }, State::Running, "cancelling");
        batch.cancelled.as_mut().unwrap().unasked = true;
        check(&batch, Counts { open: 1, ..Counts::default() }, State::Running, "cancelling");
        check(&batch, Counts { succeeded: 1, ..Counts::default() }, State::Cancelled, "completed");
    }

    #[test]
    fn those_passed_over_are_counted_and_the_first_are_named() {
        let mut batch: Batch = serde_json::from_value(serde_json::json!({
            "act": "rekey", "selection": "", "total": 0, "made": 0, "skipped": [], "skipped_total": 0,
            "override_lock": "", "reason": null, "cancelled": null
        }))
        .unwrap();
        (0..SKIPPED_KEPT + 5).for_each(|number| batch.pass_over(&number.to_string(), Skip::Paused));
        assert_eq!((batch.skipped.len(), batch.skipped_total), (SKIPPED_KEPT, SKIPPED_KEPT + 5));
    }
}
