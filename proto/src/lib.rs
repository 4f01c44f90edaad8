//! The wire between controller, agent and operator, and the few things on which all three must agree.
//! Code enters here only if two programs need it and the system breaks when they disagree. Nothing here does I/O.

pub mod audit;
pub mod clock;
pub mod endpoint;
pub mod id;
pub mod presets;
pub mod text;
pub mod tls;
pub mod x509;

/// Generated from `types/v1/types.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated code"
)]
pub mod types {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("certwright.types.v1");
    }
}

/// Generated from `agent/v1/agent.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated code"
)]
pub mod agent {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("certwright.agent.v1");
    }
}

/// Generated from `operator/v1/operator.proto`.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    unreachable_pub,
    missing_debug_implementations,
    unused_qualifications,
    reason = "generated code"
)]
pub mod operator {
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("certwright.operator.v1");
    }
}

/// One variant per RPC, so that the role table is an exhaustive match.
pub mod method {
    include!(concat!(env!("OUT_DIR"), "/method.rs"));

    /// What an operator may change before a restore is accepted: what only takes trust away or holds still, and what ends the waiting. The
    /// controller refuses all else, and the dashboard shows it dim.
    pub const WHILE_RESTORE_WAITS: [Method; 5] = [
        Method::OperatorAcceptRestore,
        Method::OperatorCreateBackup,
        Method::OperatorRevokeAgent,
        Method::OperatorRemoveOperator,
        Method::OperatorSetPause,
    ];
}
