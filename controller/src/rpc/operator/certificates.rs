//! Certificates: changed, renewed, deleted.

use jiff::{Timestamp, Unit};
use proto::operator::v1 as wire;
use proto::text::one_line;
use proto::types::v1::FieldError;
use tonic::Code;

use super::targets::concerned;
use super::wishes::{self, Wish};
use super::{create, targets};
use crate::lifecycle::agent::Agent;
use crate::lifecycle::certificate::{Certificate, Custody, Specification};
use crate::lifecycle::event::Severity;
use crate::lifecycle::issuer::Issuer;
use crate::lifecycle::job::Kind;
use crate::lifecycle::lock;
use crate::lifecycle::order::Phase;
use crate::lifecycle::policy::refuse_target;
use crate::lifecycle::problem::Problem;
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::report::deletion_refusal;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views::{self, Names};
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::store::tables::Table;
use crate::tasks::deletion;
use crate::tasks::hub::Hub;

/// Longest reason for an override that is kept, characters.
const REASON_CHARS_MAX: usize = 200;

/// Changes what is wanted; a changed specification is a new version.
pub(crate) async fn update(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::UpdateCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    let bundle = wishes::changeable(hub, &request.name).await?;
    if request.expected_revision != 0 && request.expected_revision != bundle.certificate.revision {
        return Err(Refusal::changed("certificate", &request.name));
    }
    let before = &bundle.certificate.value;
    let mut after = changed(hub, &bundle, &request).await?;
    if after == *before {
        let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
        return Ok(wire::CertificateAccepted { certificate: Some(certificate), ..Default::default() });
    }
    let new_version = after.specification.identifiers != before.specification.identifiers
        || after.specification.issuer_id != before.specification.issuer_id
        || after.specification.profile != before.specification.profile
        || after.specification.key_type != before.specification.key_type
        || after.specification.custody != before.specification.custody;
    if new_version || wishes::is_stuck(&bundle) {
        // A corrected wish does not wait for the next try of the old one.
        after.renew_asked_at = Some(hub.now());
    }
    let message = if new_version { "changed; a new version is ordered" } else { "changed" };
    let event = hub.event("certificate.changed", message).of_certificate(&before.name).by(&caller.name);
    let fresh =
        Bundle { certificate: Versioned { revision: bundle.certificate.revision, value: after }, ..bundle.clone() };
    let changes = Changes::new().update(&fresh.certificate).event(&event);
    let (had, wanted) = (concerned(&bundle), concerned(&fresh));
    // Linked before the change and unlinked after it: a link too many does no harm.
    for ids in wanted.chunks(targets::BATCH_RECORDS) {
        hub.store.commit(ids.iter().fold(Changes::new(), |changes, id| changes.link_agent(id, &before.id))).await?;
    }
    let accepted = if new_version {
        let wish = Wish { kind: Kind::Renew, agent_id: None, request_id: "" };
        wishes::commit(hub, caller, &fresh, wish, changes, Vec::new()).await?
    } else {
        hub.store.commit(changes).await?;
        hub.wake.certificates.ring(&before.id);
        // Renewal switched on again: its CA may have moved the window meanwhile.
        hub.wake.renewals.ring(&before.id);
        wanted.iter().for_each(|id| hub.wake.agents.ring(id));
        let certificate = views::certificate(hub, &Names::read(hub).await?, &fresh);
        wire::CertificateAccepted { certificate: Some(certificate), ..Default::default() }
    };
    unlink(hub, &before.id, &had).await?;
    Ok(accepted)
}

/// Unlinks those agents that the certificate no longer concerns. A link too few would do harm: links go only while the
/// certificate is as it was read.
async fn unlink(hub: &Hub, certificate_id: &str, had: &[String]) -> Result<(), Refusal> {
    let Some(bundle) = hub.store.bundle(certificate_id).await? else { return Ok(()) };
    let wanted = concerned(&bundle);
    let gone: Vec<&String> = had.iter().filter(|id| !wanted.contains(id)).collect();
    for ids in gone.chunks(targets::BATCH_RECORDS) {
        let same = Changes::new().expect(Table::Certificate, certificate_id, bundle.certificate.revision);
        let changes = ids.iter().fold(same, |changes, id| changes.unlink_agent(id, certificate_id));
        match hub.store.commit(changes).await {
            Ok(_) => {}
            // Changed again meanwhile: a link too many does no harm.
            Err(CommitError::Conflict { .. }) => break,
            Err(error) => return Err(error.into()),
        }
    }
    gone.iter().for_each(|id| hub.wake.agents.ring(id));
    Ok(())
}

