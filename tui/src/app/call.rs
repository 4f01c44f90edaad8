//! What the dashboard asks the controller, and what it answers. Plain values: `run` performs them, `app` reads them.

use proto::operator::v1::{
    ActOnCertificatesRequest, ActOnCertificatesResponse, AddIssuerRequest, AddOperatorRequest, AddOperatorResponse,
    AddTargetRequest, Agent, AuditWitness, Certificate, CertificateAccepted, CheckChallengesResponse,
    CreateCertificateRequest, DeleteCertificateRequest, DeployCertificateRequest, Detected, EnrollAgentRequest,
    EnrollAgentResponse, Event, GetOverviewResponse, GetRestoreResponse, IdentityCa, InviteOperatorRequest,
    InviteOperatorResponse, Issuer, Job, ListLimitsResponse, ListOperatorsResponse, Operator, PendingEnrollment,
    RenewCertificateRequest, RevokeCertificateRequest, SetIssuerRequest, SetLimitsRequest, SetOperatorRoleRequest,
    SetPauseRequest, SetPauseResponse, SetTargetRequest, TargetTest, TestTargetsRequest, UpdateCertificateRequest,
    Version,
};

use crate::client::{AuditAct, AuditFilter};
use crate::widgets::form::Secret;

/// One request. Reads may be repeated at will; wishes carry what makes them safe to repeat.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Call {
    /// Counts and what needs attention.
    Overview,
    /// The first `rows` certificates of an order.
    Certificates {
        /// Substring of a name or identifier.
        filter: String,
        /// name, urgency or expires.
        sort: &'static str,
        /// How many rows to read.
        rows: usize,
    },
    /// One certificate.
    Certificate(String),
    /// The versions of a certificate.
    Versions(String),
    /// The newest events of a certificate or of an agent; both empty means of everything.
    Events {
        /// Certificate, or empty.
        certificate: String,
        /// Agent, or empty.
        agent: String,
    },
    /// The first `rows` agents.
    Agents {
        /// Substring of a name.
        filter: String,
        /// How many rows to read.
        rows: usize,
    },
    /// One agent.
    Agent(String),
    /// What an agent found on its server when it looked last.
    Detected(String),
    /// Let an agent look at its server now.
    Detect(String),
    /// The newest jobs.
    Jobs,
    /// One job.
    Job(String),
    /// The first sub-jobs of an act on many.
    SubJobs(String),
    /// Take back what has not begun of a job.
    CancelJob(String),
    /// Act on many certificates, or say what that would do.
    Act(Box<ActOnCertificatesRequest>),
    /// All issuers.
    Issuers,
    /// One issuer.
    Issuer(String),
    /// The limits of an issuer.
    Limits(String),
    /// Read an issuer's directory anew and prove its account.
    TestIssuer(String),
    /// Give an issuer's account another key.
    Rollover(String),
    /// Remove an issuer.
    RemoveIssuer(String),
    /// Add an issuer.
    AddIssuer(Box<IssuerWish<AddIssuerRequest>>),
    /// Change an issuer.
    SetIssuer(Box<IssuerWish<SetIssuerRequest>>),
    /// Set limits.
    SetLimits(SetLimitsRequest),
    /// Change a certificate.
    Update(Box<UpdateCertificateRequest>),
    /// Look at a certificate's challenges as a CA would.
    CheckChallenges(String),
    /// Have agents test targets.
    TestTargets(Box<TestTargetsRequest>),
    /// Add a target.
    AddTarget(Box<AddTargetRequest>),
    /// Change a target.
    SetTarget(Box<SetTargetRequest>),
    /// Check or create a certificate.
    Create(Box<CreateCertificateRequest>),
    /// Renew now.
    Renew(RenewCertificateRequest),
    /// Revoke a version.
    RevokeVersion(RevokeCertificateRequest),
    /// Deploy now.
    Deploy(DeployCertificateRequest),
    /// Delete a certificate.
    Delete(DeleteCertificateRequest),
    /// Pause or resume.
    Pause(SetPauseRequest),
    /// Make a join token.
    Enroll(EnrollAgentRequest),
    /// Revoke an agent.
    Revoke(String),
    /// Let an agent back that was away for too long.
    Consent(String),
    /// Forget a revoked agent.
    Forget(String),
    /// The newest acts of the audit, so many rows.
    Audit {
        /// Which ones.
        filter: AuditFilter,
        /// How many rows to read.
        rows: usize,
    },
    /// Operators and open invitations.
    Operators,
    /// Give a user of the controller's host a role.
    AddOperator(AddOperatorRequest),
    /// Make an invitation.
    Invite(InviteOperatorRequest),
    /// Give an operator another role.
    SetRole(SetOperatorRoleRequest),
    /// Remove an operator, or withdraw an invitation.
    RemoveOperator(String),
    /// About a restore or the identity CA.
    Trust(Trust),
    /// Take a backup.
    Backup(Box<BackupWish>),
}

