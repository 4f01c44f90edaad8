//! The phases of one certificate as its detail screen lists them (features.md A11), deployment included.

use jiff::Timestamp;
use proto::clock::to_wire;
use proto::operator::v1::PhaseStep;

use crate::lifecycle::order::{AuthorizationState, Order, Phase};
use crate::lifecycle::target::{Status, TargetState};
use crate::store::certificate::Bundle;
use crate::tasks::hub::Hub;

/// The order's phases under the names of A11; publishing is shown as the beginning of validating.
const ORDER_STEPS: [(&str, &[Phase]); 5] = [
    ("starting", &[Phase::Starting]),
    ("dns_check", &[Phase::Checking]),
    ("ordering", &[Phase::Ordering]),
    ("validating", &[Phase::Publishing, Phase::Validating]),
    ("finalizing", &[Phase::Finalizing]),
];

/// The phases of an order that our own CA signs.
const PRIVATE: [Phase; 2] = [Phase::Starting, Phase::Finalizing];

/// Returns every phase of the latest attempt with its state.
pub(super) fn steps(hub: &Hub, bundle: &Bundle, order: &Order) -> Vec<PhaseStep> {
    let mut steps = vec![step("pending", "done", Some(order.started_at), Some(order.started_at), String::new())];
    // A private CA asks for no proof: those phases are not on its road.
    let is_on_road = |phases: &[Phase]| !order.private || phases.iter().any(|phase| PRIVATE.contains(phase));
    let on_road = ORDER_STEPS.iter().filter(|(_, phases)| is_on_road(phases));
    steps.extend(on_road.map(|(name, phases)| order_step(order, name, phases)));
    steps.extend(deployment_steps(hub, bundle, order));
    steps
}

fn order_step(order: &Order, name: &str, phases: &[Phase]) -> PhaseStep {
    let begun = order.timeline.iter().position(|entry| phases.contains(&entry.phase));
    let Some(begun) = begun else { return step(name, "todo", None, None, String::new()) };
    let start = order.timeline.get(begun).map(|entry| entry.at);
    let after = order.timeline.iter().skip(begun).find(|entry| !phases.contains(&entry.phase));
    let state = match after.map(|entry| entry.phase) {
        None => "running",
        Some(Phase::Waiting) => "waiting",
        Some(Phase::Failed) => "failed",
        Some(_) => "done",
    };
    step(name, state, start, after.map(|entry| entry.at), detail(order, name))
}

fn detail(order: &Order, name: &str) -> String {
    match name {
        "dns_check" => format!("{} names", order.identifiers.len()),
        "ordering" => order.order_url.clone().unwrap_or_default(),
        "validating" => {
            let valid = order.authorizations.iter().filter(|one| one.state == AuthorizationState::Valid).count();
            format!("{valid}/{} valid", order.authorizations.len())
        }
        _ => String::new(),
    }
}

fn deployment_steps(hub: &Hub, bundle: &Bundle, order: &Order) -> [PhaseStep; 3] {
    let issued = order.timeline.iter().find(|entry| entry.phase == Phase::Completed).map(|entry| entry.at);
    let Some(issued) = issued else {
        return ["deploying", "verifying", "completed"].map(|name| step(name, "todo", None, None, String::new()));
    };
    let version = bundle.deployed_id();
    let states: Vec<(Status, Option<&TargetState>)> = bundle
        .targets
        .iter()
        .map(|(target, state)| {
            let state = state.as_ref().map(|state| &state.value);
            (target.value.status(state, version), state)
        })
        .collect();
    let total = states.len();
    let settled = states.iter().filter(|(status, _)| *status != Status::Pending).count();
    let applied = states.iter().filter(|(status, _)| *status == Status::Applied).count();
    let ended = states
        .iter()
        .filter_map(|(_, state)| state.and_then(|state| state.finished_at))
        .max()
        .filter(|_| settled == total);
    let verifying = bundle.targets.iter().any(|(target, _)| {
        hub.presence
            .of(&target.value.agent_id)
            .and_then(|agent| agent.doing.get(&target.value.id).cloned())
            .is_some_and(|doing| doing == "verifying")
    });
    let written = |state: &TargetState| state.steps.iter().any(|step| step.name == "write" && step.ok);
    // Nothing was put in place: there was nothing to prove either.
    let failed =
        states.iter().filter(|(status, state)| *status == Status::Failed && !state.is_some_and(written)).count();
    let deploying = match (settled == total || verifying, failed) {
        (_, 1..) => "failed",
        (true, 0) => "done",
        (false, 0) => "running",
    };
    let proving = match (settled == total, verifying) {
        (true, _) if applied == total => "done",
        (true, _) if failed == total => "todo",
        (true, _) => "failed",
        (false, true) => "running",
        (false, false) => "todo",
    };
    let completed = if settled == total && applied == total { "done" } else { "todo" };
    [
        step("deploying", deploying, Some(issued), ended, format!("{}/{total} targets", settled - failed)),
        step(
            "verifying",
            proving,
            ended.or(Some(issued)).filter(|_| proving != "todo"),
            ended,
            format!("{applied}/{total} proven"),
        ),
        step("completed", completed, ended.or(Some(issued)).filter(|_| completed == "done"), None, String::new()),
    ]
}

fn step(name: &str, state: &str, start: Option<Timestamp>, end: Option<Timestamp>, detail: String) -> PhaseStep {
    let took = start
        .zip(end)
        .map_or(0, |(start, end)| u64::try_from(end.as_millisecond() - start.as_millisecond()).unwrap_or(0));
    PhaseStep { name: name.to_owned(), state: state.to_owned(), started_at: to_wire(start), took_ms: took, detail }
}
