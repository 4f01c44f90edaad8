//! What an operator sees first: counts, what needs attention, what runs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto::clock::to_wire;
use proto::operator::v1 as wire;

use super::lists::job_view;
use crate::lifecycle::agent::{Agent, NEEDS_CONSENT, Standing};
use crate::lifecycle::certificate::Status;
use crate::lifecycle::deployment::Deployment;
use crate::lifecycle::holder::HELD_TWICE;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::pause::{self, Held, Pause};
use crate::lifecycle::private_ca::{REVOKED_MANY, REVOKED_MAX};
use crate::lifecycle::renewal;
use crate::lifecycle::restore::RESTORE;
use crate::lifecycle::rotation::CA_UNKNOWN;
use crate::rpc::convert;
use crate::rpc::status::Refusal;
use crate::rpc::views;
use crate::store::backup::LastBackup;
use crate::store::certificate::Bundle;
use crate::store::event::EventsOf;
use crate::store::records::Versioned;
use crate::tasks::hub::Hub;

/// Lines of "needs attention" that are sent; the rest is counted.
const ATTENTION_MAX: usize = 100;
const JOBS_MAX: usize = 20;
const ACTIVITY_MAX: usize = 50;
/// Weeks of the expiry histogram.
const WEEKS: usize = 12;
const WEEK: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What is counted of all certificates.
#[derive(Debug, Default)]
struct Tally {
    statuses: BTreeMap<&'static str, u64>,
    deployments: BTreeMap<&'static str, u64>,
    attention: Vec<wire::Attention>,
    /// Also those that are not sent.
    attention_total: usize,
    /// By issuer: the orders that a limit holds.
    held: BTreeMap<String, HeldOrders>,
    weeks: Vec<u32>,
    next: Option<(Timestamp, String)>,
}

/// Orders that a limit of a CA holds.
#[derive(Debug)]
struct HeldOrders {
    count: u64,
    /// The one that goes on first, and why it waits.
    next: (Option<Timestamp>, String),
    since: Timestamp,
}

impl Tally {
    fn see(&mut self, bundle: &Bundle, all: Option<&Pause>, now: Timestamp) {
        *self.statuses.entry(views::status(bundle, now).word()).or_default() += 1;
        *self.deployments.entry(views::deployment(bundle).word()).or_default() += 1;
        if let Some(line) = certificate_attention(bundle, all, now) {
            self.attention_total += 1;
            if self.attention.len() < ATTENTION_MAX {
                self.attention.push(line);
            }
        }
        if let Some(order) = bundle.order.as_ref().map(|order| &order.value).filter(|order| order.waits_for_limit()) {
            let why = order.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
            let next = (order.retry_at, why);
            let held = self.held.entry(order.issuer_id.clone()).or_insert_with(|| HeldOrders {
                count: 0,
                next: next.clone(),
                since: order.started_at,
            });
            held.count += 1;
            held.since = held.since.min(order.started_at);
            if next.0 < held.next.0 {
                held.next = next;
            }
        }
        let planned = next_renewal(bundle);
        self.next = self.next.take().into_iter().chain(planned).min();
        let left = bundle.certificate.value.current.as_ref().map(|current| current.not_after.duration_since(now));
        let left = left.filter(|left| !left.is_negative());
        let week = left.and_then(|left| usize::try_from(left.as_secs() / WEEK.as_secs()).ok());
        if let Some(week) = week.and_then(|week| self.weeks.get_mut(week)) {
            *week += 1;
        }
    }
}

