//! PURE: every decision of the controller, as functions of records and the time. Nothing here does I/O, asks for the
//! time or draws a random number. Called by `tasks` and `rpc`.
#![deny(clippy::wildcard_enum_match_arm, missing_docs)]

pub mod agent;
pub mod audit;
pub mod backoff;
pub mod batch;
pub mod certificate;
pub mod clock_skew;
pub mod csr;
pub mod deployment;
pub mod desired;
pub mod detected;
pub mod due;
pub mod event;
pub mod fallback;
pub mod filter;
pub mod holder;
pub mod identifier;
pub mod issuer;
pub mod job;
pub mod label;
pub mod lock;
pub mod operator;
pub mod order;
pub mod outcome;
pub mod pause;
pub mod policy;
pub mod private_ca;
pub mod problem;
pub mod rate_limit;
pub mod renewal;
pub mod renewal_info;
pub mod restore;
pub mod revocation;
pub mod rollback;
pub mod rollout;
pub mod rotation;
pub mod sealed;
pub mod suggestion;
pub mod target;
pub mod window;
