//! The role table: one exhaustive match over every RPC, so that an RPC without a row does not compile. Deny by default:
//! nothing here is a wildcard. Called by `rpc/peer`.

use proto::method::{Method, WHILE_RESTORE_WAITS};

use crate::lifecycle::operator::{Act, Role};

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone who reaches the port: the request itself proves what it must.
    Anyone,
    /// An enrolled agent with a valid leaf.
    Agent,
    /// An enrolled agent, also with a leaf that expired: for how long is looked at, and whether an operator consented.
    AgentAlsoExpired,
    /// An operator whose role may do this.
    Operator(Act),
}

/// Returns who may call `method`.
pub(crate) fn access(method: Method) -> Access {
    use Method as M;
    match method {
        M::AgentEnroll | M::OperatorLogin => Access::Anyone,
        M::AgentRenewIdentity => Access::AgentAlsoExpired,
        M::AgentAttach
        | M::AgentGetDesired
        | M::AgentFetch
        | M::AgentSubmitCsr
        | M::AgentReport
        | M::AgentShowHeld
        | M::AgentAnswer => Access::Agent,
        M::OperatorWhoami
        | M::OperatorRenewLogin
        | M::OperatorGetOverview
        | M::OperatorWatch
        | M::OperatorListCertificates
        | M::OperatorGetCertificate
        | M::OperatorListVersions
        | M::OperatorListAgents
        | M::OperatorGetAgent
        | M::OperatorGetDetected
        | M::OperatorListIssuers
        | M::OperatorGetIssuer
        | M::OperatorGetRevocationList
        | M::OperatorListLimits
        | M::OperatorListOperators
        | M::OperatorGetRestore
        | M::OperatorListJobs
        | M::OperatorGetJob
        | M::OperatorGetIdentityCa
        | M::OperatorListEvents => Access::Operator(Act::See),
        M::OperatorListAudit => Access::Operator(Act::Audit),
        M::OperatorCreateCertificate
        | M::OperatorUpdateCertificate
        | M::OperatorRenewCertificate
        | M::OperatorDeployCertificate
        | M::OperatorRevokeCertificate
        | M::OperatorDeleteCertificate
        | M::OperatorSetPause
        | M::OperatorAddTarget
        | M::OperatorRemoveTarget
        | M::OperatorSetTarget
        | M::OperatorTestTargets
        | M::OperatorCheckChallenges
        | M::OperatorEnrollAgent
        | M::OperatorConsentAgent
        | M::OperatorSetAgent
        | M::OperatorDetectAgent
        | M::OperatorRevokeAgent
        | M::OperatorForgetAgent
        | M::OperatorTestIssuer
        | M::OperatorSetLimits
        | M::OperatorCancelJob
        | M::OperatorActOnCertificates => Access::Operator(Act::Operate),
        M::OperatorAddIssuer
        | M::OperatorRemoveIssuer
        | M::OperatorSetIssuer
        | M::OperatorRolloverAccount
        | M::OperatorRotateIdentityCa
        | M::OperatorAddOperator
        | M::OperatorInviteOperator
        | M::OperatorSetOperatorRole
        | M::OperatorRemoveOperator
        | M::OperatorCreateBackup
        | M::OperatorAcceptRestore => Access::Operator(Act::Trust),
    }
}

/// Whether an operator's act may be done before a restore is accepted: what only takes trust away, looks, or ends the waiting.
pub(crate) fn is_for_waiting(method: Method) -> bool {
    match access(method) {
        Access::Operator(Act::See | Act::Audit) => true,
        Access::Operator(Act::Operate | Act::Trust) => WHILE_RESTORE_WAITS.contains(&method),
        Access::Anyone | Access::Agent | Access::AgentAlsoExpired => false,
    }
}

/// Returns what `role` may not call, each with the least role that may.
pub(crate) fn denied(role: Role) -> impl Iterator<Item = (Method, Role)> {
    Method::ALL.iter().filter_map(move |&method| match access(method) {
        Access::Operator(act) if !role.may(act) => Some((method, act.needs())),
        Access::Operator(_) | Access::Anyone | Access::Agent | Access::AgentAlsoExpired => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_first_contact_is_open_and_only_identity_renewal_outlives_a_leaf() {
        let with = |access_wanted| {
            Method::ALL.iter().copied().filter(|method| access(*method) == access_wanted).collect::<Vec<_>>()
        };
        assert_eq!(with(Access::Anyone), [Method::AgentEnroll, Method::OperatorLogin]);
        assert_eq!(with(Access::AgentAlsoExpired), [Method::AgentRenewIdentity]);
    }

    #[test]
    fn whoever_only_sees_changes_nothing_and_only_an_owner_changes_trust() {
        // By their names, so that a new RPC has to be thought about.
        let reads = |method: &Method| {
            let name = method.name();
            ["Get", "List"].iter().any(|verb| name.starts_with(verb))
                || matches!(name, "Whoami" | "Watch" | "RenewLogin")
        };
        let may = |role: Role| {
            let refused: Vec<Method> = denied(role).map(|(method, _)| method).collect();
            let operators = Method::ALL.iter().filter(|method| matches!(access(**method), Access::Operator(_)));
            operators.filter(|method| !refused.contains(method)).copied().collect::<Vec<_>>()
        };
        assert!(may(Role::Viewer).iter().all(reads), "{:?}", may(Role::Viewer));
        assert!(may(Role::Auditor).iter().all(reads), "{:?}", may(Role::Auditor));
        assert_eq!(denied(Role::Owner).count(), 0);
        for method in denied(Role::Maintainer).filter(|(_, needs)| *needs == Role::Owner).map(|(method, _)| method) {
            assert!(
                ["Issuer", "Account", "Operator", "IdentityCa", "Backup", "Restore"]
                    .iter()
                    .any(|what| method.name().contains(what)),
                "{method:?}"
            );
        }
        assert!(may(Role::Maintainer).contains(&Method::OperatorRenewCertificate));
    }
}
