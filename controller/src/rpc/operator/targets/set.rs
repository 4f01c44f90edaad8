//! Changing a target: checked as a new one is, kept under its id, and deployed at once. Never moves it to another agent.

use proto::operator::v1 as wire;

use super::{Context, parse};
use crate::lifecycle::job::Kind;
use crate::lifecycle::target::{Status, Target};
use crate::rpc::operator::wishes::{self, Wish};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views::{self, Names};
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::tasks::hub::Hub;

/// Longest id of a target that is repeated in an answer, characters.
pub(super) const ID_CHARS_MAX: usize = 64;

/// The one part that says nothing of what is deployed.
const DRIFT: &str = "drift";

/// Changes a target. What it wrote before under names that it no longer has is removed by its agent.
pub(crate) async fn set(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::SetTargetRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let mut bundle = wishes::changeable(hub, &request.certificate).await?;
    let record = bundle.certificate.value.clone();
    let old = bundle.targets.iter().map(|(target, _)| target).find(|target| target.value.id == request.target_id);
    let Some(old) = old.cloned() else {
        return Err(Refusal::not_found("target", &proto::text::one_line(&request.target_id, ID_CHARS_MAX)));
    };
    if request.expected_revision != 0 && request.expected_revision != old.revision {
        return Err(Refusal::changed("a target of certificate", &record.name));
    }
    let new = wanted(hub, &bundle, &old.value, request.target.unwrap_or_default()).await?;
    let names = Names::read(hub).await?;
    let agent = names.agent(&new.agent_id);
    let changed = changed(&old.value, &new);
    if changed.is_empty() {
        let certificate = Some(views::certificate(hub, &names, &bundle));
        return Ok(wire::CertificateAccepted { certificate, ..Default::default() });
    }
    let (new, is_kept) = (released(&bundle, &old.value, new), changed == [DRIFT]);
    let new = if is_kept { Target { deploy_wish: old.value.deploy_wish, ..new } } else { new };
    let warnings: Vec<String> = (old.value.dir != new.dir)
        .then(|| format!("the files in {} on {agent} stay", old.value.dir))
        .into_iter()
        .collect();
    let fresh = Versioned { revision: old.revision, value: new };
    bundle.targets.iter_mut().filter(|(target, _)| target.value.id == fresh.value.id).for_each(|(target, _)| {
        target.clone_from(&fresh);
    });
    if request.dry_run {
        let certificate = Some(views::certificate(hub, &names, &bundle));
        return Ok(wire::CertificateAccepted { certificate, warnings, ..Default::default() });
    }
    let message = format!("{} on {agent}: {}", fresh.value.dir, changed.join(", "));
    let event = hub.event("target.changed", message).of_certificate(&record.name).of_agent(&agent).by(&caller.name);
    // Whether another certificate writes the same files was read before: no target may come in between.
    let changes = Changes::new().update(&fresh).update(&bundle.certificate).event(&event);
    if is_kept {
        return keep(hub, &bundle, changes).await;
    }
    let kind = if record.current.is_some() { Kind::Deploy } else { Kind::Issue };
    let agent_id = Some(fresh.value.agent_id.clone()).filter(|_| kind == Kind::Deploy);
    wishes::commit(hub, caller, &bundle, Wish { kind, agent_id, request_id: &request.request_id }, changes, warnings)
        .await
}

/// Writes a change that deploys nothing: no job comes of it.
async fn keep(hub: &Hub, bundle: &Bundle, changes: Changes) -> Result<wire::CertificateAccepted, Refusal> {
    let record = &bundle.certificate.value;
    match hub.store.commit(changes).await {
        Ok(_) => {}
        Err(CommitError::Conflict { .. }) => return Err(Refusal::changed("a target of certificate", &record.name)),
        Err(error) => return Err(error.into()),
    }
    bundle.targets.iter().for_each(|(target, _)| hub.wake.agents.ring(&target.value.agent_id));
    let certificate = Some(views::certificate(hub, &Names::read(hub).await?, bundle));
    Ok(wire::CertificateAccepted { certificate, ..Default::default() })
}

/// What is asked for, checked, under the id of the old one. Another wish: what was observed is about the old one.
pub(super) async fn wanted(
    hub: &Hub,
    bundle: &Bundle,
    old: &Target,
    spec: wire::TargetSpec,
) -> Result<Target, Refusal> {
    let record = &bundle.certificate.value;
    let mut errors = Vec::new();
    let context = Context {
        certificate_id: &record.id,
        identifiers: &record.specification.identifiers,
        custody: record.specification.custody,
    };
    let new = parse(hub, &spec, &context, &mut errors).await?;
    let new = new.map(|new| Target { id: old.id.clone(), deploy_wish: old.deploy_wish + 1, ..new });
    if new.as_ref().is_some_and(|new| new.agent_id != old.agent_id) {
        errors.push(field_error(
            "agent",
            "a target stays on its agent",
            format!(
                "add a target on {0}: certwright targets add {1} --agent {0}; then remove this one",
                spec.agent, record.name
            ),
        ));
    }
    let is_taken = |new: &Target| {
        let mut others = bundle.targets.iter().map(|(other, _)| &other.value).filter(|other| other.id != new.id);
        others.any(|other| other.agent_id == new.agent_id && other.dir == new.dir)
    };
    if new.as_ref().is_some_and(is_taken) {
        let message = format!("{} already has a target at {} on {}", record.name, spec.dir, spec.agent);
        errors.push(field_error("dir", message, "choose another directory"));
    }
    new.filter(|_| errors.is_empty()).ok_or_else(|| Refusal::fields(errors))
}

/// A change waits for no window and no other target where the version is already; a version that waits goes on waiting.
fn released(bundle: &Bundle, old: &Target, new: Target) -> Target {
    let version = bundle.deployed_id();
    let state =
        bundle.targets.iter().find(|(target, _)| target.value.id == old.id).and_then(|(_, state)| state.as_ref());
    let has_it = old.status(state.map(|state| &state.value), version) != Status::Pending;
    let released = if has_it { version.map(str::to_owned) } else { old.released.clone() };
    Target { released, ..new }
}

/// The parts in which two targets differ, by the names of their options.
fn changed(old: &Target, new: &Target) -> Vec<&'static str> {
    let parts = [
        ("dir", old.dir != new.dir),
        ("files", old.files != new.files),
        ("validate", old.validate != new.validate),
        ("reload", old.reload != new.reload),
        ("verify", old.verify != new.verify),
        (DRIFT, old.on_drift != new.on_drift),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(part, _)| part).collect()
}
