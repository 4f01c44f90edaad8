//! A person as the controller knows them: a name, a role, and how they prove who they are (design §5). Called by `rpc/peer`
//! on every message.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rotation::PeerCa;

/// How long an invitation may be redeemed.
pub const INVITATION_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// In front of the name of a user of the controller's host.
pub const LOCAL: &str = "local:";

/// What an operator may be (features.md O1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees everything but the audit.
    Viewer,
    /// Sees everything, the audit too.
    Auditor,
    /// Runs certificates and agents.
    Maintainer,
    /// Everything, trust included: issuers, operators, the identity CA, backups.
    Owner,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Auditor, Self::Maintainer, Self::Owner];

    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Maintainer => "maintainer",
            Self::Owner => "owner",
        }
    }

    /// Whether someone of this role may do such acts.
    #[must_use]
    pub fn may(self, act: Act) -> bool {
        match act {
            Act::See => true,
            Act::Audit => matches!(self, Self::Auditor | Self::Owner),
            Act::Operate => matches!(self, Self::Maintainer | Self::Owner),
            Act::Trust => self == Self::Owner,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(word: &str) -> Result<Self, NotARole> {
        Self::ALL.into_iter().find(|role| role.word() == word).ok_or(NotARole)
    }
}

/// The word is no role.
#[derive(Debug, thiserror::Error)]
#[error("not a role: viewer, auditor, maintainer or owner")]
pub struct NotARole;

/// What kind of act an RPC is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Reads what everyone with a role may see.
    See,
    /// Reads the audit.
    Audit,
    /// Changes certificates, targets and agents.
    Operate,
    /// Changes whom the installation trusts.
    Trust,
}

impl Act {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::See, Self::Audit, Self::Operate, Self::Trust];

    /// The least role that may.
    #[must_use]
    pub fn needs(self) -> Role {
        match self {
            Self::See => Role::Viewer,
            Self::Audit => Role::Auditor,
            Self::Operate => Role::Maintainer,
            Self::Trust => Role::Owner,
        }
    }
}

/// An operator. Key in the store: `id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operator {
    /// Random, never reused.
    pub id: String,
    /// Unique: `local:USER` for a user of the controller's host, else as the invitation says.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// How they prove who they are.
    pub proof: Proof,
    /// When they were added.
    pub created_at: Timestamp,
    /// By whom.
    pub created_by: String,
}

/// How an operator proves who they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Proof {
    /// The kernel says so at the Unix socket.
    Local {
        /// The user's uid when they were added: a name given to someone else later proves nothing.
        uid: u32,
    },
    /// A key of their own and a leaf of the identity CA.
    Remote {
        /// SHA-256 of the key's SPKI, lower-case hex.
        spki_sha256: String,
        /// Serial of the latest leaf, lower-case hex.
        serial: String,
        /// End of that leaf.
        not_after: Timestamp,
        /// Which identity CAs they know.
        #[serde(default)]
        ca: PeerCa,
    },
}

/// An invitation that was not redeemed yet, or was. Key in the store: SHA-256 of the secret, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// SHA-256 of the secret part.
    pub hash: String,
    /// Who it makes.
    pub name: String,
    /// With which role.
    pub role: Role,
    /// When it stops working.
    pub expires_at: Timestamp,
    /// Who made it.
    pub actor: String,
    /// The operator it made, and the hex SPKI hash of their key: a repeat with the same key gets the same answer.
    pub used: Option<Redeemed>,
}

/// How an invitation was spent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redeemed {
    /// The operator it made.
    pub operator_id: String,
    /// Hex SHA-256 of the key's SPKI.
    pub spki_sha256: String,
}

/// Why an invitation is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvitationRefusal {
    /// Its time is over.
    Expired,
    /// Another key used it, or the operator that it made is gone.
    Used,
    /// An operator has the name meanwhile.
    NameTaken,
}

impl Invitation {
    /// Decides whether a key may redeem this invitation. `named` is the operator that has the name now. `Ok(true)` makes an
    /// operator, `Ok(false)` repeats an answer that was lost.
    ///
    /// # Errors
    /// Why not.
    pub fn redeem(
        &self,
        spki_sha256: &str,
        named: Option<&Operator>,
        now: Timestamp,
    ) -> Result<bool, InvitationRefusal> {
        if self.expires_at <= now {
            return Err(InvitationRefusal::Expired);
        }
        match (&self.used, named) {
            (None, None) => Ok(true),
            (None, Some(_)) => Err(InvitationRefusal::NameTaken),
            (Some(used), Some(operator))
                if used.spki_sha256 == spki_sha256
                    && operator.id == used.operator_id
                    && operator.has_key(spki_sha256) =>
            {
                Ok(false)
            }
            (Some(_), _) => Err(InvitationRefusal::Used),
        }
    }
}

impl Operator {
    /// Whether this is the user's uid that was added.
    #[must_use]
    pub fn is_user(&self, uid: u32) -> bool {
        matches!(self.proof, Proof::Local { uid: added } if added == uid)
    }

    /// Whether this is the key that they logged in with.
    #[must_use]
    pub fn has_key(&self, spki: &str) -> bool {
        matches!(&self.proof, Proof::Remote { spki_sha256, .. } if spki_sha256 == spki)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn each_role_may_what_its_row_says() {
        let check = |role: Role, may: [bool; 4]| {
            assert_eq!([Act::See, Act::Audit, Act::Operate, Act::Trust].map(|act| role.may(act)), may, "{role}");
        };
        check(Role::Viewer, [true, false, false, false]);
        check(Role::Auditor, [true, true, false, false]);
        check(Role::Maintainer, [true, false, true, false]);
        check(Role::Owner, [true, true, true, true]);
        for act in [Act::See, Act::Audit, Act::Operate, Act::Trust] {
            assert!(act.needs().may(act), "{act:?}");
        }
    }

    #[test]
    fn an_invitation_works_once_for_one_key_while_its_operator_stands() {
        let mut invitation = Invitation {
            hash: "h".into(),
            name: "alice".into(),
            role: Role::Viewer,
            expires_at: at(100),
            actor: "local:root".into(),
            used: None,
        };
        let alice = |spki: &str| Operator {
            id: "o1".into(),
            name: "alice".into(),
            role: Role::Viewer,
            proof: Proof::Remote {
                spki_sha256: spki.into(),
                serial: "01".into(),
                not_after: at(1_000),
                ca: PeerCa::default(),
            },
            created_at: at(0),
            created_by: "local:root".into(),
        };
        assert_eq!(invitation.redeem("key", None, at(1)), Ok(true));
        assert_eq!(invitation.redeem("key", None, at(100)), Err(InvitationRefusal::Expired));
        assert_eq!(invitation.redeem("key", Some(&alice("x")), at(1)), Err(InvitationRefusal::NameTaken));
        invitation.used = Some(Redeemed { operator_id: "o1".into(), spki_sha256: "key".into() });
        assert_eq!(invitation.redeem("key", Some(&alice("key")), at(1)), Ok(false));
        assert_eq!(invitation.redeem("thief", Some(&alice("key")), at(1)), Err(InvitationRefusal::Used));
        assert_eq!(invitation.redeem("key", None, at(1)), Err(InvitationRefusal::Used), "removed meanwhile");
        assert_eq!(invitation.redeem("key", Some(&alice("new")), at(1)), Err(InvitationRefusal::Used), "invited anew");
    }
}
