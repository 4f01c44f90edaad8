//! Which of a certificate's issuers is asked (features.md A14, AC8): the first one, as long as there is time. Pure, one
//! table; called by `lifecycle/order` and `tasks/issuance`.
//!
//! | the current version | the first issuer | asked is |
//! |---|---|---|
//! | has more than an eighth of its life left | whatever it does | the first |
//! | has an eighth left or less | failed | who failed least, in the given order |
//! | is unusable or absent | failed three times, or is halted | who failed least, in the given order |
//! | is unusable or absent | failed less | the first |
//!
//! The next renewal begins with the first issuer again.

use jiff::{SignedDuration, Timestamp};

use super::certificate::{Certificate, CurrentVersion, Specification};
use super::issuer::Issuer;
use super::order::Order;

/// Most issuers beside the first.
pub const FALLBACKS_MAX: usize = 5;
/// Time is short when this share of the life is left: three days of outage fit into it at 45 days and more, and a few
/// tries at any length.
const SHORT_SHARE: i32 = 8;
/// Without a usable version nothing is served meanwhile: after this many failures (1 min, 10 min) the next is asked.
const FAILURES_ENOUGH: u32 = 3;

/// Returns the ids of the issuers that may be asked, in their order.
#[must_use]
pub fn candidates(wanted: &Specification) -> Vec<String> {
    let all = std::iter::once(&wanted.issuer_id).chain(&wanted.fallback_ids);
    let mut candidates = Vec::new();
    for id in all {
        if !candidates.contains(id) {
            candidates.push(id.clone());
        }
    }
    candidates
}

/// Returns the id of the issuer that the next attempt asks; `earlier` is the unfinished order of the same wish.
#[must_use]
pub fn choose(certificate: &Certificate, earlier: Option<&Order>, issuers: &[Issuer], now: Timestamp) -> String {
    let candidates = candidates(&certificate.specification);
    let failures = |id: &String| match issuers.iter().find(|issuer| issuer.id == *id) {
        Some(issuer) if issuer.halt.is_none() => earlier.map_or(0, |order| order.failures_of(id)),
        Some(_) | None => u32::MAX,
    };
    let first = certificate.specification.issuer_id.clone();
    let usable = certificate.current.as_ref().filter(|current| !current.key_lost && current.not_after > now);
    let is_short = match usable {
        Some(current) => time_is_short(current, now),
        None => failures(&first) >= FAILURES_ENOUGH,
    };
    if !is_short {
        return first;
    }
    // The first of those that failed least.
    candidates.into_iter().min_by_key(failures).unwrap_or(first)
}

/// Whether so little of the life is left that another issuer is better than waiting.
fn time_is_short(current: &CurrentVersion, now: Timestamp) -> bool {
    let life = current.not_after.duration_since(current.not_before);
    let left = current.not_after.duration_since(now);
    left <= life.checked_div(SHORT_SHARE).unwrap_or(SignedDuration::ZERO)
}

/// Whether the next attempt is first made at the issuer's staging directory (features.md A12): a validation failed
/// there or here, and there is time for both.
#[must_use]
pub fn rehearses(certificate: &Certificate, earlier: Option<&Order>, issuer: &Issuer, now: Timestamp) -> bool {
    let failed = earlier.and_then(|order| order.error.as_ref()).is_some_and(|error| is_of_names(&error.reason));
    let is_late = certificate.current.as_ref().is_some_and(|current| time_is_short(current, now));
    issuer.staging_directory.is_some() && failed && !is_late
}

/// Whether a failure is a CA's verdict about our names and hosts.
#[must_use]
pub fn is_of_names(reason: &str) -> bool {
    OF_NAMES.contains(&reason)
}

/// A CA's verdicts about our names and hosts.
const OF_NAMES: [&str; 5] = ["ACME_CONNECTION", "ACME_DNS", "ACME_INCORRECT_RESPONSE", "ACME_TLS", "ACME_UNAUTHORIZED"];

/// Whether a failure speaks of the issuer, and not of our names or hosts, where another issuer would fail as well.
#[must_use]
pub fn is_of_issuer(reason: &str) -> bool {
    let is_theirs = reason.starts_with("ACME_") || reason.starts_with("CA_") || reason == "PROFILE_NOT_OFFERED";
    is_theirs && !is_of_names(reason)
}

