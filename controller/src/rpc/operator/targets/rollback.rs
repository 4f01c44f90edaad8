//! "Deploy this version": the targets go back to an older stored one, or to the current one again. Nothing is ordered.

use proto::operator::v1 as wire;
use proto::text::one_line;

use crate::lifecycle::certificate::{KeySlot, Version};
use crate::lifecycle::event::{Event, Severity};
use crate::lifecycle::job::Kind;
use crate::lifecycle::rollback::{Rollback, key_is, refusal};
use crate::rpc::operator::wishes::{self, Wish};
use crate::rpc::peer::OperatorCaller;
use crate::rpc::status::Refusal;
use crate::store::certificate::Bundle;
use crate::store::records::Changes;
use crate::tasks::hub::Hub;

/// What names the current version, whichever that is.
const CURRENT: &str = "current";

/// Records which version the targets hold from now on.
pub(super) async fn deploy(
    hub: &Hub,
    caller: &OperatorCaller,
    mut bundle: Bundle,
    request: &wire::DeployCertificateRequest,
) -> Result<wire::CertificateAccepted, Refusal> {
    let record = bundle.certificate.value.clone();
    let name = &record.name;
    if !request.agent.is_empty() {
        let hint = format!("certwright certs rollback {name} {}", one_line(&request.version, 80));
        return Err(Refusal::field("agent", "an older version goes to all targets of the certificate", hint));
    }
    if bundle.targets.is_empty() {
        let hint = format!("certwright targets add {name} adds one");
        return Err(Refusal::field("name", format!("{name} has no target"), hint));
    }
    let version = find(hub, &record.id, &request.version).await?;
    let current = record.current.as_ref().map(|current| current.version_id.as_str());
    let is_current =
        request.version == CURRENT || version.as_ref().is_some_and(|version| Some(version.id.as_str()) == current);
    let (event, warnings) = if is_current {
        undo(hub, &mut bundle)?
    } else {
        let Some(version) = version else {
            let message = format!("{name} has no version {}", one_line(&request.version, 80));
            return Err(Refusal::field("version", message, format!("certwright certs history {name} lists them")));
        };
        go_back(hub, caller, &mut bundle, version).await?
    };
    let event = event.of_certificate(name).by(&caller.name);
    let changes = Changes::new().update(&bundle.certificate).event(&event);
    let wish = Wish { kind: Kind::Deploy, agent_id: None, request_id: &request.request_id };
    wishes::commit(hub, caller, &bundle, wish, changes, warnings).await
}

/// Finds a stored version by its id or its serial.
async fn find(hub: &Hub, certificate_id: &str, wanted: &str) -> Result<Option<Version>, Refusal> {
    let versions = hub.store.versions(certificate_id).await?;
    let is_it = |version: &Version| version.id == wanted || version.facts.serial.eq_ignore_ascii_case(wanted);
    Ok(versions.into_iter().find(is_it))
}

fn undo(hub: &Hub, bundle: &mut Bundle) -> Result<(Event, Vec<String>), Refusal> {
    let record = &mut bundle.certificate.value;
    let Some(ended) = record.back_to_current() else {
        let hint = format!("certwright targets deploy {} puts it in place once more", record.name);
        return Err(Refusal::field("version", "the targets are to hold the current version already", hint));
    };
    let serial = record.current.as_ref().map_or("", |current| current.serial.as_str());
    let message =
        format!("targets hold the current version again, serial {serial}, instead of {}", ended.version.serial);
    Ok((hub.event("rollback.ended", message), Vec::new()))
}

async fn go_back(
    hub: &Hub,
    caller: &OperatorCaller,
    bundle: &mut Bundle,
    version: Version,
) -> Result<(Event, Vec<String>), Refusal> {
    let agents = bundle.target_agent_ids();
    let slot = hub.store.load::<KeySlot>(&format!("{}/{}", version.certificate_id, version.facts.key_slot_id)).await?;
    let key = key_is(slot.as_ref().map(|slot| &slot.value), &agents, |agent, slot| hub.presence.holds_key(agent, slot));
    let record = &mut bundle.certificate.value;
    if let Some((message, hint)) = refusal(&record.name, &version.facts, key, hub.now()) {
        return Err(Refusal::field("version", message, hint));
    }
    let rollback = Rollback { version: version.facts, at: hub.now(), by: caller.name.clone() };
    let missing = record.specification.identifiers.iter().filter(|name| !rollback.version.identifiers.contains(name));
    let missing = missing.cloned().collect::<Vec<_>>().join(", ");
    let mut warnings = vec![format!(
        "renewal goes on by the current version; this one stays until then, at most until {:.0}",
        rollback.until()
    )];
    warnings.extend((!missing.is_empty()).then(|| format!("it does not cover {missing}")));
    let message =
        format!("targets go back to serial {}, valid until {:.0}", rollback.version.serial, rollback.version.not_after);
    let mut event = hub.event("rollback.begun", message);
    event.severity = Severity::Warn;
    record.rollback = Some(rollback);
    Ok((event, warnings))
}