async fn changed(hub: &Hub, bundle: &Bundle, request: &wire::UpdateCertificateRequest) -> Result<Certificate, Refusal> {
    let mut errors = Vec::new();
    let before = &bundle.certificate.value;
    let mut after = before.clone();
    let wanted = &mut after.specification;
    let issuer = match &request.issuer {
        Some(issuer) => create::issuer(hub, issuer, &mut errors).await?,
        None => hub.store.load::<Issuer>(&wanted.issuer_id).await?.map(|issuer| issuer.value),
    };
    if let Some(issuer) = &issuer {
        wanted.issuer_id.clone_from(&issuer.id);
    }
    if !request.identifiers.is_empty() || request.issuer.is_some() {
        // What one issuer certifies another may not.
        let names =
            if request.identifiers.is_empty() { &before.specification.identifiers } else { &request.identifiers };
        wanted.identifiers = create::identifiers(names, issuer.as_ref(), &mut errors);
    }
    if request.set_fallbacks {
        wanted.fallback_ids = create::fallbacks(hub, issuer.as_ref(), &request.fallbacks, &mut errors).await?;
    } else if request.issuer.is_some() && !wanted.fallback_ids.is_empty() {
        create::kept_fallbacks(hub, issuer.as_ref(), &wanted.fallback_ids, &mut errors).await?;
    }
    if let Some(profile) = &request.profile {
        wanted.profile = create::profile(issuer.as_ref(), profile, &mut errors);
    }
    wanted.reuse_key = request.reuse_key.unwrap_or(wanted.reuse_key);
    wanted.key_type =
        request.key_type.and_then(|_| convert::key_type_in(request.key_type())).unwrap_or(wanted.key_type);
    wanted.custody = request.custody.and_then(|_| convert::custody_in(request.custody())).unwrap_or(wanted.custody);
    if wanted.custody == Custody::Agent && before.specification.custody != Custody::Agent && bundle.targets.len() != 1 {
        errors.push(field_error(
            "custody",
            format!("agent custody needs exactly one target; {} has {}", before.name, bundle.targets.len()),
            "keep --custody controller, or remove the other targets first",
        ));
    }
    wanted.http01 = create::http01(request.http01.as_ref(), &mut errors).unwrap_or_else(|| wanted.http01.clone());
    if request.set_responders {
        wanted.responders = create::responders(hub, &request.responders, &wanted.http01, &mut errors).await?;
    }
    after.auto_renew = request.auto_renew.unwrap_or(after.auto_renew);
    if request.set_windows {
        after.delivery.windows = targets::rollout::windows(&request.windows, &mut errors);
    }
    if let Some(text) = &request.rollout {
        after.delivery.rollout = targets::rollout::read(hub, bundle, text, &mut errors).await?;
    }
    let certificate = Versioned { revision: bundle.certificate.revision, value: after };
    let fresh = Bundle { certificate, ..bundle.clone() };
    refused_by_agents(hub, bundle, &fresh, request, &mut errors).await?;
    if errors.is_empty() { Ok(fresh.certificate.value) } else { Err(Refusal::fields(errors)) }
}

/// What the policies of the certificate's agents refuse of the change, and of nothing else.
async fn refused_by_agents(
    hub: &Hub,
    bundle: &Bundle,
    fresh: &Bundle,
    request: &wire::UpdateCertificateRequest,
    errors: &mut Vec<FieldError>,
) -> Result<(), Refusal> {
    let (before, after) = (&bundle.certificate.value.specification, &fresh.certificate.value.specification);
    // Responders that are named now were checked when they were read.
    let named = request.set_responders && !request.responders.is_empty();
    if !named && (request.set_responders || after.http01 != before.http01) {
        for id in fresh.responder_ids() {
            targets::check_responder(hub, &id, &after.http01, errors).await?;
        }
    }
    if after.identifiers == before.identifiers && after.custody == before.custody {
        return Ok(());
    }
    for (target, _) in &bundle.targets {
        let Some(agent) = hub.store.load::<Agent>(&target.value.agent_id).await? else { continue };
        let refusals = |wanted: &Specification| {
            refuse_target(&agent.value.hello.policy, &target.value, &wanted.identifiers, wanted.custody)
        };
        let known = refusals(before);
        let news = refusals(after).into_iter().filter(|refusal| !known.contains(refusal));
        // An agent that never said hello has told no policy.
        let news = news.filter(|_| agent.value.seen_at.is_some());
        errors.extend(news.map(|refusal| targets::policy_error(&agent.value.name, &refusal)));
    }
    Ok(())
}

