//! One wish of an operator, and how far it is: read from the order and the targets, never copied (design §2).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::batch::Batch;
use super::certificate::Certificate;
use super::deployment::Deployment;
use super::order::{Order, Phase};
use super::problem::Problem;
use super::revocation::Revocation;
use super::target::{Status, Target, TargetState};

/// What was wished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The first version.
    Issue,
    /// A new version.
    Renew,
    /// The current version once more on its targets.
    Deploy,
    /// A version no longer valid.
    Revoke,
    /// A new version with a new key.
    Rekey,
}

/// A wish. Key in the store: `id`, which sorts by time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Sorts by time.
    pub id: String,
    /// What was wished.
    pub kind: Kind,
    /// For which certificate.
    pub certificate_id: String,
    /// Its name then.
    pub certificate_name: String,
    /// Who wished.
    pub actor: String,
    /// When.
    pub created_at: Timestamp,
    /// The current version then: a new one answers `Issue` and `Renew`.
    pub version_before: Option<String>,
    /// Only the target on this agent, in `Deploy`.
    pub agent_id: Option<String>,
    /// What to revoke, in `Revoke`.
    #[serde(default)]
    pub revocation: Option<Revocation>,
    /// Id of the act on many that it is a part of.
    #[serde(default)]
    pub parent: Option<String>,
    /// An act on many: the wish is for its sub-jobs, and no certificate is named here.
    #[serde(default)]
    pub batch: Option<Batch>,
    /// Set once, when it ends.
    pub outcome: Option<Outcome>,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When.
    pub at: Timestamp,
    /// Succeeded, partial or failed.
    pub state: State,
    /// The first thing that went wrong.
    pub problem: Option<Problem>,
}

/// The states of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Something is being done.
    Running,
    /// It goes on by itself later.
    Waiting,
    /// Every target is proven, or there is none.
    Succeeded,
    /// Some targets are not proven.
    Partial,
    /// No target is proven, or nothing was issued.
    Failed,
    /// An operator took the wish back.
    Cancelled,
}

/// How far a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The state.
    pub state: State,
    /// The phase word for people.
    pub phase: &'static str,
    /// When it goes on, while it waits.
    pub retry_at: Option<Timestamp>,
    /// What went wrong last.
    pub problem: Option<Problem>,
}

impl Kind {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::Deploy => "deploy",
            Self::Revoke => "revoke",
            Self::Rekey => "rekey",
        }
    }
}

impl State {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Partial | Self::Failed | Self::Cancelled => true,
        }
    }
}

/// Returns how far `job` is. `certificate` is absent once it was deleted.
#[must_use]
pub fn progress(
    job: &Job,
    certificate: Option<&Certificate>,
    order: Option<&Order>,
    targets: &[(Target, Option<TargetState>)],
) -> Progress {
    if let Some(outcome) = &job.outcome {
        return Progress { state: outcome.state, phase: "completed", retry_at: None, problem: outcome.problem.clone() };
    }
    let Some(certificate) = certificate else {
        let problem = Problem::new("CERTIFICATE_DELETED", "the certificate was deleted", "", "nothing is left to do");
        return Progress { state: State::Failed, phase: "completed", retry_at: None, problem: Some(problem) };
    };
    let version = certificate.current.as_ref().map(|current| current.version_id.as_str());
    let issued = version.is_some() && version != job.version_before.as_deref();
    match job.kind {
        // The wish is not taken up yet: what the order says is about an earlier one.
        // `tasks/revocation` writes its outcome.
        Kind::Revoke => revoking(job.revocation.as_ref()),
        Kind::Issue | Kind::Renew | Kind::Rekey if !issued && certificate.renew_asked_at.is_some() => issuing(None),
        Kind::Issue | Kind::Renew | Kind::Rekey if !issued => issuing(order),
        Kind::Issue | Kind::Renew | Kind::Rekey | Kind::Deploy => {
            deploying(job, certificate.deployed().map(|deployed| deployed.version_id.as_str()), targets)
        }
    }
}

fn revoking(revocation: Option<&Revocation>) -> Progress {
    let retry_at = revocation.and_then(|one| one.retry_at);
    let state = if retry_at.is_some() { State::Waiting } else { State::Running };
    Progress { state, phase: "revoking", retry_at, problem: revocation.and_then(|one| one.problem.clone()) }
}

fn issuing(order: Option<&Order>) -> Progress {
    let Some(order) = order else {
        return Progress { state: State::Running, phase: "pending", retry_at: None, problem: None };
    };
    let state = match order.phase {
        Phase::Waiting => State::Waiting,
        Phase::Failed => State::Failed,
        Phase::Starting
        | Phase::Checking
        | Phase::Ordering
        | Phase::Publishing
        | Phase::Validating
        | Phase::Finalizing
        | Phase::Completed => State::Running,
    };
    let problem = if state == State::Running { None } else { order.error.clone() };
    Progress { state, phase: order.phase.word(), retry_at: order.retry_at.filter(|_| state == State::Waiting), problem }
}

