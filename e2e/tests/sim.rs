//! Scenarios over the simulated world: real controller, agents, store, TLS and gRPC; fake CA, DNS and hosts; time that only
//! moves when nothing else does. `cargo test -p e2e --test sim` runs them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "a test ends by panicking with what it found"
)]

#[path = "sim/agents.rs"]
mod agents;
#[path = "sim/audit.rs"]
mod audit;
#[path = "sim/bad_input.rs"]
mod bad_input;
#[path = "sim/bulk.rs"]
mod bulk;
#[path = "sim/challenges.rs"]
mod challenges;
#[path = "sim/clock.rs"]
mod clock;
#[path = "sim/crash.rs"]
mod crash;
#[path = "sim/detected.rs"]
mod detected;
#[path = "sim/drift.rs"]
mod drift;
#[path = "sim/full_disk.rs"]
mod full_disk;
#[path = "sim/isolation.rs"]
mod isolation;
#[path = "sim/issuers.rs"]
mod issuers;
#[path = "sim/lifetime.rs"]
mod lifetime;
#[path = "sim/limits.rs"]
mod limits;
#[path = "sim/lives.rs"]
mod lives;
#[path = "sim/mass.rs"]
mod mass;
#[path = "sim/months.rs"]
mod months;
#[path = "sim/operators.rs"]
mod operators;
#[path = "sim/outcome.rs"]
mod outcome;
#[path = "sim/partition.rs"]
mod partition;
#[path = "sim/pause.rs"]
mod pause;
#[path = "sim/private_ca.rs"]
mod private_ca;
#[path = "sim/renewal.rs"]
mod renewal;
#[path = "sim/restore.rs"]
mod restore;
#[path = "sim/restored.rs"]
mod restored;
#[path = "sim/revocation.rs"]
mod revocation;
#[path = "sim/road.rs"]
mod road;
#[path = "sim/rotation.rs"]
mod rotation;
#[path = "sim/soak.rs"]
mod soak;
#[path = "sim/targets.rs"]
mod targets;
#[path = "sim/trial.rs"]
mod trial;

use std::time::Duration;

use e2e::world::World;
use e2e::world::operator::Wish;
use prost::Message as _;
use proto::types::v1::{Custody, ErrorDetail};

/// Limit for what takes seconds in life.
const SOON: Duration = Duration::from_secs(120);

/// Points a certificate's names at an agent and gives it its first target there.
fn wish(world: &World, name: &str, custody: Custody, agent: usize) -> Wish {
    let mut wish = Wish::new(name, custody);
    let site = &world.agents[agent];
    for identifier in &wish.identifiers {
        world.dns.set(identifier, &[site.machine.address()]);
    }
    wish.target = Some(site.target(name, &wish.identifiers[0]));
    wish
}

/// The reason code of a refusal.
fn reason(status: &tonic::Status) -> String {
    ErrorDetail::decode(status.details()).unwrap().problem.unwrap_or_default().reason
}

/// Lower-case hex of what an agent's TLS service shows for a name.
fn served(world: &World, agent: usize, server_name: &str) -> Option<String> {
    let der = world.agents[agent].machine.service().served(server_name)?;
    Some(proto::x509::fingerprint(&der).iter().map(|byte| format!("{byte:02x}")).collect())
}
