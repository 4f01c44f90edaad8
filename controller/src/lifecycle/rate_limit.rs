//! What a CA lets us do how often, and what of it is used (features.md A15): asked before an order is sent, so that an
//! order waits with a stated time rather than burn a limit. Pure; `tasks/limits` keeps the one ledger and stores what
//! was spent. Limits are leaky buckets, as Let's Encrypt's are: a full bucket frees one place every period ÷ count.

mod bucket;
mod published;
mod refusal;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use self::bucket::Bucket;
pub use self::published::{NONCES, RequestPace, default_pace, limits, pace};
pub use self::refusal::{Refusal, refusal};
use super::issuer::Issuer;
use super::problem::Problem;

/// Reason of the problem of an order that waits for a limit: nothing was sent.
pub const PREDICTED: &str = "RATE_LIMIT_PREDICTED";
/// A place that was booked and is not taken up within this goes to others.
const BOOKING_GRACE: SignedDuration = SignedDuration::from_hours(1);
/// Longest cause kept of a CA's refusal, characters.
const CAUSE_CHARS_MAX: usize = 300;
/// Most buckets shown of one kind.
const SHOWN_MAX: usize = 20;

/// A limit of which this share or less is left is low.
const LOW_SHARE: u32 = 10;

/// What is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Orders of one account.
    Orders,
    /// Certificates that hold a name of one registered domain (or one IPv4 address, or one IPv6 /64).
    RegisteredDomain,
    /// Certificates of exactly the same identifiers.
    ExactSet,
    /// Failed authorizations of one identifier by one account.
    FailedAuthorizations,
    /// Requests of this host to one CA.
    Requests,
}

impl Kind {
    /// Every kind, as shown.
    pub const ALL: [Self; 5] =
        [Self::Orders, Self::RegisteredDomain, Self::ExactSet, Self::FailedAuthorizations, Self::Requests];

    /// The word of the wire and of the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::RegisteredDomain => "registered-domain",
            Self::ExactSet => "exact-set",
            Self::FailedAuthorizations => "failed-authorizations",
            Self::Requests => "requests",
        }
    }

    /// Reads [`Self::word`].
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// What is counted, for people.
    fn counted(self) -> &'static str {
        match self {
            Self::Orders => "new orders of the account",
            Self::RegisteredDomain => "certificates for the registered domain",
            Self::ExactSet => "certificates for exactly these names",
            Self::FailedAuthorizations => "failed authorizations of the name",
            Self::Requests => "requests to the CA",
        }
    }

    /// Whether the CA counts it for the account; otherwise for everyone who asks it.
    fn is_of_account(self) -> bool {
        match self {
            Self::Orders | Self::FailedAuthorizations => true,
            Self::RegisteredDomain | Self::ExactSet | Self::Requests => false,
        }
    }
}

/// So many in so long. A count of 0 means: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// How many.
    pub count: u32,
    /// In how many seconds; a used place is free again after this.
    pub period_s: u32,
}

/// One bucket: what is counted, for whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// What is counted.
    pub kind: Kind,
    /// Id of the issuer whose account it is, or host of the CA where it counts for everyone.
    pub owner: String,
    /// Which registered domain, identifier, or set; empty where there is one bucket.
    pub name: String,
}

/// One line of the ledger, as stored: written before the request that spends, or when the CA refused. Sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Milliseconds of `at` in hex, then random: sorts by time.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// One place is taken in each.
    pub spent: Vec<Key>,
    /// The CA said: not before then.
    pub closed: Option<Closed>,
}

/// A CA's word that a scope is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// Which bucket.
    pub key: Key,
    /// Until when.
    pub until: Timestamp,
    /// In the CA's words; sanitised.
    pub cause: String,
}

/// An order that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Whose order.
    pub certificate_id: &'a str,
    /// At whom.
    pub issuer: &'a Issuer,
    /// For what.
    pub identifiers: &'a [String],
    /// What the CA does not count.
    pub exemption: Exemption,
    /// How little of its life is left, 0 most urgent: it waits before those that have more.
    pub urgency: u32,
}

/// The place that an order waits for.
#[derive(Clone, Debug)]
struct Booking {
    key: Key,
    limit: Limit,
    at: Timestamp,
    urgency: u32,
}

/// What a CA does not count for a renewal, where its published limits say so (Let's Encrypt, 2026-08-05).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exemption {
    /// Everything counts.
    None,
    /// The same identifiers again: neither orders nor the registered domain.
    SameSet,
    /// `replaces` of ARI (RFC 9773 §5): nothing but requests.
    Replaces,
}

