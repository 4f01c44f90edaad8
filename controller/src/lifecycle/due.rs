//! Where a certificate stands in the two due indexes: of orders, and of questions to its CA. Pure: a function of its records
//! alone, without the time, so that `store/due` can keep the row in the batch of whatever changes them. Called by `store/due`,
//! `tasks/issuance`, `tasks/renewal_info` and `tasks/proof`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::order::{Order, Phase};
use super::renewal::{self, Due};
use super::renewal_info::RenewalInfo;

/// When something must be done about a certificate by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Then; the least of all instants means at once.
    At(Timestamp),
    /// An order under way, or one that waits for its issuer: what it waits for is no instant in these records. It is looked at
    /// when the controller starts, and now and then.
    Held,
    /// At rest on purpose: without renewal, paused, or until someone acts.
    Rest,
}

impl Place {
    /// Returns when the index brings the certificate again, if it is a time to come.
    #[must_use]
    pub fn to_come(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::At(at) if at > now => Some(at),
            Self::At(_) | Self::Held | Self::Rest => None,
        }
    }
}

/// Where a certificate stands among the orders.
#[must_use]
pub fn of_orders(certificate: &Certificate, info: Option<&RenewalInfo>, order: Option<&Order>) -> Place {
    if certificate.purging {
        return Place::Rest;
    }
    let is_paused = certificate.paused.is_some();
    let Some(order) = order.filter(|order| order.phase != Phase::Completed) else {
        // In the least of all instants only what is due whatever the time is due.
        return match renewal::due(certificate, info, Timestamp::MIN) {
            _ if is_paused => Place::Rest,
            Due::Now(_) => Place::At(Timestamp::MIN),
            Due::At(at) => Place::At(at),
            Due::Never => Place::Rest,
        };
    };
    match order.phase {
        Phase::Waiting | Phase::Failed if is_paused => Place::Rest,
        _ if certificate.renew_asked_at.is_some() && !is_paused => Place::At(Timestamp::MIN),
        Phase::Failed | Phase::Completed => Place::Rest,
        Phase::Waiting if order.waits_for_issuer => Place::Held,
        Phase::Waiting => Place::At(order.retry_at.unwrap_or(Timestamp::MIN)),
        Phase::Starting
        | Phase::Checking
        | Phase::Ordering
        | Phase::Publishing
        | Phase::Validating
        | Phase::Finalizing => Place::Held,
    }
}

/// Where a certificate stands among the questions to its CA.
#[must_use]
pub fn of_questions(certificate: &Certificate, info: Option<&RenewalInfo>) -> Place {
    let current = certificate.current.as_ref().filter(|_| certificate.auto_renew && !certificate.purging);
    match (current, info) {
        (None, _) => Place::Rest,
        (Some(current), Some(info)) if info.version_id == current.version_id => Place::At(info.ask_at),
        (Some(_), _) => Place::At(Timestamp::MIN),
    }
}

/// What says how urgent a look is, without the records: kept in the index beside each certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Urgency {
    /// When the life of the current version began and ends; none when there is no version.
    pub life: Option<(Timestamp, Timestamp)>,
    /// An operator waits for it.
    pub asked: bool,
}

impl Urgency {
    /// Returns what counts of a certificate.
    #[must_use]
    pub fn of(certificate: &Certificate) -> Self {
        let life = certificate.current.as_ref().map(|current| (current.not_before, current.not_after));
        Self { life, asked: certificate.renew_asked_at.is_some() }
    }

