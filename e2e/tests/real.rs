//! The real tests: Pebble, nginx and the three programs as an operator starts them, on hosts made of namespaces.
//! They need root or a user namespace and built programs; `scripts/test real` brings both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking"
)]

#[path = "real/hosts.rs"]
mod hosts;
