//! What a restored controller may do, and what it takes over from agents that hold more than the backup knew (design §3,
//! reliability.md SE9, SE15, rules 9 and 20). Called by `store/backup`, `tasks` and `rpc`.
//!
//! ```text
//!  restore ──▶ Waiting ──── restore accept ────▶ Accepted
//!              nothing is ordered or published     each agent shows what it holds before it is told anything
//! ```

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::certificate::{Certificate, CurrentVersion, Custody, KeyType, Wanted};
use super::pause::Pause;
use super::private_ca::{LIST_LIFE, RevokedLeaf};

/// Epoch of a database that was never restored.
pub const FIRST_EPOCH: u64 = 1;
/// Who holds everything still after a restore, in the words of a pause.
pub const RESTORE: &str = "restore";
/// Low bits of an epoch that are random.
const RANDOM_BITS: u32 = 12;
/// A leaf may begin this much in our future: clocks differ.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(10);

/// The last restore of this database, under `restore` of the settings. Absent in one that was never restored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// Names what this controller tells agents; grows with every restore.
    pub epoch: u64,
    /// When it was restored.
    pub restored_at: Timestamp,
    /// By whom: a user of the host.
    pub by: String,
    /// The instant that the backup is of.
    pub made_at: Timestamp,
    /// Host name of the controller that it is a backup of.
    pub controller: String,
    /// The last line of the audit in the backup.
    pub audit_seq: u64,
    /// The latest line that an agent saw of the audit before the restore, and which agent. Lines in between are lost.
    #[serde(default)]
    pub witnessed: Option<(u64, String)>,
    /// Revocations and removals that a list beside the old database named; absent when there was no such list.
    #[serde(default)]
    pub removals: Option<u64>,
    /// Set once an owner accepted it.
    #[serde(default)]
    pub accepted: Option<Accepted>,
}

/// An owner's consent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// When.
    pub at: Timestamp,
    /// By whom.
    pub by: String,
}

impl Restore {
    /// Whether nothing may be ordered and no agent told anything.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.accepted.is_none()
    }

    /// Whether what was published then may be published still: a list of before the acceptance may lack what was revoked since
    /// the backup, and be older than one that clients have.
    #[must_use]
    pub fn stands(&self, published_at: Timestamp) -> bool {
        self.accepted.as_ref().is_some_and(|accepted| accepted.at <= published_at)
    }

    /// Returns the pause that it is for everything that asks for one.
    #[must_use]
    pub fn pause(&self) -> Option<Pause> {
        self.is_waiting().then(|| Pause {
            at: self.restored_at,
            by: RESTORE.to_owned(),
            reason: if self.controller.is_empty() {
                "an older database was put back, and that is not accepted yet".to_owned()
            } else {
                format!("restored from the backup of {:.0} and not accepted yet", self.made_at)
            },
        })
    }

    /// How many lines of the audit agents saw that this database does not have.
    #[must_use]
    pub fn lines_lost(&self) -> u64 {
        self.witnessed.as_ref().map_or(0, |(seq, _)| seq.saturating_sub(self.audit_seq))
    }
}

/// Returns the epoch of a database that is restored now. Later restores have higher ones, also of the same backup on another
/// machine; `random` tells apart two of the same millisecond.
#[must_use]
pub fn next_epoch(before: u64, now: Timestamp, random: u16) -> u64 {
    let low = (1_u64 << RANDOM_BITS) - 1;
    let by_clock = u64::try_from(now.as_millisecond()).unwrap_or_default() << RANDOM_BITS;
    // A clock that is behind must not bring an epoch back.
    by_clock.max((before | low).saturating_add(1)) | (u64::from(random) & low)
}

/// Something that must stay refused, whatever a backup says: written down beside the database, before it has its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: Removed,
    /// Id of the agent, operator or issuer; issuer's id and serial of a leaf.
    pub id: String,
    /// Its name, for people; the issuer's of a leaf.
    pub name: String,
    /// The row of a revoked leaf, as it stands on the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaf: Option<RevokedLeaf>,
}

/// What happened to an identity, or to a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Removed {
    /// An agent was revoked.
    AgentRevoked,
    /// An agent was forgotten.
    AgentForgotten,
    /// A host was enrolled anew in place of the agent: its old key is refused.
    AgentReplaced,
    /// An operator was removed, or given less to do than before.
    OperatorRemoved,
    /// A leaf of a private CA was revoked.
    LeafRevoked,
    /// An issuer was removed: its key, or its account, must not be used again.
    IssuerRemoved,
    /// It was not, after all: the removal failed once that was written down.
    IssuerKept,
    /// The next identity CA, of this id, began to sign: who followed it does not know the one before any more.
    IdentityCaActivated,
}