    /// Returns how urgent it is, 0 most: the thousandths of its life that are left. What has no version, or is waited for by
    /// an operator, comes behind what is in its last eighth and before the rest.
    #[must_use]
    pub fn at(self, now: Timestamp) -> u32 {
        const THOUSAND: u32 = 1_000;
        const WAITED_FOR: u32 = THOUSAND / 8;
        let Some((not_before, not_after)) = self.life else { return WAITED_FOR };
        let left = not_after.duration_since(now).as_millis().max(0);
        let whole = not_after.duration_since(not_before).as_millis().max(1);
        let left = u32::try_from(left.saturating_mul(i128::from(THOUSAND)) / whole).unwrap_or(THOUSAND).min(THOUSAND);
        if self.asked { left.min(WAITED_FOR) } else { left }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::pause::Pause;
    use super::super::problem::Problem;
    use super::super::renewal::Reason;
    use super::super::renewal::tests::certificate;
    use super::*;

    fn hour(hour: i64) -> Timestamp {
        certificate(1).created_at + SignedDuration::from_hours(hour)
    }

    fn paused() -> Option<Pause> {
        Some(Pause { at: hour(0), by: "root".into(), reason: String::new() })
    }

    #[test]
    fn at_rest_its_time_is_when_it_is_due_whatever_the_time_is_now() {
        let mut one = certificate(90 * 24);
        let Due::At(at) = renewal::due(&one, None, hour(0)) else { panic!("it is young") };
        assert_eq!(of_orders(&one, None, None), Place::At(at));
        assert_eq!((Place::At(at).to_come(hour(0)), Place::At(at).to_come(at)), (Some(at), None));
        one.renew_asked_at = Some(hour(1));
        assert_eq!(of_orders(&one, None, None), Place::At(Timestamp::MIN));
        one.paused = paused();
        assert_eq!(of_orders(&one, None, None), Place::Rest);
        (one.paused, one.renew_asked_at, one.auto_renew) = (None, None, false);
        assert_eq!(of_orders(&one, None, None), Place::Rest);
        one.current = None;
        assert_eq!(of_orders(&one, None, None), Place::At(Timestamp::MIN));
        one.purging = true;
        assert_eq!(of_orders(&one, None, None), Place::Rest);
    }

    #[test]
    fn an_unfinished_order_is_held_or_has_its_own_time() {
        let mut one = certificate(90 * 24);
        let mut order = Order::begin(&one, "i", Reason::LifetimeFraction, None, hour(0));
        let place = |one: &Certificate, order: &Order| of_orders(one, None, Some(order));
        assert_eq!(place(&one, &order), Place::Held);
        one.paused = paused();
        assert_eq!(place(&one, &order), Place::Held, "a pause has to be told to it");
        order.fail(Problem::new("R", "m", "c", "h"), Some(hour(5)), hour(1));
        assert_eq!(place(&one, &order), Place::Rest);
        one.paused = None;
        assert_eq!(place(&one, &order), Place::At(hour(5)));
        one.renew_asked_at = Some(hour(2));
        assert_eq!(place(&one, &order), Place::At(Timestamp::MIN), "begin now");
        (one.renew_asked_at, order.waits_for_issuer, order.retry_at) = (None, true, None);
        assert_eq!(place(&one, &order), Place::Held, "until the issuer works, or time is short");
        order.waits_for_issuer = false;
        assert_eq!(place(&one, &order), Place::At(Timestamp::MIN), "a pause was lifted");
        order.phase = Phase::Failed;
        assert_eq!(place(&one, &order), Place::Rest);
        one.purging = true;
        order.phase = Phase::Validating;
        assert_eq!(place(&one, &order), Place::Rest);
    }

    #[test]
    fn a_ca_is_asked_about_what_renews_by_itself() {
        let mut one = certificate(90 * 24);
        let now = Place::At(Timestamp::MIN);
        assert_eq!(of_questions(&one, None), now);
        let info = RenewalInfo::not_offered(("c", "v"), hour(0));
        assert_eq!(of_questions(&one, Some(&info)), Place::At(info.ask_at));
        assert_eq!(of_questions(&one, Some(&RenewalInfo { version_id: "before".into(), ..info.clone() })), now);
        one.auto_renew = false;
        assert_eq!(of_questions(&one, Some(&info)), Place::Rest);
    }

    #[test]
    fn what_has_least_of_its_life_left_is_most_urgent() {
        let mut one = certificate(1_000);
        let urgency_at = |one: &Certificate, at| Urgency::of(one).at(hour(at));
        assert_eq!(urgency_at(&one, 0), 1_000);
        assert_eq!(urgency_at(&one, 660), 340);
        assert_eq!(urgency_at(&one, 999), 1);
        assert_eq!(urgency_at(&one, 1_001), 0, "expired");
        one.renew_asked_at = Some(one.created_at);
        assert_eq!(urgency_at(&one, 660), 125, "someone waits");
        assert_eq!(urgency_at(&one, 950), 50);
        one.current = None;
        assert_eq!(urgency_at(&one, 5_000), 125);
        let odd = Urgency { life: Some((Timestamp::MAX, Timestamp::MIN)), asked: false };
        assert_eq!(odd.at(hour(0)), 0);
    }
}
