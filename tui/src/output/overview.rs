//! The whole fleet on one screen, and who is asking.

use jiff::Timestamp;
use proto::clock::from_wire;
use proto::operator::v1::{Attention, Count, GetOverviewResponse, WhoamiResponse};
use serde::Serialize;
use std::collections::BTreeMap;

use super::block::Block;
use super::job::JobView;
use super::pause::{self, PauseView};
use super::{safe, some, time};

#[derive(Serialize)]
struct StatusView {
    controller: ControllerView,
    certificates: BTreeMap<String, u64>,
    deployments: BTreeMap<String, u64>,
    agents: BTreeMap<String, u64>,
    issuers: u64,
    attention: Vec<AttentionView>,
    attention_total: u64,
    jobs: Vec<JobView>,
    expiring_by_week: Vec<u32>,
    next_renewal: Option<NextRenewalView>,
    pause: Option<PauseView>,
    backup: Option<BackupView>,
}

#[derive(Serialize)]
struct BackupView {
    at: Timestamp,
    by: String,
}

#[derive(Serialize)]
struct ControllerView {
    name: String,
    version: String,
    advertise: Option<String>,
}

#[derive(Serialize)]
struct AttentionView {
    kind: String,
    name: String,
    what: String,
    why: String,
    action: Option<String>,
    since_at: Option<Timestamp>,
}

#[derive(Serialize)]
struct NextRenewalView {
    name: String,
    at: Option<Timestamp>,
}

#[derive(Serialize)]
struct WhoamiView {
    operator: String,
    role: String,
    controller: ControllerView,
}

impl From<&WhoamiResponse> for ControllerView {
    fn from(whoami: &WhoamiResponse) -> Self {
        Self {
            name: safe(&whoami.controller_name),
            version: safe(&whoami.controller_version),
            advertise: some(&whoami.advertise),
        }
    }
}

impl From<&Attention> for AttentionView {
    fn from(attention: &Attention) -> Self {
        Self {
            kind: safe(&attention.kind),
            name: safe(&attention.name),
            what: safe(&attention.what),
            why: safe(&attention.why),
            action: some(&attention.action),
            since_at: from_wire(attention.since_at),
        }
    }
}

fn counts(counts: &[Count]) -> BTreeMap<String, u64> {
    counts.iter().map(|count| (safe(&count.state), count.count)).collect()
}

/// Returns the overview as a JSON document.
pub(crate) fn json(overview: &GetOverviewResponse, whoami: &WhoamiResponse) -> String {
    let view = StatusView {
        controller: whoami.into(),
        certificates: counts(&overview.certificates),
        deployments: counts(&overview.deployments),
        agents: counts(&overview.agents),
        issuers: overview.issuers,
        attention: overview.attention.iter().map(AttentionView::from).collect(),
        attention_total: overview.attention_total,
        jobs: overview.jobs.iter().map(JobView::from).collect(),
        expiring_by_week: overview.expiring_by_week.clone(),
        next_renewal: some(&overview.next_renewal_name)
            .map(|name| NextRenewalView { name, at: from_wire(overview.next_renewal_at) }),
        pause: overview.pause.as_ref().map(PauseView::from),
        backup: from_wire(overview.backup_at).map(|at| BackupView { at, by: safe(&overview.backup_by) }),
    };
    super::json(Some("Status"), view)
}

/// Returns the overview for people.
pub(crate) fn describe(overview: &GetOverviewResponse, whoami: &WhoamiResponse, now: Timestamp) -> String {
    let mut block = Block::titled(&format!("controller {} {}", whoami.controller_name, whoami.controller_version));
    if let Some(held) = &overview.pause {
        block.field("PAUSED", &format!("everything is {}", pause::words(held, now)));
    }
    block.field("certificates", &line(&overview.certificates));
    block.field("deployments", &line(&overview.deployments));
    block.field("agents", &line(&overview.agents));
    block.field("issuers", &overview.issuers.to_string());
    if !overview.next_renewal_name.is_empty() {
        let when = time::both(now, overview.next_renewal_at);
        block.field("next renewal", &format!("{} {when}", overview.next_renewal_name));
    }
    block.field("running jobs", &overview.jobs.len().to_string());
    block.field("last backup", &last_backup(overview, now));
    if overview.attention_total == 0 {
        block.section("nothing needs attention");
    } else {
        block.section(&format!("needs attention ({})", overview.attention_total));
    }
    for attention in &overview.attention {
        block.line(&format!("{} {}: {}  {}", attention.kind, attention.name, attention.what, attention.why));
        if !attention.action.is_empty() {
            block.below(&format!("try: {}", attention.action));
        }
    }
    let shown = u64::try_from(overview.attention.len()).unwrap_or(u64::MAX);
    if overview.attention_total > shown {
        block.line(&format!("and {} more", overview.attention_total - shown));
    }
    block.render()
}

fn last_backup(overview: &GetOverviewResponse, now: Timestamp) -> String {
    match overview.backup_at {
        0 => "never: certwright backup create --to FILE --key-file KEY".to_owned(),
        at => format!("{} by {}", time::both(now, at), overview.backup_by),
    }
}

fn line(counts: &[Count]) -> String {
    let parts: Vec<String> =
        counts.iter().filter(|count| count.count > 0).map(|count| format!("{} {}", count.count, count.state)).collect();
    if parts.is_empty() { "none".to_owned() } else { parts.join(", ") }
}

/// Returns who is asking, as a JSON document.
pub(crate) fn whoami_json(whoami: &WhoamiResponse) -> String {
    let view = WhoamiView { operator: safe(&whoami.operator), role: safe(&whoami.role), controller: whoami.into() };
    super::json(Some("Whoami"), view)
}
