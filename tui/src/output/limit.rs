//! Limits of a CA: what is used, what is left, when it refills.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{LimitLine, ListLimitsResponse, OrderLimits};
use serde::Serialize;

use super::block::Block;
use super::table::Table;
use super::{safe, some, time};
use crate::client::{limit_exemption, limit_subject, limit_used, period};

/// What limits the next order of a certificate, in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct OrderLimitsView {
    issuer: String,
    exemption: Option<String>,
    items: Vec<LimitView>,
}

impl From<&OrderLimits> for OrderLimitsView {
    fn from(limits: &OrderLimits) -> Self {
        Self {
            issuer: safe(&limits.issuer),
            exemption: some(&limits.exemption),
            items: limits.items.iter().map(LimitView::from).collect(),
        }
    }
}

/// A limit in JSON.
#[derive(Debug, Serialize)]
struct LimitView {
    kind: String,
    name: Option<String>,
    limit: Option<u32>,
    period_seconds: Option<u32>,
    used: u32,
    left: Option<u32>,
    refills_at: Option<Timestamp>,
    waiting: u32,
    closed_until: Option<Timestamp>,
    cause: Option<String>,
    source: String,
}

impl From<&LimitLine> for LimitView {
    fn from(line: &LimitLine) -> Self {
        let known = line.count > 0;
        Self {
            kind: safe(&line.kind),
            name: some(&line.name),
            limit: known.then_some(line.count),
            period_seconds: known.then_some(line.period_seconds),
            used: line.used,
            left: known.then_some(line.left),
            refills_at: from_wire(line.refills_at),
            waiting: line.waiting,
            closed_until: from_wire(line.closed_until),
            cause: some(&line.cause),
            source: safe(&line.source),
        }
    }
}

/// Returns limits as a JSON list.
pub(crate) fn json_list(found: &ListLimitsResponse) -> String {
    super::json_list("LimitList", found.items.iter().map(LimitView::from).collect())
}

/// Returns limits as a table.
pub(crate) fn table(found: &ListLimitsResponse, now: Timestamp, wide: bool) -> Table {
    let mut head = vec!["LIMIT", "FOR", "USED", "LEFT", "REFILLS", "WAITING"];
    if wide {
        head.extend(["SOURCE", "SAID"]);
    }
    let mut table = Table::new(&head);
    for line in &found.items {
        let counted = line.kind != "requests";
        let dash = || "-".to_owned();
        let limit = match line.count {
            0 => format!("{}: none", line.kind),
            count => format!("{}: {count} in {}", line.kind, period(line.period_seconds)),
        };
        let refills = match (line.closed_until, line.refills_at) {
            (0, at) => time::short(now, at),
            (until, _) => format!("closed by the CA, opens {}", time::short(now, until)),
        };
        let mut row = vec![
            limit,
            if line.name.is_empty() { dash() } else { line.name.clone() },
            if counted { line.used.to_string() } else { dash() },
            if counted && line.count > 0 { line.left.to_string() } else { dash() },
            refills,
            if line.waiting == 0 { dash() } else { line.waiting.to_string() },
        ];
        if wide {
            row.extend([line.source.clone(), line.cause.clone()]);
        }
        table.row(row);
    }
    table
}

/// Returns what the numbers do not say.
pub(crate) fn notes(found: &ListLimitsResponse) -> Vec<String> {
    let mut notes = Vec::new();
    if !found.published {
        notes.push(format!(
            "{} publishes no limits that are known here; certwright issuers limits {} --set orders=N/PERIOD sets what you agreed on",
            safe(&found.host),
            safe(&found.issuer)
        ));
    }
    let closed = found.items.iter().filter(|line| line.closed_until != 0);
    notes.extend(closed.map(|line| format!("{} is closed: the CA said \"{}\"", safe(&line.kind), safe(&line.cause))));
    notes
}

/// Writes what limits the next order of a certificate.
pub(super) fn explain(block: &mut Block, limits: &OrderLimits, now: Timestamp) {
    let exemption = limit_exemption(&limits.exemption);
    if limits.items.is_empty() && exemption.is_empty() {
        block.line(&format!("no limit of {} is known that its next order could meet", limits.issuer));
        return;
    }
    block.line(&format!("limits of {} for its next order:", limits.issuer));
    if !exemption.is_empty() {
        block.below(exemption);
    }
    for line in &limits.items {
        let mut said = vec![limit_used(line)];
        if line.closed_until != 0 {
            said.push(format!("closed by the CA until {}: {}", time::both(now, line.closed_until), line.cause));
        } else if line.refills_at != 0 {
            said.push(format!("refills {}", time::both(now, line.refills_at)));
        }
        if line.waiting > 0 {
            said.push(format!("{} waiting", line.waiting));
        }
        said.retain(|part| !part.is_empty());
        block.below(&format!("{}: {}", limit_subject(line), said.join(", ")));
    }
}
