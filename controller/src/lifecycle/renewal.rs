//! When a certificate is ordered, and why: a table of named reasons that reads top to bottom. Called by
//! `lifecycle/order` and by views. It never holds a number of days: lifetimes are measured in fractions.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::backoff::Life;
use super::certificate::{Certificate, CurrentVersion, Custody};
use super::renewal_info::RenewalInfo;

/// Renew when this share of the lifetime is left (features.md A13)…
const LEFT_THIRD: i32 = 3;
/// …or this one, for lifetimes shorter than [`SHORT_LIFETIME`].
const LEFT_HALF: i32 = 2;
/// A13: below this lifetime a third would be too late to retry.
const SHORT_LIFETIME: SignedDuration = SignedDuration::from_hours(240);
/// So much earlier, at most, each certificate has its own time: what was issued together is not renewed together.
/// Let's Encrypt's own windows are a fiftieth wide.
const JITTER_SHARE: i32 = 32;
/// A CA's window is not believed beyond the last such share of the lifetime. The back-off never waits longer than an
/// eighth of what is left, so this much life is room for a dozen more tries.
const LEFT_LAST: i32 = 8;

/// Why a version is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// There is none yet.
    NoVersion,
    /// Names, issuer, key type or custody changed.
    SpecificationChanged,
    /// The current version was revoked.
    Revoked,
    /// The agent lost the key.
    KeyLost,
    /// The instant drawn in the CA's window has passed (RFC 9773).
    RenewalInfo,
    /// Enough of the lifetime has passed.
    LifetimeFraction,
    /// An operator asked.
    OperatorAsked,
}

impl Reason {
    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoVersion => "no_version",
            Self::SpecificationChanged => "specification_changed",
            Self::Revoked => "revoked",
            Self::KeyLost => "key_lost",
            Self::RenewalInfo => "renewal_info",
            Self::LifetimeFraction => "lifetime_fraction",
            Self::OperatorAsked => "operator_asked",
        }
    }
}

/// Whether a new version is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Order now.
    Now(Reason),
    /// Look again then.
    At(Timestamp),
    /// Nothing will make it due by itself.
    Never,
}

/// When a version renews by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// From then on.
    pub at: Timestamp,
    /// What decides.
    pub reason: Reason,
}

/// Decides whether a new version of `certificate` is due. `info` is what the CA says about the current one.
#[must_use]
pub fn due(certificate: &Certificate, info: Option<&RenewalInfo>, now: Timestamp) -> Due {
    if certificate.purging {
        return Due::Never;
    }
    let first = reasons(certificate, info, now).into_iter().find(|line| line.holds);
    match (first, planned(certificate, info)) {
        (Some(line), _) => Due::Now(line.reason),
        (None, Some(planned)) => Due::At(planned.at),
        (None, None) => Due::Never,
    }
}

/// One line of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReasonLine {
    /// Which reason.
    pub reason: Reason,
    /// Whether it holds now.
    pub holds: bool,
    /// When it will, if time alone brings it.
    pub at: Option<Timestamp>,
}

/// The table: the first reason that holds is the reason.
#[must_use]
pub fn reasons(certificate: &Certificate, info: Option<&RenewalInfo>, now: Timestamp) -> [ReasonLine; 7] {
    let current = certificate.current.as_ref();
    let planned = planned(certificate, info);
    let is = |reason, holds| ReasonLine { reason, holds, at: None };
    let passed = |reason| {
        let at = planned.filter(|planned| planned.reason == reason).map(|planned| planned.at);
        ReasonLine { reason, holds: at.is_some_and(|at| at <= now), at }
    };
    [
        is(Reason::NoVersion, current.is_none()),
        is(Reason::SpecificationChanged, current.is_some_and(|current| differs(certificate, current))),
        is(Reason::Revoked, current.is_some_and(|current| current.revoked_at.is_some())),
        is(Reason::KeyLost, current.is_some_and(|current| current.key_lost)),
        passed(Reason::RenewalInfo),
        passed(Reason::LifetimeFraction),
        is(Reason::OperatorAsked, certificate.renew_asked_at.is_some()),
    ]
}

/// Returns when the current version renews by itself, and what decides that; `None` when it never does.
#[must_use]
pub fn planned(certificate: &Certificate, info: Option<&RenewalInfo>) -> Option<Planned> {
    let current = certificate.current.as_ref().filter(|_| certificate.auto_renew && !certificate.purging)?;
    let window = info.filter(|info| info.version_id == current.version_id).and_then(|info| info.window);
    let last = with_left(current, LEFT_LAST);
    Some(match window {
        Some(window) if window.instant <= last => Planned { at: window.instant, reason: Reason::RenewalInfo },
        Some(_) => Planned { at: last, reason: Reason::LifetimeFraction },
        None => Planned { at: fraction_at(&certificate.id, current), reason: Reason::LifetimeFraction },
    })
}

