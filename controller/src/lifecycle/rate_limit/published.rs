//! The limits that CAs publish, as data: Let's Encrypt, <https://letsencrypt.org/docs/rate-limits/> as of 2026-08-05. For
//! any other CA nothing is known but that it must not be flooded; an operator who knows more sets it per issuer.

use super::{Kind, Limit, Limits};

const MINUTE: u32 = 60;
const HOUR: u32 = 60 * MINUTE;
const DAY: u32 = 24 * HOUR;

/// A CA's limits: kind, count, period in seconds.
type Table = &'static [(Kind, u32, u32)];

/// By host of the directory.
const PUBLISHED: [(&str, Table); 2] = [
    (
        "acme-v02.api.letsencrypt.org",
        &[
            (Kind::Orders, 300, 3 * HOUR),
            (Kind::RegisteredDomain, 50, 7 * DAY),
            (Kind::ExactSet, 5, 7 * DAY),
            (Kind::FailedAuthorizations, 5, HOUR),
        ],
    ),
    (
        "acme-staging-v02.api.letsencrypt.org",
        &[(Kind::Orders, 1_500, 3 * HOUR), (Kind::ExactSet, 30_000, 7 * DAY), (Kind::FailedAuthorizations, 200, HOUR)],
    ),
];

/// Requests per second to any CA, where an operator set nothing else. Let's Encrypt's narrowest limit for one address is 250
/// in a second on `/acme/*`; issue 3 asks for at most 200, a burst included. A certificate costs seven.
const REQUESTS: Limit = Limit { count: 100, period_s: 1 };

/// How fast requests may be sent: at once so many, and then so many per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestPace {
    /// How many may be sent at once after a pause.
    pub burst: u32,
    /// The time between two requests when there are many, microseconds.
    pub step_us: u64,
}

/// Let's Encrypt allows 20 newNonce in a second with a burst of 10, and no other CA is known to allow less.
pub const NONCES: RequestPace = RequestPace { burst: 10, step_us: 50_000 };

/// Returns how fast requests may be sent under `limit`.
#[must_use]
pub fn pace(limit: Limit) -> RequestPace {
    let count = u64::from(limit.count.max(1));
    // No more at once than in a second.
    let per_second = count / u64::from(limit.period_s.max(1));
    RequestPace {
        burst: u32::try_from(per_second.max(1)).unwrap_or(u32::MAX),
        step_us: u64::from(limit.period_s) * 1_000_000 / count,
    }
}

/// Returns how fast a CA is asked that nothing is known of.
#[must_use]
pub fn default_pace() -> RequestPace {
    pace(REQUESTS)
}

/// Returns what the CA with this host publishes, and how fast it may be asked.
#[must_use]
pub fn limits(host: &str) -> Limits {
    let table = table(host).unwrap_or_default().iter();
    let mut limits: Limits =
        table.map(|(kind, count, period_s)| (*kind, Limit { count: *count, period_s: *period_s })).collect();
    limits.insert(Kind::Requests, REQUESTS);
    limits
}

/// Whether the CA publishes that renewals are counted less.
pub(super) fn exempts_renewals(host: &str) -> bool {
    table(host).is_some()
}

fn table(host: &str) -> Option<Table> {
    PUBLISHED.iter().find(|(known, _)| *known == host).map(|(_, table)| *table)
}