/// Computes the overview.
pub(crate) async fn overview(hub: &Hub) -> Result<wire::GetOverviewResponse, Refusal> {
    let now = hub.now();
    let all = hub.store.pause_all().await?;
    let pause = all.clone();
    let see = move |tally: &mut Tally, bundle: Bundle| tally.see(&bundle, pause.as_ref(), now);
    let tally = hub.store.fold_bundles(Tally { weeks: vec![0; WEEKS], ..Tally::default() }, see).await?;
    let agents = hub.store.agents().await?;
    let issuers = hub.store.issuers().await?;
    let (mut attention, unsent) = (tally.attention, tally.attention_total);
    let unsent = unsent.saturating_sub(attention.len());
    if let Some(pause) = &all {
        attention.insert(0, pause_attention(pause));
    }
    if let Some((seq, agent)) = hub.gate.lines_lost() {
        let why = format!(
            "agent {agent} saw line {seq} of the audit; what was done between the backup and the restore is lost"
        );
        let action = "certwright agents ls, certwright operators ls: who was revoked or removed meanwhile?";
        attention.push(line("controller", "audit", "LINES LOST", &why, action, None));
    }
    attention.extend(agents.iter().filter_map(|agent| agent_attention(hub, agent, now)));
    attention.extend(issuers.iter().filter_map(|issuer| issuer_attention(&issuer.value)));
    attention
        .extend(issuers.iter().filter_map(|one| Some(limit_attention(&one.value, tally.held.get(&one.value.id)?))));
    attention.extend(list_attention(hub, &issuers).await?);
    if let Some((agent, _)) = hub.audit.witnesses().into_iter().find(|(_, witness)| !witness.agrees) {
        let why = format!("agent {agent} kept another line than the controller has");
        let action =
            "certwright audit verify --witness FILE compares; certwright-agent status -o json on its host is FILE";
        attention.insert(0, line("controller", "audit", "AUDIT REWRITTEN", &why, action, None));
    }
    attention.splice(0..0, machine_attention(hub));
    let total = attention.len().saturating_add(unsent);
    attention.truncate(ATTENTION_MAX);
    let mut jobs = Vec::new();
    for job in hub.store.newest_open_jobs(JOBS_MAX).await? {
        jobs.push(job_view(hub, &job).await?);
    }
    let backup = hub.store.load::<LastBackup>(LastBackup::KEY).await?.map(|backup| backup.value);
    let activity = hub.store.events(EventsOf::All, 0, ACTIVITY_MAX).await?;
    let states = agents.iter().map(|agent| agent.value.status(hub.presence.is_connected(&agent.value.id), now));
    Ok(wire::GetOverviewResponse {
        certificates: counts(tally.statuses),
        deployments: counts(tally.deployments),
        agents: counts(states.fold(BTreeMap::new(), |mut counts, state| {
            *counts.entry(state).or_default() += 1;
            counts
        })),
        attention,
        attention_total: u64::try_from(total).unwrap_or(u64::MAX),
        jobs,
        activity: activity.into_iter().map(convert::event).collect(),
        expiring_by_week: tally.weeks,
        next_renewal_name: tally.next.as_ref().map(|(_, name)| name.clone()).unwrap_or_default(),
        next_renewal_at: to_wire(tally.next.map(|(at, _)| at)),
        issuers: u64::try_from(issuers.len()).unwrap_or(u64::MAX),
        pause: all.map(|pause| convert::pause(&pause, true)),
        backup_at: to_wire(backup.as_ref().map(|backup| backup.made_at)),
        backup_by: backup.map(|backup| backup.by).unwrap_or_default(),
    })
}

/// What is wrong with the controller's own machine.
fn machine_attention(hub: &Hub) -> Vec<wire::Attention> {
    let full = hub.store.engine.full().borrow().as_ref().map(|full| ("disk", "DISK FULL", full.problem()));
    let clock = hub.clock_watch.verdict().problem().map(|problem| ("clock", "CLOCK WRONG", problem));
    let wrong = full.into_iter().chain(clock);
    wrong.map(|(name, what, problem)| line("controller", name, what, &problem.message, &problem.hint, None)).collect()
}

fn pause_attention(pause: &Pause) -> wire::Attention {
    let problem = Held::All(pause).problem("");
    let why = format!("{}; {}", problem.message, problem.cause);
    let what = if pause.by == RESTORE { "RESTORED" } else { "PAUSED" };
    line("controller", "", what, &why, &problem.hint, Some(pause.at))
}

