//! What a CA can do to its clients: faults by request kind and count, and standing misbehaviour. Pure bookkeeping; the
//! server in `fake_ca` asks it before and after each request.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::power::disk::split_mix;

/// What is asked of the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    /// GET of the directory (RFC 8555 §7.1.1).
    Directory,
    /// HEAD or GET of newNonce (§7.2).
    NewNonce,
    /// POST to newAccount (§7.3).
    NewAccount,
    /// POST to an account (§7.3.2).
    Account,
    /// POST to newOrder (§7.4).
    NewOrder,
    /// POST-as-GET of an order (§7.4).
    Order,
    /// POST-as-GET of an authorization (§7.5).
    Authorization,
    /// POST to a challenge (§7.5.1).
    Challenge,
    /// POST to an order's finalize URL (§7.4).
    Finalize,
    /// POST-as-GET of a certificate (§7.4.2).
    Certificate,
    /// GET of renewal information (RFC 9773 §4.1).
    RenewalInfo,
    /// POST to keyChange (§7.3.5).
    KeyChange,
    /// POST to revokeCert (§7.6).
    Revoke,
    /// Any other path.
    Unknown,
}

impl RequestKind {
    /// Every kind: what a CA that is away refuses.
    pub const ALL: [Self; 14] = [
        Self::Directory,
        Self::NewNonce,
        Self::NewAccount,
        Self::Account,
        Self::NewOrder,
        Self::Order,
        Self::Authorization,
        Self::Challenge,
        Self::Finalize,
        Self::Certificate,
        Self::RenewalInfo,
        Self::KeyChange,
        Self::Revoke,
        Self::Unknown,
    ];
}

/// How often a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Every request of the kind.
    Always,
    /// The n-th request of the kind from now, counted from 1.
    Nth(u64),
    /// The first n requests of the kind from now.
    First(u64),
    /// So many of a hundred, by the CA's seed.
    Percent(u8),
}

/// What happens to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is refused: the CA never sees the request.
    Refused,
    /// No answer, ever: the CA never acts on it.
    Hang,
    /// The CA acts, and its answer is lost.
    LostReply,
    /// A proxy's HTML page with this status.
    Html(u16),
    /// A problem document (RFC 7807) with an ACME type, and perhaps Retry-After in seconds.
    Problem {
        /// HTTP status.
        status: u16,
        /// Without `urn:ietf:params:acme:error:`.
        kind: &'static str,
        /// For people.
        detail: &'static str,
        /// Seconds.
        retry_after: Option<u64>,
    },
    /// 200 and a body without end.
    EndlessBody,
    /// 200 and a body that is not JSON.
    Garbage,
}

/// Standing misbehaviour, and what real CAs may choose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mischief {
    /// Every challenge is shown with this token.
    pub token: Option<String>,
    /// Certificates are issued for a key that nobody asked about.
    pub other_key: bool,
    /// Certificates are issued for this name besides the ordered ones.
    pub extra_name: Option<String>,
    /// Certificates are issued with a validity that is already over.
    pub already_expired: bool,
    /// Every validation fails with this problem: type without prefix, and detail.
    pub refuse_validation: Option<(&'static str, &'static str)>,
    /// An order stays processing for so many polls after finalize.
    pub processing_polls: u32,
    /// Retry-After, in seconds, beside each order that is not final.
    pub retry_after: Option<u64>,
    /// Orders go to invalid after finalize, with this problem: type without prefix, and detail.
    pub fail_issuance: Option<(&'static str, &'static str)>,
}

#[derive(Debug)]
struct Script {
    kind: RequestKind,
    when: When,
    fault: Fault,
    seen: u64,
}

/// The faults in force.
#[derive(Debug)]
pub(super) struct Faults {
    scripts: Vec<Script>,
    random: u64,
    struck: BTreeMap<RequestKind, u64>,
}

impl Faults {
    pub(super) fn new(seed: u64) -> Self {
        Self { scripts: Vec::new(), random: seed, struck: BTreeMap::new() }
    }

    pub(super) fn add(&mut self, kind: RequestKind, when: When, fault: Fault) {
        self.scripts.push(Script { kind, when, fault, seen: 0 });
    }

    pub(super) fn clear(&mut self) {
        self.scripts.clear();
    }

    pub(super) fn struck(&self, kind: RequestKind) -> u64 {
        self.struck.get(&kind).copied().unwrap_or(0)
    }

    /// Returns what befalls the request at hand, if anything.
    pub(super) fn next(&mut self, kind: RequestKind) -> Option<Fault> {
        let mut fault = None;
        for script in self.scripts.iter_mut().filter(|script| script.kind == kind) {
            script.seen += 1;
            let strikes = match script.when {
                When::Always => true,
                When::Nth(nth) => script.seen == nth,
                When::First(count) => script.seen <= count,
                When::Percent(percent) => {
                    self.random = split_mix(self.random);
                    self.random % 100 < u64::from(percent)
                }
            };
            if strikes && fault.is_none() {
                fault = Some(script.fault.clone());
            }
        }
        if fault.is_some() {
            *self.struck.entry(kind).or_default() += 1;
        }
        fault
    }
}

/// How long the CA takes for each request, in simulated time, half of it before it acts.
pub(super) const LATENCY: Duration = Duration::from_millis(20);
