//! gRPC for agents and operators. It parses, asks the role table, records intent and wakes a task; it never talks to a CA
//! or to DNS. Everything that arrives here is hostile until parsed.

mod agent_service;
mod audited;
mod convert;
mod enrollment;
mod greeting;
mod listener;
mod login;
mod metrics;
mod operator;
mod operator_service;
mod peer;
mod report;
mod revocation_list;
mod roles;
mod serve;
mod status;
mod views;
mod web;

pub use listener::PeerUser;
pub use metrics::Door;
pub(crate) use metrics::serve as serve_monitors;
pub(crate) use revocation_list::serve as serve_revocation_lists;
pub use serve::ServeError;
pub(crate) use serve::{Installation, Server, serve};

/// Members of this group may reach the operators' socket; what they may do is decided by their uid.
pub const ADMIN_GROUP: &str = "certwright-admin";