fn issuer_attention(issuer: &Issuer) -> Option<wire::Attention> {
    let problem = issuer.problem.as_ref()?;
    let has_account = issuer.account_url.is_some() || issuer.private.is_some();
    let what = match (issuer.halt, has_account) {
        (Some(_), _) => "HALTED",
        (None, false) => "NO ACCOUNT",
        (None, true) => "FAILING",
    };
    Some(line("issuer", &issuer.name, what, &problem.message, &problem.hint, None))
}

async fn list_attention(hub: &Hub, issuers: &[Versioned<Issuer>]) -> Result<Vec<wire::Attention>, Refusal> {
    let mut lines = Vec::new();
    for issuer in issuers.iter().map(|issuer| &issuer.value).filter(|issuer| issuer.private.is_some()) {
        lines.extend(fullness(&issuer.name, hub.store.revoked_leaves_count(&issuer.id).await?));
    }
    Ok(lines)
}

/// A revocation list that is nearly full: what finds no room on it is not revoked.
fn fullness(name: &str, revoked: u64) -> Option<wire::Attention> {
    if revoked < REVOKED_MANY {
        return None;
    }
    let what = if revoked < REVOKED_MAX { "LIST NEARLY FULL" } else { "LIST FULL" };
    let why = format!("{revoked} leaves are on its revocation list, which holds {REVOKED_MAX}");
    let action = "leaves leave it a week after they expire; add another private CA and give certificates that issuer";
    Some(line("issuer", name, what, &why, action, None))
}

fn counts(counts: BTreeMap<&'static str, u64>) -> Vec<wire::Count> {
    counts.into_iter().map(|(state, count)| wire::Count { state: state.to_owned(), count }).collect()
}

fn line(kind: &str, name: &str, what: &str, why: &str, action: &str, since: Option<Timestamp>) -> wire::Attention {
    wire::Attention {
        kind: kind.to_owned(),
        name: name.to_owned(),
        what: what.to_owned(),
        why: why.to_owned(),
        action: action.to_owned(),
        since_at: to_wire(since),
    }
}

/// The most urgent thing about a certificate, if there is one.
fn certificate_attention(bundle: &Bundle, all: Option<&Pause>, now: Timestamp) -> Option<wire::Attention> {
    let record = &bundle.certificate.value;
    let due = matches!(renewal::due(record, bundle.renewal_info(), now), renewal::Due::Now(_));
    let paused = pause::held(record, all).filter(|_| due).map(|held| held.problem(&record.name));
    let name = &record.name;
    let order = bundle.order.as_ref().map(|order| &order.value);
    let error = order.and_then(|order| order.error.as_ref()).filter(|_| {
        order.is_some_and(|order| (order.failures > 0 && !order.waits_for_issuer) || order.waits_for_agent)
    });
    // What is due and held still is told as such: a pause never hides that a certificate runs out.
    let error = paused.as_ref().or(error);
    let (why, action) = error.map(|error| (error.message.clone(), error.hint.clone())).unwrap_or_default();
    let since = order.map(|order| order.started_at);
    match (views::status(bundle, now), error.is_some()) {
        (Status::Expired, _) => {
            return Some(line(
                "certificate",
                name,
                "EXPIRED",
                &why,
                &action,
                record.current.as_ref().map(|current| current.not_after),
            ));
        }
        (Status::Revoked, _) => {
            let at = record.current.as_ref().and_then(|current| current.revoked_at);
            return Some(line("certificate", name, "REVOKED", &why, &action, at));
        }
        (Status::Failed, _) => return Some(line("certificate", name, "FAILED", &why, &action, since)),
        (Status::Active, true) => return Some(line("certificate", name, "NOT RENEWED", &why, &action, since)),
        (Status::Pending, true) => return Some(line("certificate", name, "WAITING", &why, &action, since)),
        (Status::Active | Status::Pending, false) => {}
    }
    let what = match views::deployment(bundle) {
        Deployment::Failed => "NOT LIVE",
        Deployment::Partial => "PARTIAL",
        Deployment::None | Deployment::Pending | Deployment::Ok => return rolled_back(bundle),
    };
    let version = bundle.deployed_id();
    let mut states = bundle
        .targets
        .iter()
        .filter_map(|(target, state)| target.value.outcome(state.as_ref().map(|state| &state.value), version));
    let bad = states.find_map(|state| Some((state.problem.as_ref()?, state.finished_at)));
    match bad {
        Some((problem, since)) => Some(line("certificate", name, what, &problem.message, &problem.hint, since)),
        None => Some(line(
            "certificate",
            name,
            what,
            "a target has no endpoint that proves it",
            &format!("certwright targets ls {name}"),
            None,
        )),
    }
}