/// "Renew now". A running attempt answers it; a waiting one goes on at once.
pub(crate) async fn renew(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::RenewCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let mut bundle = wishes::changeable(hub, &request.name).await?;
    let runs = bundle
        .order
        .as_ref()
        .is_some_and(|order| !matches!(order.value.phase, Phase::Completed | Phase::Waiting | Phase::Failed));
    let reason = one_line(request.override_lock.trim(), REASON_CHARS_MAX);
    let locked = locked_until(hub, &bundle).await?;
    if let Some(opens_at) = locked.filter(|_| reason.is_empty()) {
        return Err(locked_refusal(&bundle, opens_at));
    }
    let mut changes = Changes::new();
    if !runs {
        bundle.certificate.value.renew_asked_at = Some(hub.now());
        changes = changes.update(&bundle.certificate);
    }
    let mut event = hub.event("certificate.renew_asked", "renew now");
    if let Some(opens_at) = locked {
        event =
            hub.event("certificate.lock_overridden", format!("renew now, although locked until {opens_at}: {reason}"));
        event.severity = Severity::Warn;
    }
    let event = event.of_certificate(&request.name).by(&caller.name);
    let kind = if bundle.certificate.value.current.is_some() { Kind::Renew } else { Kind::Issue };
    let wish = Wish { kind, agent_id: None, request_id: &request.request_id };
    wishes::commit(hub, caller, &bundle, wish, changes.event(&event), Vec::new()).await
}

async fn locked_until(hub: &Hub, bundle: &Bundle) -> Result<Option<Timestamp>, Refusal> {
    let issuer = hub.store.load::<Issuer>(&bundle.certificate.value.specification.issuer_id).await?;
    if issuer.is_some_and(|issuer| issuer.value.private.is_some()) {
        // An order of our own CA costs nothing.
        return Ok(None);
    }
    let order = bundle.order.as_ref().map(|order| &order.value);
    Ok(lock::opens_at(&bundle.certificate.value, bundle.renewal_info(), order, hub.lock_share, hub.now()))
}

/// C11: says when it opens, and how to order all the same.
fn locked_refusal(bundle: &Bundle, opens_at: Timestamp) -> Refusal {
    let name = &bundle.certificate.value.name;
    let expires = bundle.certificate.value.current.as_ref().map(|current| current.not_after).unwrap_or_default();
    let opens_at = opens_at.round(Unit::Second).unwrap_or(opens_at);
    let problem = Problem::new(
        "ISSUANCE_LOCKED",
        format!("{name} has a healthy version; a new order is locked until {opens_at}"),
        format!(
            "nothing changed since that version was ordered, and it is valid until {expires}; orders count against the CA's limits"
        ),
        format!(
            "it renews by itself; or say why it is needed now: certwright certs renew {name} --override-lock REASON"
        ),
    );
    Refusal::new(Code::FailedPrecondition, problem)
}

/// Stops managing; with purge the agents first remove what is no longer served. A second delete without purge ends the wait.
pub(crate) async fn delete(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::DeleteCertificateRequest,
) -> Result<wire::DeleteCertificateResponse, Refusal> {
    let mut bundle = wishes::bundle(hub, &request.name).await?;
    if request.expected_revision != 0 && request.expected_revision != bundle.certificate.revision {
        return Err(Refusal::changed("certificate", &request.name));
    }
    let deployed = bundle.certificate.value.current.is_some() && !bundle.targets.is_empty();
    if !request.purge || !deployed {
        deletion::delete(hub, &bundle, &caller.name).await.map_err(deletion_refusal)?;
        return Ok(wire::DeleteCertificateResponse { certificate: None });
    }
    bundle.certificate.value.purging = true;
    let event = hub
        .event("certificate.purge_asked", "files are removed once they are no longer served")
        .of_certificate(&request.name)
        .by(&caller.name);
    hub.store.commit(Changes::new().update(&bundle.certificate).event(&event)).await?;
    concerned(&bundle).iter().for_each(|id| hub.wake.agents.ring(id));
    hub.wake.certificates.ring(&bundle.certificate.value.id);
    let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
    Ok(wire::DeleteCertificateResponse { certificate: Some(certificate) })
}