#[cfg(test)]
mod tests {
    use super::super::issuer::Halt;
    use super::super::issuer::tests::issuer;
    use super::super::problem::Problem;
    use super::super::renewal::Reason;
    use super::super::renewal::tests::certificate;
    use super::*;

    /// Asks with so many failures at each of a, b and c, so many hours before the end of a life of 80 hours.
    fn asked(left_hours: Option<i64>, failures: [u32; 3], halted: &[&str]) -> String {
        let mut one = certificate(80);
        one.specification.issuer_id = "a".into();
        one.specification.fallback_ids = vec!["b".into(), "c".into()];
        let end = one.current.as_ref().unwrap().not_after;
        let now = end - SignedDuration::from_hours(left_hours.unwrap_or(0));
        if left_hours.is_none() {
            one.current = None;
        }
        let mut order = Order::begin(&one, "a", Reason::NoVersion, None, now);
        for (id, count) in ["a", "b", "c"].into_iter().zip(failures) {
            order.issuer_id = id.into();
            for _failure in 0..count {
                order.fail(Problem::new("CA_UNREACHABLE", "m", "c", "h"), Some(now), now);
            }
        }
        let mut issuers = ["a", "b", "c"].map(issuer);
        for one in issuers.iter_mut().filter(|one| halted.contains(&one.id.as_str())) {
            one.halt = Some(Halt::Closed);
        }
        choose(&one, Some(&order), &issuers, now)
    }

    #[test]
    fn the_table() {
        assert_eq!(asked(Some(11), [50, 0, 0], &[]), "a", "there is time");
        assert_eq!(asked(Some(11), [0, 0, 0], &["a"]), "a", "there is time, also for a halted one");
        assert_eq!(asked(Some(10), [0, 0, 0], &[]), "a", "it has not failed");
        assert_eq!(asked(Some(10), [1, 0, 0], &[]), "b");
        assert_eq!(asked(Some(10), [1, 1, 0], &[]), "c");
        assert_eq!(asked(Some(10), [1, 1, 1], &[]), "a", "and round again");
        assert_eq!(asked(Some(10), [0, 0, 0], &["a", "b"]), "c");
        assert_eq!(asked(None, [2, 0, 0], &[]), "a", "two failures are nothing yet");
        assert_eq!(asked(None, [3, 0, 0], &[]), "b");
        assert_eq!(asked(None, [0, 0, 0], &["a"]), "b", "nothing to wait for");
        assert_eq!(asked(Some(-1), [3, 1, 0], &[]), "c", "expired is as bad as absent");
    }

    #[test]
    fn a_failed_validation_is_rehearsed_while_there_is_time() {
        let mut one = certificate(80);
        let end = one.current.as_ref().unwrap().not_after;
        let (early, late) = (end - SignedDuration::from_hours(20), end - SignedDuration::from_hours(9));
        let mut staged = issuer("a");
        let mut order = Order::begin(&one, "a", Reason::NoVersion, None, early);
        let failed = |reason: &str| Problem::new(reason, "m", "c", "h");
        order.fail(failed("ACME_CONNECTION"), Some(early), early);
        assert!(!rehearses(&one, Some(&order), &staged, early), "no staging directory");
        staged.staging_directory = Some("https://staging.test/".into());
        assert!(rehearses(&one, Some(&order), &staged, early));
        assert!(!rehearses(&one, Some(&order), &staged, late), "no time");
        assert!(!rehearses(&one, None, &staged, early), "the first try is none");
        one.current = None;
        assert!(rehearses(&one, Some(&order), &staged, early));
        order.fail(failed("CA_UNREACHABLE"), Some(early), early);
        assert!(!rehearses(&one, Some(&order), &staged, early), "a rehearsal cures no outage");
    }

    #[test]
    fn only_the_issuers_own_failures_count() {
        for (reason, expected) in [
            ("CA_UNREACHABLE", true),
            ("ACME_RATE_LIMITED", true),
            ("ACME_CAA", true),
            ("ACME_CONNECTION", false),
            ("DNS_NO_SUCH_NAME", false),
            ("CHALLENGE_NOT_SERVED", false),
        ] {
            assert_eq!(is_of_issuer(reason), expected, "{reason}");
        }
    }
}
