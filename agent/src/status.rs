//! What `certwright-agent status` shows, read from the disk only: it works while the daemon or the controller is away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use jiff::Timestamp;
use proto::types::v1 as wire;
use proto::x509::hex;
use serde::Serialize;

use crate::apply::keys;
use crate::ledger;
use crate::net::identity::Identity;
use crate::net::trouble::Trouble;
use crate::net::witness::Kept;
use crate::plan::drift::told;
use crate::plan::{Outcome, Status as TargetStatus};
use crate::policy::file;
use crate::problem::Problem;
use crate::state::StateDir;
use crate::target::{Desired, Target};

/// An agent, as its disk tells.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub struct Status {
    /// `certwright/v1`.
    #[serde(rename = "apiVersion")]
    pub api_version: &'static str,
    /// `AgentStatus`.
    pub kind: &'static str,
    /// The agent's id.
    pub id: String,
    /// The agent's name.
    pub name: String,
    /// Where the controller is.
    pub controller: String,
    /// End of the identity leaf.
    pub identity_not_after: Timestamp,
    /// Whether a daemon holds the lock.
    pub running: bool,
    /// Why the controller is not talked to, if so.
    pub(crate) trouble: Option<Trouble>,
    /// Why the policy cannot be used, if so.
    pub policy_error: Option<Problem>,
    /// The desired state that was taken last.
    pub desired: Option<DesiredStatus>,
    /// The targets of that state.
    pub targets: Vec<TargetLine>,
    /// The private keys that were born here.
    pub keys: KeysStatus,
    /// Signed heads of the controller's audit, for `certwright audit verify --witness`.
    pub(crate) witness: Kept,
}

/// The private keys of this server, by their slots.
#[derive(Clone, Debug, Serialize)]
pub struct KeysStatus {
    /// How many there are.
    pub held: usize,
    /// Slots that the desired state does not name: the last ones of each target, those of removed targets, and those
    /// whose certificate was never deployed.
    pub not_desired: Vec<String>,
}

/// A desired state's name.
#[derive(Clone, Debug, Serialize)]
pub struct DesiredStatus {
    /// Changes when a controller was restored.
    pub epoch: u64,
    /// Grows with every change.
    pub generation: u64,
    /// Lower-case hex.
    pub digest: String,
}

/// One target and what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct TargetLine {
    /// The target's id.
    pub id: String,
    /// The certificate's name.
    pub certificate: String,
    /// The directory.
    pub dir: String,
    /// In the words of design §2.
    pub status: String,
    /// What a handshake showed.
    pub served_fingerprint_sha256: Option<String>,
    /// When the last attempt ended.
    pub finished_at: Option<Timestamp>,
    /// When the agent tries again by itself.
    pub retry_at: Option<Timestamp>,
    /// What went wrong.
    pub error: Option<Problem>,
}

/// Reads the status.
///
/// # Errors
/// When no agent is enrolled there, or its files cannot be read.
pub fn read(state_dir: &Path, apply_state_dir: &Path, policy: &Path) -> Result<Status, Problem> {
    let state = StateDir::look(state_dir)?;
    // Where both halves are one process they share a directory.
    let apply_state = if apply_state_dir.exists() { StateDir::look(apply_state_dir)? } else { state.clone() };
    let identity = Identity::load(&state)?;
    let loaded = ledger::load(&state)?;
    let outcomes: BTreeMap<String, Outcome> =
        loaded.outcomes.into_iter().map(|outcome| (outcome.target_id.clone(), outcome)).collect();
    let desired = loaded.desired.as_ref().map(Desired::from_wire);
    let held = keys::held(&apply_state)?;
    let named: BTreeSet<&String> = desired.iter().flat_map(|desired| &desired.slots_named).collect();
    let not_desired = held.iter().filter(|slot| !named.contains(slot)).cloned().collect();
    let targets = desired.iter().flat_map(|desired| &desired.targets).map(|target| line(target, &outcomes));
    let refused = desired.iter().flat_map(|desired| &desired.refused.targets).map(|(id, _, _, problem)| TargetLine {
        id: id.clone(),
        certificate: String::new(),
        dir: String::new(),
        status: "failed".to_owned(),
        served_fingerprint_sha256: None,
        finished_at: None,
        retry_at: None,
        error: Some(problem.clone()),
    });
    Ok(Status {
        api_version: "certwright/v1",
        kind: "AgentStatus",
        id: identity.agent_id,
        name: identity.agent_name,
        controller: identity.controller,
        identity_not_after: identity.not_after,
        running: state.is_locked(),
        trouble: Trouble::load(&state),
        policy_error: file::read(policy).err(),
        witness: Kept::load(&state)?,
        targets: targets.chain(refused).collect(),
        keys: KeysStatus { held: held.len(), not_desired },
        desired: desired.map(|desired| DesiredStatus {
            epoch: desired.name.epoch,
            generation: desired.name.generation,
            digest: hex(&desired.name.digest),
        }),
    })
}