impl Removal {
    /// Whether a backup of this instant may not know of it yet. One that was being written down at that instant may not either;
    /// what an agent or operator became anew before the backup is in it.
    #[must_use]
    pub fn is_news_for(&self, made_at: Timestamp) -> bool {
        self.at.duration_since(made_at) > -CLOCK_TOLERANCE
    }

    /// Whether nobody needs it any more: a leaf that expired so long ago that it left the list, and as long again.
    #[must_use]
    pub fn is_past(&self, now: Timestamp) -> bool {
        self.leaf.as_ref().is_some_and(|leaf| now.checked_sub(LIST_LIFE).is_ok_and(|then| leaf.is_past(then)))
    }
}

impl Removed {
    /// Whether an agent with the record of the backup must be refused.
    #[must_use]
    pub fn refuses_agent(self) -> bool {
        match self {
            Self::AgentRevoked | Self::AgentForgotten | Self::AgentReplaced => true,
            Self::OperatorRemoved
            | Self::LeafRevoked
            | Self::IssuerRemoved
            | Self::IssuerKept
            | Self::IdentityCaActivated => false,
        }
    }
}

/// A leaf that an agent shows, as it was parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownLeaf {
    /// What the controller that had it issued called it; sorts by time.
    pub version_id: String,
    /// Lower-case hex.
    pub serial: String,
    /// SHA-256 over its DER, lower-case hex.
    pub fingerprint_sha256: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Sanitised.
    pub issuer_cn: String,
    /// DNS names.
    pub identifiers: Vec<String>,
}

/// What to do with a version that an agent shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It becomes the current version.
    Take,
    /// The database has this leaf, or a newer one.
    Known,
    /// It is not taken, and why.
    Refuse(String),
}

/// Decides about a leaf that an agent holds and the database does not know. The agent may have shown anything.
#[must_use]
pub fn verdict(certificate: &Certificate, shown: &ShownLeaf, now: Timestamp) -> Verdict {
    if let Some(current) = &certificate.current {
        // Two of one second begin at the same instant.
        let is_newer = (shown.not_before, &shown.version_id) > (current.not_before, &current.version_id);
        if current.fingerprint_sha256 == shown.fingerprint_sha256 || !is_newer {
            return Verdict::Known;
        }
    }
    let sorted = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort_unstable();
        names
    };
    if sorted(&shown.identifiers) != sorted(&certificate.specification.identifiers) {
        let (has, wants) = (shown.identifiers.join(", "), certificate.specification.identifiers.join(", "));
        return Verdict::Refuse(format!("it names {has}, and {wants} is wanted"));
    }
    if shown.not_after <= now {
        return Verdict::Refuse(format!("it expired at {}", shown.not_after));
    }
    if shown.not_after <= shown.not_before || shown.not_before.duration_since(now) > CLOCK_TOLERANCE {
        return Verdict::Refuse("its validity is no validity".to_owned());
    }
    Verdict::Take
}

