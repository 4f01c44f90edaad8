//! What an owner sees of a restore, and their consent to it.

use proto::clock::to_wire;
use proto::operator::v1 as wire;

use crate::lifecycle::agent::Standing;
use crate::lifecycle::restore::{Restore, Verdict};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::tasks::hub::Hub;
use crate::tasks::restore::{self, Finding};

/// Returns how it stands.
pub(crate) async fn status(hub: &Hub) -> Result<wire::GetRestoreResponse, Refusal> {
    let Some(record) = hub.store.restore_record().await? else {
        return Ok(wire::GetRestoreResponse { state: "never".to_owned(), ..Default::default() });
    };
    let Restore { epoch, restored_at, by, made_at, controller, audit_seq, witnessed, removals, accepted } =
        record.value;
    let mut answer = wire::GetRestoreResponse {
        state: if accepted.is_some() { "accepted" } else { "waiting" }.to_owned(),
        epoch,
        restored_at: to_wire(Some(restored_at)),
        restored_by: by,
        backup_at: to_wire(Some(made_at)),
        controller,
        accepted_at: to_wire(accepted.as_ref().map(|accepted| accepted.at)),
        accepted_by: accepted.map(|accepted| accepted.by).unwrap_or_default(),
        audit_seq,
        witnessed_seq: witnessed.as_ref().map_or(0, |(seq, _)| *seq),
        witnessed_by: witnessed.map(|(_, agent)| agent).unwrap_or_default(),
        removals_known: removals.is_some(),
        removals: removals.unwrap_or_default(),
        ..Default::default()
    };
    let agents = hub.store.agents().await?;
    for agent in agents.iter().map(|agent| &agent.value).filter(|agent| agent.standing == Standing::Enrolled) {
        answer.agents.push(wire::RestoreAgent {
            name: agent.name.clone(),
            shown: restore::has_shown(hub, &agent.id).await?,
            connected: hub.presence.is_connected(&agent.id),
        });
    }
    let name = |id: &str| {
        let found = agents.iter().find(|agent| agent.value.id == id);
        found.map(|agent| agent.value.name.clone()).unwrap_or_default()
    };
    let findings = restore::findings(hub, "").await?;
    answer.findings = findings.iter().filter_map(|finding| view(finding, name(&finding.shown.agent_id))).collect();
    answer.operators = hub.store.operators().await?.into_iter().map(|operator| operator.value.name).collect();
    Ok(answer)
}

/// What the database has is no finding.
fn view(finding: &Finding, agent: String) -> Option<wire::RestoreFinding> {
    let (outcome, why) = match (&finding.verdict, &finding.certificate) {
        (Verdict::Known, _) => return None,
        (Verdict::Refuse(why), None) => ("unknown", why.clone()),
        (Verdict::Refuse(why), Some(_)) => ("refused", why.clone()),
        (Verdict::Take, _) if finding.has_key() => ("import", String::new()),
        (Verdict::Take, _) => {
            ("import_without_key", "its key was lost with the database: a new version is ordered at once".to_owned())
        }
    };
    let certificate = finding.certificate.as_ref().map_or(&finding.shown.certificate_name, |known| &known.name);
    Some(wire::RestoreFinding {
        agent,
        certificate: certificate.clone(),
        serial: finding.leaf.serial.clone(),
        not_after: to_wire(Some(finding.leaf.not_after)),
        outcome: outcome.to_owned(),
        why,
    })
}

/// Takes over what agents hold and lets the controller work. Without a restore that waits there is nothing to do.
pub(crate) async fn accept(
    hub: &Hub,
    caller: &OperatorCaller,
    asked: wire::AcceptRestoreRequest,
) -> Result<wire::GetRestoreResponse, Refusal> {
    restore::accept(hub, &caller.name, asked.keep_operators).await?;
    status(hub).await
}
