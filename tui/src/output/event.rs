//! Activity: what happened to a certificate or on an agent, newest first.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::Event;
use serde::Serialize;

use super::failure::ProblemView;
use super::table::Table;
use super::{safe, some, time};

#[derive(Serialize)]
struct EventView {
    seq: u64,
    at: Option<Timestamp>,
    severity: String,
    kind: String,
    actor: String,
    certificate: Option<String>,
    agent: Option<String>,
    message: String,
    error: Option<ProblemView>,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        Self {
            seq: event.seq,
            at: from_wire(event.at),
            severity: safe(&event.severity),
            kind: safe(&event.kind),
            actor: safe(&event.actor),
            certificate: some(&event.certificate),
            agent: some(&event.agent),
            message: safe(&event.message),
            error: event.problem.as_ref().map(ProblemView::from),
        }
    }
}

/// Returns events as a JSON list.
pub(crate) fn json_list(events: &[Event]) -> String {
    super::json_list("EventList", events.iter().map(EventView::from).collect())
}

/// Returns events as a table; what went wrong stands behind the message.
pub(crate) fn table(events: &[Event]) -> Table {
    let mut table = Table::new(&["AT", "SEVERITY", "ACTOR", "MESSAGE"]);
    for event in events {
        let at = from_wire(event.at).map(time::absolute).unwrap_or_default();
        let because = event.problem.as_ref().map(|problem| problem.cause.as_str()).filter(|cause| !cause.is_empty());
        let message = match because {
            Some(cause) => format!("{} ({cause})", event.message),
            None => event.message.clone(),
        };
        table.row([at, event.severity.clone(), event.actor.clone(), message]);
    }
    table
}
