//! The real tests: Pebble, nginx and the three programs as an operator starts them, on hosts made of namespaces.
//! They need root or a user namespace and built programs; `scripts/test real` brings both.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends by panicking"
)]

use std::time::Duration;

use serde_json::Value;

#[path = "real/ca_faults.rs"]
mod ca_faults;
#[path = "real/ca_features.rs"]
mod ca_features;
#[path = "real/challenges.rs"]
mod challenges;
#[path = "real/command_faults.rs"]
mod command_faults;
#[path = "real/command_line.rs"]
mod command_line;
#[path = "real/detected.rs"]
mod detected;
#[path = "real/disk_faults.rs"]
mod disk_faults;
#[path = "real/fault_ca.rs"]
mod fault_ca;
#[path = "real/files.rs"]
mod files;
#[path = "real/full_disk.rs"]
mod full_disk;
#[path = "real/hosts.rs"]
mod hosts;
#[path = "real/kill.rs"]
mod kill;
#[path = "real/metrics.rs"]
mod metrics;
#[path = "real/operators.rs"]
mod operators;
#[path = "real/partition.rs"]
mod partition;
#[path = "real/pfx.rs"]
mod pfx;
#[path = "real/presets.rs"]
mod presets;
#[path = "real/private_ca.rs"]
mod private_ca;
#[path = "real/renewal.rs"]
mod renewal;
#[path = "real/road.rs"]
mod road;
#[path = "real/rotation.rs"]
mod rotation;
#[path = "real/server_faults.rs"]
mod server_faults;
#[path = "real/service_faults.rs"]
mod service_faults;
#[path = "real/services.rs"]
mod services;
#[path = "real/start_faults.rs"]
mod start_faults;
#[path = "real/symlink_race.rs"]
mod symlink_race;
#[cfg(target_arch = "x86_64")]
#[path = "real/syscalls.rs"]
mod syscalls;
#[path = "real/trial.rs"]
mod trial;

/// Longest wait for something that takes seconds.
const SOON: Duration = Duration::from_secs(60);

/// Tells whether every target of a certificate's record is applied and the certificate active.
fn is_done(record: &Value) -> bool {
    record["status"] == "active" && record["deployment"] == "ok"
}

/// Tells whether a target reached this status.
fn target_is(record: &Value, status: &str) -> bool {
    record["targets"][0]["status"] == status
}

/// Checks what an operator is owed: what happened, why and what to do, each said, with these words in it.
fn explains(problem: &Value, words: &[&str]) {
    for part in ["message", "cause", "hint"] {
        assert!(!problem[part].as_str().unwrap_or_default().is_empty(), "no {part}: {problem:#}");
    }
    says(&problem.to_string(), words);
}

/// Checks that a text for people holds these words, in any case.
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.to_lowercase().contains(&word.to_lowercase()), "\"{word}\" is not in: {text}");
    }
}
