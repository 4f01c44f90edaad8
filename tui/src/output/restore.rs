//! How a restore stands.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{GetRestoreResponse, RestoreFinding};
use serde::Serialize;

use super::block::Block;
use super::{safe, some, time};

#[derive(Serialize)]
struct RestoreView {
    state: String,
    epoch: u64,
    restored_at: Option<Timestamp>,
    restored_by: Option<String>,
    backup_at: Option<Timestamp>,
    controller: Option<String>,
    accepted_at: Option<Timestamp>,
    accepted_by: Option<String>,
    audit_seq: u64,
    witnessed_seq: u64,
    witnessed_by: Option<String>,
    removals: Option<u64>,
    agents: Vec<AgentView>,
    findings: Vec<FindingView>,
    operators: Vec<String>,
}

#[derive(Serialize)]
struct AgentView {
    name: String,
    shown: bool,
    connected: bool,
}

#[derive(Serialize)]
struct FindingView {
    agent: String,
    certificate: String,
    serial: String,
    not_after: Option<Timestamp>,
    outcome: String,
    why: Option<String>,
}

/// Returns it as a JSON document.
pub(crate) fn json(restore: &GetRestoreResponse) -> String {
    let agents = restore.agents.iter().map(|agent| AgentView {
        name: safe(&agent.name),
        shown: agent.shown,
        connected: agent.connected,
    });
    let findings = restore.findings.iter().map(|finding| FindingView {
        agent: safe(&finding.agent),
        certificate: safe(&finding.certificate),
        serial: safe(&finding.serial),
        not_after: from_wire(finding.not_after),
        outcome: safe(&finding.outcome),
        why: some(&finding.why),
    });
    let view = RestoreView {
        state: safe(&restore.state),
        epoch: restore.epoch,
        restored_at: from_wire(restore.restored_at),
        restored_by: some(&restore.restored_by),
        backup_at: from_wire(restore.backup_at),
        controller: some(&restore.controller),
        accepted_at: from_wire(restore.accepted_at),
        accepted_by: some(&restore.accepted_by),
        audit_seq: restore.audit_seq,
        witnessed_seq: restore.witnessed_seq,
        witnessed_by: some(&restore.witnessed_by),
        removals: restore.removals_known.then_some(restore.removals),
        agents: agents.collect(),
        findings: findings.collect(),
        operators: restore.operators.iter().map(|name| safe(name)).collect(),
    };
    super::json(Some("Restore"), view)
}

/// Returns it for people.
pub(crate) fn describe(restore: &GetRestoreResponse, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("restore {}", restore.state));
    if restore.restored_at == 0 {
        block.line("this database was never restored");
        return block.render();
    }
    block.field("restored", &format!("{} by {}", time::both(now, restore.restored_at), restore.restored_by));
    match restore.backup_at {
        0 => block.field("backup", "none: the database was put back by other means"),
        at => block.field("backup", &format!("of {}, {}", restore.controller, time::both(now, at))),
    }
    if restore.accepted_at > 0 {
        block.field("accepted", &format!("{} by {}", time::both(now, restore.accepted_at), restore.accepted_by));
    }
    block.field("removals", &removals(restore));
    block.field("audit", &lost(restore));
    let waiting = restore.state == "waiting";
    if waiting && !restore.operators.is_empty() {
        block.field("operators", &restore.operators.join(", "));
    }
    block.section(&agents(restore));
    for agent in restore.agents.iter().filter(|agent| !agent.shown) {
        let why = if agent.connected { "connected, has not shown what it holds yet" } else { "not connected" };
        block.line(&format!("{}: {why}", agent.name));
    }
    if !restore.findings.is_empty() {
        block.section("what agents hold and the database does not know");
    }
    for finding in &restore.findings {
        block.line(&words(finding, now));
    }
    if waiting {
        block.section("nothing is ordered or published before: certwright restore accept");
    }
    block.render()
}

/// Returns what an owner is asked.
pub(crate) fn question(restore: &GetRestoreResponse, keep_operators: bool) -> String {
    let imports = restore.findings.iter().filter(|finding| finding.outcome.starts_with("import")).count();
    let operators = match (restore.operators.len(), keep_operators) {
        (0, _) => String::new(),
        (count, true) => format!(" {count} operators stay as the backup has them."),
        (count, false) => format!(" {count} operators are removed: invite them again, or use --keep-operators."),
    };
    let missing = restore.agents.iter().filter(|agent| !agent.shown).count();
    format!(
        "{imports} versions are taken over from agents; {missing} agents have not shown theirs, and show them when they come.{operators}\nThe controller orders and publishes again from then on."
    )
}

fn agents(restore: &GetRestoreResponse) -> String {
    let shown = restore.agents.iter().filter(|agent| agent.shown).count();
    format!("{shown} of {} agents have shown what they hold", restore.agents.len())
}

fn removals(restore: &GetRestoreResponse) -> String {
    if restore.removals_known {
        return format!("{} revocations and removals since the backup still hold", restore.removals);
    }
    "not known: look at certwright agents ls for agents that were revoked since the backup".to_owned()
}

fn lost(restore: &GetRestoreResponse) -> String {
    if restore.witnessed_seq <= restore.audit_seq {
        return format!("goes on after line {}; no agent saw a later one", restore.audit_seq);
    }
    let lost = restore.witnessed_seq - restore.audit_seq;
    let GetRestoreResponse { audit_seq, witnessed_seq, witnessed_by, .. } = restore;
    format!("goes on after line {audit_seq}; {lost} later ones are lost: {witnessed_by} saw line {witnessed_seq}")
}

fn words(finding: &RestoreFinding, now: Timestamp) -> String {
    let RestoreFinding { agent, certificate, serial, not_after, outcome, why } = finding;
    let what = match outcome.as_str() {
        "import" => "is taken over",
        "import_without_key" => "is taken over without its key",
        "unknown" => "stays where it is",
        _ => "is not taken over",
    };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    format!("{certificate} on {agent}: serial {serial}, valid until {}, {what}{why}", time::both(now, *not_after))
}
