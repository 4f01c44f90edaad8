//! The end of a rollback that nobody asked for: what it went back to is used up, revoked, or without its key. Called by
//! `tasks` and `rpc/report`, which write the event in the batch that ends it.

use super::hub::Hub;
use crate::lifecycle::certificate::Certificate;
use crate::lifecycle::event::{Event, Severity};
use crate::store::batch::CommitError;
use crate::store::certificate::Bundle;
use crate::store::records::Changes;

/// Returns the event that says so; `certificate` still has its rollback.
pub(crate) fn ended(hub: &Hub, certificate: &Certificate, why: &str) -> Event {
    let serial = certificate.rollback.as_ref().map_or("", |rollback| rollback.version.serial.as_str());
    let message = format!("targets no longer hold serial {serial}, but the current version: {why}");
    let mut event = hub.event("rollback.ended", message).of_certificate(&certificate.name);
    event.severity = Severity::Warn;
    event
}

/// Ends the rollbacks whose time is over. Returns whether there was one: what was read is then of yesterday.
///
/// # Errors
/// When the store fails.
pub(super) async fn end_what_is_over(hub: &Hub, bundles: &[Bundle]) -> Result<bool, CommitError> {
    let now = hub.now();
    let mut any = false;
    for bundle in bundles {
        let mut certificate = bundle.certificate.clone();
        if certificate.value.rollback.as_ref().is_none_or(|rollback| rollback.until() > now) {
            continue;
        }
        any = true;
        let event = ended(hub, &certificate.value, "little of its life is left");
        certificate.value.back_to_current();
        match hub.store.commit(Changes::new().update(&certificate).event(&event)).await {
            // Someone else changed it: it is read again.
            Ok(_) | Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
        bundle.target_agent_ids().iter().for_each(|id| hub.wake.agents.ring(id));
        hub.wake.jobs.ring(&certificate.value.id);
    }
    Ok(any)
}
