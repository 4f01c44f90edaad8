//! The agent: holds certificates on one server, answers HTTP-01, reloads services and proves what is served.
//! Rooms (ARCHITECTURE.md): `target`, `plan` and `detect` decide and do nothing else; `net` touches the network and nothing else,
//! `apply` touches keys, files and commands and nothing else; they meet in `apply::request`. `app` wires everything.

pub mod app;
pub mod config;
pub mod host;
pub mod policy;
pub mod problem;
pub mod status;
pub mod unit;

mod apply;
mod detect;
mod ledger;
mod net;
mod plan;
mod state;
mod target;

/// What bytes from outside reach first. Only the fuzzer (`e2e/fuzz`) builds it.
#[cfg(fuzzing)]
pub mod fuzzing {
    use prost::Message as _;

    /// What a controller calls desired: protobuf, then our own checks.
    pub fn desired(bytes: &[u8]) {
        if let Ok(response) = proto::agent::v1::GetDesiredResponse::decode(bytes) {
            drop(crate::target::Desired::from_wire(&response));
        }
    }

    /// Configurations of this server's programs, which any of its users may have written.
    pub fn detected(text: &str) {
        assert!(crate::detect::read_all(text) <= 300 * 1024);
    }

    /// What a server says before TLS.
    pub fn preamble(bytes: &[u8]) {
        crate::net::verify::preamble::fuzz(bytes);
    }

    /// The head of a request to the HTTP-01 listener.
    pub fn http01_head(head: &str) {
        crate::net::http01::fuzz(head);
    }
}
