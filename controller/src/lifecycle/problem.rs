//! One thing that went wrong, in the four parts an operator needs: reason, message, cause, hint. Never holds a secret.

use proto::text::one_line;
use serde::{Deserialize, Serialize};

/// Longest message and hint, characters.
const SENTENCE_CHARS_MAX: usize = 400;
/// Longest cause, characters: words of a CA, a kernel or a command.
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
    /// Makes a problem; message and cause may hold bytes from outside and are sanitised here.
    #[must_use]
    pub fn new(reason: &str, message: impl AsRef<str>, cause: impl AsRef<str>, hint: impl AsRef<str>) -> Self {
        Self {
            reason: reason.to_owned(),
            message: one_line(message.as_ref(), SENTENCE_CHARS_MAX),
            cause: one_line(cause.as_ref(), CAUSE_CHARS_MAX),
            hint: one_line(hint.as_ref(), SENTENCE_CHARS_MAX),
        }
    }
}

/// Returns what lies below an error, outermost first: `Display` alone never prints its source.
#[must_use]
pub fn causes(error: &dyn std::error::Error) -> String {
    let below = std::iter::successors(error.source(), |&error| error.source());
    below.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Returns an error with everything below it, for a log.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let below = causes(error);
    let all = if below.is_empty() { error.to_string() } else { format!("{error}: {below}") };
    one_line(&all, CAUSE_CHARS_MAX)
}