fn deploying(job: &Job, version: Option<&str>, targets: &[(Target, Option<TargetState>)]) -> Progress {
    let wanted = || {
        targets.iter().filter(|(target, _)| job.agent_id.as_ref().is_none_or(|agent_id| *agent_id == target.agent_id))
    };
    if job.kind == Kind::Deploy && wanted().next().is_none() {
        let hint = "certwright targets ls shows what is left; certwright targets add adds it again";
        let problem =
            Problem::new("TARGET_REMOVED", "the target was removed before it was deployed to again", "", hint);
        return Progress { state: State::Failed, phase: "completed", retry_at: None, problem: Some(problem) };
    }
    let statuses: Vec<Status> = wanted().map(|(target, state)| target.status(state.as_ref(), version)).collect();
    if statuses.contains(&Status::Pending) {
        return Progress { state: State::Running, phase: "deploying", retry_at: None, problem: None };
    }
    let problem = wanted().find_map(|(_, state)| state.as_ref().and_then(|state| state.problem.clone()));
    let state = match Deployment::of(statuses) {
        Deployment::None | Deployment::Ok => State::Succeeded,
        Deployment::Partial => State::Partial,
        Deployment::Failed | Deployment::Pending => State::Failed,
    };
    Progress { state, phase: "completed", retry_at: None, problem: problem.filter(|_| state != State::Succeeded) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::certificate::{CurrentVersion, Custody, Http01, KeyType, Specification};

    const AT: Timestamp = Timestamp::UNIX_EPOCH;

    fn certificate() -> Certificate {
        let identifiers = vec!["www.example.test".to_owned()];
        let current = CurrentVersion {
            version_id: "v1".into(),
            serial: "01".into(),
            fingerprint_sha256: "ff".into(),
            not_before: AT,
            not_after: AT,
            issuer_cn: "CA".into(),
            custody: Custody::Controller,
            key_slot_id: "k1".into(),
            identifiers: identifiers.clone(),
            key_type: KeyType::P256,
            issuer_id: "i1".into(),
            profile: None,
            wanted: None,
            key_lost: false,
            revoked_at: None,
            revoked_reason: None,
        };
        let specification = Specification {
            identifiers,
            issuer_id: "i1".into(),
            fallback_ids: vec![],
            profile: None,
            reuse_key: false,
            key_type: KeyType::P256,
            custody: Custody::Controller,
            http01: Http01::Standalone(80),
            responders: Vec::new(),
        };
        Certificate {
            id: "c1".into(),
            name: "web".into(),
            specification,
            auto_renew: true,
            created_at: AT,
            current: Some(current),
            renew_asked_at: None,
            rekey_asked: false,
            purging: false,
            paused: None,
            rollback: None,
            delivery: crate::lifecycle::rollout::Delivery::default(),
        }
    }

    fn job(kind: Kind, agent_id: Option<&str>) -> Job {
        Job {
            id: "j1".into(),
            kind,
            certificate_id: "c1".into(),
            certificate_name: "web".into(),
            actor: "local:root".into(),
            created_at: AT,
            version_before: (kind == Kind::Deploy).then(|| "v1".into()),
            agent_id: agent_id.map(Into::into),
            revocation: None,
            parent: None,
            batch: None,
            outcome: None,
        }
    }

    fn target(agent_id: &str) -> (Target, Option<TargetState>) {
        let target = Target {
            id: format!("t-{agent_id}"),
            certificate_id: "c1".into(),
            agent_id: agent_id.into(),
            dir: "/etc/ssl/web".into(),
            files: Vec::new(),
            validate: Vec::new(),
            reload: Vec::new(),
            verify: Vec::new(),
            deploy_wish: 1,
            released: None,
            on_drift: crate::lifecycle::target::OnDrift::Repair,
        };
        let state = TargetState {
            certificate_id: "c1".into(),
            target_id: target.id.clone(),
            version_id: "v1".into(),
            deploy_wish: 1,
            status: Status::Applied,
            served_fingerprint_sha256: String::new(),
            problem: None,
            steps: Vec::new(),
            started_at: None,
            finished_at: None,
            retry_at: None,
            attempt: 1,
            purged: false,
            drift: None,
        };
        (target, Some(state))
    }

    #[test]
    fn a_deployment_to_a_target_that_is_gone_has_failed() {
        let certificate = certificate();
        let check = |job: &Job, targets: &[(Target, Option<TargetState>)], state, reason: Option<&str>| {
            let progress = progress(job, Some(&certificate), None, targets);
            assert_eq!(progress.state, state, "{job:?}");
            assert_eq!(progress.problem.map(|problem| problem.reason), reason.map(ToOwned::to_owned));
        };
        let targets = [target("a1")];
        check(&job(Kind::Deploy, Some("a1")), &targets, State::Succeeded, None);
        check(&job(Kind::Deploy, Some("a2")), &targets, State::Failed, Some("TARGET_REMOVED"));
        check(&job(Kind::Deploy, None), &[], State::Failed, Some("TARGET_REMOVED"));
        check(&job(Kind::Issue, None), &[], State::Succeeded, None);
    }

    #[test]
    fn only_an_outcome_about_the_current_version_and_wish_counts() {
        let (wanted, state) = target("a1");
        let state = state.unwrap();
        let check = |state: &TargetState, version, status| {
            assert_eq!(wanted.status(Some(state), version), status);
            assert_eq!(wanted.outcome(Some(state), version).is_some(), status != Status::Pending);
        };
        check(&state, Some("v1"), Status::Applied);
        check(&state, Some("v2"), Status::Pending);
        check(&state, None, Status::Pending);
        check(&TargetState { deploy_wish: 0, ..state.clone() }, Some("v1"), Status::Pending);
    }
}
