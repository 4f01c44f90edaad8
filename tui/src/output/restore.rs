//! How a restore stands.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::GetRestoreResponse;
use serde::Serialize;

use super::block::Block;
use super::{safe, some, time};
use crate::client::{restore_audit, restore_effects, restore_finding, restore_removals, restore_shown};

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
    block.field("removals", &restore_removals(restore));
    block.field("audit", &restore_audit(restore));
    let waiting = restore.state == "waiting";
    if waiting && !restore.operators.is_empty() {
        block.field("operators", &restore.operators.join(", "));
    }
    block.section(&restore_shown(restore));
    for agent in restore.agents.iter().filter(|agent| !agent.shown) {
        let why = if agent.connected { "connected, has not shown what it holds yet" } else { "not connected" };
        block.line(&format!("{}: {why}", agent.name));
    }
    if !restore.findings.is_empty() {
        block.section("what agents hold and the database does not know");
    }
    for finding in &restore.findings {
        block.line(&restore_finding(finding, &time::both(now, finding.not_after)));
    }
    if waiting {
        block.section("nothing is ordered or published before: certwright restore accept");
    }
    block.render()
}

/// Returns what an owner is asked.
pub(crate) fn question(restore: &GetRestoreResponse, keep_operators: bool) -> String {
    let operators = match (restore.operators.len(), keep_operators) {
        (0, _) => String::new(),
        (count, true) => format!(" {count} operators stay as the backup has them."),
        (count, false) => format!(" {count} operators are removed: invite them again, or use --keep-operators."),
    };
    let [taken, then] = restore_effects(restore);
    format!("{taken}{operators}\n{then}")
}