/// What is asked about what everything else trusts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    /// How a restore stands.
    Restore,
    /// Take over what agents hold, and act again.
    Accept {
        /// Operators stay as the backup has them.
        keep_operators: bool,
    },
    /// The identity CA and its rotation.
    IdentityCa,
    /// A step of its rotation.
    Rotate(Step),
}

/// A step of the identity CA's rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make the next CA.
    Prepare,
    /// Let it sign.
    Activate,
    /// Drop the old one.
    Retire,
    /// Go one step back.
    Abort,
}

impl Step {
    /// Returns the word of the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Activate => "activate",
            Self::Retire => "retire",
            Self::Abort => "abort",
        }
    }
}

impl Call {
    /// Whether it only reads.
    pub(crate) fn reads(&self) -> bool {
        match self {
            Self::Overview
            | Self::Certificates { .. }
            | Self::Certificate(_)
            | Self::Versions(_)
            | Self::Events { .. }
            | Self::Agents { .. }
            | Self::Agent(_)
            | Self::Detected(_)
            | Self::Jobs
            | Self::Job(_)
            | Self::SubJobs(_)
            | Self::Issuers
            | Self::Issuer(_)
            | Self::Limits(_)
            | Self::Audit { .. }
            | Self::Operators
            | Self::Trust(Trust::Restore | Trust::IdentityCa) => true,
            Self::Create(_)
            | Self::Detect(_)
            | Self::AddTarget(_)
            | Self::TestIssuer(_)
            | Self::Rollover(_)
            | Self::RemoveIssuer(_)
            | Self::AddIssuer(_)
            | Self::SetIssuer(_)
            | Self::SetLimits(_)
            | Self::Update(_)
            | Self::SetTarget(_)
            | Self::TestTargets(_)
            | Self::CheckChallenges(_)
            | Self::Renew(_)
            | Self::CancelJob(_)
            | Self::Act(_)
            | Self::RevokeVersion(_)
            | Self::Deploy(_)
            | Self::Delete(_)
            | Self::Pause(_)
            | Self::Enroll(_)
            | Self::Revoke(_)
            | Self::Consent(_)
            | Self::Forget(_)
            | Self::AddOperator(_)
            | Self::Invite(_)
            | Self::SetRole(_)
            | Self::RemoveOperator(_)
            | Self::Trust(Trust::Accept { .. } | Trust::Rotate(_))
            | Self::Backup(_) => false,
        }
    }
}

/// A backup that is wanted. What opens it is put in when it is sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct BackupWish {
    /// File to write, on this machine.
    pub(crate) to: String,
    /// File with the recovery key, on this machine; empty when a passphrase seals it.
    pub(crate) key_file: String,
    /// The passphrase; empty when a key does.
    pub(crate) passphrase: Secret,
}

/// What is wanted of an issuer; roots and key are put in when it is sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IssuerWish<T> {
    /// All but roots and key.
    pub(crate) request: T,
    /// File with roots, PEM, on this machine; empty when none was named.
    pub(crate) root: String,
    /// MAC key of an external account, or `@FILE`.
    pub(crate) key: Secret,
}

