//! What the scenarios stand on: a simulated world (clock, disk, network, CA, DNS, hosts) around the real controller and
//! real agents. Nothing here is shipped. A panic in this crate is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "test support: a broken assumption must fail the test at once"
)]

pub mod fake_ca;
pub mod fake_dns;
pub mod fake_host;
pub mod fault_ca;
pub mod lab;
pub mod mass;
pub mod months;
pub mod pebble;
pub mod power;
pub mod raw_agent;
pub mod raw_operator;
pub mod sim_clock;
pub mod sim_net;
pub mod site;
pub mod soak;
pub mod world;
