//! The one door to ACME servers (RFC 8555), around instant-acme. It decides nothing and retries nothing but a refused
//! nonce: `tasks/issuance` calls it one step at a time. Everything a server says is hostile until it was parsed here.

pub mod account;
#[cfg(test)]
mod canned;
pub mod directory;
pub mod http;
pub mod jws;
pub mod order;
pub(crate) mod pace;
pub mod problem;
mod renewal_info;
mod revoke;
pub(crate) mod session;
pub mod transport;

/// Reads a problem document. Only the fuzzer (`e2e/fuzz`) builds it.
#[cfg(fuzzing)]
pub(crate) fn fuzz_problem(body: &[u8]) {
    if let Ok(problem) = serde_json::from_slice::<instant_acme::Problem>(body) {
        drop(problem::AcmeProblem::read(&problem, None));
    }
}