/// Returns when so much of the lifetime has passed that a renewal is due, a little earlier for each certificate by its
/// own measure. The same id and serial always give the same time.
fn fraction_at(certificate_id: &str, current: &CurrentVersion) -> Timestamp {
    let lifetime = lifetime(current);
    let at = with_left(current, if lifetime < SHORT_LIFETIME { LEFT_HALF } else { LEFT_THIRD });
    let digest = Sha256::new().chain_update(certificate_id).chain_update(&current.serial).finalize();
    let mine = u32::from(digest.first().copied().unwrap_or_default()) * 256
        + u32::from(digest.get(1).copied().unwrap_or_default());
    let earlier = (lifetime / JITTER_SHARE).mul_f64(f64::from(mine) / f64::from(u16::MAX));
    at.checked_sub(earlier).unwrap_or(at).max(current.not_before)
}

/// Returns what is left of a version's life; `None` once it expired.
#[must_use]
pub fn life(current: &CurrentVersion, now: Timestamp) -> Option<Life> {
    let left = Duration::try_from(current.not_after.duration_since(now)).ok().filter(|left| !left.is_zero())?;
    Some(Life { left, whole: Duration::try_from(lifetime(current)).unwrap_or_default() })
}

/// Returns the instant at which one `share`th of the lifetime is left.
fn with_left(current: &CurrentVersion, share: i32) -> Timestamp {
    current.not_after.checked_sub(lifetime(current) / share).unwrap_or(current.not_before)
}

fn lifetime(current: &CurrentVersion) -> SignedDuration {
    current.not_after.duration_since(current.not_before)
}

