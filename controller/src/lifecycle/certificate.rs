//! The certificate as an operator wants it, its versions and keys, and what its status is. Called by every room.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::pause::Pause;
use super::problem::Problem;
use super::rollback::Rollback;
use super::rollout::Delivery;
use super::sealed::Sealed;

/// Longest name of a certificate, agent or issuer.
pub const NAME_CHARS_MAX: usize = 64;

/// Where a key was born and stays (features.md C5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// Born on the target; only a CSR leaves it.
    Agent,
    /// Made and sealed by the controller.
    Controller,
}

/// Key algorithm of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// ECDSA on P-256, the default.
    P256,
    /// ECDSA on P-384.
    P384,
    /// RSA, 2048 bits.
    Rsa2048,
    /// RSA, 3072 bits.
    Rsa3072,
    /// RSA, 4096 bits.
    Rsa4096,
}

impl Custody {
    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Controller => "controller",
        }
    }
}

impl KeyType {
    /// Every key type.
    pub const ALL: [Self; 5] = [Self::P256, Self::P384, Self::Rsa2048, Self::Rsa3072, Self::Rsa4096];

    /// The word of the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }
}

/// How an agent answers HTTP-01 (RFC 8555 §8.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Http01 {
    /// A listener on this port, open only while a challenge is pending.
    Standalone(u16),
    /// Files below this directory, which a web server serves.
    Webroot(String),
}

/// What an operator asks for. A change of identifiers, issuer, profile, key type or custody is a new version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// A-labels, lower case.
    pub identifiers: Vec<String>,
    /// Id of the issuer.
    pub issuer_id: String,
    /// Ids of the issuers that are asked when the first fails and time is short, in their order.
    #[serde(default)]
    pub fallback_ids: Vec<String>,
    /// Profile to order; `None` is the issuer's default.
    #[serde(default)]
    pub profile: Option<String>,
    /// Keep the key when the version is renewed, instead of a new one each time.
    #[serde(default)]
    pub reuse_key: bool,
    /// Key algorithm.
    pub key_type: KeyType,
    /// Custody of the next version's key.
    pub custody: Custody,
    /// How challenges are answered.
    pub http01: Http01,
    /// Ids of the agents that answer; empty means the targets' agents.
    pub responders: Vec<String>,
}

/// A managed certificate. Key in the store: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// Random, never reused.
    pub id: String,
    /// Unique, chosen by the operator.
    pub name: String,
    /// What is wanted.
    pub specification: Specification,
    /// Renew without being asked.
    pub auto_renew: bool,
    /// When it was created.
    pub created_at: Timestamp,
    /// The version that targets should hold.
    pub current: Option<CurrentVersion>,
    /// An operator's "renew now" that no order has taken up yet.
    pub renew_asked_at: Option<Timestamp>,
    /// Asked together with `renew_asked_at`: the next version gets a new key, also where the key is pinned.
    #[serde(default)]
    pub rekey_asked: bool,
    /// Set while a purge waits for its targets; nothing is issued or deployed then.
    pub purging: bool,
    /// An operator holds it still: nothing is ordered or deployed.
    #[serde(default)]
    pub paused: Option<Pause>,
    /// Targets hold an older version instead of the current one.
    #[serde(default)]
    pub rollback: Option<Rollback>,
    /// How a new version reaches the targets.
    #[serde(default)]
    pub delivery: Delivery,
}

/// What lists, schedules and desired states need of the current version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentVersion {
    /// Id of the [`Version`].
    pub version_id: String,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 over the leaf's DER, lower-case hex.
    pub fingerprint_sha256: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// As the leaf says; sanitised.
    pub issuer_cn: String,
    /// Custody of this version's key.
    pub custody: Custody,
    /// The slot that holds the key.
    pub key_slot_id: String,
    /// What it was ordered for.
    pub identifiers: Vec<String>,
    /// Key algorithm.
    pub key_type: KeyType,
    /// Who issued it.
    pub issuer_id: String,
    /// Profile it was ordered with.
    #[serde(default)]
    pub profile: Option<String>,
    /// What was wanted then; a fallback or an issuer's default may have answered. Absent in versions of earlier days.
    #[serde(default)]
    pub wanted: Option<Wanted>,
    /// The key is gone: the version cannot be deployed again.
    pub key_lost: bool,
    /// When it was revoked at the CA, by whomever; what is revoked is replaced at once.
    #[serde(default)]
    pub revoked_at: Option<Timestamp>,
    /// Why, as the CA or the operator said it (RFC 5280 §5.3.1); sanitised.
    #[serde(default)]
    pub revoked_reason: Option<String>,
}