impl Exemption {
    /// The word of the wire; empty when everything counts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "",
            Self::SameSet => "same_set",
            Self::Replaces => "replaces",
        }
    }
}

/// What the ledger says to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be sent, once these places are stored as spent.
    Go(Vec<Key>),
    /// Not before then.
    Wait(Wait),
}

/// Why an order waits, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// What is full or closed.
    pub key: Key,
    /// The limit, where one is known.
    pub limit: Option<Limit>,
    /// When its turn comes.
    pub until: Timestamp,
    /// The CA's words, where the CA closed it.
    pub cause: String,
}

/// One bucket as it stands, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// What is counted, for whom.
    pub key: Key,
    /// The limit; `None` where only the CA's word closes it.
    pub limit: Option<Limit>,
    /// Places used.
    pub used: u32,
    /// When the next used place is free again, where one is used.
    pub refills_at: Option<Timestamp>,
    /// Orders that wait for a place.
    pub waiting: u32,
    /// The CA closed it until then.
    pub closed: Option<Closed>,
}

/// Everything that is known to be used: one in the whole controller.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    buckets: HashMap<Key, Bucket>,
    closed: HashMap<Key, Closed>,
    /// Places that orders wait for, by certificate.
    booked: HashMap<String, Booking>,
}

impl Ledger {
    /// Takes up a stored entry; to be called in the order of their ids. `limit_of` knows the limit of a bucket. What was
    /// written while the clock was ahead counts as written now: no leap of the clock closes a CA for long.
    pub fn replay(&mut self, entry: &Entry, now: Timestamp, limit_of: impl Fn(&Key) -> Option<Limit>) {
        for key in &entry.spent {
            if let Some(limit) = limit_of(key) {
                self.buckets.entry(key.clone()).or_default().spend(limit, entry.at.min(now));
            }
        }
        if let Some(closed) = &entry.closed {
            let ahead = entry.at.duration_since(now).max(SignedDuration::ZERO);
            let until = closed.until.saturating_sub(ahead).unwrap_or(closed.until);
            self.close(Closed { until, ..closed.clone() }, limit_of(&closed.key));
        }
    }

    /// Decides whether an order may be sent now. When it may, its places are taken; when not, its place is kept for it:
    /// the next order gets a later time.
    pub fn decide(&mut self, ask: Ask<'_>, now: Timestamp, jitter: f64) -> Decision {
        self.tidy(now);
        if let Some(wait) = self.closure(ask, now, jitter) {
            return Decision::Wait(wait);
        }
        let mut booked = self.booked.remove(ask.certificate_id);
        if let Some(waits) = booked.take_if(|booking| booking.at > now) {
            let Booking { key, limit, at, .. } = waits.clone();
            self.booked.insert(ask.certificate_id.to_owned(), waits);
            return Decision::Wait(Wait { key, limit: Some(limit), until: at, cause: String::new() });
        }
        let mut needs = ask.needs();
        // A place that was waited for is its own already; one that it needs no more goes to others.
        let is_needed = |own: &Key| needs.iter().any(|(key, _)| key == own);
        let own = booked.map(|booking| booking.key);
        let (own, spare) =
            own.map_or((None, None), |key| if is_needed(&key) { (Some(key), None) } else { (None, Some(key)) });
        if let Some(spare) = spare {
            self.give_back(&spare, ask.issuer);
        }
        needs.retain(|(key, _)| Some(key) != own.as_ref());
        let earliest =
            |(key, limit): &(Key, Limit)| self.buckets.get(key).map_or(now, |bucket| bucket.earliest(*limit, now));
        let latest = needs.iter().map(|need| (earliest(need), need)).max_by_key(|(at, _)| *at);
        if let Some((until, (key, limit))) = latest.filter(|(at, _)| *at > now) {
            let (key, limit) = (key.clone(), *limit);
            if let Some(own) = own {
                self.give_back(&own, ask.issuer);
            }
            let mut until = until;
            if key.kind != Kind::FailedAuthorizations {
                self.buckets.entry(key.clone()).or_default().spend(limit, until);
                let last = Booking { key: key.clone(), limit, at: until, urgency: ask.urgency };
                until = self.book(ask.certificate_id, last, now);
            }
            return Decision::Wait(Wait { key, limit: Some(limit), until, cause: String::new() });
        }
        // Failures are only looked at: they are spent when they happen.
        needs.retain(|(key, _)| key.kind != Kind::FailedAuthorizations);
        for (key, limit) in &needs {
            self.buckets.entry(key.clone()).or_default().spend(*limit, now);
        }
        Decision::Go(needs.into_iter().map(|(key, _)| key).chain(own).collect())
    }