/// What is wrong with an agent's identity, in two words.
fn agent_word(reason: &str) -> &'static str {
    match reason {
        NEEDS_CONSENT => "NEEDS CONSENT",
        HELD_TWICE => "HELD TWICE",
        CA_UNKNOWN => "CA UNKNOWN",
        _ => "LOOK AT IT",
    }
}

/// An agent with a problem, or one that certificates need and that is away.
fn agent_attention(hub: &Hub, agent: &Versioned<Agent>, now: Timestamp) -> Option<wire::Attention> {
    let record = &agent.value;
    if let Some(problem) = record.problems(now, &hub.rotation.borrow()).first() {
        let what = agent_word(&problem.reason);
        return Some(line("agent", &record.name, what, &problem.message, &problem.hint, record.seen_at));
    }
    let away =
        record.standing == Standing::Enrolled && record.seen_at.is_some() && !hub.presence.is_connected(&record.id);
    let what = if record.identity_not_after <= now { "AGENT EXPIRED" } else { "AGENT DOWN" };
    let action = format!("on {}: systemctl start certwright-agent", record.name);
    away.then(|| {
        line(
            "agent",
            &record.name,
            what,
            "no connection from it is open; its certificates keep working, renewals wait",
            &action,
            record.seen_at,
        )
    })
}

/// A limit of a CA that holds orders.
fn limit_attention(issuer: &Issuer, held: &HeldOrders) -> wire::Attention {
    let (at, why) = &held.next;
    let next = at.map(|at| format!(", the next goes on at {}", at.strftime("%F %H:%MZ"))).unwrap_or_default();
    let count = held.count;
    let wait = if count == 1 { "order waits" } else { "orders wait" };
    let action = format!("nothing: they go on by themselves; certwright issuers limits {}", issuer.name);
    line("issuer", &issuer.name, "LIMIT", &format!("{count} {wait}{next}; {why}"), &action, Some(held.since))
}

fn next_renewal(bundle: &Bundle) -> Option<(Timestamp, String)> {
    let record = &bundle.certificate.value;
    let planned = renewal::planned(record, bundle.renewal_info())?;
    Some((planned.at, record.name.clone()))
}

/// Targets hold an older version: nothing is wrong, but somebody has to end that.
fn rolled_back(bundle: &Bundle) -> Option<wire::Attention> {
    let record = &bundle.certificate.value;
    let rollback = record.rollback.as_ref()?;
    let why = format!("its targets hold serial {} instead of the current version", rollback.version.serial);
    let action = format!("certwright certs rollback {} current, or renew it", record.name);
    Some(line("certificate", &record.name, "ROLLED BACK", &why, &action, Some(rollback.at)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_list_is_told_before_it_is_full() {
        let told = |revoked| fullness("corp", revoked).map(|line| line.what);
        assert_eq!(told(REVOKED_MANY - 1), None);
        assert_eq!(told(REVOKED_MANY).as_deref(), Some("LIST NEARLY FULL"));
        assert_eq!(told(REVOKED_MAX).as_deref(), Some("LIST FULL"));
    }
}
