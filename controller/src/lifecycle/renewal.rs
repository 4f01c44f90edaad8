//! When a certificate is ordered, and why: a table of named reasons that reads top to bottom. Called by
//! `lifecycle/order` and by views. It never holds a number of days: lifetimes are measured in fractions.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CurrentVersion, Custody};

/// Renew when this share of the lifetime is left (features.md A13)…
const LEFT_THIRD: i64 = 3;
/// …or this one, for lifetimes shorter than [`SHORT_LIFETIME`].
const LEFT_HALF: i64 = 2;
/// A13: below this lifetime a third would be too late to retry.
const SHORT_LIFETIME: SignedDuration = SignedDuration::from_hours(240);

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

/// Decides whether a new version of `certificate` is due. `key_agent_id` is the agent that would hold the key now.
#[must_use]
pub fn due(certificate: &Certificate, now: Timestamp) -> Due {
    if certificate.purging {
        return Due::Never;
    }
    let Some(current) = &certificate.current else { return Due::Now(Reason::NoVersion) };
    let renew_at = renew_at(current);
    let reasons = [
        (differs(certificate, current), Reason::SpecificationChanged),
        (current.revoked_at.is_some(), Reason::Revoked),
        (current.key_lost, Reason::KeyLost),
        (certificate.auto_renew && renew_at <= now, Reason::LifetimeFraction),
        (certificate.renew_asked_at.is_some(), Reason::OperatorAsked),
    ];
    match reasons.into_iter().find(|(holds, _)| *holds) {
        Some((_, reason)) => Due::Now(reason),
        None if certificate.auto_renew => Due::At(renew_at),
        None => Due::Never,
    }
}

/// Returns when so much of the lifetime has passed that a renewal is due.
#[must_use]
pub fn renew_at(current: &CurrentVersion) -> Timestamp {
    let lifetime = current.not_after.duration_since(current.not_before);
    let left = if lifetime < SHORT_LIFETIME {
        lifetime.as_millis() / i128::from(LEFT_HALF)
    } else {
        lifetime.as_millis() / i128::from(LEFT_THIRD)
    };
    let left = SignedDuration::from_millis(i64::try_from(left).unwrap_or(i64::MAX));
    current.not_after.checked_sub(left).unwrap_or(current.not_before)
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
        || wanted.issuer_id != current.issuer_id
}

#[cfg(test)]
mod tests {
    use super::super::certificate::{Http01, KeyType, Specification};
    use super::*;

    pub(crate) fn certificate(hours: i64) -> Certificate {
        let start = Timestamp::from_second(1_000_000).unwrap();
        Certificate {
            id: "c".into(),
            name: "web".into(),
            specification: Specification {
                identifiers: vec!["a.test".into()],
                issuer_id: "i".into(),
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
                key_lost: false,
                revoked_at: None,
                revoked_reason: None,
            }),
            renew_asked_at: None,
            purging: false,
        }
    }

    #[test]
    fn renews_with_a_third_left_or_a_half_of_a_short_life() {
        for (hours, after) in [(90 * 24, 60 * 24), (45 * 24, 30 * 24), (160, 80)] {
            let certificate = certificate(hours);
            let start = certificate.created_at;
            let renew = start + SignedDuration::from_hours(after);
            assert_eq!(due(&certificate, start), Due::At(renew), "{hours} h");
            assert_eq!(due(&certificate, renew), Due::Now(Reason::LifetimeFraction), "{hours} h");
        }
    }

    #[test]
    fn the_first_reason_that_holds_is_the_reason() {
        let mut one = certificate(90 * 24);
        one.renew_asked_at = Some(one.created_at);
        assert_eq!(due(&one, one.created_at), Due::Now(Reason::OperatorAsked));
        assert_eq!(due(&one, Timestamp::MAX), Due::Now(Reason::LifetimeFraction));
        one.current.as_mut().unwrap().key_lost = true;
        assert_eq!(due(&one, one.created_at), Due::Now(Reason::KeyLost));
        one.current.as_mut().unwrap().revoked_at = Some(one.created_at);
        assert_eq!(due(&one, one.created_at), Due::Now(Reason::Revoked));
        one.specification.identifiers.push("b.test".into());
        assert_eq!(due(&one, one.created_at), Due::Now(Reason::SpecificationChanged));
        one.current = None;
        assert_eq!(due(&one, one.created_at), Due::Now(Reason::NoVersion));
        one.purging = true;
        assert_eq!(due(&one, one.created_at), Due::Never);
    }

    #[test]
    fn without_auto_renew_only_an_operator_or_a_defect_makes_it_due() {
        let mut one = certificate(160);
        one.auto_renew = false;
        assert_eq!(due(&one, Timestamp::MAX), Due::Never);
        one.renew_asked_at = Some(one.created_at);
        assert_eq!(due(&one, Timestamp::MAX), Due::Now(Reason::OperatorAsked));
    }
}