    /// Books the last place, and lets the order go before those that are less urgent: each of them takes the place of the
    /// next one that is less urgent than itself, and learns of it when it asks. Returns when the order's turn comes.
    fn book(&mut self, certificate_id: &str, last: Booking, now: Timestamp) -> Timestamp {
        let (mut id, mut waits, mut turn) = (certificate_id.to_owned(), last, None);
        loop {
            let is_behind = |other: &Booking| {
                other.key == waits.key && other.urgency > waits.urgency && other.at > now && other.at < waits.at
            };
            let behind = self.booked.iter().filter(|(_, other)| is_behind(other));
            let next = behind.min_by_key(|(_, other)| other.at).map(|(id, other)| (id.clone(), other.clone()));
            let last = waits.at;
            waits.at = next.as_ref().map_or(last, |(_, other)| other.at);
            turn = turn.or(Some(waits.at));
            self.booked.insert(id, waits);
            match next {
                None => return turn.unwrap_or(last),
                Some((other_id, other)) => (id, waits) = (other_id, Booking { at: last, ..other }),
            }
        }
    }

    /// Counts a failed authorization. Returns what to store; `None` where it is not limited.
    pub fn failed(&mut self, issuer: &Issuer, identifier: &str, now: Timestamp) -> Option<Key> {
        let key = Key { kind: Kind::FailedAuthorizations, owner: issuer.id.clone(), name: identifier.to_owned() };
        let limit = limit_of(issuer, key.kind)?;
        self.buckets.entry(key.clone()).or_default().spend(limit, now);
        Some(key)
    }

    /// Takes the CA's word that a scope is closed.
    pub fn close(&mut self, closed: Closed, limit: Option<Limit>) {
        if let Some(limit) = limit.filter(|_| closed.key.kind != Kind::Requests) {
            // The CA has counted more than we have: from then on its places come one by one.
            self.buckets.entry(closed.key.clone()).or_default().fill_until(limit, closed.until);
        }
        let known = self.closed.entry(closed.key.clone()).or_insert_with(|| closed.clone());
        if known.until < closed.until {
            *known = closed;
        }
    }

    /// Returns a place that was taken and not used: the CA counts only what it issued.
    pub fn give_back(&mut self, key: &Key, issuer: &Issuer) {
        if let (Some(bucket), Some(limit)) = (self.buckets.get_mut(key), limit_of(issuer, key.kind)) {
            bucket.give_back(limit);
        }
    }

    /// Forgets what was booked for a certificate that orders no more.
    fn tidy(&mut self, now: Timestamp) {
        let is_late = |at: Timestamp| now.duration_since(at) > BOOKING_GRACE;
        let late: Vec<String> =
            self.booked.iter().filter(|(_, booking)| is_late(booking.at)).map(|(id, _)| id.clone()).collect();
        for id in late {
            if let Some(booking) = self.booked.remove(&id)
                && let Some(bucket) = self.buckets.get_mut(&booking.key)
            {
                bucket.give_back(booking.limit);
            }
        }
        self.closed.retain(|_, closed| closed.until > now);
    }

    /// Forgets buckets that are empty again: nothing here grows with time.
    pub fn sweep(&mut self, now: Timestamp) {
        self.tidy(now);
        self.buckets.retain(|_, bucket| !bucket.is_empty(now));
    }

    fn closure(&self, ask: Ask<'_>, now: Timestamp, jitter: f64) -> Option<Wait> {
        let longest =
            ask.keys().into_iter().filter_map(|key| self.closed.get(&key)).max_by_key(|closed| closed.until)?;
        if longest.until <= now {
            return None;
        }
        // Those who wait for the same moment do not all come in it.
        let spread = longest.until.duration_since(now).as_secs_f64().min(BOOKING_GRACE.as_secs_f64()) / 10.0 * jitter;
        let spread = SignedDuration::try_from_secs_f64(spread).unwrap_or(SignedDuration::ZERO);
        Some(Wait {
            key: longest.key.clone(),
            limit: limit_of(ask.issuer, longest.key.kind),
            until: longest.until.saturating_add(spread).unwrap_or(longest.until),
            cause: longest.cause.clone(),
        })
    }

