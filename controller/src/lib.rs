//! The controller: obtains certificates, decides when to renew, and tells agents what to hold.
//! Rooms (ARCHITECTURE.md): `lifecycle` decides and does nothing else; `store`, `acme`, `ca` and `dns` are edges that do
//! not know each other; `tasks` and `rpc` join them; `app` wires everything.

pub mod acme;
pub mod app;
pub mod ca;
pub mod config;
pub mod dns;
pub mod lifecycle;
pub mod offline;
pub mod preflight;
pub mod private_ca;
pub mod rpc;
pub mod store;
pub mod tasks;

/// What bytes from outside reach first. Only the fuzzer (`e2e/fuzz`) builds it.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// An ACME directory.
    pub fn directory(body: &[u8]) {
        let at = http::Uri::from_static("https://ca.test/directory");
        if let Ok(document) = crate::acme::directory::DirectoryDocument::parse(&at, body) {
            document.allows(&at);
        }
    }

    /// A backup.
    pub fn backup(file: &[u8]) {
        crate::store::backup::fuzz(file);
    }

    /// A problem document (RFC 7807).
    pub fn problem(body: &[u8]) {
        crate::acme::fuzz_problem(body);
    }
}