/// Whether the current version answers another specification. Custody `agent` to `controller` and back is a new key.
fn differs(certificate: &Certificate, current: &CurrentVersion) -> bool {
    let wanted = &certificate.specification;
    let custody_differs = match (wanted.custody, current.custody) {
        (Custody::Agent, Custody::Agent) | (Custody::Controller, Custody::Controller) => false,
        (Custody::Agent, Custody::Controller) | (Custody::Controller, Custody::Agent) => true,
    };
    custody_differs
        || wanted.identifiers != current.identifiers
        || wanted.key_type != current.key_type
        || current.wanted_elsewhere(wanted)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::certificate::{Http01, KeyType, Specification};
    use super::super::renewal_info::Window;
    use super::*;

    pub(crate) fn certificate(hours: i64) -> Certificate {
        let start = Timestamp::from_second(1_000_000).unwrap();
        Certificate {
            id: "c".into(),
            name: "web".into(),
            specification: Specification {
                identifiers: vec!["a.test".into()],
                issuer_id: "i".into(),
                fallback_ids: vec![],
                profile: None,
                reuse_key: false,
                key_type: KeyType::P256,
                custody: Custody::Agent,
                http01: Http01::Standalone(80),
                responders: vec![],
            },
            auto_renew: true,
            created_at: start,
            current: Some(CurrentVersion {
                version_id: "v".into(),
                serial: "01".into(),
                fingerprint_sha256: "ff".into(),
                not_before: start,
                not_after: start + SignedDuration::from_hours(hours),
                issuer_cn: "CA".into(),
                custody: Custody::Agent,
                key_slot_id: "k".into(),
                identifiers: vec!["a.test".into()],
                key_type: KeyType::P256,
                issuer_id: "i".into(),
                profile: None,
                wanted: None,
                key_lost: false,
                revoked_at: None,
                revoked_reason: None,
            }),
            renew_asked_at: None,
            rekey_asked: false,
            purging: false,
            paused: None,
            rollback: None,
            delivery: crate::lifecycle::rollout::Delivery::default(),
        }
    }

    fn window(start: i64, end: i64, instant: i64) -> RenewalInfo {
        let hour = |hour: i64| Timestamp::from_second(1_000_000 + hour * 3_600).unwrap();
        RenewalInfo {
            certificate_id: "c".into(),
            version_id: "v".into(),
            window: Some(Window { start: hour(start), end: hour(end), instant: hour(instant) }),
            explanation_url: None,
            answered_at: None,
            ask_at: hour(0),
            failures: 0,
            problem: None,
        }
    }

    fn at(certificate: &Certificate) -> Timestamp {
        planned(certificate, None).unwrap().at
    }

    #[test]
    fn renews_with_a_third_left_or_a_half_of_a_short_life() {
        for (hours, after) in [(90 * 24, 60 * 24), (64 * 24, 64 * 16), (45 * 24, 30 * 24), (160, 80)] {
            let certificate = certificate(hours);
            let start = certificate.created_at;
            let latest = start + SignedDuration::from_hours(after);
            let renew = at(&certificate);
            assert!(renew <= latest && renew >= latest - SignedDuration::from_hours(hours) / 32, "{hours} h");
            assert_eq!(due(&certificate, None, start), Due::At(renew), "{hours} h");
            assert_eq!(due(&certificate, None, renew), Due::Now(Reason::LifetimeFraction), "{hours} h");
        }
    }

    #[test]
    fn what_was_issued_together_is_spread_the_same_way_every_time() {
        let mut one = certificate(90 * 24);
        let times: std::collections::BTreeSet<Timestamp> = (0..1000)
            .map(|number| {
                one.id = format!("certificate-{number}");
                assert_eq!(at(&one), at(&one));
                at(&one)
            })
            .collect();
        let width = times.last().unwrap().duration_since(*times.first().unwrap());
        assert!(times.len() > 980 && width > SignedDuration::from_hours(60), "{} {width}", times.len());
    }

    #[test]
    fn the_cas_window_decides_before_the_fraction_does() {
        let one = certificate(90 * 24);
        let early = window(100, 200, 150);
        let instant = early.window.unwrap().instant;
        assert_eq!(due(&one, Some(&early), one.created_at), Due::At(instant));
        assert_eq!(due(&one, Some(&early), instant), Due::Now(Reason::RenewalInfo));
        let late = window(1500, 1600, 1550);
        assert_eq!(due(&one, Some(&late), at(&one)), Due::At(late.window.unwrap().instant), "later than the fraction");
        let of_another = RenewalInfo { version_id: "old".into(), ..early };
        assert_eq!(due(&one, Some(&of_another), one.created_at), Due::At(at(&one)));
        let none = RenewalInfo { window: None, ..late };
        assert_eq!(due(&one, Some(&none), one.created_at), Due::At(at(&one)));
    }

    #[test]
    fn no_window_puts_a_renewal_off_beyond_the_last_eighth() {
        let one = certificate(80 * 24);
        for late in [window(1900, 1910, 1905), window(5_000, 6_000, 5_500)] {
            let last = one.created_at + SignedDuration::from_hours(70 * 24);
            assert_eq!(due(&one, Some(&late), one.created_at), Due::At(last));
            assert_eq!(due(&one, Some(&late), last), Due::Now(Reason::LifetimeFraction));
        }
    }

    #[test]
    fn odd_validities_do_no_harm() {
        let mut one = certificate(24);
        for (from, to) in [(Timestamp::MIN, Timestamp::MAX), (Timestamp::UNIX_EPOCH, Timestamp::MAX)] {
            let current = one.current.as_mut().unwrap();
            (current.not_before, current.not_after) = (from, to);
            assert!(at(&one) < to);
        }
        let current = one.current.as_mut().unwrap();
        (current.not_before, current.not_after) = (Timestamp::MAX, Timestamp::MIN);
        assert!(matches!(due(&one, None, Timestamp::UNIX_EPOCH), Due::Now(_) | Due::At(_)));
    }

    #[test]
    fn the_first_reason_that_holds_is_the_reason() {
        let mut one = certificate(90 * 24);
        one.renew_asked_at = Some(one.created_at);
        assert_eq!(due(&one, None, one.created_at), Due::Now(Reason::OperatorAsked));
        assert_eq!(due(&one, None, Timestamp::MAX), Due::Now(Reason::LifetimeFraction));
        assert_eq!(due(&one, Some(&window(0, 1, 1)), Timestamp::MAX), Due::Now(Reason::RenewalInfo));
        one.current.as_mut().unwrap().key_lost = true;
        assert_eq!(due(&one, None, one.created_at), Due::Now(Reason::KeyLost));
        one.current.as_mut().unwrap().revoked_at = Some(one.created_at);
        assert_eq!(due(&one, None, one.created_at), Due::Now(Reason::Revoked));
        one.specification.identifiers.push("b.test".into());
        assert_eq!(due(&one, None, one.created_at), Due::Now(Reason::SpecificationChanged));
        one.current = None;
        assert_eq!(due(&one, None, one.created_at), Due::Now(Reason::NoVersion));
        one.purging = true;
        assert_eq!(due(&one, None, one.created_at), Due::Never);
    }

    #[test]
    fn without_auto_renew_only_an_operator_or_a_defect_makes_it_due() {
        let mut one = certificate(160);
        one.auto_renew = false;
        assert_eq!(due(&one, None, Timestamp::MAX), Due::Never);
        one.renew_asked_at = Some(one.created_at);
        assert_eq!(due(&one, None, Timestamp::MAX), Due::Now(Reason::OperatorAsked));
    }
}
