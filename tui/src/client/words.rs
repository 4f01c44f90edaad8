//! The words for the wire's enums, as JSON, tables and forms show them (snake case). Used by `output` and the screens.

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
