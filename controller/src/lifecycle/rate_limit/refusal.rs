//! What a CA's refusal closes: its words name the limit, its Retry-After says until when. A refusal that names none closes
//! the account, but not for long: it may have meant one name only, and the others must not run out.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proto::text::one_line;

use super::{Ask, CAUSE_CHARS_MAX, Closed, Kind};

/// How long a refusal without Retry-After closes its scope.
const UNSAID: Duration = Duration::from_secs(3_600);
/// How long at most a refusal closes the account when it does not say that it means the account.
const UNNAMED_MAX: Duration = Duration::from_secs(3_600);

/// Words of boulder (`ratelimits/transaction.go`) and of the anchors it links to, most telling first.
const WORDS: [(&str, Kind); 11] = [
    ("failed authorizations", Kind::FailedAuthorizations),
    ("authorization-failures", Kind::FailedAuthorizations),
    ("exact set", Kind::ExactSet),
    ("exact-set", Kind::ExactSet),
    ("registered-domain", Kind::RegisteredDomain),
    ("certificates already issued for", Kind::RegisteredDomain),
    ("already issued for", Kind::RegisteredDomain),
    ("new orders", Kind::Orders),
    ("new-orders", Kind::Orders),
    ("from this account", Kind::Orders),
    ("from this ip", Kind::Requests),
];

/// What a CA said.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// HTTP status.
    pub status: u16,
    /// The problem's detail; may be anything.
    pub detail: &'a str,
    /// How long to wait.
    pub retry_after: Option<Duration>,
}

/// Returns what the refusal closes for the order that met it and for others.
#[must_use]
pub fn refusal(ask: Ask<'_>, said: Refusal<'_>, now: Timestamp) -> Vec<Closed> {
    let text = said.detail.to_ascii_lowercase();
    // An overloaded server means everyone who asks from here.
    let named = if said.status == 503 {
        Some(Kind::Requests)
    } else {
        WORDS.iter().find(|(words, _)| text.contains(words)).map(|(_, kind)| *kind)
    };
    let wait = said.retry_after.unwrap_or(UNSAID);
    let (kind, wait) = named.map_or_else(|| (Kind::Orders, wait.min(UNNAMED_MAX)), |kind| (kind, wait));
    let until = SignedDuration::try_from(wait).ok().and_then(|wait| now.checked_add(wait).ok()).unwrap_or(now);
    // What the CA refused is counted, whatever it usually exempts.
    let ask = Ask { exemption: super::Exemption::None, ..ask };
    let keys: Vec<_> = ask.keys().into_iter().filter(|key| key.kind == kind).collect();
    let quoted = |name: &str| text.contains(&format!("\"{name}\""));
    let one_is_named = keys.iter().any(|key| quoted(&key.name));
    let meant = keys.into_iter().filter(|key| !one_is_named || quoted(&key.name));
    let cause = one_line(said.detail, CAUSE_CHARS_MAX);
    meant.map(|key| Closed { key, until, cause: cause.clone() }).collect()
}
