//! From problems to `tonic::Status`: every refusal carries reason, message, cause, hint and field errors in its details.
//! What a store or another edge says in its own words goes to the log, not to the peer.

use prost::Message as _;
use proto::types::v1 as wire;
use tonic::{Code, Status};
use tracing::error;

use crate::lifecycle::problem::{Problem, chain};
use crate::store::StoreError;
use crate::store::batch::CommitError;
use crate::store::engine::EngineError;
use crate::tasks::limits::LimitError;

/// Reason of a refusal: the record is not as it was read, or as the operator saw it.
const CHANGED_MEANWHILE: &str = "CHANGED_MEANWHILE";

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
        let list = match (kind, name) {
            (_, "") => String::new(),
            ("certificate", _) => "certwright certs ls shows what exists".to_owned(),
            (kind, _) => format!("certwright {kind}s ls shows what exists"),
        };
        let what = if name.is_empty() { format!("the {kind}") } else { format!("{kind} {name}") };
        Self::new(Code::NotFound, Problem::new("NOT_FOUND", format!("{what} does not exist"), "", list))
    }

    /// One field of the request is wrong.
    pub(crate) fn field(field: &str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::fields(vec![field_error(field, message, hint)])
    }

    /// Several fields of the request are wrong.
    pub(crate) fn fields(fields: Vec<wire::FieldError>) -> Self {
        let first = fields.first().cloned().unwrap_or_default();
        // The name is the one argument without a flag.
        let flag = if first.field == "name" { "NAME".to_owned() } else { format!("--{}", first.field) };
        let problem = Problem::new("INVALID_REQUEST", format!("{flag}: {}", first.message), "", first.hint);
        Self { code: Code::InvalidArgument, problem, fields }
    }

    /// Reason and message, for the audit.
    pub(crate) fn words(&self) -> String {
        format!("{}: {}", self.problem.reason, self.problem.message)
    }

    #[cfg(test)]
    pub(crate) fn field_names(&self) -> Vec<String> {
        self.fields.iter().map(|field| field.field.clone()).collect()
    }

    /// Someone else changed the record in between.
    pub(crate) fn changed(kind: &str, name: &str) -> Self {
        Self::changed_meanwhile(&format!("{kind} {name}"))
    }

    fn changed_meanwhile(what: &str) -> Self {
        let hint = "see what it is now (certwright certs get NAME), then repeat";
        let message = format!("{what} was changed by someone else");
        Self::new(Code::Aborted, Problem::new(CHANGED_MEANWHILE, message, "", hint))
    }

    /// Whether the record changed between the reading and the writing, or is not as the operator saw it.
    pub(crate) fn is_changed_meanwhile(&self) -> bool {
        self.problem.reason == CHANGED_MEANWHILE
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
        if let StoreError::Engine(full @ EngineError::Full(_)) = &error {
            return Self::new(Code::Unavailable, full.problem());
        }
        error!(error = %chain(&error), "store failed");
        let hint = "journalctl -u certwright-controller says which file and why; nothing was changed";
        Self::new(
            Code::Unavailable,
            Problem::new("STORE_FAILED", "the controller could not read or write its database", "", hint),
        )
    }
}

impl From<LimitError> for Refusal {
    fn from(error: LimitError) -> Self {
        match error {
            LimitError::Store(error) => error.into(),
            LimitError::Commit(error) => error.into(),
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Conflict { .. } => Self::changed_meanwhile("the record"),
            // Nothing is broken: what was asked is more than one change may hold.
            CommitError::TooLarge => Self::new(Code::InvalidArgument, error.problem()),
            CommitError::Storage(full @ EngineError::Full(_)) => Self::new(Code::Unavailable, full.problem()),
            other @ (CommitError::NotEncodable { .. } | CommitError::Storage(_)) => {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_and_messages_use_words_that_the_command_line_knows() {
        let check = |refusal: Refusal, message: &str, hint: &str| {
            assert_eq!((refusal.problem.message.as_str(), refusal.problem.hint.as_str()), (message, hint));
        };
        check(
            Refusal::not_found("certificate", "web"),
            "certificate web does not exist",
            "certwright certs ls shows what exists",
        );
        check(Refusal::not_found("agent", "h1"), "agent h1 does not exist", "certwright agents ls shows what exists");
        check(Refusal::not_found("record", ""), "the record does not exist", "");
        check(
            Refusal::field("name", "\"a b\" is not a name", "use letters"),
            "NAME: \"a b\" is not a name",
            "use letters",
        );
        check(Refusal::field("dir", "\"x\" is not absolute", "write it"), "--dir: \"x\" is not absolute", "write it");
    }

    #[test]
    fn a_change_that_is_too_large_is_not_called_a_failure_of_the_database() {
        let refusal = Refusal::from(CommitError::TooLarge);
        assert_eq!((refusal.code, refusal.problem.reason.as_str()), (Code::InvalidArgument, "CHANGE_TOO_LARGE"));
        let refusal =
            Refusal::from(CommitError::Conflict { table: crate::store::tables::Table::Order, key: "c".into() });
        assert_eq!(refusal.problem.message, "the record was changed by someone else");
    }
}