/// Makes the version that an agent holds the current one. In controller custody its key is lost with the database: it counts
/// as a lost key, so that a new version is ordered at once; until then the agents serve what they have.
#[must_use]
pub fn imported(
    certificate: &Certificate,
    shown: &ShownLeaf,
    key_slot_id: &str,
    key_type: KeyType,
    custody: Custody,
) -> CurrentVersion {
    let wanted = &certificate.specification;
    // The same name of the issuer: most likely the same issuer of ours.
    let before = certificate.current.as_ref().filter(|before| before.issuer_cn == shown.issuer_cn);
    CurrentVersion {
        version_id: shown.version_id.clone(),
        serial: shown.serial.clone(),
        fingerprint_sha256: shown.fingerprint_sha256.clone(),
        not_before: shown.not_before,
        not_after: shown.not_after,
        issuer_cn: shown.issuer_cn.clone(),
        custody,
        key_slot_id: key_slot_id.to_owned(),
        identifiers: shown.identifiers.clone(),
        key_type,
        issuer_id: before.map_or(&wanted.issuer_id, |before| &before.issuer_id).clone(),
        profile: wanted.profile.clone(),
        wanted: Some(Wanted { issuer_id: wanted.issuer_id.clone(), profile: wanted.profile.clone() }),
        key_lost: custody == Custody::Controller,
        revoked_at: None,
        revoked_reason: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_later_restore_has_a_higher_epoch_whatever_the_clock_says() {
        let first = next_epoch(FIRST_EPOCH, at(0), 7);
        assert!(first > FIRST_EPOCH);
        assert!(next_epoch(FIRST_EPOCH, at(1), 0) > first, "of the same backup, elsewhere, a second later");
        assert_ne!(next_epoch(FIRST_EPOCH, at(0), 8), first, "in the same instant");
        assert!(next_epoch(first, at(-1_000_000), 0) > first, "a clock that is behind");
        assert!(next_epoch(first, at(-1_000_000), 0) < 1 << 53, "JSON holds it");
        assert_eq!(next_epoch(u64::MAX, at(0), 0), u64::MAX);
    }

    fn shown(begins: i64) -> ShownLeaf {
        ShownLeaf {
            version_id: "v2".into(),
            serial: "02".into(),
            fingerprint_sha256: "b".repeat(64),
            not_before: at(begins),
            not_after: at(begins + 1_000),
            issuer_cn: "Lab".into(),
            identifiers: vec!["b.test".into(), "a.test".into()],
        }
    }

    fn certificate() -> Certificate {
        let mut certificate = super::super::renewal::tests::certificate(1_000);
        certificate.specification.identifiers = vec!["a.test".into(), "b.test".into()];
        let leaf =
            ShownLeaf { version_id: "v1".into(), serial: "01".into(), fingerprint_sha256: "a".repeat(64), ..shown(0) };
        certificate.current = Some(imported(&certificate, &leaf, "k1", KeyType::P256, Custody::Agent));
        certificate
    }

    #[test]
    fn a_newer_leaf_for_the_same_names_is_taken_and_nothing_else() {
        let certificate = certificate();
        let check = |leaf: ShownLeaf, now: i64| verdict(&certificate, &leaf, at(now));
        assert_eq!(check(shown(10), 20), Verdict::Take);
        assert_eq!(check(shown(0), 20), Verdict::Take, "of the same second, and made later");
        assert_eq!(check(ShownLeaf { version_id: "v0".into(), ..shown(0) }, 20), Verdict::Known, "made before");
        assert_eq!(check(shown(-10), 20), Verdict::Known, "older");
        let same = certificate.current.as_ref().unwrap().fingerprint_sha256.clone();
        assert_eq!(check(ShownLeaf { fingerprint_sha256: same, ..shown(10) }, 20), Verdict::Known);
        let refused = |leaf: ShownLeaf, now: i64| matches!(check(leaf, now), Verdict::Refuse(_));
        assert!(refused(ShownLeaf { identifiers: vec!["a.test".into()], ..shown(10) }, 20));
        assert!(refused(shown(10), 1_010), "expired");
        assert!(refused(shown(10_000), 20), "not yet");
        assert!(refused(ShownLeaf { not_after: at(10), ..shown(10) }, 0), "never");
    }

    #[test]
    fn a_key_that_was_lost_with_the_database_is_lost() {
        let certificate = certificate();
        let taken = |custody| imported(&certificate, &shown(10), "k2", KeyType::P256, custody);
        assert!(!taken(Custody::Agent).key_lost && taken(Custody::Controller).key_lost);
        assert_eq!(taken(Custody::Agent).version_id, "v2");
    }

    #[test]
    fn a_restore_holds_everything_until_it_is_accepted() {
        let mut restore = Restore {
            epoch: 5,
            restored_at: at(10),
            by: "local:root".into(),
            made_at: at(0),
            controller: "ctl".into(),
            audit_seq: 50,
            witnessed: None,
            removals: None,
            accepted: None,
        };
        assert!(restore.pause().unwrap().reason.contains("backup of"));
        assert_eq!(restore.lines_lost(), 0);
        restore.witnessed = Some((57, "h1".into()));
        assert_eq!(restore.lines_lost(), 7);
        assert!(!restore.stands(at(5)) && !restore.stands(at(11)));
        restore.accepted = Some(Accepted { at: at(11), by: "local:root".into() });
        assert_eq!(restore.pause(), None);
        assert!(!restore.stands(at(10)) && restore.stands(at(11)));
    }
}
