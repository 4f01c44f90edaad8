//! An agent as the controller knows it, and what it may still do. Called by `rpc/peer` on every message.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::holder::Holder;
use super::label::Labels;
use super::problem::Problem;
use super::rotation::{PeerCa, Rotation};
use super::target::Content;

/// A leaf expired for less than this may ask for a new one; later an operator has to consent (design §5).
const EXPIRED_GRACE: SignedDuration = SignedDuration::from_hours(90 * 24);
/// An operator's consent holds for so long: time enough to switch a server on, and no door that stays open.
const CONSENT_LIFE: SignedDuration = SignedDuration::from_hours(24);
/// Reason of an agent that was away for too long.
pub const NEEDS_CONSENT: &str = "NEEDS_CONSENT";
/// How long a join token may be used.
pub const JOIN_TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// Whether an agent may act at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Enrolled.
    Enrolled,
    /// Refused everything, for ever.
    Revoked,
}

/// An agent. Key in the store: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Random, never reused.
    pub id: String,
    /// Unique, chosen by the operator.
    pub name: String,
    /// Whether it may act.
    pub standing: Standing,
    /// SHA-256 of the enrolled key's SPKI, lower-case hex.
    pub spki_sha256: String,
    /// Serial of its latest identity leaf, lower-case hex.
    pub serial: String,
    /// End of that leaf.
    pub identity_not_after: Timestamp,
    /// When it enrolled.
    pub enrolled_at: Timestamp,
    /// When its stream last closed; absent while it never connected.
    pub seen_at: Option<Timestamp>,
    /// What it said in its last hello; sanitised.
    pub hello: Hello,
    /// That it may come back although it was away for too long.
    #[serde(default)]
    pub consent: Option<Consent>,
    /// Which programs hold its identity.
    #[serde(default)]
    pub holder: Holder,
    /// Which identity CAs it knows.
    #[serde(default)]
    pub ca: PeerCa,
    /// What operators say of it.
    #[serde(default)]
    pub labels: Labels,
}

/// An operator's consent to the return of an agent that was away for too long. It ends with the return.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consent {
    /// Who consented.
    pub by: String,
    /// When it ends unused.
    pub until: Timestamp,
}

/// What an agent says of itself. Text is sanitised and capped at the edge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Version of the program.
    pub version: String,
    /// Host name.
    pub hostname: String,
    /// Operating system.
    pub os: String,
    /// Features a desired item may require.
    pub features: Vec<String>,
    /// Its local policy.
    pub policy: Policy,
}

/// What an agent's local policy allows; the agent enforces it, the controller shows it and picks from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Where certificates may be written.
    pub dirs: Vec<PolicyDir>,
    /// Exact argv that may run.
    pub commands: Vec<Vec<String>>,
    /// Ports of standalone listeners.
    pub http01_ports: Vec<u16>,
    /// Directories of webroot answers.
    pub webroots: Vec<String>,
    /// Custodies it accepts: "agent", "controller".
    pub custody: Vec<String>,
}

/// A directory and everything below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyDir {
    /// Absolute path.
    pub path: String,
    /// Identifier patterns; empty means any.
    pub names: Vec<String>,
    /// File name patterns; empty means any.
    pub files: Vec<String>,
    /// `user:group`; empty means any.
    pub owners: Vec<String>,
    /// Widest mode of a key.
    pub key_mode_max: u32,
}

/// An unused or used join token. Key in the store: SHA-256 of the secret, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// SHA-256 of the secret part.
    pub hash: String,
    /// The only name it enrolls.
    pub agent_name: String,
    /// Binds a reinstalled host to the agent that has the name.
    pub replace: bool,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// Who made it.
    pub actor: String,
    /// The agent it made, and the hex SPKI hash of its key: a repeat with the same key gets the same answer.
    pub used: Option<TokenUse>,
}

/// How a join token was spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUse {
    /// The agent it made.
    pub agent_id: String,
    /// Hex SHA-256 of the key's SPKI.
    pub spki_sha256: String,
    /// When.
    pub at: Timestamp,
}

/// Why a join token is refused. The text goes to an unauthenticated peer: it tells nothing about other tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenRefusal {
    /// Its time is over.
    Expired,
    /// Another key used it.
    Used,
    /// An agent with the name exists, and the token does not replace it.
    NameTaken,
}

