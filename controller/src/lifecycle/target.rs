//! Where and how a version is deployed on one agent, and what the agent observed there. Called by `rpc` and `tasks`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::problem::Problem;

/// Most targets of one certificate.
pub const TARGETS_MAX: usize = 100;
/// Most files and endpoints of one target, and most arguments of a command.
pub const TARGET_ITEMS_MAX: usize = 16;
/// Most commands of one kind of one target; an agent refuses more.
pub const COMMANDS_MAX: usize = 8;

/// What a file holds. PEM, where it does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// The leaf.
    Cert,
    /// The private key.
    Key,
    /// The issuers.
    Chain,
    /// Leaf and issuers.
    Fullchain,
    /// Leaf, issuers and private key.
    Combined,
    /// The same as PKCS #12.
    Pfx,
    /// The password of the PKCS #12 files; only the agent knows it.
    PfxPassword,
}

impl Content {
    /// Whether the private key is in it, or what opens it: every rule for keys counts.
    #[must_use]
    pub fn holds_key(self) -> bool {
        matches!(self, Self::Key | Self::Combined | Self::Pfx | Self::PfxPassword)
    }

    /// Whether an agent can read from it which version lies there.
    #[must_use]
    pub fn holds_leaf(self) -> bool {
        matches!(self, Self::Cert | Self::Fullchain | Self::Combined)
    }
}

/// One file of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// What it holds.
    pub content: Content,
    /// A bare file name.
    pub name: String,
    /// `user:group`, or empty.
    pub owner: String,
    /// Permission bits.
    pub mode: u32,
}

/// Where a handshake must show the new leaf.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// `HOST:PORT` as seen from the agent.
    pub address: String,
    /// SNI; empty means the first identifier.
    pub server_name: String,
    /// What the server speaks before TLS.
    #[serde(default, skip_serializing_if = "Protocol::is_tls")]
    pub protocol: Protocol,
}

/// What a server speaks first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TLS from the first byte.
    #[default]
    Tls,
    /// RFC 3207.
    Smtp,
    /// RFC 9051 §6.2.1.
    Imap,
    /// RFC 2595 §4.
    Pop3,
    /// RFC 6120 §5.
    Xmpp,
    /// RFC 4511 §4.14.
    Ldap,
    /// `SSLRequest`.
    Postgres,
}

impl Protocol {
    /// Whether nothing is spoken before TLS.
    #[must_use]
    // By reference: serde passes it so.
    pub fn is_tls(&self) -> bool {
        *self == Self::Tls
    }
}

/// A target. Key in the store: `certificate_id/id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Random, never reused.
    pub id: String,
    /// Whose target.
    pub certificate_id: String,
    /// On which agent.
    pub agent_id: String,
    /// Absolute directory.
    pub dir: String,
    /// What is written.
    pub files: Vec<File>,
    /// Exact argv, in order: run before anything is reloaded.
    #[serde(default)]
    pub validate: Vec<Vec<String>>,
    /// Exact argv, in order.
    pub reload: Vec<Vec<String>>,
    /// Where it is proven.
    pub verify: Vec<Endpoint>,
    /// Bumped by "deploy now".
    pub deploy_wish: u64,
    /// Id of the version that an operator named this target for: it waits for no other target.
    #[serde(default)]
    pub released: Option<String>,
    /// What to do with files that are no longer as they were written.
    #[serde(default)]
    pub on_drift: OnDrift,
}

/// What an agent does with files of a target that are no longer as it wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDrift {
    /// Tells it, then writes them again: a key that is gone is an outage at the next restart of its service. Nothing is lost, because
    /// what stood there is kept.
    #[default]
    Repair,
    /// Only tells it.
    Show,
}

impl OnDrift {
    /// Whether it is the usual one.
    #[must_use]
    // By reference: serde passes it so.
    pub fn is_repair(&self) -> bool {
        *self == Self::Repair
    }
}

/// The last time that files of a target were no longer as they were written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drift {
    /// One line per file; sanitised.
    pub differences: Vec<String>,
    /// When it was seen.
    pub seen_at: Option<Timestamp>,
    /// When they were right again.
    pub ended_at: Option<Timestamp>,
    /// Drifts in a row.
    pub times: u32,
    /// Repairs in a row.
    pub repairs: u32,
}

/// The outcome of a deployment, as the agent reported it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Nothing reported yet for the wanted version.
    Pending,
    /// Proven by handshake.
    Applied,
    /// No endpoint to prove it at.
    Unproven,
    /// Another leaf is served, or none.
    NotLive,
    /// The previous files are back.
    RolledBack,
    /// Not deployed.
    Failed,
    /// The agent stopped and waits for a person.
    NeedsOperator,
    /// Files on the host changed since.
    Drifted,
}

/// One step of the last deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// write, validate, reload, verify, roll back or purge.
    pub name: String,
    /// Path, argv or endpoint; sanitised.
    pub subject: String,
    /// Whether it succeeded.
    pub ok: bool,
    /// Of a command that ended by itself.
    pub exit_status: Option<i32>,
    /// Sanitised, capped.
    pub output: String,
    /// How long it took.
    pub took_ms: u64,
}

