//! What operators ask for, by noun. Each file reads or records; `rpc/operator_service` only routes.

pub(super) mod agents;
pub(super) mod audit;
pub(super) mod backup;
pub(super) mod bulk;
pub(super) mod certificates;
pub(super) mod challenges;
pub(super) mod create;
pub(super) mod detected;
pub(super) mod identity_ca;
pub(super) mod issuers;
pub(super) mod limits;
pub(super) mod lists;
pub(super) mod operators;
pub(super) mod overview;
pub(super) mod pause;
pub(super) mod private_ca;
pub(super) mod restore;
pub(super) mod revoke;
mod selection;
pub(super) mod targets;
pub(super) mod wishes;

#[cfg(test)]
mod tests;
