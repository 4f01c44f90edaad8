//! A failed command: for people `error`, `because`, `try`; for programs one JSON line. Both go to stderr.

use proto::types::v1::{FieldError, Problem};
use serde::Serialize;

use super::{API_VERSION, safe, safe_lines, some};
use crate::client::ClientError;

/// A problem in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ProblemView {
    reason: Option<String>,
    message: String,
    cause: Option<String>,
    hint: Option<String>,
}

impl From<&Problem> for ProblemView {
    fn from(problem: &Problem) -> Self {
        let cause = safe_lines(&problem.cause);
        Self {
            reason: some(&problem.reason),
            message: safe(&problem.message),
            cause: (!cause.is_empty()).then_some(cause),
            hint: some(&problem.hint),
        }
    }
}

#[derive(Serialize)]
struct FieldView {
    field: String,
    message: String,
    hint: Option<String>,
}

impl From<&FieldError> for FieldView {
    fn from(error: &FieldError) -> Self {
        Self { field: safe(&error.field), message: safe(&error.message), hint: some(&error.hint) }
    }
}

#[derive(Serialize)]
struct ErrorView {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    exit_code: u8,
    #[serde(flatten)]
    problem: ProblemView,
    fields: Vec<FieldView>,
}

/// Returns the lines for people, without the last line break.
pub(crate) fn text(error: &ClientError) -> String {
    let mut lines = vec![format!("error: {}", safe(&error.problem.message))];
    lines.extend(safe_lines(&error.problem.cause).lines().map(|line| format!("because: {line}")));
    for FieldError { field, message, hint } in &error.fields {
        let hint = if hint.is_empty() { String::new() } else { format!(" ({})", safe(hint)) };
        lines.push(format!("field {}: {}{hint}", safe(field), safe(message)));
    }
    if !error.problem.hint.is_empty() {
        lines.push(format!("try: {}", safe(&error.problem.hint)));
    }
    lines.join("\n")
}

/// Returns one line of JSON.
pub(crate) fn json(error: &ClientError) -> String {
    let view = ErrorView {
        api_version: API_VERSION,
        kind: "Error",
        exit_code: error.kind.exit_code(),
        problem: (&error.problem).into(),
        fields: error.fields.iter().map(FieldView::from).collect(),
    };
    serde_json::to_string(&view).expect("the view has string keys and no failing parts")
}
