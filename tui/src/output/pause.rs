//! A pause: who holds something still, since when and why.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Pause, SetPauseResponse};
use serde::Serialize;

use super::{safe, some, time};

/// A pause in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct PauseView {
    since_at: Option<Timestamp>,
    by: String,
    reason: Option<String>,
    all: bool,
}

impl From<&Pause> for PauseView {
    fn from(pause: &Pause) -> Self {
        Self { since_at: from_wire(pause.since_at), by: safe(&pause.by), reason: some(&pause.reason), all: pause.all }
    }
}

#[derive(Serialize)]
struct PausedView {
    pause: Option<PauseView>,
}

/// Returns the pause of everything as a JSON document.
pub(crate) fn json(answer: &SetPauseResponse) -> String {
    super::json(Some("Pause"), PausedView { pause: answer.pause.as_ref().map(PauseView::from) })
}

/// Returns a pause as one sentence, without its subject: `paused by local:root since …: why`.
pub(crate) fn words(pause: &Pause, now: Timestamp) -> String {
    let why = if pause.reason.is_empty() { String::new() } else { format!(": {}", safe(&pause.reason)) };
    format!("paused by {} since {}{why}", safe(&pause.by), time::both(now, pause.since_at))
}
