//! Activity: what happened to a certificate or on an agent, newest first.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{AttemptOutcome, CommandOutcome, Event, TargetOutcome};
use serde::Serialize;

use super::failure::ProblemView;
use super::table::Table;
use super::{each, safe, some, time};
use crate::client::target_status;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeView>,
}

/// How an attempt ended, in JSON.
#[derive(Serialize)]
struct OutcomeView {
    result: String,
    serial: Option<String>,
    targets: Vec<TargetOutcomeView>,
    targets_total: u64,
}

#[derive(Serialize)]
struct TargetOutcomeView {
    host: String,
    dir: String,
    status: Option<String>,
    files: Vec<String>,
    commands: Vec<CommandView>,
    error: Option<ProblemView>,
}

#[derive(Serialize)]
struct CommandView {
    argv: String,
    exit_status: Option<i32>,
}

impl From<&AttemptOutcome> for OutcomeView {
    fn from(outcome: &AttemptOutcome) -> Self {
        let command =
            |command: &CommandOutcome| CommandView { argv: safe(&command.argv), exit_status: command.exit_status };
        let target = |target: &TargetOutcome| TargetOutcomeView {
            host: safe(&target.host),
            dir: safe(&target.dir),
            status: (target.status != 0).then(|| target_status(target.status).to_owned()),
            files: each(&target.files),
            commands: target.commands.iter().map(command).collect(),
            error: target.problem.as_ref().map(ProblemView::from),
        };
        Self {
            result: safe(&outcome.result),
            serial: some(&outcome.serial),
            targets: outcome.targets.iter().map(target).collect(),
            targets_total: outcome.targets_total,
        }
    }
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
            outcome: event.outcome.as_ref().map(OutcomeView::from),
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
