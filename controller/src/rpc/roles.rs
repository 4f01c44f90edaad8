//! The role table: one exhaustive match over every RPC, so that an RPC without a row does not compile. Deny by default:
//! nothing here is a wildcard. Called by `rpc/peer`.

use proto::method::Method;

/// What an operator may be (features.md O1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum OperatorRole {
    /// Everything.
    Owner,
}

impl OperatorRole {
    /// The word of the wire.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Owner => "owner",
        }
    }
}

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone who reaches the port: the request itself proves what it must.
    Anyone,
    /// An enrolled agent with a valid leaf.
    Agent,
    /// An enrolled agent, also with a leaf expired for less than 90 days.
    AgentAlsoExpired,
    /// An operator with this role.
    Operator(OperatorRole),
}

/// Returns who may call `method`.
pub(crate) fn access(method: Method) -> Access {
    use Method as M;
    match method {
        M::AgentEnroll => Access::Anyone,
        M::AgentRenewIdentity => Access::AgentAlsoExpired,
        M::AgentAttach | M::AgentGetDesired | M::AgentFetch | M::AgentSubmitCsr | M::AgentReport => Access::Agent,
        M::OperatorWhoami
        | M::OperatorGetOverview
        | M::OperatorWatch
        | M::OperatorListCertificates
        | M::OperatorGetCertificate
        | M::OperatorCreateCertificate
        | M::OperatorUpdateCertificate
        | M::OperatorRenewCertificate
        | M::OperatorDeployCertificate
        | M::OperatorRevokeCertificate
        | M::OperatorDeleteCertificate
        | M::OperatorSetPause
        | M::OperatorAddTarget
        | M::OperatorRemoveTarget
        | M::OperatorListVersions
        | M::OperatorListAgents
        | M::OperatorGetAgent
        | M::OperatorEnrollAgent
        | M::OperatorRevokeAgent
        | M::OperatorForgetAgent
        | M::OperatorListIssuers
        | M::OperatorGetIssuer
        | M::OperatorAddIssuer
        | M::OperatorRemoveIssuer
        | M::OperatorSetIssuer
        | M::OperatorTestIssuer
        | M::OperatorListLimits
        | M::OperatorSetLimits
        | M::OperatorRolloverAccount
        | M::OperatorListJobs
        | M::OperatorGetJob
        | M::OperatorListEvents => Access::Operator(OperatorRole::Owner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_enrolment_is_open_and_only_identity_renewal_outlives_a_leaf() {
        let with = |access_wanted| {
            Method::ALL.iter().copied().filter(|method| access(*method) == access_wanted).collect::<Vec<_>>()
        };
        assert_eq!(with(Access::Anyone), [Method::AgentEnroll]);
        assert_eq!(with(Access::AgentAlsoExpired), [Method::AgentRenewIdentity]);
    }
}