fn line(target: &Target, outcomes: &BTreeMap<String, Outcome>) -> TargetLine {
    let last = outcomes.get(&target.id).filter(|last| last.wish == target.digest());
    let drifted = last.and_then(|last| told(target, last));
    let (status, error) = match (drifted, last) {
        (Some((wire::TargetStatus::NeedsOperator, problem)), _) => ("needs_operator", Some(problem)),
        (Some((_, problem)), _) => ("drifted", Some(problem)),
        (None, Some(last)) => (word(last.status), last.problem.clone()),
        (None, None) => ("pending", None),
    };
    TargetLine {
        id: target.id.clone(),
        certificate: target.certificate_name.clone(),
        dir: target.dir.clone(),
        status: status.to_owned(),
        served_fingerprint_sha256: last.and_then(|last| last.served_fingerprint_sha256).map(|bytes| hex(&bytes)),
        finished_at: last.map(|last| last.finished_at),
        retry_at: last.and_then(|last| last.retry_at),
        error,
    }
}

fn word(status: TargetStatus) -> &'static str {
    match status {
        TargetStatus::Pending => "pending",
        TargetStatus::Applied => "applied",
        TargetStatus::Unproven => "unproven",
        TargetStatus::NotLive => "not_live",
        TargetStatus::RolledBack => "rolled_back",
        TargetStatus::Failed => "failed",
    }
}

impl Status {
    /// Returns the lines for people.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let running = if self.running { "running" } else { "not running" };
        let mut lines = vec![
            format!("agent       {} ({}), {running}", self.name, self.id),
            format!("controller  {}", self.controller),
            format!("identity    until {}", self.identity_not_after),
        ];
        if let Some(Trouble { since, problem }) = &self.trouble {
            lines.push(format!("trouble     {} (since {since})", problem.message));
            lines
                .extend(Some(&problem.cause).filter(|text| !text.is_empty()).map(|text| format!("            {text}")));
            lines.extend(Some(&problem.hint).filter(|text| !text.is_empty()).map(|text| format!("            {text}")));
        }
        match &self.desired {
            Some(desired) => {
                lines.push(format!("desired     epoch {}, generation {}", desired.epoch, desired.generation))
            }
            None => lines.push("desired     nothing yet: the agent has not talked to the controller".to_owned()),
        }
        if self.keys.held > 0 {
            let not_desired = self.keys.not_desired.len();
            lines.push(format!("keys        {} held, {not_desired} of them not desired any more", self.keys.held));
        }
        if let Some(head) = self.witness.heads.last() {
            let heads = self.witness.heads.len();
            lines.push(format!("witness     {heads} heads of the controller's audit, the last of line {}", head.seq));
        }
        if let Some(head) = &self.witness.contradiction {
            lines.push(format!("            line {} contradicts them: certwright audit verify --witness", head.seq));
        }
        if let Some(problem) = &self.policy_error {
            lines.push(format!("policy      {}: {}; {}", problem.message, problem.cause, problem.hint));
        }
        for target in &self.targets {
            lines.push(format!("target      {:<10} {}  {}", target.status, target.certificate, target.dir));
            if let Some(problem) = &target.error {
                lines.push(format!("            {}: {}", problem.message, problem.cause));
                lines.push(format!("            {}", problem.hint));
            }
            if let Some(retry_at) = target.retry_at {
                lines.push(format!("            tries again at {retry_at}"));
            }
        }
        lines
    }
}
