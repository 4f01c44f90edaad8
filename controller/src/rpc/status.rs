//! From problems to `tonic::Status`: every refusal carries reason, message, cause, hint and field errors in its details.
//! What a store or another edge says in its own words goes to the log, not to the peer.

use prost::Message as _;
use proto::types::v1 as wire;
use tonic::{Code, Status};
use tracing::error;

use crate::lifecycle::problem::{Problem, chain};
use crate::store::StoreError;
use crate::store::batch::CommitError;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    problem: Problem,
    fields: Vec<wire::FieldError>,
}

impl Refusal {
    pub(crate) fn new(code: Code, problem: Problem) -> Self {
        Self { code, problem, fields: Vec::new() }
    }

    /// The record does not exist. For agents this is also the answer about another agent's record, word for word.
    pub(crate) fn not_found(kind: &str, name: &str) -> Self {
        let list = if name.is_empty() { String::new() } else { format!("certwright {kind}s ls shows what exists") };
        Self::new(Code::NotFound, Problem::new("NOT_FOUND", format!("{kind} {name} does not exist"), "", list))
    }

    /// One field of the request is wrong.
    pub(crate) fn field(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::fields(vec![field_error(field, message, hint)])
    }

    /// Several fields of the request are wrong.
    pub(crate) fn fields(fields: Vec<wire::FieldError>) -> Self {
        let first = fields.first().cloned().unwrap_or_default();
        let problem = Problem::new("INVALID_REQUEST", format!("--{}: {}", first.field, first.message), "", first.hint);
        Self { code: Code::InvalidArgument, problem, fields }
    }

    /// Someone else changed the record in between.
    pub(crate) fn changed(kind: &str, name: &str) -> Self {
        let hint = "look at it again, then repeat";
        Self::new(
            Code::Aborted,
            Problem::new("CHANGED_MEANWHILE", format!("{kind} {name} was changed by someone else"), "", hint),
        )
    }
}

/// Makes a field error; `field` is the flag without its dashes.
pub(crate) fn field_error(field: &str, message: impl Into<String>, hint: impl Into<String>) -> wire::FieldError {
    wire::FieldError { field: field.to_owned(), message: message.into(), hint: hint.into() }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = refusal.problem.message.clone();
        let detail =
            wire::ErrorDetail { problem: Some(super::convert::problem(&refusal.problem)), fields: refusal.fields };
        Self::with_details(refusal.code, message, detail.encode_to_vec().into())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        error!(error = %chain(&error), "store failed");
        let hint = "journalctl -u certwright-controller says which file and why; nothing was changed";
        Self::new(
            Code::Unavailable,
            Problem::new("STORE_FAILED", "the controller could not read or write its database", "", hint),
        )
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::changed("the record", ""),
            other => {
                error!(error = %chain(&other), "commit failed");
                let hint = "journalctl -u certwright-controller says why (a full disk, most often); nothing was changed; repeat when it is mended";
                Self::new(
                    Code::Unavailable,
                    Problem::new("STORE_FAILED", "the controller could not write its database", "", hint),
                )
            }
        }
    }
}
