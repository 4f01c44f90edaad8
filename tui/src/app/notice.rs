//! What the dashboard tells the operator in the status line, and the messages of this session. One error never hides
//! another: all stay readable with `M`. Pure.

use std::collections::VecDeque;

use jiff::Timestamp;
use proto::types::v1::Problem;

use crate::theme::State;
use crate::widgets::text::safe;

/// Messages kept.
const KEPT_MAX: usize = 200;

/// One message.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// When.
    pub(crate) at: Timestamp,
    /// Ok, Warn or Bad.
    pub(crate) state: State,
    /// What happened, in one line.
    pub(crate) text: String,
    /// Why, as far as it is known; may be empty.
    pub(crate) cause: String,
    /// What to do; may be empty.
    pub(crate) hint: String,
}

/// The messages of this session, newest last, and the one that shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices {
    /// All that are kept.
    pub(crate) kept: VecDeque<Notice>,
    shows: bool,
}

impl Notices {
    /// Says something that needs no answer.
    pub(crate) fn say(&mut self, at: Timestamp, state: State, text: impl Into<String>) {
        self.push(Notice { at, state, text: safe(&text.into()), cause: String::new(), hint: String::new() });
    }

    /// Says that something failed: what, why and what to do.
    pub(crate) fn fail(&mut self, at: Timestamp, doing: &str, problem: &Problem) {
        let text = if doing.is_empty() { problem.message.clone() } else { format!("{doing}: {}", problem.message) };
        self.push(Notice {
            at,
            state: State::Bad,
            text: safe(&text),
            cause: problem.cause.clone(),
            hint: safe(&problem.hint),
        });
    }

    fn push(&mut self, notice: Notice) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(notice);
        self.shows = true;
    }

    /// Returns the message that the status line shows.
    pub(crate) fn showing(&self) -> Option<&Notice> {
        self.kept.back().filter(|_| self.shows)
    }

    /// Clears the status line: the operator went on. An error stays until something else is said or `force`.
    pub(crate) fn went_on(&mut self, force: bool) {
        if force || self.kept.back().is_some_and(|notice| notice.state != State::Bad) {
            self.shows = false;
        }
    }
}
