//! "Revoke": the wish is recorded, `tasks/revocation` asks the CA.

use proto::operator::v1 as wire;
use proto::text::one_line;

use super::wishes;
use crate::lifecycle::event::Severity;
use crate::lifecycle::job::{Job, Kind};
use crate::lifecycle::revocation::{Revocation, RevocationReason};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::store::job::job_id;
use crate::store::records::Changes;
use crate::tasks::hub::Hub;

/// Records the wish to revoke one version.
pub(crate) async fn revoke(
    hub: &Hub,
    caller: &OperatorCaller,
    request: wire::RevokeCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    if let Some(accepted) = wishes::answered(hub, &request.request_id).await? {
        return Ok(accepted);
    }
    let bundle = wishes::bundle(hub, &request.name).await?;
    let record = &bundle.certificate.value;
    let Some(reason) = RevocationReason::parse(&request.reason) else {
        let words = RevocationReason::ALL.map(RevocationReason::word).join(", ");
        let message = format!("\"{}\" is no reason for a revocation", one_line(&request.reason, 40));
        return Err(Refusal::field("reason", message, format!("one of {words}")));
    };
    let serial = request.serial.to_lowercase();
    let current = record.current.as_ref().map(|current| current.version_id.as_str());
    let versions = hub.store.versions(&record.id).await?;
    let version = versions.iter().find(|version| {
        if serial.is_empty() { Some(version.id.as_str()) == current } else { version.facts.serial == serial }
    });
    let Some(version) = version else {
        let message = if serial.is_empty() {
            format!("{} has no version to revoke", record.name)
        } else {
            format!("{} has no version with serial {}", record.name, one_line(&serial, 60))
        };
        return Err(Refusal::field("serial", message, format!("certwright certs history {}", record.name)));
    };
    let revocation = Revocation {
        version_id: version.id.clone(),
        serial: version.facts.serial.clone(),
        reason,
        begun: false,
        failures: 0,
        retry_at: None,
        problem: None,
    };
    let job = Job {
        id: job_id(hub.now()),
        kind: Kind::Revoke,
        certificate_id: record.id.clone(),
        certificate_name: record.name.clone(),
        actor: caller.name.clone(),
        created_at: hub.now(),
        version_before: current.map(ToOwned::to_owned),
        agent_id: None,
        revocation: Some(revocation),
        parent: None,
        batch: None,
        outcome: None,
    };
    let message = format!("revoke serial {} ({})", version.facts.serial, reason.word());
    let mut event = hub.event("certificate.revoke_asked", message).of_certificate(&record.name).by(&caller.name);
    event.severity = Severity::Warn;
    let accepted =
        wishes::commit_job(hub, &bundle, job, &request.request_id, Changes::new().event(&event), Vec::new()).await?;
    hub.wake.revocations.ring(&record.id);
    Ok(accepted)
}
