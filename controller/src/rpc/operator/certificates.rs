//! Certificates: changed, renewed, deleted.

use proto::operator::v1 as wire;

use super::targets::concerned;
use super::wishes::{self, Wish};
use super::{create, targets};
use crate::lifecycle::certificate::{Certificate, Custody};
use crate::lifecycle::job::Kind;
use crate::lifecycle::order::Phase;
use crate::rpc::convert;
use crate::rpc::peer::OperatorCaller;
use crate::rpc::report::deletion_refusal;
use crate::rpc::status::{Refusal, field_error};
use crate::rpc::views::{self, Names};
use crate::store::certificate::Bundle;
use crate::store::records::{Changes, Versioned};
use crate::tasks::deletion;
use crate::tasks::hub::Hub;

/// Changes what is wanted; a changed specification is a new version.
pub(crate) async fn update(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::UpdateCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    let bundle = wishes::bundle(hub, &request.name).await?;
    if request.expected_revision != 0 && request.expected_revision != bundle.certificate.revision {
        return Err(Refusal::changed("certificate", &request.name));
    }
    let before = &bundle.certificate.value;
    let after = changed(hub, &bundle, &request).await?;
    if after == *before {
        let certificate = views::certificate(hub, &Names::read(hub).await?, &bundle);
        return Ok(wire::CertificateAccepted { certificate: Some(certificate), ..Default::default() });
    }
    let new_version = after.specification.identifiers != before.specification.identifiers
        || after.specification.issuer_id != before.specification.issuer_id
        || after.specification.key_type != before.specification.key_type
        || after.specification.custody != before.specification.custody;
    let message = if new_version { "changed; a new version is ordered" } else { "changed" };
    let event = hub.event("certificate.changed", message).of_certificate(&before.name).by(&caller.name);
    let fresh =
        Bundle { certificate: Versioned { revision: bundle.certificate.revision, value: after }, ..bundle.clone() };
    let changes = Changes::new().update(&fresh.certificate).event(&event);
    let (had, wanted) = (concerned(&bundle), concerned(&fresh));
    // Linked before the change and unlinked after it: a link too many does no harm.
    relink(hub, &before.id, &wanted, Changes::link_agent).await?;
    if new_version {
        let wish = Wish { kind: Kind::Renew, agent_id: None, request_id: "" };
        return wishes::commit(hub, caller, &fresh, wish, changes, Vec::new()).await;
    }
    hub.store.commit(changes).await?;
    let gone: Vec<String> = had.into_iter().filter(|id| !wanted.contains(id)).collect();
    relink(hub, &before.id, &gone, Changes::unlink_agent).await?;
    hub.wake.certificates.ring(&before.id);
    wanted.iter().chain(&gone).for_each(|id| hub.wake.agents.ring(id));
    let certificate = views::certificate(hub, &Names::read(hub).await?, &fresh);
    Ok(wire::CertificateAccepted { certificate: Some(certificate), ..Default::default() })
}

async fn relink(
    hub: &Hub,
    certificate_id: &str,
    agent_ids: &[String],
    link: fn(Changes, &str, &str) -> Changes,
) -> Result<(), Refusal> {
    for ids in agent_ids.chunks(targets::BATCH_RECORDS) {
        hub.store.commit(ids.iter().fold(Changes::new(), |changes, id| link(changes, id, certificate_id))).await?;
    }
    Ok(())
}

async fn changed(hub: &Hub, bundle: &Bundle, request: &wire::UpdateCertificateRequest) -> Result<Certificate, Refusal> {
    let mut errors = Vec::new();
    let mut after = bundle.certificate.value.clone();
    let wanted = &mut after.specification;
    if !request.identifiers.is_empty() {
        wanted.identifiers = create::identifiers(&request.identifiers, &mut errors);
    }
    if let Some(issuer) = &request.issuer {
        wanted.issuer_id = create::issuer(hub, issuer, &mut errors).await?;
    }
    wanted.key_type =
        request.key_type.and_then(|_| convert::key_type_in(request.key_type())).unwrap_or(wanted.key_type);
    wanted.custody = request.custody.and_then(|_| convert::custody_in(request.custody())).unwrap_or(wanted.custody);
    if wanted.custody == Custody::Agent && bundle.targets.len() != 1 {
        errors.push(field_error(
            "custody",
            format!("agent custody needs exactly one target; {} has {}", after.name, bundle.targets.len()),
            "keep --custody controller, or remove the other targets first",
        ));
    }
    let wanted = &mut after.specification;
    wanted.http01 = create::http01(request.http01.as_ref(), &mut errors).unwrap_or_else(|| wanted.http01.clone());
    if request.set_responders {
        wanted.responders = create::responders(hub, &request.responders, &wanted.http01, &mut errors).await?;
    }
    if request.http01.is_some() && wanted.responders.is_empty() {
        for id in bundle.target_agent_ids() {
            targets::check_responder(hub, &id, &wanted.http01, &mut errors).await?;
        }
    }
    after.auto_renew = request.auto_renew.unwrap_or(after.auto_renew);
    if errors.is_empty() { Ok(after) } else { Err(Refusal::fields(errors)) }
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
    let mut bundle = wishes::bundle(hub, &request.name).await?;
    if bundle.certificate.value.purging {
        return Err(Refusal::field(
            "name",
            format!("{} is being purged", request.name),
            "it is deleted as soon as its files are gone",
        ));
    }
    let runs = bundle
        .order
        .as_ref()
        .is_some_and(|order| !matches!(order.value.phase, Phase::Completed | Phase::Waiting | Phase::Failed));
    let mut changes = Changes::new();
    if !runs {
        bundle.certificate.value.renew_asked_at = Some(hub.now());
        changes = changes.update(&bundle.certificate);
    }
    let event = hub.event("certificate.renew_asked", "renew now").of_certificate(&request.name).by(&caller.name);
    let kind = if bundle.certificate.value.current.is_some() { Kind::Renew } else { Kind::Issue };
    let wish = Wish { kind, agent_id: None, request_id: &request.request_id };
    wishes::commit(hub, caller, &bundle, wish, changes.event(&event), Vec::new()).await
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