/// What an agent observed at a target. Key in the store: `certificate_id/target_id`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetState {
    /// Whose certificate.
    pub certificate_id: String,
    /// Which target.
    pub target_id: String,
    /// The version the outcome is about.
    pub version_id: String,
    /// The wish it answers.
    pub deploy_wish: u64,
    /// The outcome.
    pub status: Status,
    /// Lower-case hex; empty when no handshake showed a leaf.
    pub served_fingerprint_sha256: String,
    /// What went wrong.
    pub problem: Option<Problem>,
    /// What was done.
    pub steps: Vec<Step>,
    /// When the agent began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the agent tries again by itself.
    pub retry_at: Option<Timestamp>,
    /// Tries of this version so far.
    pub attempt: u32,
    /// Files are gone, as a purge asked.
    pub purged: bool,
    /// What became of the files since.
    #[serde(default)]
    pub drift: Option<Drift>,
}

impl TargetState {
    /// Whether it tells of files that are no longer as they were written.
    #[must_use]
    pub fn is_drift(&self) -> bool {
        matches!(self.status, Status::Drifted | Status::NeedsOperator)
    }

    /// Whether a drift was seen since `before`.
    #[must_use]
    pub fn has_new_drift(&self, before: Option<&Self>) -> bool {
        let seen_at = |state: &Self| state.drift.as_ref().and_then(|drift| drift.seen_at);
        seen_at(self) > before.and_then(seen_at)
    }

    /// Whether the files are right again after a drift, also after one that `before` knew nothing of: no new deployment.
    #[must_use]
    pub fn ends_drift(&self, before: Option<&Self>) -> bool {
        let wish = |state: &Self| (state.version_id.clone(), state.deploy_wish);
        let is_same = |before: &&Self| wish(before) == wish(self);
        let is_right = matches!(self.status, Status::Applied | Status::Unproven);
        let had = |before: &Self| before.is_drift() || self.has_new_drift(Some(before));
        is_right && before.filter(is_same).is_some_and(had)
    }
}

impl Target {
    /// Returns the status that counts: without an outcome for the current version and wish it is pending.
    #[must_use]
    pub fn status(&self, state: Option<&TargetState>, current_version_id: Option<&str>) -> Status {
        self.outcome(state, current_version_id).map_or(Status::Pending, |state| state.status)
    }

    /// Returns what was observed if it is about the current version and the latest wish; else it is history.
    #[must_use]
    pub fn outcome<'a>(
        &self,
        state: Option<&'a TargetState>,
        current_version_id: Option<&str>,
    ) -> Option<&'a TargetState> {
        state.filter(|state| {
            Some(state.version_id.as_str()) == current_version_id && state.deploy_wish >= self.deploy_wish
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(status: Status, seen_second: Option<i64>) -> TargetState {
        let at = |second| Timestamp::from_second(1_800_000_000 + second).unwrap();
        let ended_at = Some(at(9_000)).filter(|_| status == Status::Applied);
        let drift = |second| Drift { seen_at: Some(at(second)), ended_at, ..Drift::default() };
        TargetState {
            certificate_id: "c".into(),
            target_id: "t".into(),
            version_id: "v1".into(),
            deploy_wish: 1,
            status,
            served_fingerprint_sha256: String::new(),
            problem: None,
            steps: vec![],
            started_at: None,
            finished_at: None,
            retry_at: None,
            attempt: 1,
            purged: false,
            drift: seen_second.map(drift),
        }
    }

    #[test]
    fn the_end_of_a_drift_is_no_deployment() {
        let (applied, drifted) = (state(Status::Applied, None), state(Status::Drifted, Some(1)));
        let repaired = state(Status::Applied, Some(1));
        assert!(drifted.is_drift() && !drifted.ends_drift(Some(&applied)) && drifted.has_new_drift(Some(&applied)));
        assert!(repaired.ends_drift(Some(&drifted)) && !repaired.has_new_drift(Some(&drifted)));
        assert!(state(Status::Applied, None).ends_drift(Some(&state(Status::NeedsOperator, Some(1)))));
        // Repaired before anybody was told.
        assert!(repaired.ends_drift(Some(&applied)) && repaired.has_new_drift(Some(&applied)));
        assert!(!repaired.ends_drift(Some(&repaired)) && !applied.ends_drift(None));
        let asked = TargetState { deploy_wish: 2, ..applied.clone() };
        assert!(!asked.ends_drift(Some(&drifted)), "an operator's wish is a deployment");
        assert!(!state(Status::Failed, Some(1)).ends_drift(Some(&drifted)));
    }

    #[test]
    fn records_of_yesterday_are_repaired() {
        let mut record = serde_json::to_value(state(Status::Applied, Some(1))).unwrap();
        record.as_object_mut().unwrap().remove("drift");
        assert_eq!(serde_json::from_value::<TargetState>(record).unwrap(), state(Status::Applied, None));
        let target = serde_json::json!({"id": "t", "certificate_id": "c", "agent_id": "a", "dir": "/d", "files": [],
            "reload": [], "verify": [], "deploy_wish": 0});
        assert_eq!(serde_json::from_value::<Target>(target).unwrap().on_drift, OnDrift::Repair);
    }
}
