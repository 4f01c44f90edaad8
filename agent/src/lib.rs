//! The agent: holds certificates on one server, answers HTTP-01, reloads services and proves what is served.
//! Rooms (ARCHITECTURE.md): `target` and `plan` decide and do nothing else; `net` touches the network and nothing else,
//! `apply` touches keys, files and commands and nothing else; they meet in `apply::request`. `app` wires everything.

pub mod app;
pub mod config;
pub mod host;
pub mod policy;
pub mod problem;
pub mod status;

mod apply;
mod net;
mod plan;
mod state;
mod target;
