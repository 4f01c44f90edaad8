//! What the audit is told of an act. Called by `rpc` and `tasks/audit`.

use jiff::Timestamp;
use proto::audit::Line;
use proto::text::one_line;

/// Longest part of a line, characters.
const PART_CHARS_MAX: usize = 600;

/// A line before it has its place in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Who.
    pub actor: String,
    /// How they proved it.
    pub from: String,
    /// The RPC.
    pub act: String,
    /// What it was about.
    pub subject: String,
    /// What was asked, or what came of it; never a secret.
    pub detail: String,
    /// How far it is.
    pub result: Result,
}

/// How far an act is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Result {
    /// Written before the effect.
    Asked,
    /// It had its effect; the line that asked.
    Done(u64),
    /// It had none; the line that asked.
    Failed(u64),
    /// The role does not allow it.
    Refused,
}

impl Draft {
    /// Returns the line at this place of the chain, as it is written.
    #[must_use]
    pub fn line(&self, seq: u64, at: Timestamp, previous: &str) -> Line {
        let (result, answers) = match self.result {
            Result::Asked => ("asked", None),
            Result::Done(asked) => ("done", Some(asked)),
            Result::Failed(asked) => ("failed", Some(asked)),
            Result::Refused => ("refused", None),
        };
        let part = |text: &str| one_line(text, PART_CHARS_MAX);
        Line {
            seq,
            at,
            actor: part(&self.actor),
            from: part(&self.from),
            act: part(&self.act),
            subject: part(&self.subject),
            detail: part(&self.detail),
            result: result.to_owned(),
            answers,
            previous: previous.to_owned(),
        }
    }
}