impl JoinToken {
    /// Decides whether a key may redeem this token. `named` is the agent that has the token's name now.
    ///
    /// A repeat gets the same answer only while that agent is what the first redemption made: a token never brings a
    /// revoked, forgotten or replaced agent back.
    ///
    /// # Errors
    /// Why not.
    pub fn redeem(&self, spki_sha256: &str, named: Option<&Agent>, now: Timestamp) -> Result<Redemption, TokenRefusal> {
        if self.expires_at <= now {
            return Err(TokenRefusal::Expired);
        }
        let made = |used: &TokenUse| {
            named.is_some_and(|agent| {
                agent.id == used.agent_id && agent.standing == Standing::Enrolled && agent.spki_sha256 == spki_sha256
            })
        };
        match &self.used {
            Some(used) if used.spki_sha256 == spki_sha256 && made(used) => Ok(Redemption::Again),
            Some(_) => Err(TokenRefusal::Used),
            None if named.is_some() && !self.replace => Err(TokenRefusal::NameTaken),
            None => Ok(Redemption::First),
        }
    }
}

/// How a join token is redeemed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redemption {
    /// It makes, or replaces, an agent.
    First,
    /// The same key lost the answer and asks again.
    Again,
}

/// What an agent may call at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Every agent RPC.
    Full,
    /// Its leaf expired a while ago: RenewIdentity only.
    RenewOnly,
    /// Its leaf expired too long ago: nothing before an operator consents.
    NeedsConsent,
    /// Nothing.
    Refused,
}

impl Agent {
    /// Decides what a peer with this leaf may call. The key is the enrolled one or nothing is allowed.
    #[must_use]
    pub fn permission(&self, leaf_spki_sha256: &str, leaf_not_after: Timestamp, now: Timestamp) -> Permission {
        let expired_for = now.duration_since(leaf_not_after);
        match self.standing {
            Standing::Revoked => Permission::Refused,
            Standing::Enrolled if leaf_spki_sha256 != self.spki_sha256 => Permission::Refused,
            Standing::Enrolled if expired_for.is_negative() || expired_for.is_zero() => Permission::Full,
            Standing::Enrolled if expired_for < EXPIRED_GRACE || self.has_consent(now) => Permission::RenewOnly,
            Standing::Enrolled => Permission::NeedsConsent,
        }
    }

    fn has_consent(&self, now: Timestamp) -> bool {
        self.consent.as_ref().is_some_and(|consent| now < consent.until)
    }

    /// Returns the consent that `by` gives now; `None` when the agent needs none or must never return.
    #[must_use]
    pub fn consented(&self, by: &str, now: Timestamp) -> Option<Consent> {
        // Expired is enough: the leaf it holds may be older than the last one made for it.
        let may = self.standing == Standing::Enrolled && self.identity_not_after <= now;
        may.then(|| Consent { by: by.to_owned(), until: now + CONSENT_LIFE })
    }

    /// Returns what is wrong with its identity, the most urgent first.
    #[must_use]
    pub fn problems(&self, now: Timestamp, rotation: &Rotation) -> Vec<Problem> {
        if self.standing == Standing::Revoked {
            return Vec::new();
        }
        let lost = self.ca.problem(&self.name, rotation);
        lost.into_iter().chain(self.held_twice(now)).chain(self.needs_consent(now)).collect()
    }

    fn needs_consent(&self, now: Timestamp) -> Option<Problem> {
        let Self { name, identity_not_after, .. } = self;
        (now.duration_since(*identity_not_after) >= EXPIRED_GRACE && !self.has_consent(now)).then(|| {
            Problem::new(
                NEEDS_CONSENT,
                format!("{name} was away for too long to come back by itself"),
                format!("its identity ended on {}", identity_not_after.strftime("%F")),
                format!(
                    "if that server is still the one: certwright agents consent {name}; if not: certwright agents revoke {name}"
                ),
            )
        })
    }

    /// The snake-case status of design §2.
    #[must_use]
    pub fn status(&self, connected: bool, now: Timestamp) -> &'static str {
        match self.standing {
            Standing::Revoked => "revoked",
            Standing::Enrolled if connected => "connected",
            Standing::Enrolled if self.identity_not_after <= now => "expired",
            Standing::Enrolled => "offline",
        }
    }
}