/// A window of a list, from its first row on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page<T> {
    /// The rows.
    pub(crate) items: Vec<T>,
    /// How many there are in all.
    pub(crate) total: u64,
    /// Whether more follow.
    pub(crate) more: bool,
}

/// The audit from its end on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct AuditPage {
    /// What was done, newest first.
    pub(crate) acts: Vec<AuditAct>,
    /// Whether older ones follow.
    pub(crate) more: bool,
    /// Lines that are none.
    pub(crate) unreadable: usize,
    /// Where looking for so few acts was given up; 0 when it was not.
    pub(crate) searched_to: u64,
    /// The last line there is.
    pub(crate) head_seq: u64,
    /// What agents keep of it.
    pub(crate) witnesses: Vec<AuditWitness>,
}

/// An answer.
#[derive(Debug)]
pub(crate) enum Reply {
    /// To `Overview`.
    Overview(Box<GetOverviewResponse>),
    /// To `Certificates`.
    Certificates(Page<Certificate>),
    /// To `Certificate`.
    Certificate(Box<Certificate>),
    /// To `Versions`.
    Versions(Vec<Version>),
    /// To `Events`.
    Events(Vec<Event>),
    /// To `Agents`.
    Agents(Page<Agent>, Vec<PendingEnrollment>),
    /// To `Agent`, `Revoke` and `Consent`.
    Agent(Box<Agent>),
    /// To `Detected` and `Detect`.
    Detected(Box<Detected>),
    /// To `Jobs`.
    Jobs(Vec<Job>),
    /// To `Job` and `CancelJob`.
    Job(Box<Job>),
    /// To `SubJobs`.
    SubJobs(Vec<Job>),
    /// To `Act`.
    Acted(Box<ActOnCertificatesResponse>),
    /// To `Issuers`.
    Issuers(Vec<Issuer>),
    /// To `Issuer`, `TestIssuer`, `Rollover`, `AddIssuer` and `SetIssuer`.
    Issuer(Box<Issuer>),
    /// To `Limits` and `SetLimits`.
    Limits(Box<ListLimitsResponse>),
    /// To `RemoveIssuer`.
    IssuerRemoved,
    /// To `Create`, `Update`, `AddTarget`, `SetTarget`, `Renew`, `RevokeVersion` and `Deploy`.
    Accepted(Box<CertificateAccepted>),
    /// To `CheckChallenges`.
    ChallengesChecked(Box<CheckChallengesResponse>),
    /// To `TestTargets`.
    Tested(Vec<TargetTest>),
    /// To `Delete`: true while a purge waits for its targets.
    Deleted(bool),
    /// To `Pause`.
    Paused(Box<SetPauseResponse>),
    /// To `Enroll`. Holds the join token: never logged, shown once.
    Enrolled(Box<Token>),
    /// To `Forget`.
    Forgotten,
    /// To `Audit`.
    Audit(Box<AuditPage>),
    /// To `Operators`.
    Operators(Box<ListOperatorsResponse>),
    /// To `AddOperator`.
    OperatorAdded(Box<AddOperatorResponse>),
    /// To `Invite`. Holds the invitation's token: never logged, shown once.
    Invited(Box<Invitation>),
    /// To `SetRole`.
    Operator(Box<Operator>),
    /// To `RemoveOperator`.
    OperatorRemoved,
    /// To `Trust`: how a restore stands.
    Restore(Box<GetRestoreResponse>),
    /// To `Trust`: the identity CA.
    IdentityCa(Box<IdentityCa>),
    /// To `Backup`: so many bytes.
    BackedUp(u64),
}

/// A join token as the screen shows it; its text never appears in `Debug`.
#[derive(Clone)]
pub(crate) struct Token {
    /// The answer, with the token in it.
    pub(crate) response: EnrollAgentResponse,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").finish_non_exhaustive()
    }
}

/// An invitation as the screen shows it; its token never appears in `Debug`.
#[derive(Clone)]
pub(crate) struct Invitation {
    /// The answer, with the token in it.
    pub(crate) response: InviteOperatorResponse,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invitation").finish_non_exhaustive()
    }
}
