//! The words for the wire's enums, as JSON, tables and forms show them (snake case). Used by `output` and the screens.

use proto::operator::v1::LimitLine;
use proto::types::v1::{Custody, FileContent, KeyType, TargetStatus};

/// Shown for a value this program does not know: a newer controller.
const UNKNOWN: &str = "unknown";

/// Returns the word for a `KeyType`; empty when unspecified.
#[must_use]
pub fn key_type(value: i32) -> &'static str {
    match KeyType::try_from(value) {
        Ok(KeyType::Unspecified) => "",
        Ok(KeyType::P256) => "p256",
        Ok(KeyType::P384) => "p384",
        Ok(KeyType::Rsa2048) => "rsa2048",
        Ok(KeyType::Rsa3072) => "rsa3072",
        Ok(KeyType::Rsa4096) => "rsa4096",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `Custody`; empty when unspecified.
#[must_use]
pub fn custody(value: i32) -> &'static str {
    match Custody::try_from(value) {
        Ok(Custody::Unspecified) => "",
        Ok(Custody::Agent) => "agent",
        Ok(Custody::Controller) => "controller",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `TargetStatus`; "pending" when unspecified.
#[must_use]
pub fn target_status(value: i32) -> &'static str {
    match TargetStatus::try_from(value) {
        Ok(TargetStatus::Unspecified | TargetStatus::Pending) => "pending",
        Ok(TargetStatus::Applied) => "applied",
        Ok(TargetStatus::Unproven) => "unproven",
        Ok(TargetStatus::NotLive) => "not_live",
        Ok(TargetStatus::RolledBack) => "rolled_back",
        Ok(TargetStatus::Failed) => "failed",
        Ok(TargetStatus::NeedsOperator) => "needs_operator",
        Ok(TargetStatus::Drifted) => "drifted",
        Err(_) => UNKNOWN,
    }
}

/// Returns the word for a `FileContent`; empty when unspecified.
#[must_use]
pub fn file_content(value: i32) -> &'static str {
    match FileContent::try_from(value) {
        Ok(FileContent::Unspecified) => "",
        Ok(FileContent::Cert) => "cert",
        Ok(FileContent::Key) => "key",
        Ok(FileContent::Chain) => "chain",
        Ok(FileContent::Fullchain) => "fullchain",
        Err(_) => UNKNOWN,
    }
}

/// Returns a period of a limit in its largest whole unit: `3h`, `7d`.
#[must_use]
pub fn period(seconds: u32) -> String {
    const UNITS: [(&str, u32); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let unit = UNITS.iter().find(|(_, size)| seconds >= *size && seconds.is_multiple_of(*size));
    unit.map_or_else(String::new, |(word, size)| format!("{}{word}", seconds / size))
}

/// Returns what a limit counts and for whom: `registered domain example.com`.
#[must_use]
pub fn limit_subject(line: &LimitLine) -> String {
    format!("{} {}", line.kind.replace('-', " "), line.name).trim_end().to_owned()
}

/// Returns how much of a limit is used: `12 of 300 in 3h used`; empty where none is known.
#[must_use]
pub fn limit_used(line: &LimitLine) -> String {
    match (line.count, line.kind.as_str()) {
        (0, _) => String::new(),
        (count, "requests") => format!("at most {count} in {}", period(line.period_seconds)),
        (count, _) => format!("{} of {count} in {} used", line.used, period(line.period_seconds)),
    }
}

/// Returns what a CA does not count of the next order; empty when everything counts.
#[must_use]
pub fn limit_exemption(word: &str) -> &'static str {
    match word {
        "replaces" => "the CA counts nothing: the order says which version it replaces",
        "same_set" => "the CA counts neither orders nor the registered domain: the names are the same as before",
        _ => "",
    }
}

/// Why a version is ordered, in people's words; a reason that this program does not know stays as it is.
#[must_use]
pub fn reason(word: &str) -> &str {
    match word {
        "no_version" => "first version",
        "specification_changed" => "its specification changed",
        "revoked" => "it was revoked",
        "key_lost" => "its key was lost",
        "renewal_info" => "its CA asked for it",
        "lifetime_fraction" => "its lifetime runs out",
        "operator_asked" => "an operator asked",
        other => other,
    }
}
