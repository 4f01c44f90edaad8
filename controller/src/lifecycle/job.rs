//! One wish of an operator, and how far it is: read from the order and the targets, never copied (design §2).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::certificate::Certificate;
use super::deployment::Deployment;
use super::order::{Order, Phase};
use super::problem::Problem;
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
        }
    }

    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Running | Self::Waiting => false,
            Self::Succeeded | Self::Partial | Self::Failed => true,
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
        Kind::Issue | Kind::Renew if !issued && certificate.renew_asked_at.is_some() => issuing(None),
        Kind::Issue | Kind::Renew if !issued => issuing(order),
        Kind::Issue | Kind::Renew | Kind::Deploy => deploying(job, version, targets),
    }
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
