//! A private CA as an issuer (features.md C1): what it may certify, when its own certificate and its revocation list are made
//! anew. Pure; its key signs in `private_ca`, by `tasks/private_ca` and `tasks/issuance`.
//!
//! One self-signed root signs the leaves: an intermediate would lie in the same sealed store, so whoever takes the one takes
//! the other. At half its life the root is certified again, with the same key and name: leaves signed before and after verify
//! under both certificates, and whoever trusts the old one has the other half of its life to take the new one.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::KeyType;
use super::identifier;
use super::policy::name_matches;
use super::revocation::RevocationReason;
use super::sealed::Sealed;

/// Most names of a policy.
pub const NAMES_MAX: usize = 50;
/// A leaf lives at most this share of its root's life: what half of a root's life has left is enough for every leaf.
pub const LEAF_SHARE_MAX: i64 = 4;
/// Most root certificates kept; those that expired go by themselves.
const ROOTS_KEPT: usize = 8;
/// A root is certified again when this share of its life is left.
const ROOT_LEFT: i32 = 2;
/// A revocation list is made again when this share of its life is left.
const LIST_LEFT: i32 = 2;
/// Life of a revocation list: a controller that is away for half of it does no harm to those who insist on a fresh one.
pub const LIST_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Most leaves on one list: a list is one record, and a batch of the store holds a mebibyte.
pub const REVOKED_MAX: u64 = 15_000;
/// With so many an operator is told, while there is room for what is urgent.
pub const REVOKED_MANY: u64 = REVOKED_MAX / 5 * 4;

/// The private part of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrivateCa {
    /// Subject of the root.
    pub common_name: String,
    /// Of the root: P-256 or P-384.
    pub key_type: KeyType,
    /// What it may certify; never empty.
    pub names: Vec<Allowed>,
    /// Seconds that a leaf lives.
    pub leaf_life_s: i64,
    /// Seconds that a root lives.
    pub root_life_s: i64,
    /// Where clients find the revocation list; `None`: leaves do not say.
    pub list_url: Option<String>,
    /// PKCS #8 PEM; absent until `tasks/private_ca` made it.
    pub key: Option<Sealed>,
    /// Certificates of that key, oldest first. The last one is the issuer of leaves.
    pub roots: Vec<Root>,
}

/// One self-signed certificate of the CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// PEM.
    pub pem: String,
    /// SHA-256 over the DER, lower-case hex.
    pub fingerprint_sha256: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// What its name constraints permit.
    pub names: Vec<Allowed>,
}

/// A leaf on the revocation list. Key in the store: `issuer_id/serial`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokedLeaf {
    /// Whose leaf.
    pub issuer_id: String,
    /// Lower-case hex.
    pub serial: String,
    /// Since when.
    pub revoked_at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
    /// When it expires: one list later it is left out (RFC 5280 §3.3).
    pub not_after: Timestamp,
}

/// The revocation list of a CA. Key in the store: the issuer's id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationList {
    /// Whose.
    pub issuer_id: String,
    /// Only ever grows (RFC 5280 §5.2.3).
    pub number: u64,
    /// When it was made.
    pub this_update: Timestamp,
    /// When the next one is promised.
    pub next_update: Timestamp,
    /// Leaves on it.
    pub count: u64,
    /// The greatest revision of a row that is on it: a row with a greater one is missing.
    pub newest: u64,
    /// DER, base64.
    pub der: String,
}

impl PrivateCa {
    /// The certificate that signs, once there is one.
    #[must_use]
    pub fn root(&self) -> Option<&Root> {
        self.roots.last()
    }

    /// When the root is certified again; `None` before the first.
    #[must_use]
    pub fn next_root_at(&self) -> Option<Timestamp> {
        self.root().map(|root| with_left(root.not_before, root.not_after, ROOT_LEFT))
    }

    /// Whether a root certificate has to be made: none yet, half of its life is over, or other names are allowed now.
    #[must_use]
    pub fn needs_root(&self, now: Timestamp) -> bool {
        self.root().is_none_or(|root| root.names != self.names) || self.next_root_at().is_some_and(|at| at <= now)
    }

    /// Takes a new root certificate. Earlier ones stay until they expire, so that they can be exported.
    pub fn take_root(&mut self, root: Root, now: Timestamp) {
        self.roots.retain(|one| one.not_after > now);
        self.roots.push(root);
        let over = self.roots.len().saturating_sub(ROOTS_KEPT);
        self.roots.drain(..over);
    }

