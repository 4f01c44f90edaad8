//! Acts on many certificates: what would be done and what is passed over, and how far a parent job is.

use std::collections::BTreeMap;

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{ActOnCertificatesResponse, Batch, SkippedCertificate};
use serde::Serialize;

use super::block::Block;
use super::{each, safe, some, time};

/// Names that people are shown; JSON has more.
const NAMES_SHOWN: usize = 20;

#[derive(Serialize)]
struct ActView {
    act: String,
    /// Absent after a rehearsal.
    job_id: Option<String>,
    /// State of the job when the command ended; absent when it was not waited for.
    outcome: Option<String>,
    certificates: u64,
    names: Vec<String>,
    skipped: Vec<SkippedView>,
    skipped_total: u64,
    /// When the CAs' limits let the last order go; absent when they hold none.
    last_order_at: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct SkippedView {
    name: String,
    reason: String,
    why: String,
}

/// A parent job's part in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct BatchView {
    selection: String,
    certificates: u64,
    asked: u64,
    open: u64,
    succeeded: u64,
    partial: u64,
    failed: u64,
    cancelled: u64,
    skipped: Vec<SkippedView>,
    skipped_total: u64,
    cancelled_at: Option<Timestamp>,
    cancelled_by: Option<String>,
}

impl From<&SkippedCertificate> for SkippedView {
    fn from(one: &SkippedCertificate) -> Self {
        Self { name: safe(&one.name), reason: safe(&one.reason), why: safe(&one.why) }
    }
}

impl From<&Batch> for BatchView {
    fn from(batch: &Batch) -> Self {
        Self {
            selection: safe(&batch.selection),
            certificates: batch.total,
            asked: batch.made,
            open: batch.open,
            succeeded: batch.succeeded,
            partial: batch.partial,
            failed: batch.failed,
            cancelled: batch.cancelled,
            skipped: batch.skipped.iter().map(SkippedView::from).collect(),
            skipped_total: batch.skipped_total,
            cancelled_at: from_wire(batch.cancelled_at),
            cancelled_by: some(&batch.cancelled_by),
        }
    }
}

/// Returns what would be done, or was accepted, as a JSON document.
pub(crate) fn json(act: &ActOnCertificatesResponse, outcome: Option<&str>) -> String {
    let view = ActView {
        act: safe(&act.act),
        job_id: some(&act.job_id),
        outcome: outcome.map(safe),
        certificates: act.total,
        names: each(&act.names),
        skipped: act.skipped.iter().map(SkippedView::from).collect(),
        skipped_total: act.skipped_total,
        last_order_at: from_wire(act.last_order_at),
    };
    super::json(Some("Act"), view)
}

/// Returns what would be done for people.
pub(crate) fn describe(act: &ActOnCertificatesResponse, now: Timestamp) -> String {
    let certificates = if act.total == 1 { "certificate" } else { "certificates" };
    let mut block = Block::titled(&format!("{} {certificates}: {}", act.total, verb(&act.act)));
    for name in act.names.iter().take(NAMES_SHOWN) {
        block.line(name);
    }
    let shown = u64::try_from(act.names.len().min(NAMES_SHOWN)).unwrap_or(u64::MAX);
    if act.total > shown {
        block.line(&format!("and {} more", act.total - shown));
    }
    if act.skipped_total > 0 {
        block.section(&format!("{} passed over: {}", act.skipped_total, reasons(act)));
        skipped(&mut block, &act.skipped, act.skipped_total);
    }
    if let Some(at) = from_wire(act.last_order_at) {
        let (at, until) = (time::absolute(at), time::relative(now, at));
        block.section(&format!("the limits of the CAs hold some: the last order goes at {at} ({until}) at the latest"));
    }
    block.render()
}

/// Adds those passed over, with their reasons.
pub(crate) fn skipped(block: &mut Block, items: &[SkippedCertificate], total: u64) {
    for one in items.iter().take(NAMES_SHOWN) {
        block.line(&format!("{:<32} {}", safe(&one.name), one.why));
    }
    let shown = u64::try_from(items.len().min(NAMES_SHOWN)).unwrap_or(u64::MAX);
    if total > shown {
        block.line(&format!("and {} more", total - shown));
    }
}

fn reasons(act: &ActOnCertificatesResponse) -> String {
    let by: BTreeMap<&str, u64> = act.skipped_by.iter().map(|one| (one.state.as_str(), one.count)).collect();
    by.iter().map(|(reason, count)| format!("{count} {}", reason.replace('_', " "))).collect::<Vec<_>>().join(", ")
}

fn verb(act: &str) -> &str {
    match act {
        "renew" => "a new version each",
        "rekey" => "a new version with a new key each",
        "revoke" => "the current version is revoked",
        other => other,
    }
}
