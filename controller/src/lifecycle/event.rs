//! What happened, for the activity of certificates and agents (features.md O2). Written in the batch of its cause.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::AttemptOutcome;
use super::problem::Problem;

/// How much an operator should care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// State changed.
    Info,
    /// It will be tried again.
    Warn,
    /// Someone must act.
    Error,
}

/// One event. Key in the store: `seq`, twenty digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Grows by one.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// How much to care.
    pub severity: Severity,
    /// `local:root`, `agent:h1` or `controller`.
    pub actor: String,
    /// `certificate.created`, `order.failed`, `target.applied`, …
    pub kind: String,
    /// Name of the certificate, when it is about one.
    pub certificate: Option<String>,
    /// Name of the agent, when it is about one.
    pub agent: Option<String>,
    /// One sentence; sanitised.
    pub message: String,
    /// What went wrong.
    pub problem: Option<Problem>,
    /// Of `attempt.ended`: what it did where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Box<AttemptOutcome>>,
}

impl Severity {
    /// The word of the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