    /// Returns the identifiers that it may not certify.
    #[must_use]
    pub fn refused<'a>(&self, identifiers: &'a [String]) -> Vec<&'a String> {
        identifiers.iter().filter(|one| !self.names.iter().any(|allowed| allowed.permits(one))).collect()
    }

    /// When a leaf that begins now ends: never after its root.
    #[must_use]
    pub fn leaf_ends(&self, now: Timestamp) -> Option<Timestamp> {
        let root = self.root().filter(|root| root.not_after > now)?;
        let wanted = now.checked_add(SignedDuration::from_secs(self.leaf_life_s)).unwrap_or(root.not_after);
        Some(wanted.min(root.not_after))
    }

    /// What it may certify, in words.
    #[must_use]
    pub fn names_said(&self) -> String {
        self.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

impl RevocationList {
    /// When the list is made again by itself.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        with_left(self.this_update, self.next_update, LIST_LEFT)
    }

    /// The number of a list that is made now after this one. It is the time in milliseconds where that is greater, so that it
    /// grows also after an older database was restored: nobody makes more than a list each millisecond for long.
    #[must_use]
    pub fn number_at(earlier: Option<&Self>, now: Timestamp) -> u64 {
        let by_clock = u64::try_from(now.as_millisecond()).unwrap_or_default();
        earlier.map_or(by_clock, |earlier| earlier.number.saturating_add(1).max(by_clock))
    }
}

impl RevokedLeaf {
    /// Whether it may be left out: it expired, and one list since then held it.
    #[must_use]
    pub fn is_past(&self, now: Timestamp) -> bool {
        self.not_after.checked_add(LIST_LIFE).is_ok_and(|at| at <= now)
    }
}

fn with_left(from: Timestamp, to: Timestamp, left: i32) -> Timestamp {
    let life = to.duration_since(from);
    to.checked_sub(life.checked_div(left).unwrap_or(SignedDuration::ZERO)).unwrap_or(from)
}

/// One line of a CA's policy: a host, what stands directly below a name, or a range of addresses. The grammar of the agents'
/// `names`, and addresses as `10.0.0.0/8`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Allowed {
    /// Exactly this host.
    Host(String),
    /// `*.NAME`: one label below it, and the wildcard itself.
    Below(String),
    /// Addresses that share this many leading bits; the others are zero.
    Range(IpAddr, u8),
}

impl Allowed {
    /// Whether an identifier is allowed by it.
    #[must_use]
    pub fn permits(&self, identifier: &str) -> bool {
        match (self, identifier.parse::<IpAddr>()) {
            (Self::Range(network, bits), Ok(address)) => masked(address, *bits) == Some(*network),
            (Self::Range(..), Err(_)) | (Self::Host(_) | Self::Below(_), Ok(_)) => false,
            (Self::Host(name), Err(_)) => name == identifier,
            (Self::Below(parent), Err(_)) => name_matches(&format!("*.{parent}"), identifier),
        }
    }
}

impl FromStr for Allowed {
    type Err = String;

    /// Reads what [`fmt::Display`] writes, and what an operator types.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Some((address, bits)) = text.split_once('/') {
            let range = address.parse::<IpAddr>().ok().zip(bits.parse::<u8>().ok());
            let range = range.and_then(|(address, bits)| Some((masked(address, bits)?, bits)));
            let shown = proto::text::one_line(text, 80);
            return range.map_or_else(
                || Err(format!("\"{shown}\" is not a range of addresses")),
                |(network, bits)| Ok(Self::Range(network, bits)),
            );
        }
        if let Some(parent) = text.strip_prefix("*.") {
            // A single label is enough here: nobody asks a private CA for a public suffix.
            let host = identifier::parse(&format!("x.{parent}")).map_err(|refusal| refusal.to_string())?;
            return host.strip_prefix("x.").map(|parent| Self::Below(parent.to_owned())).ok_or_else(String::new);
        }
        let name = identifier::parse(text).map_err(|refusal| refusal.to_string())?;
        Ok(match name.parse::<IpAddr>() {
            Ok(address) => Self::Range(address, width(address)),
            Err(_) => Self::Host(name),
        })
    }
}