/// The part of a specification that a version need not show: who was to issue it, with which profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Id of the first issuer.
    pub issuer_id: String,
    /// As in the specification.
    pub profile: Option<String>,
}

impl CurrentVersion {
    /// Whether it was ordered for another issuer or profile than is wanted now. A version of a fallback was not.
    #[must_use]
    pub fn wanted_elsewhere(&self, wanted: &Specification) -> bool {
        match &self.wanted {
            Some(then) => then.issuer_id != wanted.issuer_id || then.profile != wanted.profile,
            None => self.issuer_id != wanted.issuer_id || wanted.profile.is_some(),
        }
    }
}

/// One issued leaf and chain. Key in the store: `certificate_id/id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Random, sorts by time.
    pub id: String,
    /// Whose version.
    pub certificate_id: String,
    /// The same facts as in [`Certificate::current`].
    pub facts: CurrentVersion,
    /// PEM of the leaf.
    pub leaf_pem: String,
    /// PEM of the issuers, without the leaf.
    pub chain_pem: String,
    /// RFC 8555 order it came from.
    pub order_url: String,
    /// When it was downloaded.
    pub issued_at: Timestamp,
    /// Why it was ordered, as [`super::renewal::Reason`] writes it.
    pub reason: String,
}

/// A key and its CSR. Key in the store: `certificate_id/id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeySlot {
    /// Random.
    pub id: String,
    /// Whose key.
    pub certificate_id: String,
    /// Where it lives.
    pub custody: Custody,
    /// The agent that holds it, in agent custody.
    pub agent_id: Option<String>,
    /// Subject alternative names of the CSR.
    pub identifiers: Vec<String>,
    /// Key algorithm.
    pub key_type: KeyType,
    /// PKCS #10, DER, base64; absent until the key exists and is durable.
    pub csr: Option<String>,
    /// PKCS #8 PEM, in controller custody.
    pub key: Option<Sealed>,
    /// The agent reported that the key is gone.
    pub lost: bool,
    /// Why the agent could not make it.
    pub problem: Option<Problem>,
}

/// Design §2: certificate.status. A failed renewal never hides active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Its current version was revoked.
    Revoked,
    /// Its current version's validity has ended.
    Expired,
    /// No version yet, and the last attempt failed.
    Failed,
    /// No version yet.
    Pending,
    /// A valid current version exists.
    Active,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [Self::Revoked, Self::Expired, Self::Failed, Self::Pending, Self::Active];

    /// The snake-case word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Failed => "failed",
            Self::Pending => "pending",
            Self::Active => "active",
        }
    }
}

impl Certificate {
    /// Returns the status at `now`; `attempt_failed` tells whether the last order attempt failed.
    #[must_use]
    pub fn status(&self, attempt_failed: bool, now: Timestamp) -> Status {
        match &self.current {
            Some(current) if current.revoked_at.is_some() => Status::Revoked,
            Some(current) if current.not_after <= now => Status::Expired,
            Some(_) => Status::Active,
            None if attempt_failed => Status::Failed,
            None => Status::Pending,
        }
    }
}

impl KeySlot {
    /// Whether this slot's key and CSR can serve an order for `specification`.
    #[must_use]
    pub fn fits(&self, specification: &Specification, agent_id: Option<&str>) -> bool {
        !self.lost
            && self.custody == specification.custody
            && self.key_type == specification.key_type
            && self.identifiers == specification.identifiers
            && (self.custody == Custody::Controller || self.agent_id.as_deref() == agent_id)
    }
}

/// Whether `name` may name a certificate, agent or issuer: letters, digits, dot, hyphen and underscore, starting with a
/// letter or digit, at most [`NAME_CHARS_MAX`].
#[must_use]
pub fn is_name(name: &str) -> bool {
    name.len() <= NAME_CHARS_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}
