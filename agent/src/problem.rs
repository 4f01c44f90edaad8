//! One thing that went wrong, in the four parts an operator needs: reason, message, cause, hint. Never holds a secret.
//! Every room makes them; `net::reconcile` sends them and `main` prints them.

use std::fmt;

use proto::text::one_line;
use proto::types::v1 as wire;
use serde::{Deserialize, Serialize};

/// Longest message and hint, characters.
const SENTENCE_CHARS_MAX: usize = 500;
/// Longest cause, characters: words of a kernel, a peer or a command.
const CAUSE_CHARS_MAX: usize = 1_000;

/// What happened, to what, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code, `SCREAMING_SNAKE`.
    pub reason: String,
    /// What happened, to what.
    pub message: String,
    /// Why, in the words of whoever refused.
    pub cause: String,
    /// What to do.
    pub hint: String,
}

impl Problem {
    /// Makes a problem; every part may hold bytes from outside and is sanitised here.
    #[must_use]
    pub fn new(reason: &str, message: impl AsRef<str>, cause: impl AsRef<str>, hint: impl AsRef<str>) -> Self {
        Self {
            reason: one_line(reason, 64),
            message: one_line(message.as_ref(), SENTENCE_CHARS_MAX),
            cause: one_line(cause.as_ref(), CAUSE_CHARS_MAX),
            hint: one_line(hint.as_ref(), SENTENCE_CHARS_MAX),
        }
    }

    /// Says what happened next as well; reason, cause and hint stay those of the first.
    #[must_use]
    pub(crate) fn then(&self, next: &str) -> Self {
        Self::new(&self.reason, format!("{}; {next}", self.message), &self.cause, &self.hint)
    }

    /// A bug of ours that must not take the agent down.
    #[must_use]
    pub fn internal(what: &str) -> Self {
        Self::new("INTERNAL", format!("the agent failed at: {what}"), "", "report this with the agent's log")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for wire::Problem {
    fn from(problem: Problem) -> Self {
        Self { reason: problem.reason, message: problem.message, cause: problem.cause, hint: problem.hint }
    }
}

impl From<wire::Problem> for Problem {
    fn from(problem: wire::Problem) -> Self {
        Self::new(&problem.reason, problem.message, problem.cause, problem.hint)
    }
}