impl TryFrom<String> for Allowed {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Allowed> for String {
    fn from(allowed: Allowed) -> Self {
        allowed.to_string()
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(name) => f.write_str(name),
            Self::Below(parent) => write!(f, "*.{parent}"),
            Self::Range(network, bits) => write!(f, "{network}/{bits}"),
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with all but its leading bits zero; `None` for more bits than it has.
fn masked(address: IpAddr, bits: u8) -> Option<IpAddr> {
    let hidden = u32::from(width(address).checked_sub(bits)?);
    Some(match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & u32::MAX.checked_shl(hidden).unwrap_or(0)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() & u128::MAX.checked_shl(hidden).unwrap_or(0)).into()),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn private_ca(names: &[&str]) -> PrivateCa {
        PrivateCa {
            common_name: "Example CA".into(),
            key_type: KeyType::P256,
            names: names.iter().map(|name| name.parse().unwrap()).collect(),
            leaf_life_s: 3_600,
            root_life_s: 36_000,
            list_url: None,
            key: None,
            roots: Vec::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn root(ca: &PrivateCa, from: i64) -> Root {
        Root {
            pem: String::new(),
            fingerprint_sha256: String::new(),
            not_before: at(from),
            not_after: at(from + ca.root_life_s),
            names: ca.names.clone(),
        }
    }

    #[test]
    fn a_policy_is_hosts_what_stands_below_and_ranges() {
        for (written, read) in [
            (" *.Corp.Example ", "*.corp.example"),
            ("*.lan", "*.lan"),
            ("db.corp.example", "db.corp.example"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ] {
            let allowed: Allowed = written.parse().unwrap();
            assert_eq!(allowed.to_string(), read);
            assert_eq!(serde_json::from_value::<Allowed>(serde_json::to_value(&allowed).unwrap()).unwrap(), allowed);
        }
        for wrong in ["", "*", "*.*.example", "10.0.0.0/33", "10.0.0/8", "2001:db8::/129", "a b", "corp", "x/y"] {
            assert!(wrong.parse::<Allowed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_no_line_permits_is_refused_by_name() {
        let ca = private_ca(&["*.corp.example", "db.example", "10.0.0.0/8", "2001:db8::/32"]);
        let allowed =
            ["a.corp.example", "*.corp.example", "db.example", "10.200.0.1", "2001:db8:1::5"].map(str::to_owned);
        assert!(ca.refused(&allowed).is_empty());
        let refused = ["corp.example", "a.b.corp.example", "x.db.example", "11.0.0.1", "2001:db9::1", "*.db.example"]
            .map(str::to_owned);
        assert_eq!(ca.refused(&refused), refused.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_root_is_certified_again_at_half_its_life_and_the_old_one_stays_until_it_expires() {
        let mut ca = private_ca(&["*.corp.example"]);
        assert!(ca.needs_root(at(0)) && ca.next_root_at().is_none() && ca.leaf_ends(at(0)).is_none());
        ca.take_root(root(&ca, 0), at(0));
        assert_eq!(ca.next_root_at(), Some(at(18_000)));
        assert!(!ca.needs_root(at(17_999)) && ca.needs_root(at(18_000)));
        ca.take_root(root(&ca, 18_000), at(18_000));
        assert_eq!((ca.roots.len(), ca.root().unwrap().not_before), (2, at(18_000)));
        ca.take_root(root(&ca, 36_000), at(36_000));
        assert_eq!(ca.roots.len(), 2, "the first one expired");
        ca.names.push("b.example".parse().unwrap());
        assert!(ca.needs_root(at(36_001)), "its constraints are of the names before");
    }

    #[test]
    fn a_leaf_never_outlives_its_root() {
        let mut ca = private_ca(&["*.corp.example"]);
        ca.take_root(root(&ca, 0), at(0));
        assert_eq!(ca.leaf_ends(at(10)), Some(at(3_610)));
        assert_eq!(ca.leaf_ends(at(35_000)), Some(at(36_000)));
        assert_eq!(ca.leaf_ends(at(36_000)), None);
        ca.leaf_life_s = i64::MAX;
        assert_eq!(ca.leaf_ends(at(10)), Some(at(36_000)));
    }

    #[test]
    fn numbers_of_lists_grow_also_after_a_restored_database() {
        let list = |number, from| RevocationList {
            issuer_id: "i".into(),
            number,
            this_update: at(from),
            next_update: at(from) + LIST_LIFE,
            count: 0,
            newest: 0,
            der: String::new(),
        };
        let first = RevocationList::number_at(None, at(0));
        assert_eq!(RevocationList::number_at(Some(&list(first, 0)), at(0)), first + 1, "twice in a millisecond");
        assert!(
            RevocationList::number_at(Some(&list(first, 0)), at(90)) > first + 50_000,
            "also when hundreds were made in a second"
        );
        assert_eq!(list(first, 0).next_at(), at(0) + LIST_LIFE / 2);
    }
}
