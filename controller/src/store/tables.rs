//! The tables of the database. A name is written into every database and into the AAD of every sealed secret: it never
//! changes. Called by everyone who reads or writes records.

use std::fmt;

/// One table: string keys, values with a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// What the operator wants managed, by id.
    Certificate,
    /// Index: certificate id by name.
    CertificateName,
    /// Issued leaf and chain, by id.
    Version,
    /// A key that an agent makes, by id.
    KeySlot,
    /// Progress with the CA, by certificate id.
    Order,
    /// Where and how on one agent, by id.
    Target,
    /// What a CA says about renewing a version, by certificate id / version id.
    RenewalInfo,
    /// What an agent reported of a target, by target id.
    TargetState,
    /// Enrolled agents, by id.
    Agent,
    /// Index: agent id by name.
    AgentName,
    /// Index: certificates that an agent has to do with, by agent id / certificate id.
    AgentCertificate,
    /// Join tokens, by the hash of their secret.
    JoinToken,
    /// ACME directories and accounts, by id.
    Issuer,
    /// Index: issuer id by name.
    IssuerName,
    /// Wishes and their outcome, by id.
    Job,
    /// Index: jobs without an outcome, by certificate id / job id.
    JobOpen,
    /// What happened, by time and id.
    Event,
    /// Index: events of a certificate.
    EventByCertificate,
    /// Index: events of an agent.
    EventByAgent,
    /// What each agent must hold, by agent id.
    Desired,
    /// Operators' requests already answered, by request id.
    Request,
    /// The installation's own settings; also the schema version and the keyring.
    Setting,
    /// The identity CA.
    IdentityCa,
    /// What was spent of the CAs' rate limits, by time and random.
    Limit,
    /// Who may operate, by id.
    Operator,
    /// Index: operator id by name.
    OperatorName,
    /// Invitations of operators, by the hash of their secret.
    Invitation,
    /// Index: certificates by when an order needs a look.
    OrderDue,
    /// Index: certificates by when their CA is asked about a renewal.
    QuestionDue,
    /// Ids of deleted certificates of which something may be left.
    Leftover,
    /// The audit, by number.
    Audit,
    /// Certificates of an act on many, by the id of its job.
    BatchMembers,
    /// Index: sub-jobs of an act on many, by its job's id / state / sub-job id.
    BatchJob,
    /// Leaves of private CAs that were revoked, by issuer id / serial.
    RevokedLeaf,
    /// Revocation lists of private CAs, by issuer id.
    RevocationList,
    /// What agents showed after a restore, by agent id / target id.
    Shown,
    /// Agents that showed everything, by agent id.
    ShownAll,
    /// What agents found on their servers, by agent id.
    Detected,
}

impl Table {
    /// Returns the stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::CertificateName => "certificate_name",
            Self::Version => "version",
            Self::KeySlot => "key_slot",
            Self::Order => "order",
            Self::Target => "target",
            Self::RenewalInfo => "renewal_info",
            Self::TargetState => "target_state",
            Self::Agent => "agent",
            Self::AgentName => "agent_name",
            Self::AgentCertificate => "agent_certificate",
            Self::JoinToken => "join_token",
            Self::Issuer => "issuer",
            Self::IssuerName => "issuer_name",
            Self::Job => "job",
            Self::JobOpen => "job_open",
            Self::Event => "event",
            Self::EventByCertificate => "event_by_certificate",
            Self::EventByAgent => "event_by_agent",
            Self::Desired => "desired",
            Self::Request => "request",
            Self::Setting => "setting",
            Self::IdentityCa => "identity_ca",
            Self::Limit => "limit",
            Self::Operator => "operator",
            Self::OperatorName => "operator_name",
            Self::Invitation => "invitation",
            Self::OrderDue => "order_due",
            Self::QuestionDue => "question_due",
            Self::Leftover => "leftover",
            Self::Audit => "audit",
            Self::BatchMembers => "batch_members",
            Self::BatchJob => "batch_job",
            Self::RevokedLeaf => "revoked_leaf",
            Self::RevocationList => "revocation_list",
            Self::Shown => "shown",
            Self::ShownAll => "shown_all",
            Self::Detected => "detected",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
