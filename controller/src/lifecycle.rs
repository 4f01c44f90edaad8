//! PURE: every decision of the controller, as functions of records and the time. Nothing here does I/O, asks for the
//! time or draws a random number. Called by `tasks` and `rpc`.
#![deny(clippy::wildcard_enum_match_arm, missing_docs)]

pub mod problem;
pub mod sealed;