    /// Returns the buckets of one issuer for people: one line per kind at least, the fullest first.
    #[must_use]
    pub fn lines(&self, issuer: &Issuer, now: Timestamp) -> Vec<Line> {
        let host = issuer.ca_host();
        let mut lines = Vec::new();
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Requests) {
            let owner = if kind.is_of_account() { issuer.id.clone() } else { host.clone() };
            let is_ours = |key: &&Key| key.kind == kind && key.owner == owner;
            let mut keys: Vec<&Key> = self.buckets.keys().chain(self.closed.keys()).filter(is_ours).collect();
            keys.sort_unstable();
            keys.dedup();
            let mut of_kind: Vec<Line> = keys.into_iter().map(|key| self.line(key, issuer, now)).collect();
            of_kind.retain(|line| line.used > 0 || line.closed.is_some());
            of_kind.sort_by_key(|line| std::cmp::Reverse((line.closed.is_some(), line.waiting, line.used)));
            of_kind.truncate(SHOWN_MAX);
            if of_kind.is_empty() && limit_of(issuer, kind).is_some() {
                of_kind.push(self.line(&Key { kind, owner, name: String::new() }, issuer, now));
            }
            lines.extend(of_kind);
        }
        let requests = Key { kind: Kind::Requests, owner: host, name: String::new() };
        lines.push(self.line(&requests, issuer, now));
        lines
    }

    /// Returns the buckets that an order has to pass, for people: what it needs a place in, and what the CA closed. Of
    /// names whose authorizations never failed there is nothing to say.
    #[must_use]
    pub fn lines_of(&self, ask: Ask<'_>, now: Timestamp) -> Vec<Line> {
        let needs = ask.needs();
        let is_needed = |key: &Key| needs.iter().any(|(needed, _)| needed == key);
        let mut lines: Vec<Line> = ask.keys().iter().map(|key| self.line(key, ask.issuer, now)).collect();
        lines.retain(|line| {
            let tells = line.key.kind != Kind::FailedAuthorizations || line.used > 0;
            line.closed.is_some() || (tells && is_needed(&line.key))
        });
        lines.truncate(SHOWN_MAX);
        lines
    }

    fn line(&self, key: &Key, issuer: &Issuer, now: Timestamp) -> Line {
        let limit = limit_of(issuer, key.kind);
        let bucket = self.buckets.get(key).filter(|_| key.kind != Kind::Requests);
        let used = limit.zip(bucket).map_or(0, |(limit, bucket)| bucket.used(limit, now));
        let waiting = self.booked.values().filter(|booking| booking.key == *key).count();
        Line {
            key: key.clone(),
            limit,
            used,
            refills_at: limit.zip(bucket).and_then(|(limit, bucket)| bucket.refills_at(limit, now)),
            waiting: u32::try_from(waiting).unwrap_or(u32::MAX),
            closed: self.closed.get(key).filter(|closed| closed.until > now).cloned(),
        }
    }
}

impl Ask<'_> {
    /// The places it needs, where a limit is known and the CA counts it.
    fn needs(self) -> Vec<(Key, Limit)> {
        let counts = |kind: Kind| match (self.exemption, kind) {
            (_, Kind::Requests) | (Exemption::Replaces, _) => false,
            (Exemption::SameSet, Kind::Orders | Kind::RegisteredDomain) => false,
            (Exemption::SameSet, Kind::ExactSet | Kind::FailedAuthorizations) => true,
            (Exemption::None, Kind::Orders | Kind::RegisteredDomain | Kind::ExactSet | Kind::FailedAuthorizations) => {
                true
            }
        };
        let keys = self.keys().into_iter().filter(|key| counts(key.kind));
        keys.filter_map(|key| limit_of(self.issuer, key.kind).map(|limit| (key, limit))).collect()
    }

    /// Every bucket that the CA may close for it.
    fn keys(self) -> Vec<Key> {
        let host = self.issuer.ca_host();
        let key = |kind: Kind, name: String| {
            let owner = if kind.is_of_account() { self.issuer.id.clone() } else { host.clone() };
            Key { kind, owner, name }
        };
        let mut keys = vec![key(Kind::Requests, String::new())];
        if self.exemption == Exemption::Replaces {
            return keys;
        }
        keys.push(key(Kind::Orders, String::new()));
        keys.push(key(Kind::ExactSet, exact_set(self.identifiers)));
        let mut domains: Vec<String> = self.identifiers.iter().map(|name| registered_domain(name)).collect();
        domains.sort_unstable();
        domains.dedup();
        keys.extend(domains.into_iter().map(|domain| key(Kind::RegisteredDomain, domain)));
        keys.extend(self.identifiers.iter().map(|name| key(Kind::FailedAuthorizations, name.clone())));
        keys
    }
}

