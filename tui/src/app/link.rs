//! The connection to the controller as the title line shows it. A lost connection never ends the dashboard: what is on
//! the screen stays readable, and nothing can be changed until it is back (tui.md §2.12). Pure.

use std::time::Duration;

use jiff::Timestamp;

use crate::theme::State;
use crate::widgets::text::span;

/// An answer that takes longer is called slow.
const SLOW_MIN: Duration = Duration::from_secs(1);

/// How the connection stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    /// Nothing has been heard yet.
    #[default]
    Connecting,
    /// Heard from a moment ago.
    Live {
        /// How long the last answer took.
        took: Duration,
    },
    /// Not reachable.
    Offline {
        /// Since when.
        since: Timestamp,
        /// When the controller was last heard.
        heard_at: Option<Timestamp>,
        /// Why.
        why: String,
        /// What to do.
        hint: String,
        /// When it is tried again.
        retry_at: Timestamp,
        /// How often it was tried.
        attempt: u32,
    },
}

impl Link {
    /// Whether the controller answers.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// Returns the words at the right of the title line.
    pub(crate) fn words(&self, now: Timestamp) -> (State, String) {
        match self {
            Self::Connecting => (State::Idle, "connecting".to_owned()),
            Self::Live { took } if *took >= SLOW_MIN => (State::Warn, format!("slow {:.1}s", took.as_secs_f32())),
            Self::Live { .. } => (State::Ok, "live".to_owned()),
            Self::Offline { since, .. } => {
                (State::Bad, format!("OFFLINE {}", span(now.as_second() - since.as_second())))
            }
        }
    }

    /// Returns the status line while nothing can be reached: why, and when it is tried again.
    pub(crate) fn trouble(&self, now: Timestamp) -> Option<String> {
        match self {
            Self::Offline { why, retry_at, attempt, .. } => {
                let wait = span(retry_at.as_second() - now.as_second());
                Some(format!("try {attempt} in {wait}, R now: {why}"))
            }
            Self::Connecting | Self::Live { .. } => None,
        }
    }
}