/// The four files that a target writes when none are named (features.md D2).
#[must_use]
pub fn default_files() -> [(Content, &'static str, u32); 4] {
    [
        (Content::Cert, "cert.pem", 0o644),
        (Content::Key, "key.pem", 0o600),
        (Content::Chain, "chain.pem", 0o644),
        (Content::Fullchain, "fullchain.pem", 0o644),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    pub(crate) fn agent() -> Agent {
        Agent {
            id: "a".into(),
            name: "h1".into(),
            standing: Standing::Enrolled,
            spki_sha256: "key".into(),
            serial: "01".into(),
            identity_not_after: at(1_000),
            enrolled_at: at(0),
            seen_at: None,
            hello: Hello::default(),
            consent: None,
            holder: Holder::default(),
            ca: PeerCa::default(),
            labels: Labels::new(),
        }
    }

    #[test]
    fn an_expired_leaf_may_only_renew_and_a_revoked_agent_nothing() {
        let mut agent = agent();
        assert_eq!(agent.permission("key", at(1_000), at(1_000)), Permission::Full);
        assert_eq!(agent.permission("key", at(1_000), at(1_001)), Permission::RenewOnly);
        assert_eq!(agent.permission("key", at(1_000), at(1_000 + 90 * 86_400)), Permission::NeedsConsent);
        assert_eq!(agent.permission("other", at(1_000), at(1_000 + 90 * 86_400)), Permission::Refused);
        assert_eq!(agent.permission("other", at(1_000), at(1)), Permission::Refused);
        agent.standing = Standing::Revoked;
        assert_eq!(agent.permission("key", at(1_000), at(1)), Permission::Refused);
    }

    #[test]
    fn consent_opens_the_door_for_a_day_for_the_enrolled_key_alone() {
        let mut agent = agent();
        let (early, late) = (at(1_000 + 89 * 86_400), at(1_000 + 91 * 86_400));
        assert_eq!(agent.consented("local:root", at(999)), None, "valid");
        assert!(agent.problems(early, &Rotation::default()).is_empty());
        let problem = agent.problems(late, &Rotation::default()).remove(0);
        assert_eq!(problem.reason, NEEDS_CONSENT);
        assert!(problem.hint.contains("agents consent h1"), "{problem:?}");
        agent.consent = agent.consented("local:root", late);
        assert!(agent.problems(late, &Rotation::default()).is_empty());
        assert_eq!(agent.permission("key", at(1_000), late), Permission::RenewOnly);
        assert_eq!(agent.permission("other", at(1_000), late), Permission::Refused);
        assert_eq!(agent.permission("key", at(1_000), late + CONSENT_LIFE), Permission::NeedsConsent);
        assert_eq!(agent.problems(late + CONSENT_LIFE, &Rotation::default()).len(), 1);
        agent.standing = Standing::Revoked;
        assert_eq!(agent.permission("key", at(1_000), late), Permission::Refused);
        assert_eq!(agent.consented("local:root", late), None);
        assert!(agent.problems(late + CONSENT_LIFE, &Rotation::default()).is_empty());
    }

    #[test]
    fn a_join_token_works_once_for_one_key_and_name() {
        let mut token = JoinToken {
            hash: "h".into(),
            agent_name: "h1".into(),
            replace: false,
            expires_at: at(3_600),
            actor: "local:root".into(),
            used: None,
        };
        let mut agent = agent();
        assert_eq!(token.redeem("key", None, at(0)), Ok(Redemption::First));
        assert_eq!(token.redeem("key", Some(&agent), at(0)), Err(TokenRefusal::NameTaken));
        assert_eq!(token.redeem("key", None, at(3_600)), Err(TokenRefusal::Expired));
        token.used = Some(TokenUse { agent_id: "a".into(), spki_sha256: "key".into(), at: at(1) });
        assert_eq!(token.redeem("key", Some(&agent), at(2)), Ok(Redemption::Again));
        assert_eq!(token.redeem("thief", Some(&agent), at(2)), Err(TokenRefusal::Used));
        assert_eq!(token.redeem("key", None, at(2)), Err(TokenRefusal::Used), "forgotten");
        agent.spki_sha256 = "newer".into();
        assert_eq!(token.redeem("key", Some(&agent), at(2)), Err(TokenRefusal::Used), "replaced");
        agent.spki_sha256 = "key".into();
        agent.standing = Standing::Revoked;
        assert_eq!(token.redeem("key", Some(&agent), at(2)), Err(TokenRefusal::Used), "revoked");
        token.used = None;
        token.replace = true;
        assert_eq!(token.redeem("key", Some(&agent), at(0)), Ok(Redemption::First));
    }
}