impl Wait {
    /// Returns why the order of `certificate` waits, for people. It has no times that pass: the order has `retry_at`.
    #[must_use]
    pub fn problem(&self, certificate: &str, issuer: &Issuer) -> Problem {
        let what = self.key.kind.counted();
        let of = if matches!(self.key.kind, Kind::Orders | Kind::Requests | Kind::ExactSet) {
            String::new()
        } else {
            format!(" {}", self.key.name)
        };
        let ca = &issuer.name;
        let cause = match (self.limit, self.cause.is_empty()) {
            (_, false) => format!("{ca} said: {}", self.cause),
            (Some(limit), true) => format!(
                "{ca} allows {} in {}: all are used{}; one is free again every {}",
                limit.count,
                spoken(i64::from(limit.period_s)),
                if self.key.kind == Kind::FailedAuthorizations { "" } else { " or booked by orders before it" },
                spoken(i64::from(limit.period_s) / i64::from(limit.count.max(1))),
            ),
            (None, true) => String::new(),
        };
        let hint = format!(
            "nothing: it goes on by itself, and nothing was sent. certwright issuers limits {ca} shows what is used{}",
            if self.key.kind == Kind::FailedAuthorizations { "; mend what failed meanwhile" } else { "" }
        );
        Problem::new(PREDICTED, format!("{certificate} waits for a limit of {ca}: {what}{of}"), cause, hint)
    }
}

impl Line {
    /// Places left; `None` where nothing is limited.
    #[must_use]
    pub fn left(&self) -> Option<u32> {
        self.limit.map(|limit| limit.count.saturating_sub(self.used))
    }
}

/// Returns how limits stand as a whole, in one word of the wire.
#[must_use]
pub fn standing(lines: &[Line]) -> &'static str {
    let is_low = |line: &Line| line.limit.zip(line.left()).is_some_and(|(limit, left)| left <= limit.count / LOW_SHARE);
    let counted: Vec<&Line> = lines.iter().filter(|line| line.key.kind != Kind::Requests).collect();
    if lines.iter().any(|line| line.closed.is_some()) {
        "closed"
    } else if lines.iter().any(|line| line.waiting > 0) {
        "waiting"
    } else if counted.iter().any(|line| line.used > 0 && is_low(line)) {
        "low"
    } else if counted.is_empty() {
        "none"
    } else {
        "free"
    }
}

/// Returns the limit of one kind at an issuer: what an operator set, else what the CA publishes.
#[must_use]
pub fn limit_of(issuer: &Issuer, kind: Kind) -> Option<Limit> {
    let set = issuer.limits.get(&kind).copied();
    set.or_else(|| limits(&issuer.ca_host()).get(&kind).copied()).filter(|limit| limit.count > 0)
}

/// Returns what the CA does not count for this order.
#[must_use]
pub fn exemption(issuer: &Issuer, replaces: bool, same_set: bool) -> Exemption {
    match (published::exempts_renewals(&issuer.ca_host()), replaces, same_set) {
        (true, true, _) => Exemption::Replaces,
        (true, false, true) => Exemption::SameSet,
        (true, false, false) | (false, _, _) => Exemption::None,
    }
}

/// Whether these are the same identifiers, in whatever order: an exact set for the CA.
#[must_use]
pub fn same_names(left: &[String], right: &[String]) -> bool {
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    sorted(left) == sorted(right)
}

/// Returns the registered domain of a DNS name by the public suffix list, and for an address what Let's Encrypt counts
/// as one: the IPv4 address, the /64 of an IPv6 address.
#[must_use]
pub fn registered_domain(identifier: &str) -> String {
    match identifier.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.to_string(),
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Err(_a_name) => {
            let name = identifier.strip_prefix("*.").unwrap_or(identifier);
            psl::domain_str(name).unwrap_or(name).to_owned()
        }
    }
}

/// Returns a short name for a set of identifiers, whatever their order: the first one, how many more, and a digest.
#[must_use]
pub fn exact_set(identifiers: &[String]) -> String {
    let mut names: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first, others @ ..] => {
            let digest = Sha256::digest(names.join(","));
            let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            format!("{first} and {} more ({digest})", others.len())
        }
    }
}

/// Says a number of seconds in the largest unit that divides well.
#[must_use]
pub fn spoken(seconds: i64) -> String {
    const UNITS: [(i64, &str); 3] = [(86_400, "d"), (3_600, "h"), (60, "min")];
    let unit = UNITS.into_iter().find(|(size, _)| seconds >= *size && (seconds % size == 0 || seconds >= 2 * size));
    match unit {
        Some((size, word)) => format!("{} {word}", seconds / size),
        None => format!("{seconds} s"),
    }
}

/// The limits that are set, by kind.
pub type Limits = BTreeMap<Kind, Limit>;

#[cfg(test)]
mod tests;
