//! Everything that touches the network, and nothing that touches keys of certificates, their files or commands: those
//! are asked of `apply`. `app` starts `session` (one connection to the controller) and `reconcile` (what is desired).

pub(crate) mod client;
pub(crate) mod deployment;
mod detected;
mod held;
pub(crate) mod http01;
pub(crate) mod identity;
mod pace;
pub(crate) mod questions;
pub(crate) mod reconcile;
pub(crate) mod report;
pub(crate) mod session;
pub(crate) mod trial;
pub(crate) mod trouble;
pub(crate) mod verify;
pub(crate) mod witness;

/// Returns a random byte: jitter, so that a fleet does not move in step.
pub(crate) fn jitter() -> u8 {
    let mut byte = [0_u8];
    // Without randomness everything still works, only less spread out.
    if getrandom::fill(&mut byte).is_err() {
        return 127;
    }
    let [byte] = byte;
    byte
}
