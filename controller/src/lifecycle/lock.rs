//! The issuance lock (features.md C11): a second order for what was just issued spends the CA's limits and gains nothing.
//! Only an operator's wish for an unchanged, healthy version meets it; whatever has a reason of its own does not. Pure;
//! called by `rpc`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::certificate::Certificate;
use super::order::{Order, Phase};
use super::renewal::{life, planned, reasons};
use super::renewal_info::RenewalInfo;

/// C11: a third of the lifetime.
const SHARE: f64 = 1.0 / 3.0;

/// The lock holds while more than this share of the lifetime is left: between 0 and 1, and 1 never locks.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
pub struct LockShare(f64);

impl Default for LockShare {
    fn default() -> Self {
        Self(SHARE)
    }
}

impl TryFrom<f64> for LockShare {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, Self::Error> {
        if (0.0..=1.0).contains(&share) { Ok(Self(share)) } else { Err(format!("{share} is not between 0 and 1")) }
    }
}

/// Returns when an operator may order without a reason given; `None` while nothing is locked.
#[must_use]
pub fn opens_at(
    certificate: &Certificate,
    info: Option<&RenewalInfo>,
    order: Option<&Order>,
    LockShare(share): LockShare,
    now: Timestamp,
) -> Option<Timestamp> {
    let current = certificate.current.as_ref().filter(|_| !certificate.purging)?;
    let under_way = order.is_some_and(|order| order.phase != Phase::Completed);
    if under_way || reasons(certificate, info, now).iter().any(|line| line.holds) {
        return None;
    }
    let life = life(current, now)?;
    let closed = life.left.saturating_sub(life.whole.mul_f64(share));
    if closed <= Duration::ZERO {
        return None;
    }
    let opens = now.checked_add(SignedDuration::try_from(closed).ok()?).ok()?;
    // When it renews by itself, it is not locked any more.
    Some(planned(certificate, info).map_or(opens, |planned| planned.at.min(opens)))
}

#[cfg(test)]
mod tests {
    use super::super::renewal::Reason;
    use super::super::renewal::tests::certificate;
    use super::*;

    fn at(one: &Certificate, hours: i64) -> Timestamp {
        one.created_at + SignedDuration::from_hours(hours)
    }

    fn locked(one: &Certificate, hours: i64) -> bool {
        opens_at(one, None, None, LockShare::default(), at(one, hours)).is_some()
    }

    #[test]
    fn an_unchanged_healthy_version_is_locked_until_a_third_is_left() {
        let mut one = certificate(90 * 24);
        one.auto_renew = false;
        assert_eq!(
            opens_at(&one, None, None, LockShare::default(), at(&one, 24)).unwrap().as_second(),
            at(&one, 60 * 24).as_second()
        );
        assert!(locked(&one, 59 * 24) && !locked(&one, 61 * 24));
        one.auto_renew = true;
        let planned = planned(&one, None).unwrap().at;
        assert_eq!(opens_at(&one, None, None, LockShare::default(), at(&one, 24)), Some(planned));
        // A short-lived one renews with half of its life left: no lock outlives that.
        assert!(locked(&certificate(160), 1) && !locked(&certificate(160), 81));
    }

    #[test]
    fn whatever_has_a_reason_of_its_own_meets_no_lock() {
        let healthy = certificate(90 * 24);
        assert!(locked(&healthy, 1));
        let broken: [fn(&mut Certificate); 7] = [
            |one| one.current = None,
            |one| one.specification.identifiers.push("b.test".into()),
            |one| one.specification.issuer_id = "other".into(),
            |one| one.current.as_mut().unwrap().key_lost = true,
            |one| one.current.as_mut().unwrap().revoked_at = Some(one.created_at),
            |one| one.current.as_mut().unwrap().not_after = one.created_at,
            |one| one.renew_asked_at = Some(one.created_at),
        ];
        for (index, breaks) in broken.into_iter().enumerate() {
            let mut one = healthy.clone();
            breaks(&mut one);
            assert!(!locked(&one, 1), "{index}");
        }
        let mut order = Order::begin(&healthy, "i", Reason::OperatorAsked, None, healthy.created_at);
        let opens = |order: &Order| opens_at(&healthy, None, Some(order), LockShare::default(), at(&healthy, 1));
        assert_eq!(opens(&order), None, "it runs or waits for its next try");
        order.phase = Phase::Completed;
        assert!(opens(&order).is_some());
    }

    #[test]
    fn the_share_is_a_fraction() {
        let one = certificate(90 * 24);
        let opens = |share: f64| opens_at(&one, None, None, LockShare::try_from(share).unwrap(), at(&one, 1));
        assert_eq!(opens(1.0), None, "never locked");
        assert!(opens(0.9).unwrap() < opens(0.5).unwrap());
        for wrong in [-0.1, 1.1, 30.0, f64::NAN, f64::INFINITY] {
            LockShare::try_from(wrong).unwrap_err();
        }
    }
}
